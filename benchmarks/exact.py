r"""The exact solver against general-purpose solvers, and alone on problems that are too large for
them.

Against CVXPY. `ncutils.solve(ufm, tol=1e-12)` and CVXPY with SCS and with CLARABEL, both at their
default settings, on

    min over Z, b of (1/N) Σ_k n_k CE(z_k + b, e_k) + λ_Z ‖Z D^{1/2}‖_* + (λ_b/2) ‖b‖²     (CVX)

- Time: from class sizes and penalties to Z and b as arrays. Median of the runs in five rounds; in
each, every solver
  runs once, and again up to ten times while 0.2 s last. Imports and one small warm-up solve of each
  solver come before. CVXPY builds a new Problem in each run and starts cold. A solver above
  --patience seconds runs once; its row says so.
- CVXPY's model: one log_sum_exp over all columns, the faster of two: a sum of K of them takes
longer to build and solve.
- Error of objective: (CVX) at the solver's (Z, b) relative to its value at (Z*, b*), minus 1,
absolute.
- Error of Z: largest entry of |Z − Z*|. The objective is flat: its error is about the square of
that of Z.
- Z*, b*: a solution by another method than the timed one. Two groups: `solve_two_groups`, one
scalar equation.
  Otherwise: Newton's method on the gradient of the UFM itself in its factors W, H and in b, from
  `solve` at tol = 1e-13 until the step is rounding. Each Z* is printed with the relative gap of its
  dual certificate.

Alone. Each problem in a process of its own, whose peak resident memory (imports included) is
reported; times as above. At last, a million random two-group problems of all phases in one call of
`solve_two_groups`.

    make bench
    python benchmarks/exact.py [--quick] [--parts peers large throughput] [--json FILE]
"""

import argparse
import gc
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_info

from ncutils import UFM, dual_bound, solve
from ncutils.exact.convex import objective
from ncutils.exact.two_groups import solve_two_groups
from ncutils.ufm import Phase

OURS, CVXPY = "ncutils", ("SCS", "CLARABEL")
TOL = 1e-12
INF = math.inf
PARTS = ("peers", "large", "throughput")


# Problems -----------------------------------------------------------------------------------------


class Problem(NamedTuple):
    name: str
    sizes: list
    lam_z: float
    lam_b: float

    def ufm(self):
        return UFM.from_lam_z(self.sizes, self.lam_z, self.lam_b)


def two_groups(K):
    sizes = [500] * (K // 2) + [100] * (K // 2)
    return Problem(f"two groups, K = {K}", sizes, 8 / sum(sizes), INF)


def three_groups(K):
    """5000, 4000 and 3000 samples a class: 3, 3 and 4 tenths of them; λ_Z = 5e-4 if K = 10."""
    counts = 3 * K // 10, 3 * K // 10, K - 6 * K // 10
    sizes = [n for n, count in zip((5000, 4000, 3000), counts) for _ in range(count)]
    return Problem(f"three groups, K = {K}", sizes, 5e-4 * 10 / K, 0.02)  # one λ_Z N for all K


def tail(K, largest, smallest, lam_z=None, lam_b=0.02):
    """Class sizes fall geometrically; λ_Z N = 0.8 sqrt(smallest) unless λ_Z is given."""
    sizes = [round(largest * (smallest / largest) ** (k / (K - 1))) for k in range(K)]
    return Problem(
        f"long tail, K = {K}", sizes, lam_z or 0.8 * math.sqrt(smallest) / sum(sizes), lam_b
    )


PEERS = [two_groups(10), two_groups(20), two_groups(40), three_groups(10), tail(10, 5000, 50, 1e-3)]
LARGE = [
    three_groups(10),
    three_groups(100),
    three_groups(1000),
    tail(100, 500, 5, 5e-4),
    tail(1000, 5000, 50, lam_b=INF),
]
QUICK_PEERS = [two_groups(4), three_groups(6), tail(5, 500, 50, 5e-3)]
QUICK_LARGE = [three_groups(10), tail(20, 500, 5, 2e-3)]
WARM_UP = tail(4, 40, 10, 0.02)


def random_two_groups(count, seed=0):
    """Arguments of `solve_two_groups`, arrays (count,): λ_Z N from 0.1 sqrt(n_B) to 1.5 sqrt(n_A),
    half no bias.
    """
    rng = np.random.default_rng(seed)
    log_uniform = lambda low, high: np.exp(rng.uniform(np.log(low), np.log(high), count))
    k_a, k_b = rng.integers(1, 51, (2, count))
    n_b = np.round(log_uniform(1, 1e4))
    n_a = np.round(n_b * log_uniform(1, 1e3))
    lam_z = log_uniform(0.1 * np.sqrt(n_b), 1.5 * np.sqrt(n_a)) / (k_a * n_a + k_b * n_b)
    return k_a, k_b, n_a, n_b, lam_z, np.where(rng.random(count) < 0.5, INF, log_uniform(1e-3, 1))


# The solvers: a problem in; Z (K, K), b (K,), status and relative gap out -------------------------


def by_ncutils(problem):
    found = solve(problem.ufm(), tol=TOL)
    return (
        found.logits,
        found.bias,
        "certified" if found.certified else "not certified",
        found.relative_gap,
    )


def by_cvxpy(problem, solver):
    import cvxpy as cp  # only here: not in the processes whose memory is measured

    sizes = np.array(problem.sizes, dtype=float)
    K, weights = len(sizes), sizes / sizes.sum()
    Z = cp.Variable((K, K))
    scores, b, bias_penalty = Z, None, 0.0
    if math.isfinite(problem.lam_b):
        b = cp.Variable(K)
        scores, bias_penalty = Z + cp.outer(b, np.ones(K)), problem.lam_b / 2 * cp.sum_squares(b)
    loss = weights @ (cp.log_sum_exp(scores, axis=0) - cp.diag(scores))
    penalty = problem.lam_z * cp.normNuc(Z @ np.diag(np.sqrt(sizes)))
    program = cp.Problem(cp.Minimize(loss + penalty + bias_penalty))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a solution may be inaccurate is in the status
        program.solve(solver=solver)
    return Z.value, np.zeros(K) if b is None else b.value, program.status, None


def outcome(problem, solver):
    """As above; Z and b are None and the status is the error where a solver raises one."""
    try:
        return by_ncutils(problem) if solver == OURS else by_cvxpy(problem, solver)
    except Exception as error:  # whatever goes wrong belongs into the solver's row
        return None, None, f"{type(error).__name__}: {error}"[:60], None


def rounds(functions, count, patience):
    """Seconds of all runs, and the last result, of each function; one run only where it takes more
    than `patience`.
    """
    times, results = [[] for _ in functions], [None] * len(functions)
    for _ in range(count):
        for i, function in enumerate(functions):
            if times[i] and times[i][0] > patience:
                continue
            gc.collect()  # what another solver has left behind is not this one's to clear away
            series = []
            while not series or (len(series) < 10 and sum(series) < 0.2):
                start = time.perf_counter()
                results[i] = function()
                series.append(time.perf_counter() - start)
            times[i] += series
    return list(zip(times, results))


# The reference (Z*, b*) ---------------------------------------------------------------------------


def reference(problem):
    """Z*, b*, and the relative gap of their certificate."""
    ufm = problem.ufm()
    Z, b = (from_two_groups if len(ufm.groups) == 2 else from_factors)(ufm)
    value = objective(ufm, Z, b)
    return Z, b, 1 - dual_bound(ufm, Z, b, rank=np.linalg.matrix_rank(Z, tol=1e-9)) / value


def from_two_groups(ufm):
    (n_a, in_a), (n_b, in_b) = ufm.groups.items()  # A first, as in all problems above
    found = solve_two_groups(len(in_a), len(in_b), n_a, n_b, ufm.lam_z, ufm.lam_b)
    return found.logits(()), np.repeat([found.bias_a, found.bias_b], [len(in_a), len(in_b)])


def from_factors(ufm, steps=8):
    """Newton's method for a zero of the UFM's gradient in W, H, b; the inner dimension of W H is
    the rank of Z.

    W → W R, H → Rᵀ H changes nothing for orthogonal R: the Hessian is singular there; its
    pseudo-inverse is used.
    """
    found = solve(ufm, tol=1e-13)
    K, r, biased = ufm.num_classes, found.rank, math.isfinite(ufm.lam_b)
    sizes = torch.from_numpy(ufm.sizes.copy())

    def parts(x):
        W, H = x[: K * r].reshape(K, r), x[K * r : 2 * K * r].reshape(r, K)
        return W, H, x[2 * K * r :] if biased else x.new_zeros(K)

    def value(x):
        W, H, b = parts(x)
        scores = W @ H + b[:, None]
        loss = sizes @ (torch.logsumexp(scores, 0) - torch.diagonal(scores)) / ufm.num_samples
        penalty = ufm.lam_w * (W**2).sum() + ufm.lam_h * (sizes * H**2).sum()
        return loss + (penalty + (ufm.lam_b * b @ b if biased else 0.0)) / 2

    start = [
        found.classifier(K)[:, :r].ravel(),
        found.class_means(K)[:r].ravel(),
        found.bias if biased else [],
    ]
    x = torch.from_numpy(np.concatenate(start))
    scale = (
        1 / torch.cat([torch.ones(K * r), sizes.sqrt().repeat(r), torch.ones(K * biased)]).double()
    )
    for _ in range(steps):  # in H D^{1/2}, where the penalties on both factors are equal
        gradient, hessian = torch.func.grad(value)(x), torch.func.hessian(value)(x)
        inverse = torch.linalg.pinv(hessian * torch.outer(scale, scale), rtol=1e-9, hermitian=True)
        x = x - scale * (inverse @ (scale * gradient))
    W, H, b = parts(x)
    return (W @ H).numpy(), b.numpy()


# Against CVXPY ------------------------------------------------------------------------------------


def compare(problem, count, patience):
    """One row for each solver, ours first."""
    ufm, (Z, b, gap) = problem.ufm(), reference(problem)
    optimum, rows, solvers = objective(ufm, Z, b), [], (OURS, *CVXPY)
    measured = rounds([partial(outcome, problem, solver) for solver in solvers], count, patience)
    for solver, (times, (found_Z, found_b, status, found_gap)) in zip(solvers, measured):
        solved = found_Z is not None
        rows.append(
            {
                "problem": problem.name,
                "solver": solver,
                "runs": len(times),
                "slow": times[0] > patience,
                "seconds": statistics.median(times),
                "status": status,
                "gap": found_gap,
                "reference_gap": gap,
                "objective_error": abs(objective(ufm, found_Z, found_b) / optimum - 1)
                if solved
                else None,
                "z_error": float(np.abs(found_Z - Z).max()) if solved else None,
            }
        )
        rows[-1]["ratio"] = rows[-1]["seconds"] / rows[0]["seconds"]
    return rows


PEER_COLUMNS = "{:<23} {:<9} {:>7} {:>10} {:>8} {:>10} {:>9} {:>9}  {}"


def show_peers(problems, count, patience):
    for solver in (OURS, *CVXPY):
        outcome(WARM_UP, solver)
    print(f"\nAgainst CVXPY: {OURS} at tol = {TOL:g}, SCS and CLARABEL at their default settings\n")
    print(
        PEER_COLUMNS.format(
            "problem", "solver", "runs", "median s", "/ ours", "objective", "Z", "gap", "status"
        )
    )
    table = []
    for problem in problems:
        rows = compare(problem, count, patience)
        for row in rows:
            errors = (short(row[key]) for key in ("objective_error", "z_error", "gap"))
            print(
                PEER_COLUMNS.format(
                    row["problem"],
                    row["solver"],
                    f"{row['runs']}{' slow' * row['slow']}",
                    f"{row['seconds']:.4f}",
                    f"{row['ratio']:.1f}",
                    *errors,
                    row["status"],
                )
            )
        print(
            PEER_COLUMNS.format("", "Z*", *[""] * 5, short(row["reference_gap"]), "reference"),
            flush=True,
        )
        table += rows
    print(
        "\nobjective: relative error; Z: largest absolute error of an entry; gap: relative, of the "
        "dual certificate"
    )
    if any(row["slow"] for row in table):
        print(f"slow: above {patience:g} s, therefore run once")
    return table


def short(number):
    return "-" if number is None else f"{number:.1e}"


# Alone --------------------------------------------------------------------------------------------


def peak_mib():
    """Peak resident memory of this process so far; from /proc if possible: ru_maxrss begins with
    the parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def alone(problem):
    """Row of one problem, measured in this process."""

    def solution():
        found = solve(problem.ufm(), tol=TOL)
        _ = found.logits, found.bias  # these are made when first asked for
        return found

    before = peak_mib()
    by_ncutils(WARM_UP)
    [(times, found)] = rounds([solution], count=5, patience=10)
    return {
        "problem": problem.name,
        "runs": len(times),
        "seconds": statistics.median(times),
        "gap": found.relative_gap,
        "iterations": found.iterations,
        "rank": found.rank,
        "peak_mib": peak_mib(),
        "imports_mib": before,
    }


LARGE_COLUMNS = "{:<23} {:>5} {:>10} {:>10} {:>9} {:>10} {:>6} {:>9} {:>12}"


def show_large(problems):
    print(f"\nAlone: {OURS} at tol = {TOL:g}, each problem in its own process\n")
    print(
        LARGE_COLUMNS.format(
            "problem",
            "runs",
            "median s",
            "/ K = 10",
            "gap",
            "iterations",
            "rank",
            "peak MiB",
            "imports MiB",
        )
    )
    rows = []
    for problem in problems:
        command = [sys.executable, __file__, "--child", json.dumps(problem)]
        row = json.loads(
            subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        )
        rows.append(row)
        row["ratio"] = row["seconds"] / rows[0]["seconds"]  # to three groups, K = 10
        print(
            LARGE_COLUMNS.format(
                row["problem"],
                row["runs"],
                f"{row['seconds']:.4f}",
                f"{row['ratio']:.1f}",
                short(row["gap"]),
                row["iterations"],
                row["rank"],
                f"{row['peak_mib']:.0f}",
                f"{row['imports_mib']:.0f}",
            ),
            flush=True,
        )
    return rows


def show_throughput(count):
    solve_two_groups(*random_two_groups(1000, seed=1))
    arguments = random_two_groups(count)
    start = time.perf_counter()
    found = solve_two_groups(*arguments)
    seconds = time.perf_counter() - start
    phases = {phase.name: int((found.phase == phase).sum()) for phase in Phase}
    row = {
        "count": count,
        "seconds": seconds,
        "per_second": count / seconds,
        "worst_gap": found.certificate,
        "phases": phases,
    }
    print(
        f"\nsolve_two_groups: {count} random problems in {seconds:.2f} s, {row['per_second']:.0f} "
        f"problems/s, worst relative gap {row['worst_gap']:.1e}"
    )
    print("  " + ", ".join(f"{name} {number}" for name, number in phases.items()))
    return row


# Targets ------------------------------------------------------------------------------------------


def targets(peers, large, throughput):
    """(target, measured, reached) for each; measured and reached are None where a part was not run
    or CVXPY failed.
    """
    solved = [row for row in peers if row["solver"] != OURS and row["z_error"] is not None]
    ours = {
        row["problem"]: max(row["z_error"], 1e-300) for row in peers if row["status"] == "certified"
    }
    rows = []

    def add(target, measured, form, reached):
        known = measured is not None
        rows.append(
            (
                target,
                form.format(measured) if known else None,
                bool(reached(measured)) if known else None,
            )
        )

    for problem, factor in (PEERS[0], 50), (PEERS[3], 20), (PEERS[4], 5), (PEERS[2], 500):
        ratio = min(
            (row["ratio"] for row in solved if row["problem"] == problem.name), default=None
        )
        add(
            f"{problem.name}: at most 1/{factor} of the faster CVXPY time",
            ratio,
            "1/{:.1f}",
            lambda r: r >= factor,
        )
    factors = (row["z_error"] / ours[row["problem"]] for row in solved if row["problem"] in ours)
    add(
        "error of Z at least 1000 times smaller than in every CVXPY row",
        min(factors, default=None),
        "{:.1e} times",
        lambda f: f >= 1000,
    )
    for problem, key, bound, text, form in (
        (LARGE[2], "ratio", 5, "5 times K = 10", "{:.2f} times"),
        (LARGE[3], "seconds", 1, "1 s", "{:.3f} s"),
        (LARGE[4], "seconds", 60, "60 s", "{:.1f} s"),
        (LARGE[4], "peak_mib", 2048, "2 GiB", "{:.0f} MiB"),
    ):
        measured = next((row[key] for row in large if row["problem"] == problem.name), None)
        add(f"{problem.name}: under {text}", measured, form, lambda m: m < bound)
    rate, gap = (throughput["per_second"], throughput["worst_gap"]) if throughput else (None, None)
    add("solve_two_groups: at least 100,000 problems/s", rate, "{:.0f}/s", lambda r: r >= 1e5)
    add("solve_two_groups: worst gap at most 1e-10", gap, "{:.1e}", lambda g: g <= 1e-10)
    return rows


def show_targets(rows):
    print("\nTargets\n")
    for target, measured, reached in rows:
        answer = {None: "", True: "yes", False: "NO"}[reached]
        print(f"{target:<65} {measured or 'not measured':>16}  {answer}".rstrip())


# The whole ----------------------------------------------------------------------------------------


def environment():
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = (names or [platform.processor()])[0]
    threads = {pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()}
    packages = {
        name: version(name) for name in ("numpy", "scipy", "torch", "cvxpy", "scs", "clarabel")
    }
    return {
        "date": date.today().isoformat(),
        "processor": processor,
        "threads": threads,
        "versions": {"python": platform.python_version(), **packages},
    }


def show_environment(facts):
    print(f"{facts['date']}, {facts['processor']}")
    print("threads: " + ", ".join(f"{name} {number}" for name, number in facts["threads"].items()))
    print(", ".join(f"{name} {number}" for name, number in facts["versions"].items()), flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="small problems, one round: shows that it works"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds in which every solver runs (5)"
    )
    parser.add_argument(
        "--patience", type=float, default=10, help="a solver above so many seconds runs once (10)"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (all)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write all figures there")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # one problem, alone in this process
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(alone(Problem(*json.loads(options.child)))))
        return
    quick, figures = (
        options.quick,
        {"environment": environment(), "peers": [], "large": [], "throughput": None},
    )
    show_environment(figures["environment"])
    if "peers" in options.parts:
        figures["peers"] = show_peers(
            QUICK_PEERS if quick else PEERS, 1 if quick else options.rounds, options.patience
        )
    if "large" in options.parts:
        figures["large"] = show_large(QUICK_LARGE if quick else LARGE)
    if "throughput" in options.parts:
        figures["throughput"] = show_throughput(10**4 if quick else 10**6)
    if not quick:
        figures["targets"] = targets(figures["peers"], figures["large"], figures["throughput"])
        show_targets(figures["targets"])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
