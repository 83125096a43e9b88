"""A page of one's own, as a newcomer makes it: begun, run, edited, built."""

import re
import subprocess
import sys
from pathlib import Path

import new_claim
import pairs
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT
from small_book import copied, write_small_book

EXISTING = [path.stem for path in pairs.sources()]
FIGURE = re.compile(r"^ *name: (fig-.*)$", re.MULTILINE)


PAGE, CLAIM = "98_sample_claim", "notebooks/98_sample_claim"
DATA = "data/98_sample_claim/fig-sample-claim.csv"


@pytest.fixture(params=["small", pytest.param("whole", marks=pytest.mark.depth)])
def checkout(request, tmp_path):
    """A copy of what the pages are made of, or what makes a page in a small book."""
    folder = tmp_path / "a copy"
    if request.param == "small":
        write_small_book(folder)
        scripts = [f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.py")]
        copied((*scripts, "notebooks/template.md", "ncutils"), folder)
    else:
        copied(("book", "notebooks", "ncutils", "_config.yml", "_toc.yml"), folder)
    return folder


def python(folder, script, *arguments):
    command = [sys.executable, folder / script, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def files(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def soup(path):
    return BeautifulSoup(path.read_text(), "html.parser")


def test_begun_run_edited_and_built(checkout):
    before = files(checkout)
    result = python(checkout, "notebooks/new_claim.py", PAGE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{CLAIM}.md is yours to edit" in result.stdout
    changed = {path for path, content in files(checkout).items() if before.get(path) != content}
    made = {f"{CLAIM}.md", f"{CLAIM}.ipynb", f"notebooks/{DATA}"}
    assert changed == {"_toc.yml", "notebooks/ledgers/sample_claim.json", *made}
    source = checkout / f"{CLAIM}.md"
    assert pairs.difference(source, source.with_suffix(".ipynb")) is None

    text = source.read_text().replace("# Sample claim", "# My own claim")
    source.write_text(text.replace("[100] * 3", "[64] * 3"))
    assert python(checkout, "notebooks/run.py", PAGE).returncode == 0
    latest, html = checkout / "_build" / "notebooks", checkout / "_build" / "html"
    options = "--notebooks", latest, "--only", PAGE, "--output", checkout
    result = python(checkout, "book/build_site.py", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    page = soup(html / f"{CLAIM}.html")
    assert page.h1.get_text().startswith("My own claim") and page.find(id="fig-sample-claim")
    checks = soup(html / "book" / "checks.html").select("table.ledger tbody th")
    told = "classes of 64: one vector from √64 on, at every level"
    assert told in [cell.get_text() for cell in checks]
    pages = [path.stem for path in (checkout / "notebooks").glob("[0-9]*.ipynb")]
    assert len(pages) > 1 and all((html / f"notebooks/{name}.html").exists() for name in pages)
    for name in ("ledgers/sample_claim.json", DATA):
        assert (checkout / "notebooks" / name).read_bytes() != (latest / name).read_bytes()
    assert (latest / DATA).read_bytes() == (html / "notebooks" / DATA).read_bytes()
    assert page.find("a", href=DATA)


SHAPE = "8_claim 08_Claim 08_my+claim 08_ ../08_claim 08_claim.md 08-claim".split()


@pytest.mark.parametrize(
    "name, start, complaint",
    [
        *((name.replace("+", " "), None, "two digits") for name in ("", *SHAPE)),
        ("03_threshold", None, "there is 03_threshold already"),
        ("08_threshold", None, "there is 03_threshold already"),
        ("08_claim", "03_thresh", "FROM = '03_thresh': must be one of 00_summary"),
        ("08_claim", "template", "must be one of"),
    ],
)
def test_other_names_are_refused(name, start, complaint):
    assert complaint in new_claim.refusal(name, start, EXISTING)


def test_a_refusal_is_said_before_anything_is_written(checkout):
    before = files(checkout)
    result = python(checkout, "notebooks/new_claim.py", "08_threshold")
    assert result.returncode == 2 and "there is 03_threshold already" in result.stderr
    assert files(checkout) == before


@pytest.mark.parametrize("start", [*EXISTING, None])
def test_a_copy_takes_no_name_that_exists(start):
    source = ROOT / "notebooks" / (f"{start}.md" if start else "template.md")
    text = new_claim.adapt(source.read_text(), "98_sample_claim")
    taken = [figure for path in pairs.sources() for figure in FIGURE.findall(path.read_text())]
    mine = FIGURE.findall(text)
    assert mine and len(set(mine)) == len(mine) and not set(mine) & set(taken)
    assert all(figure.startswith("fig-sample-claim") for figure in mine)
    assert re.findall(r'Ledger\("(\w+)"\)', text) == ["sample_claim"]
    assert "readme" not in text and "SLUG" not in text and "LEDGER" not in text
    assert new_claim.refusal("98_sample_claim", start, EXISTING) is None


@pytest.mark.parametrize("name", ["00_a", "04_z", "06_claim", "10_last", "99_z"])
def test_pages_are_listed_in_order(name):
    contents = (ROOT / "_toc.yml").read_text()
    parts = yaml.safe_load(new_claim.list_page(contents, name))["parts"]
    files = [Path(chapter["file"]) for part in parts for chapter in part["chapters"]]
    listed = [path.stem for path in files if path.parent.name == "notebooks"]
    assert listed == sorted([*EXISTING, name])
    assert len(new_claim.list_page(contents, name).splitlines()) == len(contents.splitlines()) + 1
