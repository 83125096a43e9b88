"""The pages, built from the stored outputs: without a warning, from this host alone, with the ledgers' numbers."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import claims
import pytest
from bs4 import BeautifulSoup
from conftest import build_site

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture(scope="module")
def pages(site):
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in site.rglob("*.html") if "_static" not in path.parts}


@pytest.fixture
def ledgers(tmp_path):
    """A copy of the stored notebooks, to spoil their ledgers."""
    copy = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, copy, ignore=shutil.ignore_patterns("__pycache__", "*.md", "*.py"))
    return copy / "ledgers"


def value(text):
    """The number that a table cell such as "≤ 1.5 · 10−9" begins with."""
    text = re.sub(r"\s", "", text).lstrip("=≤≥").split("±")[0].replace("−", "-")
    text = re.sub(r"^(-?)10(-?\d+)$", r"\g<1>1·10\2", text) if "·" not in text and "-" in text[1:] else text
    mantissa, _, power = text.partition("·10")
    return float(f"{mantissa}e{power or 0}")


def test_front_page_numbers_are_those_of_the_ledgers(site, pages):
    table = pages[site / "book" / "index.html"].find("table", class_="ledger")
    assert table.caption and all(cell.name == "th" for cell in table.thead.find_all(["th", "td"]))
    shown = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in table.tbody.find_all("tr")]

    names = [path.stem.split("_", 1)[1] for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    stored = [(name, row) for name in names for row in json.loads((NOTEBOOKS / "ledgers" / f"{name}.json").read_text())["rows"]]
    assert len(shown) == len(stored) > 0
    for (claim, _, evidence, measured, predicted, verdict), (name, row) in zip(shown, stored):
        assert (claim, evidence, verdict) == (name, row["evidence"], "PASS")
        if row["relation"] != "true":
            assert value(measured) == pytest.approx(row["measured"], rel=1e-3)
            assert value(predicted) == pytest.approx(row["predicted"], rel=1e-5)


def test_pages_load_nothing_from_another_host(pages):
    for path, page in pages.items():
        loaded = [tag["src"] for tag in page.find_all(["script", "img", "iframe", "source"]) if tag.has_attr("src")]
        loaded += [tag["href"] for tag in page.find_all("link")]
        assert [url for url in loaded if urlsplit(url).netloc] == [], path
        inline = [tag.get_text() for tag in page.find_all("script") if not tag.has_attr("src")]
        assert [text for text in inline if "//" in text.replace("// ", "")] == [], path


def test_links_within_the_site_lead_somewhere(site, pages):
    for path, page in pages.items():
        for tag in page.find_all(["a", "link", "script", "img"]):
            url = urlsplit(tag.get("href") or tag.get("src") or "")
            if url.path and not url.scheme:
                assert (path.parent / unquote(url.path)).exists(), f"{path.relative_to(site)}: {url.path}"


def test_images_have_a_description(pages):
    for path, page in pages.items():
        for image in page.find_all("img"):
            assert image.get("alt"), f"{path}: {image['src']}"


def test_a_failed_row_stops_the_build(ledgers, tmp_path):
    file = min(ledgers.iterdir())
    content = json.loads(file.read_text())
    content["rows"][0]["passed"] = False
    file.write_text(json.dumps(content))
    result = build_site(tmp_path, ledgers.parent)
    assert result.returncode != 0
    assert f"{file.name}: failed: {content['rows'][0]['what']}" in result.stdout + result.stderr
    assert not (tmp_path / "_build" / "html" / "book" / "index.html").exists()


def row(**changed):
    return {"what": "gap", "evidence": "exact", "relation": "<=", "measured": 1e-12, "predicted": 1e-9,
            "tolerance": None, "passed": True} | changed


@pytest.mark.parametrize("content, complaint", [
    (None, "is missing"),
    ("{", "not a ledger"),
    ("[]", "not a ledger"),
    ('{"ledger": "threshold", "rows": []}', "checks nothing"),
    (json.dumps({"ledger": "threshold", "rows": [row(), row(passed=False)]}), "failed: gap"),
    (json.dumps({"ledger": "threshold", "rows": [row(passed="yes")]}), "failed: gap"),
])
def test_a_ledger_with_a_fault_is_refused(tmp_path, content, complaint):
    file = tmp_path / "notebooks" / "ledgers" / "threshold.json"
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_text(content)
    with pytest.raises(claims.ClaimsError, match=complaint):
        list(claims.read_ledgers(tmp_path, ["notebooks/03_threshold"]))


def test_a_ledger_without_a_page_is_refused(tmp_path):
    folder = tmp_path / "notebooks" / "ledgers"
    folder.mkdir(parents=True)
    (folder / "threshold.json").write_text(json.dumps({"ledger": "threshold", "rows": [row()]}))
    with pytest.raises(claims.ClaimsError, match="without a page: threshold.json"):
        list(claims.read_ledgers(tmp_path, []))


@pytest.mark.parametrize("number, text", [
    (1e-9, "10−9"), (-1e-9, "−10−9"), (1.2345678e-12, "1.23457·10−12"), (-0.1111111111, "−0.111111"),
    (13.815946935, "13.8159"), (1234567.0, "1.23457·106"), (0.0, "0"), (True, "yes"), (False, "no"),
])
def test_numbers_are_shown_with_few_digits(number, text):
    shown = "".join(node.astext() for node in claims.number(number, digits=6))
    assert shown.replace(claims.NARROW, "") == text
