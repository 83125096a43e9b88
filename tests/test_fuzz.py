"""Ten thousand inputs and more, for every public function: the right answer, or a ValueError that says what is allowed.

Never another exception, a NaN or a warning that is not documented, a hang, or a file outside the folder of the test. The inputs are
the same in every run; NCUTILS_FUZZ=20 draws twenty times as many, and others in each run.
"""

import contextlib
import datetime
import functools
import inspect
import io
import json
import math
import os
import re
import signal
import sys
import warnings
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import new_claim
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ncutils
from ncutils import (
    MLP,
    UFM,
    Ledger,
    Phase,
    Solution,
    Trained,
    TwoGroups,
    check,
    convex,
    dual_bound,
    figures,
    load_images,
    metrics,
    solve,
    solve_two_groups,
    solve_two_groups_log,
    theory,
    train_network,
    train_ufm,
    ufm_objective,
)
from ncutils.__main__ import main
from ncutils.ufm import real_number

INF, NAN = math.inf, math.nan
TIMES = int(os.environ.get("NCUTILS_FUZZ", "1"))
SECONDS = 60  # a call that takes longer hangs
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
DOCUMENTED = re.compile("solve stopped after|the worst relative gap is|training diverged in epoch")  # RuntimeWarnings
COUNT, OUTSIDE = Counter(), []  # inputs of each test; files written outside the folder
FOLDER = None  # that all files must be in, while a function is watched


def inputs(count):
    """Settings of a test that so many inputs are drawn for."""
    return settings(max_examples=count * TIMES, derandomize=TIMES == 1, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck))


def audit(event, arguments):
    """Python's own record of what is written."""
    if FOLDER is None or not event.startswith(("open", "os.")):
        return
    if event == "open":
        path, mode, flags = arguments
        paths = [path] if set(mode or "") & set("wax+") or flags & WRITES else []
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"):
        paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
    else:
        return
    for path in map(os.fsdecode, (path for path in paths if not isinstance(path, int))):
        if "__pycache__" not in path and not os.path.realpath(path).startswith((str(FOLDER), "/dev/")):
            OUTSIDE.append((event, path))


sys.addaudithook(audit)  # there is no way to take it back


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder that is home, cache and place of work; no original images, no ledgers elsewhere."""
    home = Path(os.path.realpath(tmp_path_factory.mktemp("fuzz")))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CACHE_HOME", "NCUTILS_CACHE", "NCUTILS_DATA", "TMPDIR"):
            patch.setenv(name, str(home / name))
        patch.delenv("NCUTILS_LEDGERS", raising=False)
        (home / "TMPDIR").mkdir()
        patch.setattr("tempfile.tempdir", str(home / "TMPDIR"))
        patch.chdir(home)
        yield home


def hang(*_):
    raise TimeoutError(f"a call took more than {SECONDS} seconds")


@contextlib.contextmanager
def watched(test, folder):
    """One input: counted, stopped where it hangs, its warnings and files looked at."""
    global FOLDER
    COUNT[test] += 1
    signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        FOLDER = folder
        try:
            yield
        finally:
            FOLDER = None
            signal.alarm(0)
    assert not [w for w in found if not (w.category is RuntimeWarning and DOCUMENTED.match(str(w.message)))]
    assert not OUTSIDE


def flat(result):
    """All numbers of a result, as arrays, in one list."""
    if isinstance(result, UFM):
        result = result.sizes, result.lam_w, result.lam_h, result.lam_z, result.lam_b, result.weights, list(result.groups.values())
    elif isinstance(result, Solution):
        result = [result.logits, result.bias, result.objective, result.gap, result.rank, list(result.group_gaps.values())]
    elif isinstance(result, TwoGroups):
        result = list(vars(result).values())
    elif isinstance(result, Trained):
        result = result.objectives, result.classifiers, result.features
    elif isinstance(result, torch.nn.Module):
        result = [p.shape for p in result.parameters()]
    elif isinstance(result, theory.GroupPhases):
        result = list(result.collapsed.values()), result.rank
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (list, tuple)):
        return [array for part in result for array in flat(part)]
    if result is None or isinstance(result, (str, Phase, Ledger)):
        return []
    return [np.asarray(result)]


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one, other))


# What is no argument at all ---------------------------------------------------------------------------


class Raises:
    """Fails in the hands of whoever converts it."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array")

    __float__ = __int__ = __len__ = __iter__ = __array__


class Pretends:
    """Says that it is an array, of another shape than its length."""

    def __array__(self, dtype=None, copy=None):
        return np.array([[1.0, 2.0], [3.0, 4.0]])

    def __len__(self):
        return 3


class NoArray:
    def __array__(self, dtype=None, copy=None):
        return "text"


def endless():
    holds = [1]
    holds.append(holds)
    return holds


SQUARE = np.eye(3)
HOSTILE = [lambda value=value: value for value in (  # what cannot be changed or used up
    None, True, False, "", "5", "linear x", "\ud800", "a\0b", "../../x", b"5", b"55", 1j, 2 + 0j, 0, -1, -0.0, 2.5, 1, 3, NAN, INF, -INF,
    5e-324, 1e-300, 1e300, 1.7e308, 10**9, 10**15, 2**63, 2**64, 10**308, 10**400, -10**400, 10**5000, 3.0, 1e16, (), (3, 2), int, len, ...,
    NotImplemented, slice(None), UFM, UFM.from_lam_z([3, 2], 0.1), datetime.datetime(2020, 1, 1), datetime.timedelta(3), Decimal("0.5"),
    Decimal(3), Decimal("NaN"), Decimal("sNaN"), Decimal("1e400"), Fraction(1, 3), Fraction(3), Fraction(10**400, 3), Fraction(1, 10**400),
    np.int8(3), np.uint64(2**63), np.float16(0.5), np.float32(INF), np.longdouble("1e4000"), np.complex128(2), np.True_, np.str_("3"),
    np.bytes_(b"3"), np.void(b"abc"), np.datetime64("2020-01-01"), np.datetime64("NaT"), np.timedelta64(3, "D"), np.ma.masked)]
HOSTILE += [
    list, dict, object, Raises, Pretends, NoArray, endless, lambda: [[]], lambda: [1], lambda: [3, 2], lambda: [3.0, 2.0],
    lambda: [[1, 2], [3]], lambda: [[[1.0]]], lambda: [[[[[[[[1]]]]]]]], lambda: [None, None], lambda: ["3", "2"], lambda: [NAN, 1.0],
    lambda: [INF, INF], lambda: [10**400, 2], lambda: [10**308] * 3, lambda: [b"3", b"2"], lambda: [3, "2"], lambda: [True, True],
    lambda: [np.ma.masked, 2.0], lambda: {3: 1, 2: 1}, lambda: {3, 2}, lambda: (n for n in (3, 2)), lambda: range(2, 4),
    lambda: map(int, "32"), lambda: bytearray(b"55"), lambda: memoryview(b"55"), lambda: np.array(3), lambda: np.array(2.5),
    lambda: np.array("3"), lambda: np.array(None, dtype=object), lambda: np.array(True), lambda: np.array(2 + 0j), lambda: np.array([3.0]),
    lambda: np.array([[3.0]]), lambda: np.array([]), lambda: np.zeros((0, 3)), lambda: np.zeros((3, 0)), lambda: np.array([3, 2]),
    lambda: np.array([3.0, 2.0]), lambda: np.array([1e300, 1e300]), lambda: SQUARE.copy(), lambda: 0 * SQUARE, lambda: np.ones((2, 3)),
    lambda: 1e149 * SQUARE, lambda: 1e200 * SQUARE, lambda: 1.7e308 * SQUARE, lambda: 1e-200 * SQUARE, lambda: np.full((3, 3), 5e-324),
    lambda: NAN * SQUARE, lambda: 1j * SQUARE, lambda: np.ones((2, 1, 2, 2)), lambda: np.array([3, 2], dtype=object),
    lambda: np.array([[1, None], [2, "x"]], dtype=object), lambda: SQUARE.astype(bool), lambda: SQUARE.astype(np.float16),
    lambda: np.full((3, 3), np.longdouble("1e4000")), lambda: SQUARE.astype(np.uint8), lambda: SQUARE[::-1, ::-1].T, lambda: SQUARE.astype(">f8"),
    lambda: np.ma.masked_array([[1.0, 2], [3, 4]], [[0, 1], [0, 0]]), lambda: np.ma.masked_array(SQUARE), lambda: np.ma.masked_array([3, 2], [0, 1]),
    lambda: np.zeros(3, dtype=[("a", int)]), lambda: np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]"), lambda: np.array([3, 2], dtype="m8[D]"),
    lambda: torch.tensor(3), lambda: torch.tensor(0.5), lambda: torch.tensor([3, 2]), lambda: torch.eye(3), lambda: torch.tensor(True),
    lambda: torch.eye(3, requires_grad=True), lambda: torch.tensor(0.5, requires_grad=True), lambda: torch.eye(3) * 1j, lambda: torch.empty(0),
    lambda: torch.eye(3, dtype=torch.bfloat16), lambda: torch.empty(3, 3, device="meta"), lambda: torch.empty((), device="meta"),
    lambda: torch.eye(3).to_sparse(), lambda: MLP((1, 2, 2), (), 3)]

DRAWN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text(max_size=9) | st.binary(max_size=9)
    | st.decimals() | st.fractions() | st.dates() | st.timedeltas(),
    lambda part: st.lists(part, max_size=4) | st.tuples(part, part) | st.dictionaries(st.text(max_size=3), part, max_size=3), max_leaves=9)
ANYTHING = st.sampled_from(HOSTILE) | DRAWN.map(lambda value: lambda: value)


def plain(value):
    """What an argument that was taken must have been taken for: numbers and lists of Python."""
    if isinstance(value, (Fraction, Decimal)):
        return float(value)
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor, Pretends)):
        return np.asarray(value).tolist()
    if isinstance(value, (list, tuple)) and not all(isinstance(part, (list, tuple)) for part in value):
        return [plain(part) for part in value]
    return list(value) if inspect.isgenerator(value) or isinstance(value, (map, range, bytearray, memoryview)) else value


PROBLEM, SMALL = UFM.from_lam_z([30, 20, 10], 0.01, 0.02), UFM.from_lam_z([3, 2], 0.05)
PLACES = solve_two_groups(2, 3, [50, 60], 10, 0.01)
EXACT, NONNEGATIVE, TRAINED = solve(PROBLEM), solve(PROBLEM, "relu"), train_ufm(SMALL, 2, iterations=3, device="cpu")
FEATURES, LABELS = np.arange(20.0).reshape(4, 5) ** 1.5, [0, 0, 1, 1, 2]
IMAGES, CLASSES = np.random.default_rng(0).random((5, 1, 2, 2)), [0, 0, 0, 1, 1]
CENTRED = np.eye(3) - 1 / 3
LONG = ("iterations", "epochs")  # numbers that a caller may make as large as wanted, and wait


@functools.cache
def panel():
    return figures.panels()[1]


def axes():
    panel().clear()
    return panel()


def entries_of_ledger(name, folder, theorem, optima, at_most, what, measured, predicted, atol, rtol, fact, evidence, headline):
    ledger, last = Ledger(name, folder), {"evidence": evidence, "headline": headline}
    ledger.about(theorem, optima, at_most=at_most)
    ledger.check(what, measured, predicted, atol, rtol, **last)
    ledger.check_at_most(what, measured, predicted, **last)
    ledger.check_at_least(what, measured, predicted, **last)
    ledger.check_true(what, fact, **last)
    ledger.save()
    assert repr(ledger) and ledger._repr_html_() and json.dumps(ledger.record(), allow_nan=False)
    return [row["passed"] for row in ledger.rows]


def with_phase(ufm):
    return ufm, theory.phase(ufm), ufm.labels[:9]


# name: (function, arguments that are right, whether NaN is documented)
POINT, GROUPS, FOUND = dict(ufm=PROBLEM, logits=CENTRED, bias=np.zeros(3)), dict(k_a=2, k_b=3, n_a=50, n_b=10), dict(features=FEATURES, labels=LABELS)
LINE = dict(x=[1, 2], y=[3, 4], group="A", label="line")
FUNCTIONS = {
    "UFM": (lambda **k: with_phase(UFM(**k)), dict(class_sizes=[3, 2, 2], lam_w=0.1, lam_h=0.2, lam_b=0.5, class_weights=[1, 2, 2]), False),
    "UFM.from_lam_z": (lambda **k: with_phase(UFM.from_lam_z(**k)),
                       dict(class_sizes=[3, 2, 2], lam_z=0.1, lam_b=0.5, balance=2.0, class_weights=None), False),
    "solve": (solve, dict(ufm=PROBLEM, features="linear", tol=1e-10, max_iterations=20), False),
    "solve of": (lambda features, **k: solve(UFM.from_lam_z(**k), features),
                 dict(class_sizes=[3, 2, 2], lam_z=0.1, lam_b=0.5, balance=1.0, class_weights=[1, 2, 2], features="linear"), False),
    "Solution.cosines": (EXACT.cosines, dict(of="logits"), False), "Solution.class_means": (EXACT.class_means, dict(dim=4), False),
    "Solution.classifier": (NONNEGATIVE.classifier, dict(dim=4), False),
    "dual_bound": (dual_bound, POINT | dict(rank=1, features="linear"), False),
    "convex.objective": (convex.objective, POINT | dict(features="relu"), False),
    "solve_two_groups": (solve_two_groups, GROUPS | dict(lam_z=0.01, lam_b=0.02, device="cpu"), True),
    "solve_two_groups_log": (solve_two_groups_log, dict(k_a=2, k_b=3, log_ratio=1.0, log_tau=-1.0, lam_b=0.02, device="cpu"), True),
    "TwoGroups.cosines": (PLACES.cosines, dict(of="features"), False), "TwoGroups.logits": (PLACES.logits, dict(index=1), False),
    "theory.minority_threshold": (theory.minority_threshold, dict(n_b=3), False),
    "theory.vanishing_threshold": (theory.vanishing_threshold, GROUPS | dict(lam_b=0.02), False),
    "theory.trivial_threshold": (theory.trivial_threshold, GROUPS | dict(k_a=1, lam_b=0.02), False),
    "theory.phase": (theory.phase, dict(ufm=PROBLEM), False), "theory.simplex_etf": (theory.simplex_etf, dict(num_classes=3), False),
    "theory.seli": (theory.seli, dict(class_sizes=[3, 2]), False),
    "theory.relu_vanishing_threshold": (theory.relu_vanishing_threshold, dict(n_k=3, num_classes=3), False),
    "theory.relu_logits": (theory.relu_logits, dict(class_sizes=[3, 2], lam_z=0.1), False),
    "theory.limit_logits": (theory.limit_logits, GROUPS | dict(c=0.1), False),
    "theory.limit_logits_log": (theory.limit_logits_log, dict(k_a=2, k_b=3, log_ratio=1.0, log_n_b=5.0, c=0.1), False),
    "theory.deviation_constants": (theory.deviation_constants, dict(k_a=2, k_b=3, r=2.0, c=0.1), True),
    "metrics.class_means": (metrics.class_means, FOUND, False), "metrics.scatter": (metrics.scatter, FOUND, False),
    "metrics.nc1": (metrics.nc1, FOUND, True), "metrics.trace_ratio": (metrics.trace_ratio, FOUND, True),
    "metrics.cosines": (metrics.cosines, dict(matrix=CENTRED), True),
    "metrics.group_means": (metrics.group_means, dict(matrix=CENTRED, k_a=1), True),
    "metrics.block_range": (metrics.block_range, dict(logits=CENTRED, class_sizes=[3, 2, 2]), False),
    "metrics.minority_gap": (metrics.minority_gap, dict(logits=CENTRED, minority=[1, 2]), False),
    "metrics.minority_spread": (metrics.minority_spread, dict(logits=CENTRED, minority=[1, 2]), True),
    "metrics.balance_residual": (metrics.balance_residual, dict(classifier=np.ones((3, 4)), class_means=np.ones((4, 3)), ufm=PROBLEM), False),
    "metrics.relative_gap": (metrics.relative_gap, dict(objective=1.5, optimum=1.0), False),
    "ufm_objective": (ufm_objective, dict(ufm=SMALL, W=np.ones((2, 3)), H=np.ones((3, 5)), b=np.zeros(2), labels=CLASSES), False),
    "train_ufm": (train_ufm, dict(ufms=SMALL, dim=3, seed=0, iterations=3, tol=1e-3, device="cpu", features="linear"), False),
    "Trained.cosines": (TRAINED.cosines, dict(member=0, of="features"), False),
    "Trained.accuracy": (TRAINED.accuracy, dict(member=0, classes=[0, 1]), False),
    "Trained.dead_features": (TRAINED.dead_features, dict(member=0), False), "Trained.logits": (TRAINED.logits, dict(member=0), False),
    "Trained.class_means": (TRAINED.class_means, dict(member=0), False),
    "MLP": (MLP, dict(image_shape=(1, 4, 4), widths=(5,), dim=3, features="linear"), False),
    "train_network": (train_network, dict(
        model=MLP((1, 2, 2), (3,), 2), images=IMAGES, labels=CLASSES, ufms=SMALL, epochs=2, batch_size=3, lr=1e-3, warm_start=True, seed=0,
        device="cpu", progress=False, features="linear", recipe="fast", weight_decay=0.0, amp=False, compiled=False, checkpoint=None,
        checkpoint_seconds=30.0, record=[1]), False),
    "load_images": (load_images, dict(name="digits", class_sizes=[3, 2], seed=0, pool=2, test_images=False, dtype="float32"), False),
    "check": (lambda **k: [row["passed"] for row in check(**k).rows], dict(claim="threshold", ufm=PROBLEM, seed=0), False),
    "Ledger": (entries_of_ledger, dict(
        name="test", folder="folder", theorem="thm-threshold", optima=[EXACT], at_most=1e-9, what="row", measured=1.0, predicted=1.0, atol=0.1,
        rtol=0.1, fact=True, evidence="exact", headline=False), False),
    "figures.exact": (lambda group: figures.exact(axes(), [1, 2], [3, 4], group), dict(group="A"), False),
    "figures.trained": (lambda group: figures.trained(axes(), [1, 2], [3, 4], group), dict(group="A"), False),
    "figures.network": (lambda group: figures.network(axes(), [1, 2], [3, 4], group), dict(group="A"), False),
    "figures.limit": (lambda group: figures.limit(axes(), [1, 2], [3, 4], group, "limit"), dict(group="A"), False),
    "figures.threshold": (lambda group: figures.threshold(axes(), 3, group, "threshold"), dict(group="B"), False),
    "figures.heatmap": (lambda matrix, class_sizes: figures.heatmap(axes(), matrix, "Z", class_sizes, bar=False),
                        dict(matrix=CENTRED, class_sizes=[3, 2, 2]), False),
    "figures.plane_of_means": (lambda **k: figures.plane_of_means(axes(), **k, title="features"), FOUND | dict(classes=[0, 1, 2]), False),
    "figures.directions": (lambda **k: figures.directions(axes(), **k, title="means"), dict(means=CENTRED, class_sizes=[3, 2, 2]), False),
}
COSTLY = ("train_network", "figures.heatmap", "figures.plane_of_means", "figures.directions", "check", "train_ufm")
PLOTS = {"use_theme", "panels", "reference", "field", "boundary", "data"}  # what they take goes to Matplotlib as it is


def test_every_public_function_is_here():
    public = {f"{module.__name__.split('.')[1]}.{name}" for module in (theory, metrics, figures) for name, function in vars(module).items()
              if inspect.isfunction(function) and function.__module__ == module.__name__ and name[0] != "_" and name not in PLOTS}
    public |= {name for name in ncutils.__all__ if callable(getattr(ncutils, name)) and not isinstance(getattr(ncutils, name), type)}
    public |= {f"{kind.__name__}.{name}" for kind in (Solution, TwoGroups, Trained) for name, function in vars(kind).items()
               if inspect.isfunction(function) and name[0] != "_"}
    assert public - set(FUNCTIONS) == {"Trained.measures"}  # which `train_network` calls


@pytest.mark.parametrize("name", FUNCTIONS)
def test_whatever_is_given(name, folder):
    function, arguments, missing = FUNCTIONS[name]
    place = folder / "whatever" / name / "a" / "b"  # "../../x" stays below
    place.mkdir(parents=True)
    os.chdir(place)

    @inputs(40 if name in COSTLY else 120)
    @given(st.dictionaries(st.sampled_from(sorted(arguments)), ANYTHING, min_size=1, max_size=3))
    def run(changed):
        if any((real_number(make()) or 0) > 100 for key, make in changed.items() if key in LONG):
            return
        with watched(name, folder):
            try:
                result = flat(function(**arguments | {key: make() for key, make in changed.items()}))
            except np.linalg.LinAlgError:
                raise
            except ValueError as error:
                assert any(word in str(error) for word in ("must", "asks for", "embedded null", "surrogates", *arguments)), error
                return
            except FloatingPointError:
                assert name in ("train_ufm", "train_network")
                return
            assert missing or not any(np.isnan(array).any() for array in result if array.dtype.kind == "f")
            if name != "Ledger":  # names of files are
                assert same(result, flat(function(**arguments | {key: plain(make()) for key, make in changed.items()})))

    run()
    os.chdir(folder)
