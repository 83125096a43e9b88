"""The benchmarks run and report what they should; nothing depends on how fast this machine is."""

import json

import pytest

from benchmarks import exact
from ncutils import UFM, solve


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Figures of the quick run, and what it prints."""
    file = tmp_path_factory.mktemp("benchmark") / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(words)))
        exact.main(["--quick", "--json", str(file)])
    return json.loads(file.read_text()), "\n".join(lines)


def test_every_solver_has_a_row_for_every_problem(quick):
    figures, shown = quick
    solvers = "ncutils", "SCS", "CLARABEL"
    wanted = [(problem.name, solver) for problem in exact.QUICK_PEERS for solver in solvers]
    assert [(row["problem"], row["solver"]) for row in figures["peers"]] == wanted
    for row in figures["peers"]:
        lines = [line for line in shown.splitlines() if line.startswith(row["problem"])]
        assert any(row["solver"] in line and row["status"] in line for line in lines)
        assert row["seconds"] > 0 and 1 <= row["runs"] <= 10


def test_the_solvers_agree_and_ours_is_certified(quick):
    for row in quick[0]["peers"]:
        ours = row["solver"] == "ncutils"
        assert row["status"] == ("certified" if ours else "optimal")
        assert row["objective_error"] <= (1e-12 if ours else 1e-6)  # measured 2e-16, 5e-9
        assert row["z_error"] <= (1e-9 if ours else 1e-2)  # measured 2e-15, 3e-4
        assert abs(row["reference_gap"]) <= 1e-13  # measured 7e-16
        assert not ours or 0 <= row["gap"] <= exact.TOL


def test_problems_alone_report_their_memory_and_certificate(quick):
    figures, shown = quick
    assert [row["problem"] for row in figures["large"]] == [p.name for p in exact.QUICK_LARGE]
    for row in figures["large"]:
        assert row["problem"] in shown
        assert row["gap"] <= exact.TOL and row["rank"] > 0 and row["iterations"] > 0
        assert row["peak_mib"] >= row["imports_mib"] > 10


def test_random_problems_are_of_all_phases_and_certified(quick):
    throughput = quick[0]["throughput"]
    counts = throughput["phases"].values()
    assert sum(counts) == throughput["count"] and min(counts) > 0
    assert 0 <= throughput["worst_gap"] <= 1e-10


def test_processor_threads_and_versions_are_named(quick):
    figures, shown = quick
    facts = figures["environment"]
    assert list(facts["versions"]) == "python numpy scipy torch cvxpy scs clarabel".split()
    for name, number in facts["versions"].items():
        assert f"{name} {number}" in shown
    assert facts["date"] in shown and facts["processor"] in shown and facts["threads"]


@pytest.mark.parametrize("lam_b", [exact.INF, 0.02])
@pytest.mark.parametrize("level", [8, 12, 18])  # distinct, collapse, minority vanishes
def test_both_references_are_the_same_point(level, lam_b):
    ufm = UFM.from_lam_z([500] * 3 + [100] * 2, level / 1700, lam_b)
    (Z, b), (other_Z, other_b) = exact.from_two_groups(ufm), exact.from_factors(ufm)
    assert other_Z == pytest.approx(Z, abs=1e-12)  # measured 2e-15
    assert other_b == pytest.approx(b, abs=1e-12)
    assert solve(ufm, tol=1e-12).logits == pytest.approx(Z, abs=1e-10)


def test_a_solver_that_fails_is_shown_and_does_not_count(monkeypatch):
    def fails(problem, solver):
        raise RuntimeError("no solution")

    monkeypatch.setattr(exact, "by_cvxpy", fails)
    ours, *others = exact.compare(exact.QUICK_PEERS[0], count=1, patience=10)
    assert ours["status"] == "certified"
    for row in others:
        assert row["status"] == "RuntimeError: no solution"
        assert row["objective_error"] is None and row["z_error"] is None
    assert all(measured is None for _, measured, _ in exact.targets([ours, *others], [], None))


def test_a_slow_solver_runs_once_and_a_fast_one_in_every_round(monkeypatch):
    clock = [0.0]

    def takes(seconds):
        clock[0] += seconds
        return seconds

    monkeypatch.setattr(exact.time, "perf_counter", lambda: clock[0])
    # it has a large process to go through here
    monkeypatch.setattr(exact.gc, "collect", lambda: None)
    functions = [lambda: takes(16.0), lambda: takes(0.25), lambda: takes(2**-10)]
    slow, middle, fast = exact.rounds(functions, 5, patience=10)
    assert slow == ([16.0], 16.0)
    assert middle == ([0.25] * 5, 0.25)
    assert fast == ([2**-10] * 50, 2**-10)


def test_targets_compare_the_measured_figures():
    keys, name = ("problem", "solver", "ratio", "z_error", "status"), exact.PEERS[0].name
    peers = [
        dict(zip(keys, (name, "ncutils", 1, 1e-9, "certified"))),
        dict(zip(keys, (name, "SCS", 60, 1e-5, "optimal"))),
        dict(zip(keys, (name, "CLARABEL", 80, 1e-7, "optimal"))),
    ]
    large = [{"problem": p.name, "ratio": 6, "seconds": 0.5, "peak_mib": 3000} for p in exact.LARGE]
    rows = exact.targets(peers, large, {"per_second": 2e5, "worst_gap": 1e-9})
    assert [(measured, reached) for _, measured, reached in rows] == [
        ("1/60.0", True),
        (None, None),
        (None, None),
        (None, None),
        ("1.0e+02 times", False),
        ("6.00 times", False),
        ("0.500 s", True),
        ("0.5 s", True),
        ("3000 MiB", False),
        ("200000/s", True),
        ("1.0e-09", False),
    ]
    peers[1]["status"] = "optimal_inaccurate"  # it has a Z, so it counts
    assert exact.targets(peers, [], None)[0][1] == "1/60.0"
    peers[1]["z_error"] = None  # it failed
    assert exact.targets(peers, [], None)[0][1] == "1/80.0"
