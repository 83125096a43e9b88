"""Pages without another host: MathJax in the site, what no page loads left out, no word on the
console, and a content security policy that holds all of this."""

import base64
import hashlib
import importlib.util
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup
from sphinx.errors import SphinxError

# The rest of the package serves other inputs and outputs than ours, and is three times as large.
PARTS = (
    "tex-chtml.js",
    "input/tex/extensions",
    "input/mml.js",
    "input/mml",
    "output/chtml/fonts",
    "a11y",
    "sre",
    "ui",
)
LANGUAGES = {"base.json", "en.json", "nemeth.json"}  # of the formulas that MathJax reads aloud
UNUSED = (
    "_static/locales",
    "_static/**/*.map",
    "_static/vendor/**/*.ttf",
    "_static/*.html",
    "_static/result.png",
)

# What a page may load and run: files of the site, also where it was opened as a file, which 'self'
# covers in Chromium and in Firefox; and the scripts that stand in the page as it was built. Styles
# may be set by scripts: MathJax and the theme's icons do. A static host sends no header, so the
# policy stands in each page; frame-ancestors would not count there.
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",  # of which formulas that are read aloud take their words
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
}


class PolicyError(SphinxError):
    """A page that its own policy would break."""

    category = "Content security policy"


def other_languages(folder, names):
    return set(names) - LANGUAGES if Path(folder).name == "mathmaps" else set()


def copy_mathjax(static):
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    source = Path(package.origin).parent / "static" / "mathjax"
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(
                source / part, static / "mathjax" / part, dirs_exist_ok=True, ignore=other_languages
            )
        else:
            (static / "mathjax").mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, static / "mathjax" / part)


def broken(page):
    """What the policy would keep from working on a page (BeautifulSoup): handlers of events in the
    HTML, files of other hosts.
    """
    for tag in page.find_all(True):
        for name, value in tag.attrs.items():
            elsewhere = name == "src" and urlsplit(value).netloc
            if name.startswith("on") or elsewhere or str(value).startswith("javascript:"):
                yield f"<{tag.name} {name}={value!r}>"


def secure(html, name):
    """The HTML of a page, with its policy ahead of everything that the policy is about."""
    # reading.js listens to the theme's button
    html = html.replace(' onclick="toggleFullScreen()"', "")
    page = BeautifulSoup(html, "html.parser")
    if faults := list(broken(page)):
        raise PolicyError(
            f"{name}: {', '.join(faults)}: allowed are files of the site, and scripts in <script>"
        )
    hashes = (
        hashlib.sha256(script.get_text().encode()).digest()
        for script in page.find_all("script", src=False)
    )
    scripts = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes]
    policy = POLICY | {"script-src": " ".join([POLICY["script-src"], *dict.fromkeys(scripts)])}
    content = "; ".join(f"{directive} {sources}" for directive, sources in policy.items())
    # which has to stand within the first 1024 bytes
    before, charset, after = html.rpartition('<meta charset="utf-8" />')
    return (
        f'{before}{charset}<meta http-equiv="Content-Security-Policy" content="{content}">{after}'
    )


def finish(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    copy_mathjax(out / "_static")
    for pattern in UNUSED:
        for path in list(out.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for script in [out / "search.html", *(out / "_static").rglob("*.js")]:
        text = script.read_text(encoding="utf-8")
        # a browser's tools would look for what was left out
        quiet = re.sub(r"\n?//# sourceMappingURL=\S+", "", text)
        # the theme reports every change between light and dark, and more
        if "mathjax" not in script.parts:
            quiet = re.sub(r"(?<![\w.])console\.(log|info|debug)\(", "(() => {})(", quiet)
        if quiet != text:
            script.write_text(quiet, encoding="utf-8")
    for page in out.rglob("*.html"):
        page.write_text(
            secure(page.read_text(encoding="utf-8"), page.relative_to(out)), encoding="utf-8"
        )


def setup(app):
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    # when the pages are written, the one that leads on to the first included
    app.connect("build-finished", finish, priority=800)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
