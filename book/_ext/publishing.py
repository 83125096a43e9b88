"""What the pages offer once `repository.url` is set in _config.yml, and how links to other hosts
are checked.

Every page then links to its repository, its source and a new issue, and every notebook opens on
Binder and on Colab. Without that setting there are no such links: Jupyter Book's own default would
lead to a repository of others.
"""

import re

from sphinx.errors import ConfigError

ALLOWED = re.compile(r"(https://github\.com/[A-Za-z0-9-]+/[A-Za-z0-9_.-]+?)(\.git)?/?")
BINDER = "https://mybinder.org"
COLAB = "https://colab.research.google.com"


def repository(url):
    """The address of the repository, without what may follow its name; "" if there is none yet."""
    if not url:
        return ""
    if found := ALLOWED.fullmatch(url):
        return found[1]
    raise ConfigError(
        f"repository.url in _config.yml is {url!r}; allowed are https://github.com/OWNER/REPO, "
        'since Colab opens notebooks from GitHub alone, and "", for pages without such links'
    )


def clone(url, branch="main"):
    """The commands that fetch the companion and enter it; none without a repository."""
    return (
        [f"git clone --depth 1 --branch {branch} {repository(url)} companion", "cd companion"]
        if url
        else []
    )


def colab_install(url, branch="main"):
    """What a notebook on Colab, where it lies alone, has to begin with: the package, and the
    recorded runs beside it; "" without a repository."""
    return (
        "\n".join(
            [f"!{clone(url, branch)[0]}", "!pip install ./companion", "%cd companion/notebooks"]
        )
        if url
        else ""
    )


def offer(app, config):
    """Choose the buttons of the theme."""
    options = config.html_theme_options
    address = options["repository_url"] = repository(options.get("repository_url"))
    branch = options["repository_branch"] = options.get("repository_branch") or "main"
    if not re.fullmatch(r"[\w.-]+", branch):
        raise ConfigError(
            f"repository.branch in _config.yml is {branch!r}; allowed are letters, digits, '.', "
            "'_' and '-', since Binder and Colab take the branch from within an address"
        )
    for button in ("use_repository_button", "use_source_button", "use_issues_button"):
        options[button] = bool(address)
    options["launch_buttons"] = {}
    if address:
        options["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": BINDER,
            "colab_url": COLAB,
        }
        # The source that somebody edits is the .md beside the notebook. The theme makes "Show
        # source" of "Edit".
        config.html_context |= {
            "edit_page_provider_name": "GitHub",
            "edit_page_url_template": address
            + "/edit/"
            + branch
            + "/{{ file_name.replace('.ipynb', '.md') }}",
        }


def ask_the_register(app, uri):
    """Whether a DOI exists is known at doi.org; the publisher that it leads to may turn programs
    away.
    """
    if uri.startswith("https://doi.org/"):
        return uri.replace("doi.org/", "doi.org/api/handles/", 1)


def setup(app):
    app.connect("config-inited", offer)
    app.connect("linkcheck-process-uri", ask_the_register)
    # For `make links`: be patient with a slow host, but do not wait for minutes on one that asks to
    # come back later.
    app.config.linkcheck_timeout = 20
    app.config.linkcheck_retries = 3
    app.config.linkcheck_rate_limit_timeout = 60
    app.config.linkcheck_report_timeouts_as_broken = False  # but as what they are
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
