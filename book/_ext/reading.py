"""What a page offers its reader besides its text.

Code is folded away until asked for. Below its title every page has its downloads, below its caption
a figure has its data, and a notebook says how to run it and what its last run took. Words of the
glossary show their definition where the pointer or the keyboard is. Ledgers show what was measured.
Pictures and tables that are wider than a phone scroll in a box of their own. The whole site lies
beside its pages as site.zip.
"""

import json
import shutil
import zipfile
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup
from claims import ClaimsError, all_claims, as_html, measured
from docutils import nodes
from PIL import Image
from publishing import clone, colab_install

GLOSSARY = "book/glossary"
# the cells below this heading are there to be edited: their code stays in sight
EDITED = "change one assumption"
DOWNLOADS = "downloads"  # folder of the sources that are offered, beside the pages' own
ZIP = "site.zip"


# Code
# --------------------------------------------------------------------------------------------------


def fold_code(app, docname, content):
    """Fold the code of a notebook's cells away, but for those that the reader is to edit."""
    if not docname.startswith("notebooks/"):
        return
    notebook, edited = json.loads(content[0]), False
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            edited = edited or f"## {EDITED}" in text.lower()
        elif cell["cell_type"] == "code" and not edited:
            tags = cell["metadata"].get("tags", [])
            cell["metadata"]["tags"] = sorted({*tags, "hide-input"})
    content[0] = json.dumps(notebook)


# The tools below the title
# -----------------------------------------------------------------------------


def tools(app, pagename, claim):
    """HTML of the line below a page's title; `claim` is that of a notebook, else None."""
    source = Path(app.srcdir) / DOWNLOADS / pagename
    files = [
        (suffix, f"{source.name}{suffix}")
        for suffix in (".ipynb", ".md")
        if source.with_name(source.name + suffix).exists()
    ]
    parts = (
        ['<button type="button" class="show-code" hidden>Show all code</button>'] if claim else []
    )
    parts += [f'<a href="{escape(name)}" download>Download {suffix}</a>' for suffix, name in files]
    parts += ['<button type="button" class="print-page" hidden>Print or save as PDF</button>']
    if claim:
        parts.append(run_box(app, source.name, claim.run))
    return f'<div class="page-tools">{"".join(parts)}</div>'


def run_box(app, name, run):
    """HTML of the box that says how to run a notebook."""
    options = app.config.html_theme_options
    repository, branch = options["repository_url"], options["repository_branch"]
    commands = {
        "make book": "once: installs the packages, then runs every page",
        f".venv/bin/python notebooks/run.py {name}": "this page alone",
        "make test": "compares with what is printed here",
    }
    lines = clone(repository, branch) + [
        f"{command:50}# {what}" for command, what in commands.items()
    ]
    where = "" if repository else "<p>In the folder of the companion:</p>"
    colab = (
        f"<p>On Colab, begin with</p><pre>{escape(colab_install(repository, branch))}</pre>"
        if repository
        else ""
    )
    return (
        '<details class="run-box"><summary>Run this page yourself</summary>'
        + where
        + f"<pre>{escape(chr(10).join(lines))}</pre>"
        + colab
        + "<p>This needs Python 3.11 or later and <code>make</code>. "
        + f"The last run took {run['seconds']:.0f} seconds on {escape(run['hardware'])} "
        + f"({escape(run['versions'])}), "
        + "beside others.</p></details>"
    )


# Words
# -------------------------------------------------------------------------------------------------


def definitions(app):
    """{anchor: HTML of a definition} of the glossary's words, without links."""
    if not hasattr(app, "glossary_definitions"):
        found = {}
        if GLOSSARY in app.env.found_docs:
            tree = app.env.get_and_resolve_doctree(GLOSSARY, app.builder)
            for item in tree.findall(nodes.definition_list_item):
                body = next(item.findall(nodes.definition)).deepcopy()
                for link in list(body.findall(nodes.reference)):
                    link.replace_self(link.children)
                html = BeautifulSoup(app.builder.render_partial(body)["fragment"], "html.parser")
                for paragraph in html.find_all(["p", "dd"]):
                    paragraph.name = "span"  # a tip stands within a paragraph
                    del paragraph["class"]
                for part in html.find_all(id=True):
                    del part["id"]  # the page has its own
                for math in html.find_all("div", class_="math"):
                    math.name = "span"
                found |= {
                    anchor: str(html) for term in item.findall(nodes.term) for anchor in term["ids"]
                }
        app.glossary_definitions = found
    return app.glossary_definitions


def explain_words(app, pagename, page):
    """Put its definition behind every link to a word of the glossary."""
    if pagename == GLOSSARY:
        return
    for count, link in enumerate(page.select("a.reference:has(> .std-term)")):
        definition = definitions(app).get(link.get("href", "").partition("#")[2])
        if definition:
            tip = BeautifulSoup(
                f'<span class="tip" role="tooltip" id="tip-{count}">{definition}</span>',
                "html.parser",
            )
            link["aria-describedby"] = f"tip-{count}"
            del link["title"]
            around = link.wrap(page.new_tag("span", attrs={"class": "word"}))
            around.append(tip)


# Pictures, ledgers and roles
# -----------------------------------------------------------------------------


def size_on_a_phone(width):
    """A picture is legible on a phone at 38 rem, 608 pixels, if it is wider, at its own size, or
    where it nearly fits.
    """
    return "wide" if width > 608 else "middle" if width > 340 else "small"


def size_pictures(app, pagename, page):
    """Refer to the smaller files of `shrink_pictures`. Pictures of notebooks are of twice the
    resolution: say their size, and give them a box that scrolls where that is more than the
    screen."""
    sources = {name: Path(app.srcdir) / source for source, name in app.builder.images.items()}
    for image in page.find_all("img"):
        name = Path(image["src"]).name
        if name not in sources or not name.endswith(".png"):
            continue
        png, image["src"] = image["src"], image["src"].removesuffix(".png") + ".webp"
        around = image.parent if image.parent.name == "a" else image
        if around.get("href") == png:  # to the picture itself
            around["href"] = image["src"]
        if image.find_parent(class_="cell_output") or not (
            image.get("width") or image.get("style")
        ):
            with Image.open(sources[name]) as picture:
                image["width"], image["height"] = picture.width // 2, picture.height // 2
                image["class"] = [*image.get("class", []), size_on_a_phone(image["width"])]
            del image["style"]
        around.wrap(page.new_tag("div", attrs={"class": "picture"}))


def shrink_pictures(folder):
    """Turn PNG files into WebP files without loss: a third of the size."""
    for file in folder.glob("*.png"):
        with Image.open(file) as picture:
            picture.convert("RGBA" if picture.has_transparency_data else "RGB").save(
                file.with_suffix(".webp"), lossless=True
            )
        file.unlink()


def fill_ledger(claim, page):
    """Put what was measured where a notebook's own table leaves it out: there, trained numbers
    would differ from run to run.
    """
    tables = [
        table
        for table in page.select("table.ledger")
        if table.caption.get_text() == f"Ledger: {claim.name}"
    ]
    if len(tables) != 1 or not page.find(id="check"):
        raise ClaimsError(
            f'{claim.page} must show its ledger "{claim.name}" once, and have a heading "Check"'
        )
    column = [head.get_text() for head in tables[0].thead.find_all("th")].index("measured")
    for line, row in zip(tables[0].tbody.find_all("tr"), claim.rows, strict=True):
        cell = line.find_all(["th", "td"])[column]
        if not cell.get_text():
            cell.append(BeautifulSoup(as_html(measured(row)), "html.parser"))


def offer_data(app, pagename, page):
    """Put a link to its data behind the caption of each figure of a notebook that has some."""
    data = Path(app.srcdir) / DOWNLOADS / "notebooks" / "data" / Path(pagename).name
    for caption in (
        page.select("figure[id] > figcaption > p") if pagename.startswith("notebooks/") else []
    ):
        figure = caption.find_parent("figure")
        if (data / f"{figure['id']}.csv").exists():
            place = f"data/{data.name}/{figure['id']}.csv"
            link = f' <a class="figure-data" href="{place}" download>Data (CSV)</a>'
            caption.append(BeautifulSoup(link, "html.parser"))


def mend_roles(page):
    """docutils marks a bibliography as a list, whose children are then no list items."""
    for part in page.select("[role=list].citation-list, [role=doc-biblioentry]"):
        del part["role"]


def finish_body(app, pagename, templatename, context, doctree):
    """Everything that is done to the HTML of a page."""
    if doctree is None:
        return
    page = BeautifulSoup(context["body"], "html.parser")
    explain_words(app, pagename, page)
    size_pictures(app, pagename, page)
    claim = next((claim for claim in all_claims(app.env) if claim.page == pagename), None)
    if claim:
        fill_ledger(claim, page)
    offer_data(app, pagename, page)
    mend_roles(page)
    if title := page.find("h1"):
        title.insert_after(BeautifulSoup(tools(app, pagename, claim), "html.parser"))
    context["body"] = str(page)


# The site
# ----------------------------------------------------------------------------------------------


def offer_downloads(app, exception):
    """Put the sources beside their pages, and the whole site into a zip file."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    shrink_pictures(out / "_images")
    shutil.copytree(Path(app.srcdir) / DOWNLOADS, out, dirs_exist_ok=True)
    with zipfile.ZipFile(out / ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(
            path
            for path in out.rglob("*")
            if path.is_file() and path.name not in (ZIP, ".buildinfo")
        ):
            name = Path("neural-collapse") / file.relative_to(out)
            # the same pages give the same file
            entry = zipfile.ZipInfo(name.as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def setup(app):
    app.set_html_assets_policy("always")  # definitions hold formulas, also on pages without any
    app.add_js_file("reading.js", loading_method="defer")
    app.connect("source-read", fold_code)
    app.connect("html-page-context", finish_body, priority=900)
    # after everything else has been written
    app.connect("build-finished", offer_downloads, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
