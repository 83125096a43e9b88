"""The ledger: what passes, what is shown, what is stored."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from ncutils import UFM, Ledger, solve, solve_two_groups
from ncutils.ledger import LedgerError

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What `show` displays, as text; no ledger folder is set."""
    monkeypatch.delenv("NCUTILS_LEDGERS", raising=False)
    texts = []
    monkeypatch.setattr("IPython.display.display", lambda ledger: texts.append(repr(ledger)))
    return texts


def result(check, *args, **kwargs):
    """Whether the only row passed, as `show` judges it."""
    ledger, other = Ledger("test"), {"PASS": "FAIL", "FAIL": "PASS"}
    getattr(ledger, check)("something", *args, **kwargs)
    try:
        ledger.show()
        word = "PASS"
    except LedgerError:
        word = "FAIL"
    assert word in repr(ledger) and other[word] not in repr(ledger)
    assert ledger.rows[0]["passed"] == (word == "PASS")
    return word == "PASS"


@pytest.mark.parametrize(
    "measured, predicted, atol, rtol, passes",
    [
        (1.0, 1.0, 0, 0, True),
        (1.0, 1.0 + 1e-15, 0, 0, False),
        (1.5, 1.0, 0.5, 0, True),
        (0.5, 1.0, 0.5, 0, True),
        (1.5, 1.0, 0.4999, 0, False),
        (-110, -100, 0, 0.1, True),
        (-111, -100, 0, 0.1, False),
        (112, 100, 2, 0.1, True),
        (np.float32(0.5), np.float64(0.5), 0, 0, True),
        (3, 3, 0, 0, True),
        *((number, 1.0, 1, 0, False) for number in (NAN, INF)),
        *((1.0, number, 1, 0, False) for number in (NAN, INF, -INF)),
        (NAN, NAN, 1, 0, False),
    ],
)
def test_check_passes_within_the_tolerance(measured, predicted, atol, rtol, passes):
    assert result("check", measured, predicted, atol=atol, rtol=rtol) == passes
    if not atol and not rtol:
        assert result("check", measured, predicted) == passes


@pytest.mark.parametrize(
    "measured, bound, at_most, at_least",
    [
        (1.0, 1.0, True, True),
        (0.5, 1.0, True, False),
        (2, 1, False, True),
        (-INF, 0, True, False),
        (INF, 0, False, True),
        (NAN, 1.0, False, False),
        (1.0, NAN, False, False),
    ],
)
def test_bounds(measured, bound, at_most, at_least):
    assert result("check_at_most", measured, bound) == at_most
    assert result("check_at_least", measured, bound) == at_least


@pytest.mark.parametrize(
    "fact", [True, False, np.True_, np.False_, np.array([1, 2]).all(), np.zeros(2).any()]
)
def test_facts(fact):
    assert result("check_true", fact) == bool(fact)


def full(name="claim", folder=None):
    ledger = Ledger(name, folder)
    ledger.check("exact number", 0.123456789, 0.123456, atol=1e-5)
    ledger.check("trained number", 0.777654321, 0.777, atol=1e-2, evidence="trained")
    ledger.check_at_most("trained gap", 3.456789e-10, 1e-9, evidence="trained")
    ledger.check_at_least("network accuracy", 0.987654321, 0.9, evidence="network")
    ledger.check_at_most("residual", 5.6789e-13, 1e-12)
    ledger.check_true("merged", True, evidence="network")
    return ledger


def test_the_table_row_by_row():
    header, rows = full().table()
    assert header == ["check", "evidence", "measured", "predicted", "tolerance", "result"]
    assert rows == [
        ["exact number", "exact", "0.12346", "0.12346", "1.0e-05", "PASS"],
        ["trained number", "trained", "", "0.78", "1.0e-02", "PASS"],
        ["trained gap", "trained", "", "≤ 1e-09", "", "PASS"],
        ["network accuracy", "network", "", "≥ 0.9", "", "PASS"],
        ["residual", "exact", "", "≤ 1e-12", "", "PASS"],
        ["merged", "network", "", "", "", "PASS"],
    ]


@pytest.mark.parametrize("show", [repr, Ledger._repr_html_])
def test_other_trained_values_show_the_same_table(show):
    """Trained values differ between machines, so stored pages must not hold one digit of them."""

    def ledger(shift):
        other = Ledger("claim")
        other.check("a", 0.5 + shift, 0.5, atol=0.1, evidence="trained")
        other.check("b", 0.25 - shift, 0.25, rtol=0.5, evidence="network")
        other.check_at_most("c", 1e-10 + shift, 0.1, evidence="trained")
        other.check_at_least("d", 0.9 + shift, 0.8, evidence="network")
        other.check_at_most("e", 1e-15 + shift, 0.1)
        return show(other)

    assert ledger(0) == ledger(0.0123456789) == ledger(1e-17)


def test_exact_values_are_printed_to_the_digits_that_the_tolerance_speaks_for():
    ledger = Ledger("test")
    for tolerance in (0.0, 1e-3, 0.1, 1, 200.0):
        ledger.check("x", 123.456789012, 123.456789012, atol=tolerance)
    shown = [row[2] for row in ledger.table()[1]]
    assert shown == ["123.45678901", "123.457", "123.5", "123", "123"]


def test_the_html_table_is_whole_and_escaped():
    ledger = full()
    ledger.check_true("a < b & <script>", True)
    text = ledger._repr_html_()
    assert "a &lt; b &amp; &lt;script&gt;" in text and "<script>" not in text
    counts = {'<th scope="row">': 7, "<th scope=col>": 6, "PASS": 7, "<td": 7 * 5}
    assert {part: text.count(part) for part in counts} == counts
    assert "<caption>Ledger: claim</caption>" in text


def test_show_displays_all_rows_and_only_then_raises(shown):
    ledger = Ledger("claim")
    ledger.check("first", 1.0, 2.0, atol=0.5)
    ledger.check("second", 2.0, 2.0)
    ledger.check_at_most("third", 5.0, 4.0)
    with pytest.raises(LedgerError) as failure:
        ledger.show()
    [text], message = shown, str(failure.value)
    results = re.findall(r"^(\w+) .* (PASS|FAIL)$", text, re.M)
    assert results == [("first", "FAIL"), ("second", "PASS"), ("third", "FAIL")]
    assert "first: measured 1.0, = 2.0 (tolerance 0.5)" in message
    assert "third: measured 5.0, <= 4.0" in message
    assert "second" not in message and isinstance(failure.value, AssertionError)


def test_an_empty_ledger_proves_nothing(shown):
    with pytest.raises(LedgerError, match="ledger claim has no row"):
        Ledger("claim").show()
    assert len(shown) == 1


def test_show_falls_back_to_print(monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "IPython.display", None)  # as where IPython is missing
    full().show()
    assert "exact number" in capsys.readouterr().out


# Stored values ------------------------------------------------------------------------------------


def test_the_file_holds_every_value_in_full(tmp_path):
    ledger = full(folder=tmp_path / "new" / "folder")
    ledger.show()
    [path] = (tmp_path / "new" / "folder").iterdir()  # and no half-written one beside it
    assert path.name == "claim.json" and path.stat().st_mode & 0o777 == 0o644
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored == {"ledger": "claim", "rows": ledger.rows}
    values = dict(measured=0.777654321, predicted=0.777, tolerance=1e-2, passed=True)
    words = dict(what="trained number", theorem=None, evidence="trained", relation="=")
    assert stored["rows"][1] == values | words | dict(certificate=None, headline=False)
    assert stored["rows"][3]["measured"] == 0.987654321


def test_the_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    full().show()
    assert list(tmp_path.iterdir()) == []  # nothing without one
    monkeypatch.setenv("NCUTILS_LEDGERS", str(tmp_path))
    full().show()
    full("other").show()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claim.json", "other.json"]


def test_failed_checks_are_stored_too_and_values_that_are_not_finite_stay_json(tmp_path):
    ledger = Ledger("claim", tmp_path)
    ledger.check("a", NAN, 1.0, atol=0.1)
    ledger.check_at_most("b", INF, 1.0)
    with pytest.raises(LedgerError):
        ledger.show()
    text = (tmp_path / "claim.json").read_text()
    rows = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["rows"]
    assert [(row["measured"], row["passed"]) for row in rows] == [("nan", False), ("inf", False)]


def test_a_second_run_replaces_the_file(tmp_path):
    full(folder=tmp_path).show()
    short = Ledger("claim", tmp_path)
    short.check_true("only", True)
    short.show()
    assert len(json.loads((tmp_path / "claim.json").read_text())["rows"]) == 1


NO_EVIDENCE = "evidence = .*: must be one of 'exact', 'trained', 'network'"
NO_FACTS = [1, "yes", None, [], np.array([True]), np.float64(1)]


@pytest.mark.parametrize(
    "check, arguments, options, message",
    [
        ("check", (1.0, 1.0), dict(atol=-1), "atol"),
        ("check", (1.0, 1.0), dict(rtol=-0.1), "rtol"),
        ("check", (1.0, 1.0), dict(atol=NAN), "atol"),
        ("check", (1.0, 1.0), dict(atol=INF), "atol"),
        ("check", ("b", 1), {}, "measured = 'b': must be a number"),
        ("check_at_most", (1, None), {}, "bound = None: must be a number"),
        ("check", (1, 1), dict(evidence="proof"), NO_EVIDENCE),
        ("check_true", (True,), dict(evidence=None), NO_EVIDENCE),
        ("check_at_most", (1, 1), dict(evidence=""), NO_EVIDENCE),
        ("check_at_least", (1, 1), dict(evidence="Exact"), NO_EVIDENCE),
        *(("check_true", (fact,), {}, "fact = .*: must be True or False") for fact in NO_FACTS),
    ],
)
def test_what_is_no_check_is_refused_and_leaves_no_row(check, arguments, options, message):
    ledger = Ledger("test")
    with pytest.raises(ValueError, match=message):
        getattr(ledger, check)("x", *arguments, **options)
    assert ledger.rows == []


def test_rows_tell_their_theorem_and_the_worst_certificate_behind_them():
    close, tail = solve(UFM.from_lam_z([30, 30, 5], 0.01), tol=1e-12), solve(UFM([5, 4], 0.1, 0.1))
    batch = solve_two_groups(2, 2, 50, [10, 20], 0.01)
    model = SimpleNamespace(certificate=max(tail.certificate, close.certificate))
    ledger = Ledger("claim")
    ledger.check_true("before", True)
    ledger.about("thm-threshold", close, batch)
    ledger.check_true("first", True, headline=True)
    ledger.about("prop-relu", {"a": [model], "b": (close,)})
    ledger.check_at_most("second", 1, 2)
    ledger.about("prop-rate")
    ledger.check("third", 1, 1)
    two = max(abs(close.relative_gap), abs(tail.relative_gap))
    assert [(row["theorem"], row["certificate"], row["headline"]) for row in ledger.rows] == [
        (None, None, False),
        ("thm-threshold", max(abs(close.relative_gap), batch.certificate), True),
        ("prop-relu", two, False),
        ("prop-rate", None, False),
    ]


@pytest.mark.parametrize("gap", [2e-9, -2e-9, NAN])
def test_rows_cannot_rest_on_an_optimum_that_is_not_certified(gap):
    good, bad = SimpleNamespace(certificate=1e-15), SimpleNamespace(certificate=gap)
    ledger = Ledger("claim")
    for optima in ([good, bad], [bad, good]):
        with pytest.raises(ValueError, match="relative duality gap"):
            ledger.about("thm-threshold", optima)
    if gap == gap:
        ledger.about("thm-threshold", bad, at_most=2e-9)  # said openly
        ledger.check_true("open", True)
        assert ledger.rows[0]["certificate"] == 2e-9


@pytest.mark.parametrize("thing", [None, 1e-12, "solution", np.zeros(3)])
def test_what_has_no_certificate_is_refused(thing):
    with pytest.raises(ValueError, match="optima hold"):
        Ledger("claim").about("thm-threshold", thing)
