"""A book of four small pages with this book's own settings, extensions and styles: it is built in
seconds, where the whole takes half a minute.
"""

import json
import shutil

import yaml
from conftest import ROOT

TOC = """format: jb-book
root: book/index
chapters:
- file: notebooks/03_threshold.ipynb
- file: book/setting
- file: book/checks
"""
INDEX = """# Front

```{figure} _static/result.png
:alt: a picture
Angles.
```

```{claims}
:headlines:
```
"""


def copied(names, folder):
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)


def write_small_book(folder, **repository):
    """Make the folder a checkout of the small book, with that `repository` in its _config.yml; its
    notebook is the stored one's title, checks and cell to change.
    """
    pages = ("book/checks.md", "notebooks/03_threshold.md", "notebooks/ledgers/threshold.json")
    copied(("book/_ext", "book/_static", "book/build_site.py", "book/references.bib"), folder)
    copied((*pages, "notebooks/data/03_threshold"), folder)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    (folder / "_config.yml").write_text(yaml.safe_dump(config | {"repository": repository}))
    (folder / "_toc.yml").write_text(TOC)
    (folder / "book" / "index.md").write_text(INDEX)

    rows = json.loads((ROOT / pages[-1]).read_text())["rows"]
    theorems = sorted({row["theorem"] for row in rows} - {None})
    stated = "\n".join(f"```{{prf:theorem}}\n:label: {label}\nSo.\n```\n" for label in theorems)
    (folder / "book" / "setting.md").write_text(f"# Setting\n\n{stated}")

    notebook = json.loads((ROOT / "notebooks" / "03_threshold.ipynb").read_text())
    [shown] = [cell for cell in notebook["cells"] if "ledger.show()" in "".join(cell["source"])]
    title, check, change = (
        {"cell_type": "markdown", "id": f"text-{number}", "metadata": {}, "source": text}
        for number, text in enumerate(["# Threshold", "## Check", "## Change one assumption"])
    )
    notebook["cells"] = [title, check, shown, change, notebook["cells"][-1]]
    (folder / "notebooks" / "03_threshold.ipynb").write_text(json.dumps(notebook))
