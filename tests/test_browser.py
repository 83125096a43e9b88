"""The pages as a reader's browser shows them, opened as files."""

import json
import zipfile
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT

THEMES = ["light", "dark"]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


def pages(site):
    """Every page of the site, but for the one that leads on to the front page."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts and path != site / "index.html")


@pytest.fixture
def visit(browser, site):
    """Open a page, given as a file or as its place in the site, and wait until it is quiet."""
    contexts = []

    def visit(path, theme="light", viewport=WIDE, **options):
        contexts.append(browser.new_context(color_scheme=theme, viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.requests, page.messages = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.messages.append(message.text))
        page.on("pageerror", lambda error: page.messages.append(str(error)))
        page.on("requestfailed", lambda request: page.messages.append(f"failed: {request.url}"))
        path, _, query = str(path).partition("?")
        page.goto(f"{(site / path).as_uri()}?{query}".rstrip("?"))
        page.wait_for_load_state("networkidle")
        return page

    yield visit
    for context in contexts:
        context.close()


def each_page(test):
    """Run a test for all pages of the site, closing each before the next."""
    def run(site, visit, *more, **options):
        for path in pages(site):
            page = visit(path, *more, **options)
            test(page, path.relative_to(site))
            page.close()
    return run


@pytest.mark.parametrize("theme", THEMES)
def test_pages_ask_no_other_host_and_complain_of_nothing(site, visit, theme):
    @each_page
    def check(page, path):
        assert page.requests, path
        assert [url for url in page.requests if urlsplit(url).scheme not in ("file", "data", "blob")] == [], path
        assert page.messages == [], path

    check(site, visit, theme)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious(site, visit, theme):
    @each_page
    def check(page, path):
        for button in page.locator(".show-code:visible").all():
            button.click()  # folded code is read, too
        violations = Axe().run(page, options={"preload": False}).response["violations"]
        worst = [(found["id"], node["target"], node["failureSummary"]) for found in violations
                 if found["impact"] in ("serious", "critical") for node in found["nodes"]]
        assert worst == [], path

    check(site, visit, theme)


def test_axe_would_find_something(visit):
    page = visit("book/index.html")
    page.evaluate("document.querySelector('article p').style.color = '#ddd'")
    assert "color-contrast" in [found["id"] for found in Axe().run(page).response["violations"]]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_pages_never_scroll_sideways(site, visit, viewport):
    @each_page
    def check(page, path):
        widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1], path
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1], (path, "code shown")

    check(site, visit, viewport=viewport)


def test_pictures_are_sharp_and_legible_on_a_phone(site, visit):
    count = 0
    for viewport in (WIDE, PHONE):
        for path in sorted(site.glob("*/*.html")):
            page = visit(path, viewport=viewport)
            for image in page.evaluate("""[...document.querySelectorAll('article img')].map((i) => ({src: i.src,
                    shown: i.getBoundingClientRect(), natural: [i.naturalWidth, i.naturalHeight],
                    said: i.getAttribute('width')}))"""):
                shown, natural, said = image["shown"], image["natural"], int(image["said"])
                assert natural[0] >= 2 * shown["width"] - 2, (path, image)  # twice the resolution
                assert shown["height"] / shown["width"] == pytest.approx(natural[1] / natural[0], rel=0.02), path
                assert shown["width"] >= min(said, 600), (path, image)  # the box scrolls, letters stay
                count += 1
            page.close()
    assert count > 40


def test_the_site_is_light(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) <= 20e6
    for path in site.glob("notebooks/*.html"):
        html = path.read_text()
        pictures = [picture for picture in site.glob("_images/*") if picture.name in html]
        assert pictures
        assert path.stat().st_size + sum(picture.stat().st_size for picture in pictures) <= 1.5e6


def test_code_is_folded_until_asked_for(visit):
    page = visit("notebooks/03_threshold.html")
    cells = page.locator("details.hide pre")
    assert cells.count() >= 10 and not any(cell.is_visible() for cell in cells.all())
    edited = page.locator("section#change-one-assumption div.cell_input pre")
    assert edited.count() == 1 and edited.is_visible()  # the cell that the reader is to change
    assert page.locator(".cell_output").first.is_visible()

    page.locator("details.hide summary").first.click()  # one of them
    assert cells.first.is_visible() and not cells.nth(1).is_visible()
    button = page.get_by_role("button", name="Show all code")
    button.focus()
    page.keyboard.press("Enter")
    assert all(cell.is_visible() for cell in cells.all())
    page.get_by_role("button", name="Hide all code").click()
    assert not any(cell.is_visible() for cell in cells.all())


def test_words_show_their_definition_to_pointer_and_keyboard(visit):
    page = visit("book/setting.html")
    word = page.locator(".word").first
    tip, link = word.locator(".tip"), word.locator("> a")
    assert not tip.is_visible()
    for show in (link.focus, link.hover):
        show()
        assert tip.is_visible() and len(tip.inner_text().split()) > 5
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        page.mouse.move(0, 0)
        link.blur()
    assert link.get_attribute("aria-describedby") == tip.get_attribute("id")
    link.click()
    assert "glossary.html#term-" in page.url


def test_words_do_not_widen_a_phone(visit):
    page = visit("book/setting.html", viewport=PHONE)
    for word in page.locator(".word").all():
        word.locator("> a").focus()
        box = word.locator(".tip").bounding_box()
        assert 0 <= box["x"] and box["x"] + box["width"] <= 360
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_formulas_are_set(site, visit):
    page = visit("book/setting.html")
    assert page.locator("mjx-container").count() > 100
    for path in pages(site):
        page = visit(path)
        assert page.locator("mjx-merror").count() == 0, path
        assert "\\(" not in page.locator("main").first.inner_text(), path
        page.close()


def test_search_answers_from_a_file(visit):
    page = visit("search.html?q=bisection")
    page.wait_for_selector("#search-results li")
    assert "notebooks/03_threshold.html" in page.locator("#search-results li a").first.get_attribute("href")


def test_the_theme_changes_and_stays(visit):
    page = visit("book/index.html")
    theme = lambda: page.evaluate("document.documentElement.dataset.theme")
    seen = {theme()}
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        seen.add(theme())
    assert seen == {"light", "dark"}
    assert page.messages == []


def test_print_shows_the_text_alone(visit):
    page = visit("notebooks/03_threshold.html")
    page.emulate_media(media="print")
    for part in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".page-tools", ".bd-header-article", ".prev-next-area"):
        assert not any(one.is_visible() for one in page.locator(part).all()), part
    assert [title.is_visible() for title in page.locator("h1").all()].count(True) == 1 and page.locator("figure img").first.is_visible()
    assert page.locator("table.ledger").is_visible()
    inside = page.evaluate("""[...document.querySelectorAll('article img, article table')].map((one) =>
        one.getBoundingClientRect().right <= document.documentElement.clientWidth)""")
    assert inside and all(inside)
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and 4 <= pdf.count(b"/Type /Page\n") <= 30


def test_sources_and_the_site_can_be_taken_home(site, visit, tmp_path):
    for path in [*site.glob("book/*.html"), *site.glob("notebooks/*.html")]:
        page = visit(path)
        links = page.locator(".page-tools a[download]").all()
        assert [link.inner_text().rpartition(".")[2] for link in links] == (["ipynb", "md"] if path.parent.name == "notebooks" else ["md"])
        for link in links:
            assert (path.parent / link.get_attribute("href")).stat().st_size > 0
        page.close()
    stored = {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.*") if path.suffix in (".ipynb", ".md")}
    assert stored == {path.name: path.read_bytes() for path in site.glob("notebooks/*") if path.suffix in (".ipynb", ".md")}

    [link] = visit("book/index.html").locator("a[href$='site.zip']").all()
    with zipfile.ZipFile(site / "site.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    [home] = tmp_path.iterdir()
    expected = {path.relative_to(site) for path in site.rglob("*") if path.is_file() and path.name not in ("site.zip", ".buildinfo")}
    assert {path.relative_to(home) for path in home.rglob("*") if path.is_file()} == expected
    page = visit(home / "index.html")  # leads on to the front page
    page.wait_for_url("**/book/index.html")
    assert page.locator("table.ledger").is_visible() and page.messages == []


def test_the_run_box_says_how_and_how_long(site, visit):
    for path in site.glob("notebooks/*.html"):
        page = visit(path)
        box = page.locator("details.run-box")
        box.locator("summary").click()
        text = box.inner_text()
        assert f"notebooks/run.py {path.stem}" in text and "make book" in text
        [run] = {(check["seconds"], check["hardware"], check["versions"]) for check in json.loads((site / "claims.json").read_text())["checks"]
                 if check["notebook"] == f"notebooks/{path.stem}.ipynb"}
        assert f"took {run[0]:.0f} seconds on {run[1]} ({run[2]})" in text
        page.close()
