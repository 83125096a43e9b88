"""The explorer in a real browser: its numbers against the exact solver, its controls by keyboard,
its looks by machine.
"""

import math
import re

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from conftest import SHARE, until

from ncutils import UFM, solve_two_groups, theory
from ncutils.ufm import Phase

INF = math.inf
KEYS = "kA", "kB", "nA", "nB", "lamZ", "lamB"
FIELDS = "ka", "kb", "na", "nb", "lz", "lb"
PHASES = list(Phase)
KINDS = "logits", "features", "classifier"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
LIGHT = {"viewport": WIDE}
DARK = {"viewport": PHONE, "color_scheme": "dark", "has_touch": True, "is_mobile": True}
START, OTHER = (5, 5, 500, 100, 0.0027, 0.02), (2, 2, 7, 7, 0.01, 0.02)
DEPTH = pytest.mark.depth


def fragment(setting):
    values = ["none" if value == INF else f"{value:.17g}" for value in setting]
    return "#" + "&".join(f"{name}={value}" for name, value in zip(FIELDS, values))


def show(page, setting):
    """Bring an open page to a setting by way of another, so that nothing of a former test stays."""
    for values in OTHER, setting:
        page.evaluate("hash => { location.replace(hash); scrollTo(0, 0); }", fragment(values))
        until(page, f"explorer.setting().nA === {values[2]}")


def local(url):
    return url.startswith(("file:", "data:", "blob:"))


@pytest.fixture(scope="module")
def opened(browser):
    """{options: page}: one of each kind for all tests, and what the browser complains of."""
    pages = {"complaints": []}
    yield pages
    for page in list(pages.values())[1:]:
        page.context.close()


@pytest.fixture
def visit(site, browser, opened):
    """visit(setting) shows the page, watched: whatever the browser complains of or asks of other
    hosts fails the test.
    """
    complaints, own = opened["complaints"], []

    def visit(setting=START, address=None, **options):
        options = LIGHT | options
        key = str(options)
        if address is None and key in opened:
            show(opened[key], setting)
            return opened[key]
        page = browser.new_context(**options).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: local(request.url) or complaints.append(request.url))
        page.goto((site / "book" / "explorer.html").as_uri() + (address or fragment(setting)))
        if address is None:
            opened[key] = page
        else:
            own.append(page)
        if options.get("java_script_enabled", True):
            until(page, "window.explorer && document.querySelector('#ex-name').textContent")
        return page

    yield visit
    for page in own:
        page.context.close()
    found = complaints[:]
    complaints.clear()
    assert found == []


@pytest.fixture
def page(visit):
    return visit()


def redrawn(page):
    """Wait until the page shows what its controls say."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def setting_of(page):
    setting = page.evaluate("explorer.setting()")
    return tuple(setting[key] for key in KEYS)


def numbers(page):
    """All the tables' cells as text."""
    redrawn(page)
    return page.eval_on_selector_all(".ex-tables td", "all => all.map(cell => cell.textContent)")


def pictures(page):
    return page.eval_on_selector_all(".ex-panels svg", "all => all.map(one => one.innerHTML)")


def error_at(page, name):
    return page.inner_text(f"#ex-{name}-error").replace("\N{NO-BREAK SPACE}", " ")


def phase_of(page):
    redrawn(page)
    return Phase(page.inner_text("#ex-name").lower())


def type_into(page, name, text):
    """Put text into a field at once, so that its beginnings are no settings of their own."""
    page.focus(f"#ex-{name}")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(text)


def random_settings(number, seed=20230918):
    """Settings in all phases and near the lines between them, with and without bias, with groups of
    one class.
    """
    rng = np.random.default_rng(seed)
    settings = []
    for i in range(number):
        k_a, k_b = (1 if rng.random() < 0.15 else int(rng.integers(2, 51)) for _ in "AB")
        n_b = int(10 ** rng.uniform(0, 4))
        n_a = n_b if i % 10 == 0 else int(n_b * 10 ** rng.uniform(0, 2)) + 1
        lam_b = INF if i % 3 == 0 else 10 ** rng.uniform(-4, 1)
        m, v = math.sqrt(n_b), theory.vanishing_threshold(k_a, k_b, n_a, n_b, lam_b)
        t = theory.trivial_threshold(k_a, k_b, n_a, n_b, lam_b)
        line = (m, v, t)[int(rng.integers(3))]
        side = rng.choice([-1, 1]) * 10 ** rng.uniform(-9, -3)
        between = [(m * 1e-4, min(m, v)), (m, v), (v, t), (t, 50 * t)]
        low, high = between[i % 5] if i % 5 < 4 else (line * (1 + side),) * 2
        level = low * (high / low) ** rng.uniform(0.02, 0.98)
        settings.append((k_a, k_b, n_a, n_b, level / (k_a * n_a + k_b * n_b), lam_b))
    return settings


# The numbers
# ---------------------------------------------------------------------------


def test_numbers_agree_with_the_exact_solver_in_500_settings(page):
    settings = random_settings(500)
    rows = page.evaluate(
        """settings => settings.map(([kA, kB, nA, nB, lamZ, lamB]) => {
             const s = explorer.solve({kA, kB, nA, nB, lamZ, lamB}), [a, b] = s.columns;
             const {logits, features, classifier} = s.cosines;
             return [a.own, a.other, a.cross, b.own, b.other, b.cross, ...s.bias, ...s.gaps,
                     ...logits, ...features, ...classifier, s.objective, s.gap, s.phase];
           })""",
        settings,
    )
    *shown, gap, phase = np.array(rows).T
    exact = solve_two_groups(*np.array(settings).T)
    cosines = [exact.cosines(of)[group] for of in KINDS for group in ("A", "B", "AB")]
    names = "own_a other_a cross_a own_b other_b cross_b bias_a bias_b a_a a_b".split()
    expected = [*(getattr(exact, name) for name in names), *cosines, exact.objective]
    shown, expected = np.array(shown), np.array(expected)
    expected_phase = np.array([PHASES.index(p) for p in exact.phase])
    counts = np.bincount(expected_phase, minlength=4)
    assert (counts >= 50).all(), counts
    assert sum(s[0] == 1 for s in settings) >= 50 and sum(s[1] == 1 for s in settings) >= 50
    assert np.array_equal(phase, expected_phase)
    assert np.array_equal(np.isnan(shown), np.isnan(expected))
    error = np.nanmax(np.abs(shown - expected), axis=1)
    assert error.max() <= 1e-6
    assert np.abs(gap).max() <= 1e-12


def test_thresholds_agree_with_the_closed_forms(page):
    settings = random_settings(200, seed=7)
    shown = page.evaluate(
        """settings => settings.map(([kA, kB, nA, nB, , lamB]) => {
             const t = explorer.thresholds({kA, kB, nA, nB, lamB});
             return [t.collapse, ...t.vanish, t.trivial];
           })""",
        settings,
    )
    lines = lambda *sizes: (*theory.vanishing_thresholds(*sizes), theory.trivial_threshold(*sizes))
    expected = [
        (theory.minority_threshold(sizes[3]), *lines(*sizes, lam_b))
        for *sizes, _, lam_b in settings
    ]
    assert np.array(shown) == pytest.approx(np.array(expected), rel=1e-11)


VANISH = "([kA, kB, nA, nB, lamB]) => explorer.thresholds({kA, kB, nA, nB, lamB}).vanish"
THREE = [(10, 10**4, 10**4, 1, 0.0016), (20, 10**4, 10**4, 1, 6.3e-4), (10, 5000, 10**6, 1, 2e-4)]


def test_all_crossings_are_found_where_there_are_three(page):
    shown = page.evaluate(f"all => all.map({VANISH})", THREE)
    expected = [theory.vanishing_thresholds(*case) for case in THREE]
    assert [len(found) for found in shown] == [3, 3, 3]
    assert np.array(shown) == pytest.approx(np.array(expected), rel=1e-11)
    for (k_a, k_b, n_a, n_b, lam_b), found in zip(THREE, expected):
        levels = np.outer(found, [1 - 1e-6, 1 + 1e-6]).ravel() / (k_a * n_a + k_b * n_b)
        phases = page.evaluate(
            """all => all.map(([kA, kB, nA, nB, lamB, lamZ]) =>
                explorer.solve({kA, kB, nA, nB, lamB, lamZ}).phase)""",
            [(k_a, k_b, n_a, n_b, lam_b, level) for level in levels],
        )
        assert phases == [1, 2, 2, 1, 1, 2]


def test_texts_name_the_crossings_on_both_sides(page):
    for level, name, where in (
        (4.0, "Minority collapse", "from √n B = 1 to below v = 4.348"),
        (5.5, "Minority vanishes", "from v = 4.348 to below v = 7.193"),
        (10, "Minority collapse", "from v = 7.193 to below v = 14.15"),
        (14.2, "Minority vanishes", "from v = 14.15 to below √n A = 100"),
    ):
        setting = dict(zip(("kA", "kB", "nA", "nB", "lamB", "lamZ"), (*THREE[0], level / 110000)))
        page.evaluate("setting => explorer.show(setting)", setting)
        assert phase_of(page) == Phase(name.lower())
        until(page, f"document.querySelector('#ex-live').textContent.startsWith('{name}')")
        assert where in page.inner_text("#ex-live").replace("\N{NO-BREAK SPACE}", " ")
        assert "4.34846, 7.19322, 14.1463" in numbers(page)
        drawn = page.text_content("#ex-axis")
        assert "v = 4.348, 7.193, 14.15" in drawn and drawn.count("v =") == 1
        assert "v 4.348, v 7.193, v 14.15" in page.get_attribute("#ex-axis", "aria-label")


def test_one_crossing_is_found_in_every_setting_that_can_be_entered(page):
    """The curve in the diagram has one branch; settings with K_B > e² K_A, where nothing is proved
    for all λ_b.
    """
    rng = np.random.default_rng(3)
    settings = []
    for k_a in rng.integers(2, 7, round(2000 * SHARE)).tolist():
        k_b = int(rng.integers(math.ceil(7.4 * k_a), 51))
        settings.append((k_a, k_b, 10 ** rng.uniform(0.5, 6), 1, 10 ** rng.uniform(-4, 0)))
    assert {len(found) for found in page.evaluate(f"all => all.map({VANISH})", settings)} == {1}


def test_the_tables_show_the_solution(visit):
    page = visit((3, 7, 500, 100, 0.0041, 0.02))
    exact = solve_two_groups(3, 7, 500, 100, 0.0041, 0.02)
    cosines = [float(exact.cosines(of)[group]) for of in KINDS for group in ("A", "B", "AB")]
    names = [name + group for name in ("a_", "own_", "other_", "cross_", "bias_") for group in "ab"]
    groups = [getattr(exact, name) for name in names]
    lines = [10.0, theory.vanishing_threshold(3, 7, 500, 100, 0.02), math.sqrt(500)]
    cells = numbers(page)
    assert cells[19] == "distinct"
    assert [float(cell) for cell in cells[:19] + cells[20:-1]] == pytest.approx(
        [*cosines, *groups, 2200, 0.0041 * 2200, *lines, float(exact.objective)], rel=5e-6
    )
    assert abs(float(cells[-1])) < 1e-12


def test_what_has_no_number_says_why(visit):
    for setting, words in (
        ((5, 5, 500, 100, 0.0051, 0.02), {"minority vanishes", "none (zero vector)"}),
        ((1, 4, 300, 100, 0.004, INF), {"none (one class)"}),
    ):
        page = visit(setting)
        assert words <= set(numbers(page))
        assert "NaN" not in page.inner_text("#explorer") + "".join(pictures(page))


# The controls
# ---------------------------------------------------------------------------


def test_every_control_works_by_keyboard_alone(page):
    page.focus("#ex-preset")
    visited = []
    for _ in range(30):
        name = page.evaluate("document.activeElement.id")
        if not name.startswith("ex-"):
            break
        visited.append(name)
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", name
        before = setting_of(page), numbers(page)
        if name == "ex-preset":
            page.keyboard.press("ArrowDown")
        elif name.endswith("-slider"):
            page.keyboard.press("ArrowRight")
        elif name == "ex-nobias":
            page.keyboard.press("Space")
            assert setting_of(page)[5] == INF and numbers(page) != before[1]
            page.keyboard.press("Space")
            assert setting_of(page) == before[0] and numbers(page) == before[1]
        elif name != "ex-copy":
            text = dict(zip(FIELDS, "7 4 901 77 1.5e-3 0.3".split()))[name.removeprefix("ex-")]
            page.keyboard.press("Control+a")
            page.keyboard.type(text)
            assert float(text) in setting_of(page)
        if name not in ("ex-nobias", "ex-copy"):
            assert setting_of(page) != before[0] and numbers(page) != before[1], name
        page.keyboard.press("Tab")
    fields = [f"ex-{field}{part}" for field in FIELDS for part in ("", "-slider")]
    assert set(visited) == {"ex-preset", "ex-nobias", "ex-copy", *fields}


def test_sliders_never_stick(visit):
    page = visit((1, 1, 40, 1, 0.01, 0.02))
    for name, place in ("kb", 1), ("na", 2), ("nb", 3):
        page.focus(f"#ex-{name}-slider")
        former = setting_of(page)[place]
        for _ in range(12):
            page.keyboard.press("ArrowRight")
            assert setting_of(page)[place] > former
            former = setting_of(page)[place]


def test_bad_input_says_what_is_allowed_and_keeps_the_picture(page):
    before, drawn = numbers(page), pictures(page)
    for name, text, said in (
        ("ka", "2.5", "KA = 2.5: must be a whole number from 1 to 50"),
        ("kb", "0", "KB = 0: must be a whole number from 1 to 50"),
        ("kb", "", "KB = (empty): must be a whole number"),
        ("na", "1e7", "nA = 1e7: must be a whole number from 1 to 1000000"),
        ("na", "99", "nA = 99: must be at least nB = 100"),
        ("nb", "501", "nB = 501: must be at most nA = 500"),
        ("nb", "many", "nB = many: must be a whole number"),
        ("lz", "-1", "λZ = -1: must be a number from 1e-7 to 1"),
        ("lz", "0", "λZ = 0: must be"),
        ("lb", "0x1", "λb = 0x1: must be a number from 0.0001 to 10"),
    ):
        type_into(page, name, text)
        assert said in error_at(page, name)
        assert page.get_attribute(f"#ex-{name}", "aria-invalid") == "true"
        assert page.is_visible("#ex-old")
        assert setting_of(page) == START and numbers(page) == before and pictures(page) == drawn
        until(page, "document.querySelector('#ex-live').textContent.includes('last valid')")
        type_into(page, name, str(START[FIELDS.index(name)]))
        assert page.get_attribute(f"#ex-{name}", "aria-invalid") == "false"
        assert not page.is_visible("#ex-old") and error_at(page, name) == ""
    type_into(page, "lz", "0.004")
    assert numbers(page) != before
    type_into(page, "lz", str(START[4]))
    assert numbers(page) == before


def test_an_error_of_two_fields_is_mended_in_either(page):
    type_into(page, "nb", "600")
    assert "at most" in error_at(page, "nb")
    type_into(page, "na", "700")
    assert error_at(page, "nb") == "" and setting_of(page)[2:4] == (700, 600)


def test_a_slider_beyond_the_majority_is_an_error_too(visit):
    page = visit((5, 5, 100, 100, 0.0027, 0.02))
    page.focus("#ex-nb-slider")
    page.keyboard.press("ArrowRight")
    assert "must be at most nA = 100" in error_at(page, "nb") and setting_of(page)[3] == 100


# The address
# ---------------------------------------------------------------------------


MANY, FEW = (50, 50, 1000000, 1, 1e-7, INF), (4, 9, 1234, 56, 3.21e-4, 0.07)


@pytest.mark.parametrize("setting", [MANY, pytest.param(FEW, marks=DEPTH)])
def test_a_shared_link_shows_the_same_numbers(visit, page, setting):
    for name, value in zip(FIELDS, setting):
        if value == INF:
            page.focus("#ex-nobias")
            page.keyboard.press("Space")
        else:
            type_into(page, name, str(value))
    until(page, "location.hash.includes('lb=')")
    page.wait_for_timeout(400)
    other = visit(address=page.url[page.url.index("#") :])
    assert setting_of(other) == setting_of(page) == setting
    assert numbers(other) == numbers(page) and pictures(other) == pictures(page)


def test_copy_button_hands_out_the_link(page):
    type_into(page, "lz", "0.0044")
    page.focus("#ex-copy")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#ex-copied').textContent")
    assert "lz=0.0044" in page.url
    if page.is_visible("#ex-link"):  # the browser does not let the page write to the clipboard
        assert page.input_value("#ex-link") == page.url
        assert page.evaluate("document.activeElement.id") == "ex-link"
    else:
        assert page.inner_text("#ex-copied") == "Link copied."


def test_a_bad_address_is_explained_and_dragging_leaves_no_trail_in_the_history(visit):
    page = visit(address="#ka=0&nb=oops%3Cb%3E")
    assert "KA = 0" in error_at(page, "ka") and "oops" in error_at(page, "nb")
    assert setting_of(page) == START
    type_into(page, "ka", "6")
    type_into(page, "nb", "60")
    assert setting_of(page)[:4] == (6, 5, 500, 60)
    length = page.evaluate("history.length")
    page.focus("#ex-lz-slider")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(400)
    assert page.evaluate("history.length") == length and f"lz={setting_of(page)[4]}" in page.url


PRESETS = "#ex-preset option[value^='#']"


def test_back_and_forward_step_through_presets(page):
    options = [one.get_attribute("value") for one in page.query_selector_all(PRESETS)]
    first = setting_of(page)
    second, third = (
        page.select_option("#ex-preset", options[n]) and setting_of(page) for n in (2, 6)
    )
    assert len({first, second, third}) == 3
    back, forward = page.go_back, page.go_forward
    for move, expected in (back, second), (back, first), (forward, second), (forward, third):
        move()
        redrawn(page)
        assert setting_of(page) == expected
    assert page.input_value("#ex-preset") == options[6]


def test_presets_have_every_phase_and_a_balanced_one(page):
    found, balanced = set(), 0
    options = page.query_selector_all(PRESETS)
    assert len(options) >= 6
    for value, text in [(option.get_attribute("value"), option.inner_text()) for option in options]:
        page.select_option("#ex-preset", value)
        k_a, k_b, n_a, n_b, lam_z, lam_b = setting_of(page)
        assert page.input_value("#ex-preset") == value  # the address is as the page writes it
        phase = phase_of(page)
        ufm = UFM.from_lam_z((n_a,) * k_a + (n_b,) * k_b, lam_z, lam_b)
        assert phase is (theory.phase(ufm) if n_a > n_b else Phase.DISTINCT)
        for name in PHASES:
            assert name.value not in text or phase is name, text
        found.add(phase)
        balanced += n_a == n_b
        assert ("balanced" in text) == (n_a == n_b)
    assert found == set(PHASES) and balanced


def test_links_to_try_show_what_they_say(page):
    links = page.query_selector_all(".ex-try a")
    seen = []
    for link in links:
        link.click()
        redrawn(page)
        seen.append((phase_of(page), setting_of(page)))
        top = page.evaluate("document.querySelector('#explorer').getBoundingClientRect().top")
        assert top < WIDE["height"] / 2
    told = Phase.DISTINCT
    assert [phase for phase, _ in seen] == [told, Phase.MINORITY_COLLAPSE, told, told]
    assert seen[1][1][4] * 2000 == pytest.approx(10)  # exactly on the line
    page.go_back()
    redrawn(page)
    assert setting_of(page) == seen[-2][1]


# Everybody's page
# ---------------------------------------------------------------------------


def test_the_live_region_tells_the_phase_and_the_numbers(page):
    said = "document.querySelector('#ex-live').textContent"
    until(page, f"{said}.startsWith('Distinct')")
    type_into(page, "lz", "0.0039")
    until(page, f"{said}.startsWith('Minority collapse')")
    text = page.evaluate(said)
    assert re.search(r"within B 1, .*Minority gap: 0\.", text), text
    assert page.get_attribute("#ex-live", "aria-live") == "polite"


def test_drawings_have_text_that_follows(page):
    def texts():
        redrawn(page)
        drawings = page.query_selector_all(".ex-panels svg[role=img]")
        return [one.get_attribute("aria-label") for one in drawings]

    before = texts()
    type_into(page, "lz", "0.0051")
    after = texts()
    assert len(before) == 4 and all(len(text) > 40 for text in before)
    assert all(old != new for old, new in zip(before, after))


MORE = LIGHT, {"viewport": PHONE}, {"color_scheme": "dark"}


@pytest.mark.parametrize("options", [DARK, *(pytest.param(one, marks=DEPTH) for one in MORE)])
def test_axe_finds_nothing_serious(visit, options):
    page = visit(**options)
    assert page.get_attribute("html", "data-theme") == options.get("color_scheme", "light")
    for change in "valid", "bad":
        if change == "bad":
            type_into(page, "nb", "501")
            redrawn(page)
        response = Axe().run(page, context="#explorer", options={"preload": False}).response
        bad = [one for one in response["violations"] if one["impact"] in ("serious", "critical")]
        assert bad == []
        assert len(response["passes"]) > 10


@pytest.mark.parametrize(
    "options, blue", [(LIGHT, "rgb(0, 114, 178)"), (DARK, "rgb(108, 188, 240)")]
)
def test_each_theme_draws_in_its_colours_and_marks_stand_out(visit, options, blue):
    """Contrast of at least 3 of all graphics in A's, B's and across' colours, of letters 4.5."""
    page = visit(**options)
    assert all(len(drawing) > 1000 for drawing in pictures(page))
    assert page.evaluate("getComputedStyle(document.querySelector('.ex-mark')).fill") == blue
    pairs = page.evaluate("""() => [...document.querySelectorAll(
      '.ex-mark, .ex-text-A, .ex-text-B, .ex-text-AB, .ex-panels text, .ex-ring, .ex-line')]
        .map(e => [e.tagName, getComputedStyle(e)]).map(([tag, {fill, stroke}]) =>
          [tag, fill === 'none' ? stroke : fill, getComputedStyle(document.body).backgroundColor])
      """)

    def luminance(color):
        rgb = np.array([float(part) for part in re.findall(r"[\d.]+", color)[:3]]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    assert len(pairs) > 40
    for tag, color, ground in pairs:
        dark, light = sorted((luminance(color), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= (4.5 if tag == "text" else 3), (tag, color, ground)


def test_a_phone_never_scrolls_sideways(visit):
    long, few = (1, 1, 1000000, 1, 1e-7, 1e-4), (50, 50, 999999, 123456, 1.2345678901e-5, INF)
    for setting in (START, long, few):
        page = visit(setting, **DARK)
        type_into(page, "na", "0.123456789012345678901234567890")
        wide, seen = (f"document.documentElement.{name}Width" for name in ("scroll", "client"))
        assert page.evaluate(f"{wide} <= {seen}")
        inside = page.evaluate("""[...document.querySelectorAll(
            '#explorer :is(input, select, button, table, svg text, p)')]
            .filter(e => !e.closest('[hidden]') && e.id !== 'ex-live')
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.outerHTML)""")
        assert inside == []


def test_results_lie_beside_the_controls_on_a_wide_screen(page):
    names = "#ex-controls", "#ex-map", ".ex-banner", "#ex-diagram"
    controls, *results = (page.query_selector(name).bounding_box() for name in names)
    assert all(box["x"] >= controls["x"] + controls["width"] for box in results)
    for box in controls, results[0]:
        assert box["y"] + box["height"] < WIDE["height"]


def test_without_scripts_the_page_says_so(visit):
    page = visit(java_script_enabled=False)
    assert page.is_visible(".ex-noscript") and not page.is_visible("#explorer")


FILES = ("src", "js"), ("href", "css")


def test_nothing_is_inline(site):
    """No script, handler or style inside the explorer's HTML, so that a strict content security
    policy lets it be.
    """
    page = BeautifulSoup((site / "book" / "explorer.html").read_text(), "html.parser")
    [explorer] = page.select("#explorer")
    tags = explorer.find_all(True)
    assert len(tags) > 80
    inline = lambda tag: any(name == "style" or name.startswith("on") for name in tag.attrs)
    assert [tag for tag in tags if tag.name in ("script", "style") or inline(tag)] == []
    [script], [style] = (page.select(f"[{key}*='explorer.{end}']") for key, end in FILES)
    assert script["src"] == "../_static/explorer.js"
    assert style["href"] == "../_static/explorer.css"


@DEPTH
@pytest.mark.parametrize("k", [10, 50])
def test_redrawing_is_measured(page, k):
    """Printed, not asserted: a time depends on the machine. Each redraw has another λ_b, so that no
    curve is kept from the last.
    """
    times = page.evaluate(
        """async k => {
        const times = [];
        for (let i = 0; i < 300; i++) {
          const start = performance.now(), nA = 500 + i, lamB = 0.02 + 1e-4 * i;
          explorer.show({kA: k, kB: k, nA, nB: 100, lamZ: 0.001 + 1e-6 * i, lamB});
          document.body.getBoundingClientRect();
          times.push(performance.now() - start);
          if (i % 20 === 0) await new Promise(requestAnimationFrame);
        }
        return times;
      }""",
        k,
    )
    middle, most = np.median(times), np.quantile(times, 0.95)
    print(f"K = {2 * k}: {len(times)} redraws in {middle:.2f} ms (median), {most:.2f} ms (95 %)")
    assert len(times) == 300
