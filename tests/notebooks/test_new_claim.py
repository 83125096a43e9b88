"""A page of one's own, as a newcomer makes it: begun, run, edited, built."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import new_claim
import pairs
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT

EXISTING = [path.stem for path in pairs.sources()]
FIGURE = re.compile(r"^ *name: (fig-.*)$", re.MULTILINE)


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the pages are made of."""
    folder = tmp_path / "a copy"
    leave = shutil.ignore_patterns("__pycache__")
    for name in ("book", "notebooks", "ncutils"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    return folder


def python(folder, script, *arguments):
    return subprocess.run(
        [sys.executable, folder / script, *arguments], cwd=folder, capture_output=True, text=True
    )


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_begun_run_edited_and_built(checkout):
    before = files(checkout)
    result = python(checkout, "notebooks/new_claim.py", "98_sample_claim")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "notebooks/98_sample_claim.md is yours to edit" in result.stdout
    changed = {
        path.as_posix() for path, content in files(checkout).items() if before.get(path) != content
    }
    assert changed == {
        "_toc.yml",
        "notebooks/98_sample_claim.md",
        "notebooks/98_sample_claim.ipynb",
        "notebooks/ledgers/sample_claim.json",
        "notebooks/data/98_sample_claim/fig-sample-claim.csv",
    }
    assert (
        pairs.difference(
            checkout / "notebooks/98_sample_claim.md", checkout / "notebooks/98_sample_claim.ipynb"
        )
        is None
    )

    source = checkout / "notebooks" / "98_sample_claim.md"
    source.write_text(
        source.read_text()
        .replace("# Sample claim", "# My own claim")
        .replace("[100] * 3", "[64] * 3")
    )
    assert python(checkout, "notebooks/run.py", "98_sample_claim").returncode == 0
    result = python(
        checkout,
        "book/build_site.py",
        "--notebooks",
        checkout / "_build/notebooks",
        "--only",
        "98_sample_claim",
        "--output",
        checkout,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    html = checkout / "_build" / "html"
    page = BeautifulSoup((html / "notebooks" / "98_sample_claim.html").read_text(), "html.parser")
    assert page.h1.get_text().startswith("My own claim") and page.find(id="fig-sample-claim")
    checks = BeautifulSoup((html / "book" / "checks.html").read_text(), "html.parser").select(
        "table.ledger tbody th"
    )
    assert "classes of 64: one vector from √64 on, at every level" in [
        cell.get_text() for cell in checks
    ]
    assert all((html / "notebooks" / f"{name}.html").exists() for name in EXISTING)
    stored, latest = (
        checkout / folder / "ledgers/sample_claim.json"
        for folder in ("notebooks", "_build/notebooks")
    )
    assert stored.read_bytes() != latest.read_bytes()
    data = "notebooks/data/98_sample_claim/fig-sample-claim.csv"
    stored, latest, shown = (
        (folder / data).read_text() for folder in (checkout, checkout / "_build", html)
    )
    assert stored != latest == shown and page.find("a", href=data.removeprefix("notebooks/"))


@pytest.mark.parametrize(
    "name, start, complaint",
    [
        ("8_claim", None, "two digits"),
        ("08_Claim", None, "two digits"),
        ("08_my claim", None, "two digits"),
        ("08_", None, "two digits"),
        ("../08_claim", None, "two digits"),
        ("08_claim.md", None, "two digits"),
        ("", None, "two digits"),
        ("08-claim", None, "two digits"),
        ("03_threshold", None, "there is 03_threshold already"),
        ("08_threshold", None, "there is 03_threshold already"),
        ("08_claim", "03_thresh", "FROM = '03_thresh': must be one of 00_summary"),
        ("08_claim", "template", "must be one of"),
    ],
)
def test_other_names_are_refused_before_anything_is_written(checkout, name, start, complaint):
    assert complaint in new_claim.refusal(name, start, EXISTING)
    before = files(checkout)
    if name in ("../08_claim", "08_threshold"):  # one of a kind is enough
        result = python(
            checkout, "notebooks/new_claim.py", name, *(["--from", start] if start else [])
        )
        assert result.returncode == 2 and complaint in result.stderr
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
    listed = [
        Path(chapter["file"]).stem
        for part in parts
        for chapter in part["chapters"]
        if chapter["file"].startswith("notebooks/")
    ]
    assert listed == sorted([*EXISTING, name])
    assert len(new_claim.list_page(contents, name).splitlines()) == len(contents.splitlines()) + 1
