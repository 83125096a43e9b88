"""The pages, built from the stored outputs: without a warning, from this host alone, with the
ledgers' numbers.
"""

import json
import math
import re
from types import SimpleNamespace
from urllib.parse import urlsplit

import claims
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT, build_site
from PIL import Image
from small_book import write_small_book

NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture(scope="module")
def pages(site):
    return {
        path: BeautifulSoup(path.read_text(), "html.parser")
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }


def value(text):
    """The number that a table cell such as "≤ 1.5 · 10−9" begins with."""
    text = re.sub(r"\s", "", text).lstrip("=≤≥").split("±")[0].replace("−", "-")
    if "·" not in text and "-" in text[1:]:
        text = re.sub(r"^(-?)10(-?\d+)$", r"\g<1>1·10\2", text)
    mantissa, _, power = text.partition("·10")
    return float(f"{mantissa}e{power or 0}")


def stored_ledger(page):
    """What the notebook of a page has checked."""
    name = page.stem.split("_", 1)[1]
    return json.loads((NOTEBOOKS / "ledgers" / f"{name}.json").read_text())


def stored_rows():
    """(name, row) of all ledgers, in the order of their notebooks."""
    ledgers = [stored_ledger(path) for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    return [(ledger["ledger"], row) for ledger in ledgers for row in ledger["rows"]]


@pytest.mark.parametrize(
    "name, chosen", [("checks", lambda row: True), ("index", lambda row: row["headline"])]
)
def test_numbers_in_the_table_are_those_of_the_ledgers(site, pages, name, chosen):
    table = pages[site / "book" / f"{name}.html"].find("table", class_="ledger")
    assert table.caption and all(cell.name == "th" for cell in table.thead.find_all(["th", "td"]))
    lines = [row.find_all(["th", "td"]) for row in table.tbody.find_all("tr")]
    shown = [[cell.get_text() for cell in line] for line in lines]

    stored = [(claim, row) for claim, row in stored_rows() if chosen(row)]
    assert len(shown) == len(stored) > 0
    total = len(stored_rows())
    counted = f"All {total} checks" if name == "checks" else f"{len(stored)} of {total} checks"
    caption = table.select_one(".caption-text").get_text()
    assert caption.startswith(f"{counted} on {len(list(NOTEBOOKS.glob('*.ipynb')))} pages:")
    for cells, (name, row) in zip(shown, stored):
        claim, what, evidence, measured, predicted, certificate, verdict = cells
        what = what.replace("’", "'")  # as typeset
        said = claim.split(",")[0], what, evidence, verdict
        assert said == (name, row["what"], row["evidence"], "PASS")
        if row["certificate"] is None:
            assert certificate == ("closed form" if row["theorem"] else "")
        else:
            assert value(certificate) == float(f"{row['certificate']:.1g}")
        if row["relation"] != "true":
            assert value(measured) == pytest.approx(row["measured"], rel=1e-3)
            assert value(predicted) == pytest.approx(row["predicted"], rel=1e-5)
            assert predicted[0] == {"=": "=", "<=": "≤", ">=": "≥"}[row["relation"]]
            if row["tolerance"]:
                around = value(predicted.partition("±")[2])
                assert around == pytest.approx(row["tolerance"], rel=0.05)
            else:
                assert "±" not in predicted
        else:
            assert (measured, predicted) == ("yes", "yes")


def test_ids_are_unique(pages):
    for path, page in pages.items():
        ids = [tag["id"] for tag in page.find_all(id=True)]
        ids = [name for name in ids if name != "proof-content"]  # which the theme repeats
        assert sorted(ids) == sorted(set(ids)), path


def test_every_theorem_in_the_table_is_linked(site, pages):
    page = site / "book" / "checks.html"
    rows = pages[page].select("table.ledger tbody tr")
    for row, (_, stored) in zip(rows, stored_rows(), strict=True):
        links = [urlsplit(link["href"]) for link in row.td.find_all("a")]
        observed = stored["theorem"] is None or stored["evidence"] == "network"
        assert ("observed" in row.td.get_text()) == observed
        assert (page.parent / links[0].path).exists()
        if stored["theorem"]:
            target = pages[(page.parent / links[1].path).resolve()].find(id=links[1].fragment)
            assert links[1].fragment == stored["theorem"] and "proof" in target["class"]
            name = row.td.find_all("a")[1].get_text()  # "Theorem 3"
            assert links[1].path and name in target.get_text()
        else:
            assert row.td.get_text().endswith(", observed") and len(links) == 1


def test_the_file_of_claims_holds_what_the_ledgers_hold(site, pages):
    checks = json.loads((site / "claims.json").read_text())["checks"]
    for check, (name, row) in zip(checks, stored_rows(), strict=True):
        ledger = json.loads((NOTEBOOKS / "ledgers" / f"{name}.json").read_text())
        assert (check["claim"], check["quantity"], check["verdict"]) == (name, row["what"], "PASS")
        for key in ("evidence", "relation", "measured", "tolerance", "certificate", "headline"):
            assert check[key] == row[key]
        assert check["predicted"] == (True if row["relation"] == "true" else row["predicted"])
        for key in ("cell", "seconds", "hardware", "versions"):
            assert check[key] == ledger["run"][key]
        page, _, place = check["url"].partition("#")
        assert pages[site / page].find(id=place).h2.get_text().startswith("Check")
        notebook = json.loads((site / check["notebook"]).read_text())
        [cell] = [cell for cell in notebook["cells"] if cell["id"] == check["cell"]]
        assert "ledger.show()" in "".join(cell["source"])
        if row["theorem"]:
            page, _, label = check["theorem"]["url"].partition("#")
            assert label == check["theorem"]["label"] == row["theorem"]
            assert check["theorem"]["name"] in pages[site / page].find(id=label).get_text()


def test_images_say_what_they_show(pages):
    for path, page in pages.items():
        for image in page.find_all("img"):
            assert len(image.get("alt", "").split()) >= 8, f"{path}: {image}"


def test_ledgers_on_the_pages_of_notebooks_show_what_was_measured(site, pages):
    for path in site.glob("notebooks/*.html"):
        rows = stored_ledger(path)["rows"]
        [table] = pages[path].select("table.ledger")
        for line, row in zip(table.tbody.find_all("tr"), rows, strict=True):
            what, _, measured = (cell.get_text() for cell in line.find_all(["th", "td"])[:3])
            assert what == row["what"]
            if row["relation"] == "true":
                assert measured == "yes"
            else:
                assert value(measured) == pytest.approx(row["measured"], rel=1e-3)


def test_sources_can_be_taken_home(site, pages):
    for path in [*site.glob("book/*.html"), *site.glob("notebooks/*.html")]:
        links = [link["href"] for link in pages[path].select(".page-tools a[download]")]
        suffixes = [".ipynb", ".md"] if path.parent.name == "notebooks" else [".md"]
        assert links == [path.stem + suffix for suffix in suffixes]
        for name in links:
            source = ROOT / path.parent.name / name
            assert (path.parent / name).read_bytes() == source.read_bytes()


def test_the_run_box_says_how_and_how_long(site, pages):
    for path in site.glob("notebooks/*.html"):
        [box] = pages[path].select("h1 + .page-tools details.run-box")
        run, text = stored_ledger(path)["run"], box.get_text()
        assert f".venv/bin/python notebooks/run.py {path.stem} " in text and "make book " in text
        took = f"took {run['seconds']:.0f} seconds on {run['hardware']} ({run['versions']})"
        assert run["seconds"] > 0 and took in text


def test_every_word_of_the_glossary_that_is_linked_is_explained(pages):
    count = 0
    for path, page in pages.items():
        for link in page.select("a:has(> .std-term)"):
            if path.stem != "glossary":
                tip = page.find(id=link["aria-describedby"])
                assert tip["role"] == "tooltip" and not tip.find("a"), (path, link)
                assert len(tip.get_text().split()) >= 5, (path, link)
                count += 1
    assert count > 20


def test_code_is_folded_but_for_what_is_to_be_edited(site, pages):
    for path in site.glob("notebooks/*.html"):
        for cell in pages[path].select("div.cell_input"):
            edited = cell.find_parent("section", id="change-one-assumption") is not None
            assert (cell.find_parent("details") is None) == edited, (path, cell)


def change_row(book, **changed):
    """Change the first row of the small book's ledger."""
    file = book / "notebooks" / "ledgers" / "threshold.json"
    content = json.loads(file.read_text())
    content["rows"][0] |= changed
    file.write_text(json.dumps(content))


def test_a_failed_row_stops_the_build(tmp_path):
    write_small_book(tmp_path)
    change_row(tmp_path, what="late", passed=False)
    result = build_site(tmp_path, tmp_path)
    assert result.returncode != 0
    assert "threshold.json: failed: late" in result.stdout + result.stderr
    assert not (tmp_path / "_build" / "html" / "book" / "index.html").exists()


def test_what_a_ledger_says_is_text_and_the_front_picture_is_that_of_the_run(tmp_path):
    said = "a <b>bold</b> claim, *x* `y` $z$ a_B"
    write_small_book(tmp_path)
    change_row(tmp_path, what=said)
    Image.new("RGB", (640, 480), "white").save(tmp_path / "notebooks" / "result.png")
    result = build_site(tmp_path, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    html = tmp_path / "_build" / "html"
    page = BeautifulSoup((html / "book" / "checks.html").read_text(), "html.parser")
    assert said in [cell.get_text() for cell in page.select("table.ledger tbody th")]
    with Image.open(html / "_images" / "result.webp") as picture:
        assert picture.size == (640, 480)
    assert not (html / "_static" / "result.png").exists()


def test_an_unknown_theorem_is_refused():
    claim = claims.Claim("notebooks/03_threshold", "threshold", NOTEBOOKS / "x.json", [], RUN)
    with pytest.raises(claims.ClaimsError, match=r"x\.json: gap: there is no theorem 'thm-new'"):
        claims.entry(claim, row(theorem="thm-new"), SimpleNamespace(proof_list={}), str)


RUN = {"cell": "cell-018", "seconds": 1.5, "hardware": "a processor", "versions": "Python 3"}


def row(**changed):
    usual = dict(what="gap", evidence="exact", relation="<=", measured=1e-12, predicted=1e-9)
    return usual | dict(tolerance=None, passed=True) | changed


def ledger(*rows, run=RUN):
    return json.dumps({"ledger": "threshold", "rows": rows, "run": run})


NOT_RUN, ELSEWHERE = ledger(row()).replace(', "run"', ', "ran"'), "was not made by this page"
ONE = dict(relation="=", measured=1.0, predicted=1.0)


@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "is missing"),
        ("{", "not a ledger"),
        ("[]", "not a ledger"),
        (ledger(), "checks nothing"),
        (ledger(row(), row(passed=False)), "failed: gap"),
        (ledger(row(passed="yes")), "failed: gap"),
        # a row that says PASS although its numbers do not
        (ledger(row(), row(what="late", measured=1.1e-9)), "failed: late"),
        (ledger(row(relation=">=")), "failed: gap"),
        (ledger(row(relation="=", tolerance=1e-10)), "failed: gap"),
        (ledger(row(**ONE, tolerance=None)), "failed: gap"),
        (ledger(row(relation="true", measured=False, predicted=None)), "failed: gap"),
        (ledger(row(relation="true", measured=1, predicted=None)), "failed: gap"),
        (ledger(row(measured="nan")), "failed: gap"),
        (ledger(row(measured=math.nan)), "failed: gap"),
        (ledger(row(measured=-math.inf)), "failed: gap"),
        (ledger(row(measured=True, predicted=2)), "failed: gap"),
        (ledger(row(relation="~")), "not a ledger"),
        (ledger(row(**ONE, tolerance=math.inf)), "failed: gap"),
        (ledger(row(**ONE, tolerance=-1)), "failed: gap"),
        (ledger(row(certificate="nan")), "failed: gap"),
        (ledger(row(certificate=math.nan)), "failed: gap"),
        (ledger(row(), run={}), "not a ledger"),
        (NOT_RUN, f"{ELSEWHERE}: run notebooks/run.py --store 03_threshold"),
        (ledger(row()).replace("threshold", "other"), ELSEWHERE),
    ],
)
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
    (folder / "threshold.json").write_text(ledger(row()))
    with pytest.raises(claims.ClaimsError, match="without a page: threshold.json"):
        list(claims.read_ledgers(tmp_path, []))


def test_a_ledger_that_holds_is_read(tmp_path):
    file = tmp_path / "notebooks" / "ledgers" / "threshold.json"
    file.parent.mkdir(parents=True)
    rows = [
        row(),
        row(relation=">=", measured=2.0),
        row(relation="=", measured=1.0, predicted=1.05, tolerance=0.1),
        row(relation="true", measured=True, predicted=None),
    ]
    file.write_text(ledger(*rows))
    assert list(claims.read_ledgers(tmp_path, ["notebooks/03_threshold"])) == [
        claims.Claim("notebooks/03_threshold", "threshold", file, rows, RUN)
    ]


@pytest.mark.parametrize(
    "number, text",
    [
        (1e-9, "10−9"),
        (-1e-9, "−10−9"),
        (1.2345678e-12, "1.23457·10−12"),
        (-0.1111111111, "−0.111111"),
        (13.815946935, "13.8159"),
        (1234567.0, "1.23457·106"),
        (0.0, "0"),
        (True, "yes"),
        (False, "no"),
    ],
)
def test_numbers_are_shown_with_few_digits(number, text):
    shown = "".join(node.astext() for node in claims.number(number, digits=6))
    assert shown.replace(claims.NARROW, "") == text
