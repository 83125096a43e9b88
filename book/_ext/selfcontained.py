"""Pages without another host: MathJax in the site, what no page loads left out, and no word on the console."""

import importlib.util
import re
import shutil
from pathlib import Path

# The rest of the package serves other inputs and outputs than ours, and is three times as large.
PARTS = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts", "a11y", "sre", "ui")
LANGUAGES = {"base.json", "en.json", "nemeth.json"}  # of the formulas that MathJax reads aloud
UNUSED = ("_static/locales", "_static/**/*.map", "_static/vendor/**/*.ttf", "_static/result.png")


def other_languages(folder, names):
    return set(names) - LANGUAGES if Path(folder).name == "mathmaps" else set()


def copy_mathjax(static):
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    source = Path(package.origin).parent / "static" / "mathjax"
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, static / "mathjax" / part, dirs_exist_ok=True, ignore=other_languages)
        else:
            (static / "mathjax").mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, static / "mathjax" / part)


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
        quiet = re.sub(r"\n?//# sourceMappingURL=\S+", "", text)  # a browser's tools would look for what was left out
        if "mathjax" not in script.parts:  # the theme reports every change between light and dark, and more
            quiet = re.sub(r"(?<![\w.])console\.(log|info|debug)\(", "(() => {})(", quiet)
        if quiet != text:
            script.write_text(quiet, encoding="utf-8")


def setup(app):
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
