"""What happens to the pages outside this checkout: buttons, workflows, links, and no address that
is not meant to be there.
"""

import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import build_site as site_builder
import jinja2
import publishing
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT, build_site
from small_book import copied, write_small_book
from sphinx.errors import ConfigError

URL = "https://github.com/some-body/a.book"


def read(site):
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(path.read_text(), "html.parser")
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The pages of a small book with a repository."""
    folder = tmp_path_factory.mktemp("published")
    write_small_book(folder, url=f"{URL}.git/", branch="trunk")
    result = build_site(folder, folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return read(folder / "_build" / "html")


@pytest.fixture(scope="module")
def private(site):
    """The pages of this book, which has none."""
    assert not yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    return read(site)


def buttons(page):
    """What the buttons in the page's header say, and where they lead on another host."""
    links = page.find(class_="article-header-buttons").find_all("a", href=True)
    outside = [link for link in links if urlsplit(link["href"]).netloc]
    return {link.get_text(strip=True): link["href"] for link in outside}


class TestButtons:
    def test_a_notebook_opens_on_binder_and_colab_and_shows_its_source(self, published):
        assert buttons(published["notebooks/03_threshold.html"]) == {
            "Binder": "https://mybinder.org/v2/gh/some-body/a.book/trunk?urlpath=lab/tree/notebooks/03_threshold.ipynb",
            "Colab": "https://colab.research.google.com/github/some-body/a.book/blob/trunk/notebooks/03_threshold.ipynb",
            "Repository": URL,
            "Show source": f"{URL}/blob/trunk/notebooks/03_threshold.md?plain=1",
            "Open issue": f"{URL}/issues/new?title=Issue%20on%20page%20"
            "%2Fnotebooks/03_threshold.html&body=Your%20issue%20content%20here.",
        }

    def test_every_linked_source_is_in_the_repository(self, published):
        for name, page in published.items():
            if page.find(class_="article-header-buttons"):
                for text, url in buttons(page).items():
                    path = {
                        "Binder": url.partition("lab/tree/")[2],
                        "Show source": urlsplit(url).path.partition("/trunk/")[2],
                        "Colab": url.partition("/blob/trunk/")[2],
                    }.get(text)
                    assert path is None or (path and (ROOT / path).is_file()), f"{name}: {url}"

    def test_a_page_of_prose_has_nothing_to_run(self, published):
        found = buttons(published["book/setting.html"])
        assert sorted(found) == ["Open issue", "Repository", "Show source"]
        assert found["Show source"] == f"{URL}/blob/trunk/book/setting.md?plain=1"

    def test_without_a_repository_there_are_none(self, private):
        for name in ("notebooks/03_threshold.html", "book/setting.html"):
            assert buttons(private[name]) == {}
        links = [tag["href"] for page in private.values() for tag in page.find_all(href=True)]
        hosts = {urlsplit(link).netloc for link in links}
        assert not hosts & {"mybinder.org", "colab.research.google.com", "github.com"}

    @pytest.mark.parametrize("kind", ["published", "private"])
    def test_nothing_is_loaded_from_another_host(self, request, kind):
        for name, page in request.getfixturevalue(kind).items():
            keys = "src", "srcset", "data", "poster"
            loaded = [tag.get(key, "") for tag in page.find_all(True) for key in keys]
            loaded += [tag["href"] for tag in page.find_all("link")]
            assert [url for url in loaded if urlsplit(url).netloc] == [], name


def test_a_warning_stops_the_build(tmp_path):
    write_small_book(tmp_path)
    with open(tmp_path / "book" / "setting.md", "a") as page:
        page.write("\n{ref}`nowhere`\n")
    result = build_site(tmp_path, tmp_path)
    assert result.returncode != 0 and "nowhere" in result.stdout + result.stderr


def config_of(url, branch):
    options = {"repository_url": url, "repository_branch": branch}
    return SimpleNamespace(html_theme_options=options, html_context={})


class TestRepository:
    @pytest.mark.parametrize("end", ["", "/", ".git", ".git/"])
    def test_what_may_follow_the_name_is_dropped(self, end):
        assert publishing.repository(URL + end) == URL

    @pytest.mark.parametrize("url", [None, ""])
    def test_none_is_allowed(self, url):
        assert publishing.repository(url) == publishing.colab_install(url) == ""

    @pytest.mark.parametrize(
        "url",
        """github.com/a/b http://github.com/a/b https://github.com/a git@github.com:a/b
        https://github.com/a/b/tree/main https://example.org/a/b https://github.com/a/b?x""".split()
        + ["https://github.com/a b/c", "https://github.com/a/b\n"],
    )
    def test_anything_else_is_refused(self, url):
        refusal = f"{url!r}; allowed are https://github.com/OWNER/REPO.*Colab"
        with pytest.raises(ConfigError, match=re.escape(refusal).replace(r"\.\*", ".*")):
            publishing.offer(None, config_of(url, "main"))

    @pytest.mark.parametrize("branch, used", [("", "main"), (None, "main"), ("v1.0", "v1.0")])
    def test_branch(self, branch, used):
        config = config_of(URL, branch)
        publishing.offer(None, config)
        assert config.html_theme_options["repository_branch"] == used

    @pytest.mark.parametrize("branch", ["a/b", "a b", "#1"])
    def test_a_branch_that_no_address_can_hold_is_refused(self, branch):
        said = "repository.branch in _config.yml is .*; allowed are letters"
        with pytest.raises(ConfigError, match=said):
            publishing.offer(None, config_of(URL, branch))

    def test_a_notebook_on_colab_begins_with_the_package_and_its_folder(self, published, private):
        commands = [
            f"!git clone --depth 1 --branch trunk {URL} companion",
            "!pip install ./companion",
            "%cd companion/notebooks",
        ]
        assert publishing.colab_install(f"{URL}/", "trunk").splitlines() == commands
        [box] = published["notebooks/03_threshold.html"].select(".run-box")
        assert [part.get_text().splitlines() for part in box.find_all("pre")][1] == commands
        assert f"git clone --depth 1 --branch trunk {URL} companion" in box.pre.get_text()
        [box] = private["notebooks/03_threshold.html"].select(".run-box")
        assert len(box.find_all("pre")) == 1
        assert "clone" not in box.get_text() and "Colab" not in box.get_text()


def test_links_within_the_pages_lead_to_a_file_and_a_place_on_it(site, private):
    pages = private
    places = {name: {tag["id"] for tag in page.find_all(id=True)} for name, page in pages.items()}
    wrong, fragments = [], 0
    for name, page in pages.items():
        found = {tag[key] for key in ("href", "src") for tag in page.find_all(**{key: True})}
        onward = page.find_all("meta", attrs={"http-equiv": "Refresh"})
        for link in found | {tag["content"].partition("url=")[2] for tag in onward}:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            path = (site / name).parent / unquote(url.path) if url.path else site / name
            if not path.is_file():
                wrong.append(f"{name}: {link}: no such file")
            # with "=", it is what a page's script begins with
            elif url.fragment and "=" not in url.fragment:
                fragments += 1
                target = Path(os.path.normpath(path)).relative_to(site).as_posix()
                if unquote(url.fragment) not in places.get(target, ()):
                    wrong.append(f"{name}: {link}: no such place on {target}")
    assert wrong == []
    assert len(pages) > 10 and fragments > 100


@pytest.fixture
def host():
    """A web server on which /good is the only page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/good" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestLinksToOtherHosts:
    def test_a_broken_one_is_reported(self, tmp_path, host):
        copied(("book/build_site.py", "book/_ext"), tmp_path)
        (tmp_path / "notebooks").mkdir()
        config = "repository: {url: ''}\nsphinx: {local_extensions: {publishing: book/_ext}}\n"
        (tmp_path / "_config.yml").write_text(config)
        (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
        text = f"# Page\n\n[one]({host}/good), [two]({host}/bad)\n"
        (tmp_path / "book" / "index.md").write_text(text)
        result = build_site(tmp_path, tmp_path, "--check-links")
        assert result.returncode == 1, result.stdout + result.stderr
        report = result.stdout.partition("1 of 2 links to other hosts are broken\n")[2].splitlines()
        assert report[0] == f"book/index.md:3: {host}/bad"
        assert "404" in report[1] and len(report) == 2
        assert not (tmp_path / "_build" / "html").exists()

    def test_good_ones_are_counted(self, tmp_path, monkeypatch, capsys):
        report = tmp_path / "_build" / "linkcheck" / "output.json"
        report.parent.mkdir(parents=True)
        states = ("working", "ignored", "local", "unchecked", "redirected")
        report.write_text("\n".join(json.dumps({"status": status}) for status in states))
        monkeypatch.setattr(site_builder, "jupyter_book", lambda *_, **__: None)
        assert site_builder.check_links(tmp_path, tmp_path) == 0
        assert capsys.readouterr().out == "0 of 2 links to other hosts are broken\n"

    @pytest.mark.parametrize(
        "uri, asked",
        [
            ("https://doi.org/10.1137/0103003", "https://doi.org/api/handles/10.1137/0103003"),
            ("https://example.org/10.1/2", None),
        ],
    )
    def test_a_doi_is_looked_up_where_it_is_registered(self, uri, asked):
        assert publishing.ask_the_register(None, uri) == asked


class TestWorkflow:
    path = ROOT / ".github" / "workflows" / "site.yml"

    @pytest.fixture
    def workflow(self):
        return yaml.load(self.path.read_text(), Loader=yaml.BaseLoader)  # in which `on` is a word

    def test_runs_for_every_change_and_every_week(self, workflow):
        assert {"push", "pull_request", "workflow_dispatch", "schedule"} == set(workflow["on"])
        assert [len(entry["cron"].split()) for entry in workflow["on"]["schedule"]] == [5]

    def test_every_target_exists(self, workflow):
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        commands = "\n".join(step.get("run", "") for step in steps)
        asked = re.findall(r"\bmake ([a-z-]+)", commands)
        assert {"lint", "test", "test-all", "book", "links", "audit"} <= set(asked) <= set(targets)

    def test_only_the_tested_default_branch_is_published(self, workflow):
        deploy = workflow["jobs"]["deploy"]
        assert deploy["needs"] == "test"
        condition = deploy["if"].replace("&&", "and").replace("||", "or")

        def published(event_name, ref, default_branch="main"):
            event = SimpleNamespace(repository=SimpleNamespace(default_branch=default_branch))
            github = SimpleNamespace(event_name=event_name, ref=ref, event=event)
            decide = jinja2.Environment().compile_expression(condition)
            return decide(github=github, format=str.format)

        assert published("push", "refs/heads/main")
        assert published("push", "refs/heads/trunk", "trunk")
        assert published("workflow_dispatch", "refs/heads/main")
        other, tag, pull = "refs/heads/other", "refs/tags/main", "refs/pull/1/merge"
        assert not published("push", other) and not published("push", tag)
        assert not published("pull_request", pull) and not published("workflow_dispatch", other)
        assert not published("schedule", "refs/heads/main")

    def test_jobs_may_do_no_more_than_they_need(self, workflow):
        assert workflow["permissions"] == {"contents": "read"}
        rights = {name: job.get("permissions") for name, job in workflow["jobs"].items()}
        assert rights == {"test": None, "deploy": {"pages": "write", "id-token": "write"}}
        assert "secrets." not in self.path.read_text()
        assert all(0 < int(job["timeout-minutes"]) <= 60 for job in workflow["jobs"].values())

    def test_uses_nobody_elses_actions(self, workflow):
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        uses = [step["uses"] for step in steps if "uses" in step]
        assert uses and all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in uses)

    def test_a_host_that_is_down_does_not_fail_it(self, workflow):
        steps = workflow["jobs"]["test"]["steps"]
        (step,) = (step for step in steps if "make links" in step.get("run", ""))
        assert step["continue-on-error"] == "true"
        assert "'schedule'" in step["if"] and "'push'" not in step["if"]

    def test_everything_is_tested_each_week_and_else_what_is_quick(self, workflow):
        steps = workflow["jobs"]["test"]["steps"]
        when = {step["run"]: step["if"] for step in steps if "make test" in step.get("run", "")}
        schedule = "github.event_name {} 'schedule'"
        assert when == {"make test": schedule.format("!="), "make test-all": schedule.format("==")}

    def test_the_cache_follows_the_pins_and_is_not_used_each_week(self, workflow):
        steps = workflow["jobs"]["test"]["steps"]
        (setup,) = (step["with"] for step in steps if "setup-python" in step.get("uses", ""))
        assert (ROOT / setup["cache-dependency-path"]).is_file()
        assert setup["cache"] == "${{ github.event_name != 'schedule' && 'pip' || '' }}"


class TestContinuousIntegration:
    ALL = ["make lint", "make test-all", "make book"]

    def run(self, folder, apt, *commands, user=0, broken=None):
        """Run .ci/run where there are only these commands, an apt-get that does `apt`, and a `make`
        that takes notes and fails for the target `broken`."""
        bin = folder / "bin"
        bin.mkdir()
        (folder / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
        scripts = {
            "make": f'echo "make $*" >> log; [ "$*" != "{broken}" ]',
            "apt-get": f'echo "apt-get $*" >> log; {apt}',
            "id": f"echo {user}",
            "sudo": 'echo sudo >> log; [ "$1" = -n ] && shift && exec "$@"',
            "timeout": 'shift; exec "$@"',
        }
        for name, text in scripts.items() | {(name, "") for name in commands}:
            (bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (bin / name).chmod(0o755)
        for name in ("bash", "cp", "dirname", "env"):
            (bin / name).symlink_to(shutil.which(name))
        setting = dict(cwd=folder, env={"PATH": str(bin)}, capture_output=True, text=True)
        result = subprocess.run(["bash", ".ci/run"], **setting)
        assert result.returncode == (1 if broken else 0), result.stderr
        return result.stdout + result.stderr, (folder / "log").read_text().splitlines()

    def test_a_browser_is_used(self, tmp_path):
        assert self.run(tmp_path, "", "google-chrome") == ("", self.ALL)

    @pytest.mark.parametrize("target", ["lint", "test-all", "book"])
    def test_a_failure_is_one_and_the_rest_goes_on(self, tmp_path, target):
        assert self.run(tmp_path, "", "google-chrome", broken=target) == ("", self.ALL)

    @pytest.mark.parametrize("user, before", [(0, []), (1000, ["sudo"])])
    def test_a_missing_browser_is_installed(self, tmp_path, user, before):
        apt = 'case "$*" in *chromium) cp bin/make bin/chromium; echo done ;; esac'
        install = "apt-get -qqy install --no-install-recommends chromium"
        done = [*before, "apt-get -qqy update", *before, install, *self.ALL]
        assert self.run(tmp_path, apt, user=user) == ("", done)

    def test_without_a_browser_the_rest_goes_on(self, tmp_path):
        said, done = self.run(tmp_path, "echo no network >&2; exit 100")
        assert said == "There is no Chromium: the browser tests will be skipped.\n"
        assert done[-3:] == self.ALL


# Hosts that a reader, a download or a test is sent to on purpose. Where packages come from is
# everybody's own setting.
PAGES = """arxiv.org doi.org creativecommons.org proceedings.mlr.press github.com mybinder.org
    colab.research.google.com"""
DATA_SETS = """raw.githubusercontent.com storage.googleapis.com www.cs.toronto.edu
    fashion-mnist.s3-website.eu-central-1.amazonaws.com dataset.bj.bcebos.com
    oneflow-public.oss-cn-beijing.aliyuncs.com"""
VOCABULARIES, TESTS = "www.w3.org", "127.0.0.1 localhost example.org"
HOSTS = {*PAGES.split(), *DATA_SETS.split(), VOCABULARIES, *TESTS.split()}
RESERVED = ".example"  # belongs to nobody, by RFC 2606
ADDRESS = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://(?:[^\s/@\"'{]*@)?|(?<![\w./])git@)([a-z0-9](?:[a-z0-9-]|\\?\.)*)",
    re.IGNORECASE,
)
HOMES = re.compile(rf"(?<![\w.~/-])/(?:{'|'.join(['work', 'root', 'home', 'Users'])})/")


def texts():
    """Every text file that is in the repository or would come with the next commit, without the
    images in notebooks.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True)
    if listed.returncode != 0 or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (path := ROOT / name).is_file() and b"\0" not in (content := path.read_bytes()):
            yield name, re.sub(r"[A-Za-z0-9+/=]{300,}", "", content.decode(errors="replace"))


def hosts(text):
    """The hosts that a text names, also within a regular expression."""
    return {found.replace("\\", "").rstrip(".").lower() for found in ADDRESS.findall(text)}


def test_no_file_names_a_host_that_is_not_meant_to_be_there():
    named = [(name, host) for name, text in texts() for host in hosts(text) - HOSTS]
    assert [f"{name}: {host}" for name, host in named if not host.endswith(RESERVED)] == []


def test_no_file_names_a_folder_of_one_machine():
    assert [f"{name}: {found}" for name, text in texts() for found in HOMES.findall(text)] == []


@pytest.mark.parametrize(
    "text, host",
    [
        ("see https://a.example/x", "a.example"),
        ('"http://u:p@b.example:8080/"', "b.example"),
        ("git+https://c.example/d.git@v1", "c.example"),
        ("ssh://git@d.example/x", "d.example"),
        ("git@e.example:x/y", "e.example"),
        ("(https://f.example).", "f.example"),
        (r"https://g\.example/h", "g.example"),
        (r'"http://h.example\n"', "h.example"),
        ("HTTP://J.example:80", "j.example"),
    ],
)
def test_hosts_are_found(text, host):
    assert hosts(text) == {host}


def test_folders_are_found():
    assert HOMES.search("in " + "/".join(["", "home", "me"]))
    assert HOMES.search('"' + "/".join(["", "root", "x"]) + '"')
    assert not HOMES.search("a/home/page and net" + "work/x")
