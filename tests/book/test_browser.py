"""The pages as a reader's browser shows them, opened as files, and from a server where that makes a
difference.
"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from conftest import until

# A page of each kind: the front page, prose with formulas, all checks, a notebook.
FEW = ["book/index.html", "book/setting.html", "book/checks.html", "notebooks/03_threshold.html"]
# Without "preload": else axe asks for style sheets again, which a page that was opened as a file
# may not.
AXE = {"preload": False, "resultTypes": ["violations"]}
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


def pages(site):
    """Every page of the site, but for the one that leads on to the front page."""
    found = {path for path in site.rglob("*.html") if "_static" not in path.parts}
    return sorted(found - {site / "index.html"})


def listen(page):
    """Keep what a page asks for and what its console says."""
    page.set_default_timeout(60_000)  # on a busy machine, too
    page.requests, page.messages = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    say = lambda message: page.messages.append(f"{message.text} {message.location['url']}")
    page.on("console", say)
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("requestfailed", lambda request: page.messages.append(f"failed: {request.url}"))
    return page


def load(page, url):
    """Go to a page and wait until its formulas are set."""
    page.goto(url)
    page.evaluate("window.MathJax?.startup?.promise")
    return page


@pytest.fixture(scope="module")
def goto(browser):
    """goto(url) opens an address in a window of its own; of those that are only looked at, `kept`,
    one serves all tests.
    """
    pages = []

    def goto(url, kept=False, theme="light", viewport=WIDE):
        found = [page for key, page in pages if key == (url, theme, viewport)]
        if kept and found:
            return found[0]
        page = browser.new_context(color_scheme=theme, viewport=viewport).new_page()
        pages.append(((url, theme, viewport) if kept else None, page))
        return load(listen(page), url)

    yield goto
    for _, page in pages:
        page.context.close()


@pytest.fixture
def visit(goto, site):
    """Open a page, given as a file or as its place in the site, with a query, as it is kept."""

    def visit(path):
        path, _, query = str(path).partition("?")
        return goto(f"{(site / path).as_uri()}?{query}".rstrip("?"), kept=True)

    return visit


@pytest.fixture(scope="module")
def served(site):
    """The address of the site on a server, which like static hosts sends no policy of its own."""
    # In a process of its own: of two threads that start at once under coverage one may die, and its
    # request is never answered.
    options = ["--bind", "127.0.0.1", "--directory", site]
    command = [sys.executable, "-u", "-m", "http.server", "0", *options]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with subprocess.Popen(command, **pipes) as server:
        yield re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
        server.terminate()


@pytest.fixture(params=[pytest.param("file", marks=pytest.mark.depth), "http"])
def home(request, site):
    """The address of the site as a folder, and on a server."""
    return f"{site.as_uri()}/" if request.param == "file" else request.getfixturevalue("served")


FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PICTURES = """[...document.querySelectorAll('article img')].map((image) => ({
    src: image.src, said: Number(image.getAttribute('width')),
    shown: [image.getBoundingClientRect().width, image.getBoundingClientRect().height],
    natural: [image.naturalWidth, image.naturalHeight]}))"""


def look(page):
    """Everything that is measured on one page: first wide, then as on a phone, last with all code
    shown.
    """
    found = {"pictures": [], "sideways": {}}
    for name, viewport in (("wide", WIDE), ("phone", PHONE)):
        page.set_viewport_size(viewport)
        found["pictures"] += page.evaluate(PICTURES)
        found["sideways"][name] = page.evaluate(SIDEWAYS)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found["sideways"]["phone, all shown"] = page.evaluate(SIDEWAYS)
    page.set_viewport_size(WIDE)
    # the page's own scripts come to know
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
    found["sideways"]["wide, all shown"] = page.evaluate(SIDEWAYS)
    # formulas that are not set, in unopened definitions, too
    found["raw"] = page.evaluate("""document.querySelectorAll('mjx-merror').length + document
        .querySelector('main').textContent.split(/\\\\\\(|\\\\frac|\\\\lambda/).length - 1""")
    found["formulas"] = page.locator("mjx-container").count()
    found["axe"] = [
        (rule["id"], rule["impact"], node["target"], node["failureSummary"])
        for rule in Axe().run(page, options=AXE).response["violations"]
        for node in rule["nodes"]
    ]
    return found


LOOKS = [("light", FEW), ("dark", FEW[-1:])]
ALL = [pytest.param((theme, None), marks=pytest.mark.depth) for theme in ("light", "dark")]


@pytest.fixture(
    scope="module",
    params=[*LOOKS, *ALL],
    ids=["light, some", "dark, one", "light, all", "dark, all"],
)
def seen(request, site, browser):
    """What pages show in a theme: {page: measurements}. One visit each: they take the time."""
    theme, names = request.param
    context, found = browser.new_context(color_scheme=theme, viewport=WIDE), {}
    for path in pages(site) if names is None else [site / name for name in names]:
        page = listen(context.new_page())
        load(page, path.as_uri())
        page.wait_for_load_state("networkidle")
        heard = {"requests": list(page.requests), "messages": list(page.messages)}
        found[str(path.relative_to(site))] = heard | look(page)
        page.close()
    context.close()
    return found


def test_pages_ask_no_other_host_and_complain_of_nothing(seen):
    for path, page in seen.items():
        schemes = {urlsplit(url).scheme for url in page["requests"]}
        assert schemes and schemes <= {"file", "data", "blob"}, (path, page["requests"])
        assert page["messages"] == [], path


def test_axe_finds_nothing_serious(seen):
    for path, page in seen.items():
        assert [found for found in page["axe"] if found[1] in ("serious", "critical")] == [], path


def test_axe_would_find_something(visit):
    page = visit("book/index.html")
    page.evaluate("document.querySelector('article p').style.color = '#ddd'")
    found = Axe().run(page, context="article p", options=AXE).response["violations"]
    assert "color-contrast" in [one["id"] for one in found]


def test_pages_never_scroll_sideways(seen):
    for path, page in seen.items():
        assert max(page["sideways"].values()) <= 0, (path, page["sideways"])


def test_pictures_are_sharp_and_legible_on_a_phone(seen):
    shown = [(path, picture) for path, page in seen.items() for picture in page["pictures"]]
    for where in shown:
        picture = where[1]
        (width, height), natural = picture["shown"], picture["natural"]
        assert natural[0] >= 2 * width - 2, where  # twice the resolution
        assert height / width == pytest.approx(natural[1] / natural[0], rel=0.02), where
        # its box scrolls, letters stay legible
        assert width >= 0.95 * min(picture["said"], 600) > 0, where
    assert len(shown) > 2 * len(seen)


def test_formulas_are_set(seen):
    for path, page in seen.items():
        assert page["raw"] == 0, path
    assert sum(page["formulas"] for page in seen.values()) > 30 * len(seen)


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
    link.click(trial=True)
    assert "glossary.html#term-" in link.get_attribute("href")


@pytest.mark.parametrize(
    "widths", [(360, 1150), pytest.param((720, 900, 1280), marks=pytest.mark.depth)]
)
def test_words_stay_on_the_screen(visit, widths):
    page = visit("book/setting.html")
    for width in widths:
        page.set_viewport_size({"width": width, "height": 800})
        for word in page.locator("article .word").all():
            word.locator("> a").focus()
            box = word.locator(".tip").bounding_box()
            assert 0 <= box["x"] and box["x"] + box["width"] <= width, (width, word.inner_text())
            assert page.evaluate(SIDEWAYS) <= 0
    page.set_viewport_size(WIDE)


def test_search_answers_from_a_file(visit):
    page = visit("search.html?q=bisection")
    page.wait_for_selector("#search-results li")
    page.wait_for_load_state("networkidle")
    assert page.messages == []
    first = page.locator("#search-results li a").first
    assert "notebooks/03_threshold.html" in first.get_attribute("href")


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
    sides = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article"
    for part in page.locator(f"{sides}, .page-tools, .prev-next-area").all():
        assert not part.is_visible()
    assert [title.is_visible() for title in page.locator("h1").all()].count(True) == 1
    for part in "figure img", "table.ledger":
        assert page.locator(part).first.is_visible()
    inside = page.evaluate("""[...document.querySelectorAll('article img, article table')]
        .map((one) => one.getBoundingClientRect().right <= document.documentElement.clientWidth)""")
    assert inside and all(inside)
    pdf = page.pdf(format="A4")
    page.emulate_media(media="screen")
    assert pdf.startswith(b"%PDF") and 4 <= pdf.count(b"/Type /Page\n") <= 30


def test_the_whole_site_can_be_taken_home(site, visit, tmp_path):
    front = BeautifulSoup((site / "book" / "index.html").read_text(), "html.parser")
    [link] = front.select("a[href$='site.zip']")
    assert (site / "book" / link["href"]).samefile(site / "site.zip")
    with zipfile.ZipFile(site / "site.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    [home] = tmp_path.iterdir()
    files = lambda top: {path.relative_to(top) for path in top.rglob("*") if path.is_file()}
    assert files(home) == files(site) - {Path("site.zip"), Path(".buildinfo")}
    assert "book/index.html" in (home / "index.html").read_text()  # it leads on to the front page
    page = visit(home / "book" / "index.html")
    assert page.locator("table.ledger").is_visible() and page.messages == []


# The content security policy
# ---------------------------------------------------------------------------


def test_every_page_has_its_policy_ahead_of_all_that_it_is_about(site):
    everything = list(site.rglob("*.html"))
    assert len(everything) > 20
    for path in everything:
        html = path.read_text()
        page = BeautifulSoup(html, "html.parser")
        [meta] = page.find_all("meta", attrs={"http-equiv": "Content-Security-Policy"})
        assert {tag.name for tag in meta.find_all_previous(True)} <= {"html", "head", "meta"}, path
        assert len(html.partition("<meta charset")[0]) < 1000  # where a browser looks for it
        policy = dict(part.split(" ", 1) for part in meta["content"].split("; "))
        assert policy["default-src"] == policy["object-src"] == policy["base-uri"] == "'none'"
        self, *hashes = policy["script-src"].split()
        assert self == "'self'"
        assert all(re.fullmatch(r"'sha256-[\w+/]{43}='", one) for one in hashes)
        scripts = {script.get_text() for script in page.find_all("script", src=False)}
        assert len(hashes) == len(scripts)
        allowed = {"'self'", "'none'", "data:", "'unsafe-inline'", *hashes}
        assert {one for sources in policy.values() for one in sources.split()} <= allowed
        assert [name for name, sources in policy.items() if "unsafe" in sources] == ["style-src"]


def test_pages_from_a_server_keep_to_it_and_their_formulas_can_be_read_aloud(goto, served):
    """What they ask for and say from a folder is seen above, on every page. The words of formulas
    are asked for, which connect-src is about, and a page that was opened as a file may not read
    files.
    """
    page = goto(f"{served}book/setting.html")
    page.wait_for_load_state("networkidle")
    assert page.messages == [] and page.requests
    assert all(url.startswith((served, "data:")) for url in page.requests)
    page.goto(f"{served}index.html")
    page.wait_for_url(f"{served}book/index.html")
    # the page that leads on names no icon, so that the browser may ask for one
    assert all("404" in text and "/favicon.ico" in text for text in page.messages)
    load(page, f"{served}book/setting.html")
    page.locator("article mjx-container").first.click(button="right")
    page.get_by_role("menuitem", name="Accessibility").hover()
    page.get_by_role("menuitemcheckbox", name="Activate").click()
    until(page, "localStorage.getItem('MathJax-Menu-Settings')?.includes('explorer')")
    page.reload()
    spoken = "article mjx-container[tabindex='0'] [data-semantic-id]"
    page.wait_for_selector(spoken, state="attached")
    assert any(url.endswith("sre/mathmaps/en.json") for url in page.requests)


def test_what_pages_do_is_allowed(goto, home):
    from_home = lambda page: all(url.startswith((home, "data:", "blob:")) for url in page.requests)
    page = goto(f"{home}notebooks/03_threshold.html")
    page.wait_for_load_state("networkidle")
    assert page.requests and from_home(page) and page.locator("mjx-container").count() > 0
    page.get_by_role("button", name="Show all code").click()
    assert page.locator("details.hide pre").first.is_visible()
    copy = page.locator("button.copybtn").first
    copy.click(force=True)
    assert copy.get_attribute("data-tooltip") == "Copied!"
    page.locator("button.theme-switch-button:visible").first.click()
    page.locator("button.btn-fullscreen-button:visible").click()
    until(page, "document.fullscreenElement")
    page.keyboard.press("Escape")
    page.evaluate("document.exitFullscreen().catch(() => {})")
    word = page.locator("article .word").first
    word.locator("> a").focus()
    assert word.locator(".tip").is_visible()
    if home.startswith("http"):  # from a folder, a browser may show a file instead
        for link, name in (
            ("#fig-threshold a.figure-data", "fig-threshold.csv"),
            (".page-tools a[download]", "03_threshold.ipynb"),
        ):
            with page.expect_download() as download:
                page.locator(link).first.click()
            assert download.value.suggested_filename == name
    page.locator("button.search-button__button:visible, button.search-button:visible").first.click()
    field = page.locator("input[name=q]:visible").first
    field.fill("bisection")
    field.press("Enter")  # which form-action is about
    page.wait_for_selector("#search-results li")
    assert "search.html?q=bisection" in page.url and page.messages == []

    page = goto(f"{home}book/explorer.html#lz=0.004")
    until(page, "document.querySelector('#ex-name').textContent")
    assert page.locator("#ex-lz").input_value() == "0.004" and page.messages == []
    assert page.requests and from_home(page)


# What an attacker might get into a page, and the directive that is to stop it; a page within the
# page has the same policy, and tells nobody else. HARM stands for a script that could do harm.
PLANTED = {
    "<script>HARM</script>": "script-src-elem",
    "<img src='data:,' onerror='HARM'>": "script-src-attr",
    "<svg onload='HARM'></svg>": "script-src-attr",
    "<script src='data:text/javascript,HARM'></script>": "script-src-elem",
    "<iframe srcdoc='<script>parent.HARM</script>'></iframe>": None,
    "<script src='http://127.0.0.1:9/harm.js'></script>": "script-src-elem",
    "<iframe src='data:text/html,harm'></iframe>": "frame-src",
    "<object data='data:text/html,harm'></object>": "object-src",
    "<img src='http://127.0.0.1:9/what-was-read.png'>": "img-src",
    "<link rel='stylesheet' href='http://127.0.0.1:9/harm.css'>": "style-src-elem",
    "<base href='http://127.0.0.1:9/'>": "base-uri",
}


@pytest.mark.parametrize("policy", [True, False])
def test_what_is_planted_in_a_page_does_harm_only_without_the_policy(site, goto, home, policy):
    name = "book/index.html"
    html = (site / name).read_text()
    if not policy:
        html = re.sub("<meta http-equiv=.Content-Security-Policy[^>]*>", "", html)
    planted = "".join(text.replace("HARM", f"harm.push({n})") for n, text in enumerate(PLANTED))
    content = html.replace("</article>", f"{planted}</article>", 1)
    assert planted in content
    page = goto("about:blank")
    page.add_init_script("""window.harm = []; window.stopped = [];
        document.addEventListener('securitypolicyviolation',
            (event) => stopped.push(event.effectiveDirective));""")
    page.route(home + name, lambda route: route.fulfill(body=content, content_type="text/html"))
    load(page, home + name)
    expected = sorted(filter(None, PLANTED.values()))
    until(page, f"stopped.length >= {len(expected)}" if policy else "harm.length >= 5")
    assert sorted(page.evaluate("stopped")) == (expected if policy else [])
    assert sorted(page.evaluate("harm")) == ([] if policy else [0, 1, 2, 3, 4])


SCRIPTS = [
    '"><img src=x onerror="window.harm=1">',
    "<svg onload=window.harm=1>",
    "javascript:window.harm=1",
    "</script><script>window.harm=1//",
]


def test_nothing_of_an_address_becomes_part_of_a_page(goto, home):
    page = goto(f"{home}book/explorer.html")
    until(page, "document.querySelector('#ex-name').textContent")
    tags = page.locator("#explorer *").count()
    for field in ("ka", "kb", "na", "nb", "lz", "lb", "other"):
        for script in SCRIPTS:
            coded = urlencode({"lz": "0.004", field: script})
            for fragment in (f"lz=0.004&{field}={script}", coded):
                page.evaluate("(text) => { location.hash = text; }", fragment)
            page.evaluate(FRAMES)
            planted = "#explorer :is(img, script, iframe, [onload], [onerror])"
            assert page.locator(planted).count() == 0
    assert page.locator("#explorer *").count() < 2 * tags
    assert page.messages == [] and page.evaluate("window.harm") is None
    for query in ("q", "highlight"):
        page = goto(f"{home}search.html?" + urlencode({"q": "bisection", query: " ".join(SCRIPTS)}))
        until(page, "document.querySelector('#search-results p')?.textContent")
        assert page.locator("main :is(img, svg[onload], iframe, [onerror])").count() == 0
        assert page.messages == [] and page.evaluate("window.harm") is None
