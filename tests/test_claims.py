"""`check`, from Python and as a command: it passes where the theory is right, and fails where
theory, solver or training is not.
"""

import dataclasses
import functools
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from ncutils import UFM, check, claims, report, solve, theory
from ncutils.__main__ import main
from ncutils.ufm import Phase

CLAIMS = ("collapse", "angles", "threshold", "diminishing", "relu")
PAPER = [500] * 5 + [100] * 5
EXAMPLE = UFM.from_lam_z(PAPER, 0.003)
vanishing_thresholds = theory.vanishing_thresholds


@pytest.fixture(scope="module", autouse=True)
def the_same_problem_is_solved_and_trained_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "solve", functools.cache(report.solve))
        patch.setattr(report, "train_ufm", functools.cache(report.train_ufm))
        yield


@functools.cache
def of_example(claim):
    """The report on the example, made once; to be read only."""
    return check(claim, EXAMPLE)


def plant(monkeypatch, name, wrong):
    """Put a wrong function in the place of one of the theory, wherever its modules have it."""
    for module in (theory, theory.phases, theory.relu, theory.limits):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, wrong)


def row(found, what, relation="="):
    """The only row of that name."""
    (one,) = (row for row in found.rows if row["what"] == what and row["relation"] == relation)
    return one


def failed(found):
    return [row["what"] for row in found.rows if not row["passed"]]


def run(words):
    return main(["check", *words.split()])


@pytest.mark.parametrize("claim", [*CLAIMS, "all"])
def test_the_example_passes(claim):
    found = of_example(claim)
    assert failed(found) == [] and found.passed and found.relative_gap < 1e-10
    assert found.verdict == f"PASS, all {len(found.rows)} checks"
    problem = "5 classes of n = 500 + 5 classes of n = 100; N = 3000, λ_Z = 0.003, no bias"
    assert repr(found).startswith(f"{claim}: {problem}\n")
    assert repr(found).endswith(found.verdict)
    assert all(row["theorem"] for row in found.rows)


def test_threshold_shows_gaps_and_lines():
    found, Z = of_example("threshold"), solve(EXAMPLE).logits
    for n, k in ((500, 0), (100, 5)):
        gap = row(found, f"n = {n}: gap a (nats)")
        assert gap["measured"] == approx(Z[k, k] - Z[k + 1, k], abs=1e-12)
        assert gap["measured"] == approx(gap["predicted"], abs=1e-10)
    passages = "minority one vector from 10 on, minority zero from 13.8159 on, all zero from"
    assert f"distinct ({passages} 22.3607 on)" in found.said[1]
    assert row(found, "n = 100: told apart, 9 < 10", "true")["measured"]
    zero = "minority zero from λ_Z N = 13.8159 on, not 1e-05 of it before"
    assert row(found, zero, "true")["measured"]
    collapsed = check("threshold", UFM.from_lam_z(PAPER, 0.0036))
    assert row(collapsed, "n = 100: gap a (nats)")["measured"] == 0
    assert row(collapsed, "phase: minority collapse", "true")["measured"]


def test_every_passage_is_named():
    sizes = [16006] * 10 + [1] * 4007
    assert report.prediction(UFM.from_lam_z(sizes, 10 / sum(sizes), 0.00124386830)) == (
        "λ_Z N = 10, predicted: minority vanishes (minority one vector from 1 on, minority zero "
        "from 5.09366 on, not zero again from 6.57039 on, zero from 7.28344 on, all zero from "
        "126.515 on)"
    )


def test_a_passage_back_that_is_none_fails(monkeypatch):
    """The minority is zero from 13.8 on, and stays so."""
    passages = lambda *sizes: [*vanishing_thresholds(*sizes), 15.0, 16.0]
    plant(monkeypatch, "vanishing_thresholds", passages)
    row = "minority not zero again from λ_Z N = 15 on, not 1e-05 of it before"
    assert row in failed(check("threshold", EXAMPLE))


@pytest.mark.depth
def test_every_passage_is_located(monkeypatch):
    # no case of fewer classes than `check` takes is known
    monkeypatch.setattr(claims, "CLASSES", 5000)
    sizes = [16006] * 10 + [1] * 4007
    ufm = UFM.from_lam_z(sizes, 7 / sum(sizes), 0.00124386830)
    right = check("threshold", ufm)
    rows = [row["what"].split(" from")[0] for row in right.rows if " zero " in row["what"]][:3]
    assert right.passed and rows == ["minority zero", "minority not zero again", "minority zero"]
    plant(monkeypatch, "vanishing_thresholds", lambda *a: vanishing_thresholds(*a)[::2])
    wrong = [what.split(" on,")[0] for what in failed(check("threshold", ufm))]
    assert wrong == ["minority not zero again from λ_Z N = 7.28344"]


def test_angles_of_a_balanced_problem_are_those_of_the_simplex():
    found = check("angles", UFM.from_lam_z([30] * 4, 0.01, lam_b=0.02))
    for kind in ("columns of Z", "class means", "classifiers"):
        cosine = row(found, f"cosine of {kind}, n = 30")["measured"]
        assert cosine == approx(-1 / 3, abs=1e-12)


def test_angles_of_more_groups_are_those_of_the_solution():
    ufm = UFM.from_lam_z([50, 50, 20, 20, 5], 0.01, lam_b=0.02, class_weights=[1, 1, 2, 2, 4])
    found, exact = check("angles", ufm), solve(ufm, tol=1e-13)
    assert found.passed
    W, H = exact.classifier(5), exact.class_means(5)
    for kind, vectors in (("columns of Z", exact.logits), ("class means", H), ("classifiers", W.T)):
        a, b = vectors[:, 0], vectors[:, 2]
        expected = approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-8)
        pair = row(found, f"cosine of {kind}, n = 50, w = 1 to n = 20, w = 2")
        assert pair["measured"] == expected and pair["predicted"] == expected


def test_collapse_has_the_value_of_the_optimum():
    value = row(of_example("collapse"), "UFM with class means as features, value (CVX)")
    assert value["predicted"] == solve(EXAMPLE, tol=1e-12).objective
    assert value["measured"] == approx(value["predicted"], rel=1e-13)


def test_diminishing_shows_the_trend():
    found = of_example("diminishing")
    b = [row(found, f"n_B = {100 * 10**power}: cosine B")["measured"] + 1 / 9 for power in range(4)]
    assert all(np.diff(b) < 0) and b[3] > 0.09
    limit = row(found, "(cos B + 1/(K−1)) ln n_B → C")
    assert limit["predicted"] == theory.deviation_constants(5, 5, 5.0, 9.0)["B"]
    assert abs(limit["measured"] / limit["predicted"] - 1) < 1e-7


def test_relu_without_bias_has_the_closed_form():
    a = row(of_example("relu"), "n = 100: a in z = a (e − 1/K)")
    wrong = 9 / math.sqrt(100 * 10 * 9)  # ε of THEORY: probability of each wrong class
    assert a["measured"] == approx(math.log((1 - 9 * wrong) / wrong), rel=1e-10)


def test_an_open_certificate_is_no_pass():
    found = check("relu", UFM.from_lam_z([40, 40, 5, 5], 0.03, lam_b=0.001))
    (what,) = failed(found)
    assert not found.passed and "largest relative gap" in what
    assert 1e-4 < found.relative_gap < 2e-3 and found.verdict.startswith("FAIL, not certified: ")


EXTREMES = {
    "two classes": ([50, 20], 0.01, math.inf),
    "two equal classes": ([50, 50], 0.01, 0.02),
    "K_A = 1": ([500] + [100] * 4, 0.003, 0.02),
    "K_B = 1": ([500] * 4 + [100], 0.003, math.inf),
    "balanced": ([100] * 10, 0.003, 0.02),
    "on the line": ([300] * 5 + [100] * 5, 0.005, 0.02),
    "on the last line": ([400] * 2 + [100] * 2, 20 / 1000, 0.02),
    "collapsed": (PAPER, 0.0036, 0.02),
    "zero minority": (PAPER, 0.005, 0.02),
    "trivial": (PAPER, 0.05, 0.02),
    "huge penalty": (PAPER, 1e100, math.inf),
    "tiny penalty": (PAPER, 1e-60, math.inf),
    "one sample a class": ([1] * 6, 0.1, math.inf),
    "one sample beside many": ([1, 1, 1, 1000], 0.001, math.inf),
    "many samples": ([10**15] * 3 + [10**12] * 4, 1e-10, 0.02),
    "many classes": ([500] * 100 + [100] * 100, 5e-4, 0.02),
    "tail": ([int(5000 * 100 ** (-k / 19)) for k in range(20)], 1e-4, 0.02),
    "three groups": ([50] * 2 + [20] * 3 + [5] * 2, 0.02, 0.02),
    "six groups": (sum(([n] * 2 for n in (90, 60, 40, 20, 9, 4)), []), 0.01, 0.02),
    "unsorted": ([5, 50, 5, 50, 50], 0.01, 0.02),
    "weak bias penalty": ([50] * 3 + [10] * 4, 1e-2, 1e-12),
    "strong bias penalty": ([50] * 3 + [10] * 4, 1e-2, 1e50),
}


SOME = ("K_B = 1", "balanced", "on the line", "zero minority", "huge penalty", "three groups")
SOME += ("one sample beside many", "unsorted", "tail", "weak bias penalty", "trivial")


@pytest.mark.parametrize(
    "name", [n if n in SOME else pytest.param(n, marks=pytest.mark.depth) for n in EXTREMES]
)
@pytest.mark.parametrize("claim", CLAIMS)
def test_extremes_pass_or_do_not_apply(claim, name):
    sizes, lam_z, lam_b = EXTREMES[name]
    try:
        found = check(claim, UFM.from_lam_z(sizes, lam_z, lam_b))
    except claims.DoesNotApply:
        kinds = len(set(sizes))
        assert (claim == "diminishing") * (kinds != 2) or claim == "threshold"
        assert claim != "threshold" or kinds == len(sizes)
        return
    if claim == "relu" and math.isfinite(lam_b):  # nothing promises a certificate
        assert len(failed(found)) == (not found.relative_gap < 1e-9)
    else:
        assert found.passed, failed(found)


PROBLEMS = given(
    groups=st.dictionaries(st.integers(1, 400), st.integers(1, 4), min_size=1, max_size=4),
    level=st.floats(-3, 0.1),
    lam_b=st.sampled_from([math.inf, 0.02, 1e-3]),
    weighted=st.booleans(),
    data=st.data(),
)


def passes(groups, level, lam_b, weighted, data):
    sizes = sum(([n] * count for n, count in groups.items()), [])
    sizes = sizes * 2 if len(sizes) == 1 else sizes
    weight = {n: data.draw(st.sampled_from([0.5, 1.0, 3.0])) for n in set(sizes)}
    weights = [weight[n] for n in sizes] if weighted else None
    lam_z = 10**level * math.sqrt(max(sizes)) / sum(sizes)
    ufm = UFM.from_lam_z(sizes, lam_z, lam_b, class_weights=weights)
    found = check("all", ufm)
    assert found.passed, failed(found)
    if math.isinf(lam_b):
        assert check("relu", ufm).passed


test_any_class_sizes_pass = settings(max_examples=4)(PROBLEMS(passes))
test_many_class_sizes_pass = pytest.mark.depth(settings(max_examples=25)(PROBLEMS(passes)))


# Wrong theory, or a wrong solver, must be seen by the rows that rest on it.


def scaled(function, factor):
    """The function, its number or numbers times a factor."""

    def wrong(*arguments):
        right = function(*arguments)
        if isinstance(right, dict):
            return {key: factor * value for key, value in right.items()}
        return [factor * value for value in right] if isinstance(right, list) else factor * right

    return wrong


@pytest.mark.parametrize(
    "claim, name, factor, rows",
    [
        ("threshold", "minority_threshold", 1.02, "one vector from"),
        ("threshold", "minority_threshold", 0.99995, "one vector from"),
        ("threshold", "minority_threshold", 0.5, "gap a"),
        ("threshold", "vanishing_thresholds", 1.0001, "minority zero"),
        ("threshold", "trivial_threshold", 1.0001, "all zero"),
        ("threshold", "phase", None, "phase"),
        ("diminishing", "deviation_constants", 1.001, "→ C"),
        ("relu", "relu_logits", 1.0001, "a in z"),
        ("relu", "relu_vanishing_threshold", 1.0001, "zero from"),
    ],
)
def test_a_wrong_theory_fails(monkeypatch, claim, name, factor, rows):
    wrong = scaled(getattr(theory, name), factor) if factor else lambda _: Phase.MINORITY_COLLAPSE
    plant(monkeypatch, name, wrong)
    found = check(claim, EXAMPLE)
    assert not found.passed and found.verdict.startswith("FAIL, ")
    assert any(re.search(rows, what) for what in failed(found))


def test_a_wrong_simplex_fails(monkeypatch):
    plant(monkeypatch, "simplex_etf", lambda K: (K * np.eye(K) - 1.001) / (K - 1))
    found = check("angles", UFM.from_lam_z([30] * 4, 0.01))
    assert "cosine of class means, n = 30" in failed(found)


@pytest.mark.parametrize("sizes", [PAPER, [50, 50, 20, 20, 5, 5]], ids=["two", "three"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_wrong_solver_fails(monkeypatch, claim, sizes):
    """The solution of another λ_Z, with its own certificate, is found out by other rows."""
    if claim == "diminishing" and sizes != PAPER:
        return

    def wrong(ufm, features="linear", tol=1e-10):
        other = dataclasses.replace(ufm, lam_w=ufm.lam_w * 1.001, lam_h=ufm.lam_h * 1.001)
        return dataclasses.replace(solve(other, features, tol), ufm=ufm)

    monkeypatch.setattr(report, "solve", wrong)
    found = check(claim, UFM.from_lam_z(sizes, 0.003))
    assert found.relative_gap < 1e-9 and failed(found), repr(found)


def test_a_wrong_scalar_equation_fails(monkeypatch):
    right = report.solve_two_groups
    wrong = lambda *sizes: right(*sizes[:4], 1.001 * sizes[4], sizes[5])
    monkeypatch.setattr(report, "solve_two_groups", wrong)
    expected = {"cosine of class means, n = 100", "cosine of columns of Z, n = 500"}
    assert expected <= set(failed(check("angles", EXAMPLE)))


def test_a_wrong_certificate_fails(monkeypatch):
    value = solve(EXAMPLE).objective
    with monkeypatch.context() as patch:
        patch.setattr(report, "dual_bound", lambda *arguments: -value)
        assert not check("collapse", EXAMPLE).passed
        patch.setattr(report, "dual_bound", lambda *arguments: value * (1 + 1e-6))
        assert "trained UFM: objective / lower bound − 1" in failed(check("collapse", EXAMPLE))
    loose = lambda ufm, features, tol: dataclasses.replace(solve(ufm), gap=1e-6)
    monkeypatch.setattr(report, "solve", loose)
    found = check("threshold", EXAMPLE)
    assert failed(found) == [found.rows[-1]["what"]] and "not certified" in found.verdict


def test_training_that_stops_early_fails(monkeypatch):
    right = report.train_ufm
    early = lambda ufm, **more: right(ufm, **more | {"iterations": 10})
    monkeypatch.setattr(report, "train_ufm", early)
    assert "trained UFM: tr Σ_W / tr Σ_B" in failed(check("collapse", EXAMPLE))
    assert "trained UFM: range of Z within a block (nats)" in failed(check("angles", EXAMPLE))


def test_what_is_left_out_is_said():
    notes = "\n".join(check("collapse", UFM.from_lam_z([10**6] * 5, 1e-6)).notes)
    assert re.search(r"training, as N K² = 125000000 is above \d+", notes)
    assert "λ_Z N" in check("collapse", UFM.from_lam_z(PAPER, 1e-9)).notes[0]
    assert "λ_b" in check("collapse", UFM.from_lam_z(PAPER, 1e-3, lam_b=50)).notes[0]
    everything = check("all", UFM.from_lam_z([30] * 4, 0.01))
    assert any("two groups" in note for note in everything.notes)
    assert f"left out: {everything.notes[0]}" in repr(everything)


def test_a_trained_value_is_not_shown():
    first, second = of_example("collapse"), check("collapse", EXAMPLE, seed=1)
    assert repr(first) == repr(second) and first.record() != second.record()


def test_nothing_is_written_whatever_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NCUTILS_LEDGERS", str(tmp_path / "ledgers"))
    monkeypatch.chdir(tmp_path)
    found = check("threshold", EXAMPLE)
    found.save()
    found.show()
    assert list(tmp_path.iterdir()) == []


FIVE = UFM.from_lam_z([5, 4], 1.0, class_weights=[1, 2])
MANY, FAR, THREE = (UFM.from_lam_z(sizes, 1.0) for sizes in ([5] * 2001, [10**7, 1], [5, 4, 3]))


@pytest.mark.parametrize(
    "claim, ufm, seed, message",
    [
        ("collapses", EXAMPLE, 0, "claim = 'collapses': must be one of 'collapse', 'angles'"),
        ("all", PAPER, 0, "must be a UFM"),
        ("all", EXAMPLE, -1, "seed = -1: must be a whole number >= 0"),
        ("all", MANY, 0, "class_sizes of 2001 classes: must be at most 2000"),
        ("all", FAR, 0, "sizes from 10000000 to 1: the ratio of w n must be at most 1000000"),
        ("diminishing", THREE, 0, r"class_sizes of 3 group\(s\): diminishing must have two groups"),
        ("diminishing", FIVE, 0, "with class weights: diminishing must have two groups"),
        ("threshold", THREE, 0, "without two classes of one size: threshold must have"),
    ],
)
def test_bad_arguments(claim, ufm, seed, message):
    with pytest.raises(ValueError, match=message):
        check(claim, ufm, seed)


# The command.


def test_the_command_prints_the_report(capsys):
    assert run("angles --class-sizes 500x5,100x5 --lam-z 0.003") == 0
    assert capsys.readouterr().out == f"{of_example('angles')!r}\n"


OPTIONS = {
    "500x5,100x5 --lam-z 0.003": EXAMPLE,
    "30,30 --lam-z 1 --lam-b inf": UFM.from_lam_z([30, 30], 1.0),
    "5000,3000,1000x2 --lam-w 2e-3 --lam-h 2e-6 --lam-b .02": UFM(
        [5000, 3000, 1000, 1000], 2e-3, 2e-6, 0.02
    ),
    "50x2,5x3 --lam-z 0.01 --class-weights 1x2,4x3": UFM.from_lam_z(
        [50, 50, 5, 5, 5], 0.01, class_weights=[1, 1, 4, 4, 4]
    ),
}


@pytest.mark.parametrize("words, ufm", OPTIONS.items())
def test_options_are_the_problem(capsys, words, ufm):
    assert run(f"threshold --class-sizes {words} --json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(check("threshold", ufm).record()))
    problem = told["problem"]
    assert tuple(problem["class_sizes"]) == ufm.class_sizes
    assert (problem["lam_w"], problem["lam_h"]) == (ufm.lam_w, ufm.lam_h)
    assert float(problem["lam_b"]) == ufm.lam_b
    assert tuple(problem["class_weights"] or ()) == (ufm.class_weights or ())
    assert told["passed"] is True and told["relative_gap"] < 1e-9
    assert told["rows"][-1]["what"].startswith("certificate")


def test_numbers_that_are_none_are_text_in_json(capsys, monkeypatch):
    nothing = dict.fromkeys(("A", "B", "AB"), math.nan)
    monkeypatch.setattr(theory, "deviation_constants", lambda *arguments: nothing)
    assert run("diminishing --class-sizes 500x5,100x5 --lam-z 0.003 --json") == 1
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    bad = [row["predicted"] for row in told["rows"] if not row["passed"]]
    assert told["passed"] is False and bad == ["nan"] * 3


def test_a_failed_check_is_status_1(capsys):
    assert run("relu --class-sizes 40x2,5x2 --lam-z 0.03 --lam-b 0.001") == 1
    assert "FAIL, not certified" in capsys.readouterr().out.splitlines()[-1]


ONE = "--class-sizes 5x2 --lam-z 1"
BAD = {  # words after "threshold": what is said
    "--class-sizes 5xa --lam-z 1": "--class-sizes '5xa': must be a number, or a number x how many",
    "--class-sizes 5x0 --lam-z 1": "--class-sizes '5x0': must be",
    "--class-sizes 5,,5 --lam-z 1": "--class-sizes '': must be",
    "--class-sizes ax2 --lam-z 1": "--class-sizes = 'a': must be a whole number >= 1",
    "--class-sizes 2.5x2 --lam-z 1": "--class-sizes = 2.5: must be a whole number >= 1",
    "--class-sizes 0x2 --lam-z 1": "--class-sizes = 0.0: must be a whole number >= 1",
    "--class-sizes nanx2 --lam-z 1": "--class-sizes = nan: must be a whole number",
    "--class-sizes 5 --lam-z 1": "--class-sizes = '5': must be at least 2 classes",
    "--class-sizes 5x999999999 --lam-z 1": "--class-sizes = '5x999999999': must be at most 2000 c",
    "--class-sizes 5x2 --lam-z 0": "--lam-z = 0.0: must be a positive number",
    "--class-sizes 5x2 --lam-z x": "--lam-z = 'x': must be a positive number",
    "--class-sizes 5x2 --lam-w 1 --lam-h -1": "--lam-h = -1.0: must be a positive number",
    "--class-sizes 5x2": "penalties: must be either --lam-z, or both .* and --lam-h; neither given",
    "--class-sizes 5x2 --lam-h 1": "penalties: must be .*; --lam-h given",
    f"{ONE} --lam-w 1 --lam-h 1": "penalties: must be .*; --lam-z, --lam-w, --lam-h given",
    f"{ONE} --lam-b 0": "--lam-b = 0.0: must be a positive number",
    f"{ONE} --lam-b 1e-15": "lam_b = 1e-15: must be at least 1e-12",
    f"{ONE} --class-weights 1x3": "--class-weights = '1x3': must be 2 weights, one a class, not 3",
    f"{ONE} --class-weights 1,0": "--class-weights = 0.0: must be a positive number",
    f"{ONE} --seed 0.5": "--seed = 0.5: must be a whole number >= 0",
}


@pytest.mark.parametrize(
    "words, message",
    [
        (f"bogus {ONE}", "claim = 'bogus': must be one of 'collapse'"),
        (f"diminishing {ONE}", r"class_sizes of 1 group\(s\): diminishing must have two groups"),
        *((f"threshold {words}", message) for words, message in BAD.items()),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, words, message):
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert re.match(f"python -m ncutils check: {message}", err)


@pytest.mark.parametrize("words", ["", "threshold --lam-z 1", f"threshold {ONE} --lam-q 1"])
def test_missing_and_unknown_options_show_the_usage(capsys, words):
    with pytest.raises(SystemExit) as stop:
        run(words)
    assert stop.value.code == 2 and "usage: python -m ncutils " in capsys.readouterr().err


PROGRAM = """
import sys
from ncutils.__main__ import main
from ncutils.ufm import Phase
status = main()
assert not {"seaborn", "matplotlib.pyplot", "pooch", "sklearn", "mlxtend"} & set(sys.modules)
import ncutils
ncutils.figures.use_theme
from ncutils import *
figures.panels
try:
    ncutils.nothing
except AttributeError as error:
    assert str(error) == "module 'ncutils' has no attribute 'nothing'"
    sys.exit(status)
"""


def test_the_command_runs_anywhere_and_loads_no_plotting(tmp_path):
    """In a process with a terminal that knows ASCII only; figures come when asked for."""
    more = {"NCUTILS_LEDGERS": str(tmp_path / "ledgers"), "PYTHONIOENCODING": "ascii"}
    words = "check threshold --class-sizes 500x5,100x5 --lam-z 0.003".split()
    command, env = [sys.executable, "-c", PROGRAM, *words], os.environ | more
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "?_Z N = 9" in result.stdout and list(tmp_path.iterdir()) == []
    assert result.stdout.splitlines()[-1] == "PASS, all 11 checks"


def test_the_readme_shows_what_is_printed(capsys):
    text = (ROOT / "README.md").read_text()
    words, output = re.search(r"python -m ncutils check (.*)\n((?:.*\n)*?)```", text).groups()
    assert run(words) == 0
    assert output == capsys.readouterr().out
