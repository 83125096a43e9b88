"""Ten thousand inputs and more, for every public function: the right answer, or a ValueError that
says what is allowed.

Never another exception, a NaN or a warning that is not documented, a hang, or a file outside the
folder of the test. The inputs are the same in every run, and with NCUTILS_FUZZ=0.1, as in
`make test`, a tenth of them; NCUTILS_FUZZ=20 draws twenty times as many, and others in each run.
"""

import contextlib
import datetime
import functools
import inspect
import io
import json
import math
import operator
import os
import re
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import new_claim
import numpy as np
import pytest
import torch
from conftest import SHARE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ncutils
from ncutils import MLP, UFM, Ledger, Phase, figures, metrics, solve, theory
from ncutils.__main__ import main
from ncutils._checks import real_number
from ncutils.exact import convex
from ncutils.ufm import GroupPhases

INF, NAN = math.inf, math.nan
SECONDS = 600  # a call that takes longer hangs, on a busy machine, too
CHANGES = "mkdir rename remove rmdir link symlink truncate chmod".split()
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# RuntimeWarnings
DOCUMENTED = re.compile("solve stopped after|the worst relative gap is|training diverged in epoch")
COUNT, OUTSIDE = Counter(), []  # inputs of each test; files written outside the folder
FOLDER = None  # that all files must be in, while a function is watched


def inputs(count):
    """Settings of a test that so many inputs are drawn for."""
    return settings(
        max_examples=max(3, round(count * SHARE)),
        derandomize=SHARE <= 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def audit(event, arguments):
    """Python's own record of what is written."""
    if FOLDER is None or not event.startswith(("open", "os.")):
        return
    if event == "open":
        path, mode, flags = arguments
        paths = [path] if set(mode or "") & set("wax+") or flags & WRITES else []
    elif event.removeprefix("os.") in CHANGES:
        paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
    else:
        return
    for path in (os.fsdecode(path) for path in paths if not isinstance(path, int)):
        inside = os.path.realpath(path).startswith((str(FOLDER), "/dev/"))
        if not inside and "__pycache__" not in path:
            OUTSIDE.append(f"{event} {path}")


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
            yield found
        finally:
            FOLDER = None
            signal.alarm(0)
    documented = lambda w: w.category is RuntimeWarning and DOCUMENTED.match(str(w.message))
    assert not [w for w in found if not documented(w)] and not OUTSIDE


NUMBERS_OF = {
    UFM: "sizes lam_w lam_h lam_z lam_b weights groups",
    ncutils.Solution: "logits bias objective gap rank group_gaps",
    GroupPhases: "collapsed rank",
}


def flat(result):
    """All numbers of a result, as arrays, in one list."""
    if names := NUMBERS_OF.get(type(result)):
        result = [getattr(result, name) for name in names.split()]
    elif isinstance(result, ncutils.TwoGroups):
        result = vars(result)
    elif isinstance(result, ncutils.Trained):
        result = [result.objectives, [(m.classifier(), m.features) for m in result]]
    elif isinstance(result, torch.nn.Module):
        result = [p.shape for p in result.parameters()]
    if isinstance(result, Mapping):
        result = list(result.values())
    if isinstance(result, (list, tuple)):
        return [array for part in result for array in flat(part)]
    silent = result is None or isinstance(result, (str, Phase, Ledger))
    return [] if silent else [np.asarray(result)]


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one, other)
    )


# What is no argument at all
# ---------------------------------------------------------------------------


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
# fmt: off
HOSTILE = [lambda value=value: value for value in (  # what cannot be changed or used up
    None, True, False, "", "5", "linear x", "\ud800", "a\0b", "../../x", b"5", b"55", 1j, 2 + 0j,
    0, -1, -0.0, 2.5, 1, 3, NAN, INF, -INF, 5e-324, 1e-300, 1e300, 1.7e308, 10**9, 10**15, 2**63,
    2**64, 10**308, 10**400, -(10**400), 10**5000, 3.0, 1e16, (), (3, 2), int, len, ...,
    NotImplemented, slice(None), UFM, UFM.from_lam_z([3, 2], 0.1), datetime.datetime(2020, 1, 1),
    datetime.timedelta(3), Decimal("0.5"), Decimal(3), Decimal("NaN"), Decimal("sNaN"),
    Decimal("1e400"), Fraction(1, 3), Fraction(3), Fraction(10**400, 3), Fraction(1, 10**400),
    np.int8(3), np.uint64(2**63), np.float16(0.5), np.float32(INF), np.longdouble("1e4000"),
    np.complex128(2), np.True_, np.str_("3"), np.bytes_(b"3"), np.void(b"abc"),
    np.datetime64("2020-01-01"), np.datetime64("NaT"), np.timedelta64(3, "D"), np.ma.masked,
)]
HOSTILE += [
    list, dict, object, Raises, Pretends, NoArray, endless,
    lambda: [[]], lambda: [1], lambda: [3, 2], lambda: [3.0, 2.0], lambda: [[1, 2], [3]],
    lambda: [[[1.0]]], lambda: [[[[[[[[1]]]]]]]], lambda: [None, None], lambda: ["3", "2"],
    lambda: [NAN, 1.0], lambda: [INF, INF], lambda: [10**400, 2], lambda: [10**308] * 3,
    lambda: [b"3", b"2"], lambda: [3, "2"], lambda: [True, True], lambda: {3: 1, 2: 1},
    lambda: {3, 2}, lambda: (n for n in (3, 2)), lambda: range(2, 4), lambda: map(int, "32"),
    lambda: bytearray(b"55"), lambda: memoryview(b"55"),
    lambda: np.array(3), lambda: np.array(2.5), lambda: np.array("3"), lambda: np.array(True),
    lambda: np.array(None, dtype=object), lambda: np.array(2 + 0j), lambda: np.array([3.0]),
    lambda: np.array([[3.0]]), lambda: np.array([]), lambda: np.zeros((0, 3)),
    lambda: np.zeros((3, 0)), lambda: np.array([3, 2]), lambda: np.array([3.0, 2.0]),
    lambda: np.array([1e300, 1e300]), lambda: SQUARE.copy(), lambda: 0 * SQUARE,
    lambda: np.ones((2, 3)), lambda: 1e149 * SQUARE, lambda: 1e200 * SQUARE,
    lambda: 1.7e308 * SQUARE, lambda: 1e-200 * SQUARE, lambda: np.full((3, 3), 5e-324),
    lambda: NAN * SQUARE, lambda: 1j * SQUARE, lambda: np.ones((2, 1, 2, 2)),
    lambda: np.array([3, 2], dtype=object), lambda: SQUARE.astype(bool),
    lambda: np.array([[1, None], [2, "x"]], dtype=object), lambda: SQUARE.astype(np.float16),
    lambda: np.full((3, 3), np.longdouble("1e4000")), lambda: SQUARE.astype(np.uint8),
    lambda: SQUARE[::-1, ::-1].T, lambda: SQUARE.astype(">f8"),
    lambda: np.ma.masked_array([[1.0, 2], [3, 4]], [[0, 1], [0, 0]]),
    lambda: np.ma.masked_array(SQUARE), lambda: np.ma.masked_array([3, 2], [0, 1]),
    lambda: np.zeros(3, dtype=[("a", int)]),
    lambda: np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]"),
    lambda: np.array([3, 2], dtype="m8[D]"),
    lambda: torch.tensor(3), lambda: torch.tensor(0.5), lambda: torch.tensor([3, 2]),
    lambda: torch.eye(3), lambda: torch.tensor(True), lambda: torch.eye(3, requires_grad=True),
    lambda: torch.tensor(0.5, requires_grad=True), lambda: torch.eye(3) * 1j,
    lambda: torch.empty(0), lambda: torch.eye(3, dtype=torch.bfloat16),
    lambda: torch.empty(3, 3, device="meta"), lambda: torch.empty((), device="meta"),
    lambda: torch.eye(3).to_sparse(), lambda: MLP((1, 2, 2), (), 3),
]
# fmt: on
SCALARS = "none booleans integers floats complex_numbers decimals fractions dates timedeltas"
DRAWN = st.recursive(
    st.one_of(*(getattr(st, kind)() for kind in SCALARS.split()))
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda part: (
        st.lists(part, max_size=4)
        | st.tuples(part, part)
        | st.dictionaries(st.text(max_size=3), part, max_size=3)
    ),
    max_leaves=9,
)
ANYTHING = st.sampled_from(HOSTILE) | DRAWN.map(lambda value: lambda: value)


def plain(value):
    """What an argument that was taken must have been taken for: numbers and lists of Python."""
    if isinstance(value, (Fraction, Decimal)):
        return float(value)
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor, Pretends)):
        # a list has no empty dimensions
        return np.asarray(value).tolist() if np.size(value) else value
    nested = lambda value: all(isinstance(part, (list, tuple)) for part in value)
    if isinstance(value, (list, tuple)) and not nested(value):
        return [plain(part) for part in value]
    used_up = isinstance(value, (map, range, bytearray, memoryview)) or inspect.isgenerator(value)
    return list(value) if used_up else value


PROBLEM, SMALL = UFM.from_lam_z([30, 20, 10], 0.01, 0.02), UFM.from_lam_z([3, 2], 0.05)
PLACES = ncutils.solve_two_groups(2, 3, [50, 60], 10, 0.01)
EXACT, NONNEGATIVE = solve(PROBLEM), solve(PROBLEM, "relu")
TRAINED = ncutils.train_ufm(SMALL, 2, iterations=3, device="cpu")
FEATURES, LABELS = np.arange(20.0).reshape(4, 5) ** 1.5, [0, 0, 1, 1, 2]
IMAGES, CLASSES = np.random.default_rng(0).random((5, 1, 2, 2)), [0, 0, 0, 1, 1]
CENTRED = np.eye(3) - 1 / 3


@functools.cache
def panel():
    return figures.panels()[1]


def axes():
    panel().clear()
    return panel()


def entries_of_ledger(name, folder, theorem, optima, at_most, what, measured, fact, **given):
    last = {key: given[key] for key in ("evidence", "headline")}
    predicted, ledger = given["predicted"], Ledger(name, folder)
    ledger.about(theorem, optima, at_most=at_most)
    ledger.check(what, measured, predicted, given["atol"], given["rtol"], **last)
    ledger.check_at_most(what, measured, predicted, **last)
    ledger.check_at_least(what, measured, predicted, **last)
    ledger.check_true(what, fact, **last)
    ledger.save()
    assert repr(ledger) and ledger._repr_html_() and json.dumps(ledger.record(), allow_nan=False)
    return [row["passed"] for row in ledger.rows]


def with_phase(ufm):
    return ufm, theory.phase(ufm), ufm.labels[:9]


def drawn(*arguments, **options):
    return figures.heatmap(axes(), *arguments, **options)


# What is called under a name, where it is not the function of this name in the package.
FUNCTIONS = {
    "UFM": lambda **k: with_phase(UFM(**k)),
    "UFM.from_lam_z": lambda **k: with_phase(UFM.from_lam_z(**k)),
    "solve of": lambda features, **k: solve(UFM.from_lam_z(**k), features),
    "Solution.cosines": EXACT.cosines,
    "Solution.class_means": EXACT.class_means,
    "Solution.classifier": NONNEGATIVE.classifier,
    "convex.objective": convex.objective,
    "TwoGroups.cosines": PLACES.cosines,
    "TwoGroups.logits": PLACES.logits,
    "TrainedModel.cosines": TRAINED[0].cosines,
    "TrainedModel.accuracy": TRAINED[0].accuracy,
    "check": lambda **k: [row["passed"] for row in ncutils.check(**k).rows],
    "Ledger": entries_of_ledger,
    "figures.limit": lambda group: figures.limit(axes(), [1, 2], [3, 4], group, "limit"),
    "figures.threshold": lambda group: figures.threshold(axes(), 3, group, "threshold"),
    "figures.heatmap": lambda matrix, class_sizes: drawn(matrix, "Z", class_sizes, bar=False),
    "figures.plane_of_means": lambda **k: figures.plane_of_means(axes(), **k, title="features"),
    "figures.directions": lambda **k: figures.directions(axes(), **k, title="means"),
}
# The functions, with arguments that are right.
POINT = dict(ufm=PROBLEM, logits=CENTRED, bias=np.zeros(3))
GROUPS, LOGS = dict(k_a=2, k_b=3, n_a=50, n_b=10), dict(k_a=2, k_b=3, log_ratio=1.0)
SIZED, WEIGHED = dict(class_sizes=[3, 2, 2]), dict(class_sizes=[3, 2, 2], class_weights=[1, 2, 2])
FOUND = dict(features=FEATURES, labels=LABELS)
LEDGER = dict(name="test", folder="folder", theorem="thm-threshold", optima=[EXACT], at_most=1e-9)
ROW = dict(what="row", measured=1.0, predicted=1.0, atol=0.1, rtol=0.1, fact=True)
BALANCE = dict(classifier=np.ones((3, 4)), class_means=np.ones((4, 3)))
FACTORS = dict(W=np.ones((2, 3)), H=np.ones((3, 5)), b=np.zeros(2))
NETWORK = dict(model=MLP((1, 2, 2), (3,), 2), images=IMAGES, labels=CLASSES, ufms=SMALL, epochs=2)
NETWORK |= dict(batch_size=3, lr=1e-3, warm_start=True, seed=0, progress=False, recipe="fast")
NETWORK |= dict(weight_decay=0.0, amp=False, compiled=False, checkpoint=None, record=[1])
NETWORK |= dict(features="linear", checkpoint_seconds=30.0, device="cpu")
TRAINING = dict(ufms=SMALL, dim=3, seed=0, iterations=3, tol=1e-3, device="cpu", features="linear")
IMAGE_SET = dict(name="digits", class_sizes=[3, 2], seed=0, pool=2, test_images=False)
ARGUMENTS = {
    "UFM": WEIGHED | dict(lam_w=0.1, lam_h=0.2, lam_b=0.5),
    "UFM.from_lam_z": SIZED | dict(lam_z=0.1, lam_b=0.5, balance=2.0, class_weights=None),
    "solve": dict(ufm=PROBLEM, features="linear", tol=1e-10, max_iterations=20),
    "solve of": WEIGHED | dict(lam_z=0.1, lam_b=0.5, balance=1.0, features="linear"),
    "Solution.cosines": dict(of="logits"),
    "Solution.class_means": dict(dim=4),
    "Solution.classifier": dict(dim=4),
    "dual_bound": POINT | dict(rank=1, features="linear"),
    "convex.objective": POINT | dict(features="relu"),
    "solve_two_groups": GROUPS | dict(lam_z=0.01, lam_b=0.02, device="cpu"),
    "solve_two_groups_log": LOGS | dict(log_tau=-1.0, lam_b=0.02, device="cpu"),
    "TwoGroups.cosines": dict(of="features"),
    "TwoGroups.logits": dict(index=1),
    "theory.minority_threshold": dict(n_b=3),
    "theory.vanishing_thresholds": GROUPS | dict(lam_b=0.02),
    "theory.vanishing_threshold": GROUPS | dict(lam_b=0.02),
    "theory.trivial_threshold": GROUPS | dict(k_a=1, lam_b=0.02),
    "theory.phase": dict(ufm=PROBLEM),
    "theory.simplex_etf": dict(num_classes=3),
    "theory.seli": dict(class_sizes=[3, 2]),
    "theory.relu_vanishing_threshold": dict(n_k=3, num_classes=3),
    "theory.relu_logits": dict(class_sizes=[3, 2], lam_z=0.1),
    "theory.limit_logits": GROUPS | dict(c=0.1),
    "theory.limit_logits_log": LOGS | dict(log_n_b=5.0, c=0.1),
    "theory.deviation_constants": dict(k_a=2, k_b=3, r=2.0, c=0.1),
    "metrics.class_means": FOUND,
    "metrics.scatter": FOUND,
    "metrics.nc1": FOUND,
    "metrics.trace_ratio": FOUND,
    "metrics.cosines": dict(matrix=CENTRED),
    "metrics.group_means": dict(matrix=CENTRED, k_a=1),
    "metrics.block_range": SIZED | dict(logits=CENTRED),
    "metrics.minority_gap": dict(logits=CENTRED, minority=[1, 2]),
    "metrics.minority_spread": dict(logits=CENTRED, minority=[1, 2]),
    "metrics.balance_residual": BALANCE | dict(ufm=PROBLEM),
    "metrics.relative_gap": dict(objective=1.5, optimum=1.0),
    "ufm_objective": FACTORS | dict(ufm=SMALL, labels=CLASSES),
    "train_ufm": TRAINING,
    "TrainedModel.cosines": dict(of="features"),
    "TrainedModel.accuracy": dict(classes=[0, 1]),
    "MLP": dict(image_shape=(1, 4, 4), widths=(5,), dim=3, features="linear"),
    "train_network": NETWORK,
    "load_images": IMAGE_SET | dict(dtype="float32"),
    "check": dict(claim="threshold", ufm=PROBLEM, seed=0),
    "Ledger": LEDGER | ROW | dict(evidence="exact", headline=False),
    "figures.heatmap": SIZED | dict(matrix=CENTRED),
    "figures.plane_of_means": FOUND | dict(classes=[0, 1, 2]),
    "figures.directions": SIZED | dict(means=CENTRED),
}
for name in ("exact", "trained", "network"):
    draw = getattr(figures, name)
    FUNCTIONS[f"figures.{name}"] = lambda group, draw=draw: draw(axes(), [1, 2], [3, 4], group)
for name in ("exact", "trained", "network", "limit", "threshold"):
    ARGUMENTS[f"figures.{name}"] = dict(group="A")
# whose results may hold NaN
MISSING = """solve_two_groups solve_two_groups_log theory.deviation_constants metrics.nc1
    metrics.trace_ratio metrics.cosines metrics.group_means metrics.minority_spread""".split()
COSTLY = ("train_", "figures.", "check")
# what these take goes to Matplotlib as it is
PLOTS = {"use_theme", "panels", "reference", "field", "boundary", "data"}


def test_every_public_function_is_here():
    functions = lambda place: [(n, f) for n, f in vars(place).items() if inspect.isfunction(f)]
    public = {
        f"{module.__name__.split('.')[1]}.{name}"
        for module in (theory, metrics, figures)
        for name, function in functions(module)
        if function.__module__ == module.__name__ and name[0] != "_" and name not in PLOTS
    }
    public |= {n for n in ncutils.__all__ if inspect.isfunction(getattr(ncutils, n))}
    for kind in (ncutils.Solution, ncutils.TwoGroups, ncutils.TrainedModel):
        public |= {f"{kind.__name__}.{name}" for name, _ in functions(kind) if name[0] != "_"}
    called = "measures", "class_means", "classifier"  # by `train_network`
    assert public - set(ARGUMENTS) == {f"TrainedModel.{name}" for name in called}


def slow(argument, value):
    """Whether a caller asks for minutes of work, and would get it."""
    if argument == "compiled":
        return isinstance(value, (int, float, Fraction, np.bool_)) and value == 1
    return argument in ("iterations", "epochs") and (real_number(value) or 0) > 100


@pytest.mark.parametrize("name", ARGUMENTS)
def test_whatever_is_given(name, folder):
    function = FUNCTIONS.get(name) or operator.attrgetter(name)(ncutils)
    arguments = ARGUMENTS[name]
    place = folder / "whatever" / name / "a" / "b"  # "../../x" stays below
    place.mkdir(parents=True)
    os.chdir(place)

    def call(changed, form):
        return flat(function(**arguments | {key: form(make()) for key, make in changed.items()}))

    @inputs(40 if name.startswith(COSTLY) else 130)
    @given(st.dictionaries(st.sampled_from(sorted(arguments)), ANYTHING, min_size=1, max_size=3))
    def run(changed):
        if any(slow(key, make()) for key, make in changed.items()):
            return
        with watched(name, folder):
            try:
                result = call(changed, lambda value: value)
            except np.linalg.LinAlgError:
                raise
            except ValueError as error:
                told = ("must", "asks for", "null", "surrogates", *arguments)
                assert any(word in str(error) for word in told), error
                return
            except FloatingPointError:
                assert name in ("train_ufm", "train_network")
                return
            floats = [array for array in result if array.dtype.kind == "f"]
            assert name in MISSING or not any(np.isnan(array).any() for array in floats)
            assert name == "Ledger" or same(result, call(changed, plain))  # names of files are

    run()
    os.chdir(folder)


# What is allowed, the extremes included: the right answer
# ---------------------------------------------

ints, floats, one_of = st.integers, st.floats, st.sampled_from


def powers(low, high):
    return floats(low, high).map(lambda power: 10.0**power)


COUNTS = ints(1, 4) | ints(1, 12) | ints(1, 4) | st.just(60)  # classes of a group
SIZES = ints(0, 9).flatmap(lambda power: ints(10**power, 10 ** min(power + 1, 9)))
LAM_B = st.just(INF) | one_of([1e-8, 0.02, 1.0, 1e12]) | powers(-8, 9)
LEVELS = floats(0.01, 1.3) | powers(-12, 0) | one_of([1.0, 10.0, 1e100])  # λ_Z N/max w sqrt(n)
BALANCES = one_of([1.0, 1e-200, 1e-6, 1e6, 1e200])


@st.composite
def problems(draw, most=5, counts=COUNTS, sizes=SIZES):
    weights = one_of([1.0, 1.0, 1e-3, 0.1, 3.0, 1e3])
    groups = draw(st.lists(st.tuples(counts, sizes, weights), min_size=1, max_size=most))
    n, w = zip(*((size, weight) for count, size, weight in groups for _ in range(count)))
    w = w if draw(st.booleans()) else (1.0,) * len(n)
    if len(n) < 2:
        n, w = 2 * n, 2 * w
    order = draw(st.permutations(range(len(n)))) if len(n) < 30 else range(len(n))
    steepest = max(weight * math.sqrt(size) for weight, size in zip(w, n))
    lam_z, lam_b = draw(LEVELS) * steepest / sum(n), draw(LAM_B)
    n, w = [n[k] for k in order], [w[k] for k in order]
    return UFM.from_lam_z(n, lam_z, lam_b, draw(BALANCES), w)


def lengths(columns):
    return np.linalg.norm(columns / max(np.abs(columns).max(), 1e-300), axis=0)


@inputs(250)
@given(problems(), one_of(["linear", "linear", "relu"]))
def test_the_solver(folder, ufm, features):
    with watched("the solver", folder) as warned:
        found = solve(ufm, features)
        Z, b, K = found.logits, found.bias, ufm.num_classes
        size = 1 + np.abs(Z).max()
        assert np.isfinite(Z).all() and np.isfinite(b).all()
        assert found.objective > 0 and 0 <= found.gap < INF
        assert abs(b.sum()) <= 1e-9 * (1 + np.abs(b).max())
        if warned:  # which says that the gap is not closed
            assert not found.certified
            return
        assert found.certified or features == "relu"
        assert np.abs(Z.sum(axis=0)).max() <= 1e-9 * size
        assert convex.objective(ufm, Z, b, features) == pytest.approx(found.objective, rel=1e-9)
        bound = ncutils.dual_bound(ufm, Z, b, found.rank, features)
        assert bound <= found.objective * (1 + 1e-12)
        kinds = list(zip(ufm.class_sizes, ufm.weights))
        assert metrics.block_range(Z, [kinds.index(kind) for kind in kinds]) <= 1e-9 * size
        W, means = found.classifier(K + 1), found.class_means(K + 1)
        assert W @ means == pytest.approx(Z, abs=1e-8 * size)
        assert features == "linear" or (means >= 0).all()
        for of, columns in (("logits", Z), ("features", means), ("classifier", W.T)):
            cosines, zero = found.cosines(of), lengths(columns) < 1e-10
            clear = zero | (lengths(columns) > 1e-8)
            assert np.isnan(cosines.diagonal())[clear].tolist() == zero[clear].tolist()
            assert np.nanmax(np.abs(cosines), initial=0) <= 1 + 1e-9
        if features == "linear" and far_from_lines(ufm):
            told, seen = theory.phase(ufm), found.phase
            if isinstance(told, Phase):
                assert told == seen
            else:
                assert told.collapsed == seen.collapsed
                assert told.rank[0] <= seen.rank[0] <= told.rank[1]


def far_from_lines(ufm):
    """Whether λ_Z N is further than 1e-5 from every threshold that is known."""
    level = ufm.lam_z * ufm.num_samples
    lines = list(ufm.weights * np.sqrt(ufm.sizes))
    if len(ufm.groups) == 2 and ufm.class_weights is None:
        (n_a, A), (n_b, B) = ufm.groups.items()
        sizes = len(A), len(B), n_a, n_b, ufm.lam_b
        lines += [*theory.vanishing_thresholds(*sizes), theory.trivial_threshold(*sizes)]
    return all(abs(level / line - 1) > 1e-5 for line in lines)


@inputs(120)
@given(problems(4, ints(1, 6)), one_of([2, 3, 1000]), st.randoms(use_true_random=False))
def test_scaling_and_permutation(folder, ufm, times, random):
    with watched("scaling and permutation", folder):
        order = random.sample(range(ufm.num_classes), ufm.num_classes)
        n, w = np.array(ufm.class_sizes, dtype=object)[order], ufm.weights[order]
        lam_z = ufm.lam_z / math.sqrt(times)
        one, other = solve(ufm), solve(UFM.from_lam_z(times * n, lam_z, ufm.lam_b, class_weights=w))
        assert other.objective == pytest.approx(one.objective, rel=1e-9)
        close = 1e-4 * (1 + np.abs(one.logits).max())  # the gap is of second order
        assert other.logits == pytest.approx(one.logits[np.ix_(order, order)], abs=close)
        assert other.bias == pytest.approx(one.bias[order], abs=close)


@inputs(100)
@given(ints(1, 60), ints(1, 60), floats(0, 9), floats(0, 9), LEVELS, LAM_B)
def test_two_groups(folder, k_a, k_b, low, high, level, lam_b):
    n_b, n_a = sorted(round(10**power) for power in (low, high))
    with watched("two groups", folder):
        lam_z = level * math.sqrt(n_a) / (k_a * n_a + k_b * n_b)
        found = ncutils.solve_two_groups(k_a, k_b, n_a, n_b, lam_z, lam_b)
        exact = solve(UFM.from_lam_z([n_a] * k_a + [n_b] * k_b, lam_z, lam_b))
        assert found.objective == pytest.approx(exact.objective, rel=1e-9)
        Z = found.logits()
        assert exact.logits == pytest.approx(Z, abs=1e-4 * (1 + np.abs(Z).max()))
        assert np.isnan(found.a_a) == (k_a == 1) and np.isnan(found.a_b) == (k_b == 1)
        for of in ("logits", "features", "classifier"):
            assert all(not abs(value) > 1 + 1e-9 for value in found.cosines(of).values())


LOG_RATIO, LOG_TAU = floats(0, 1e9) | floats(0, 50), floats(-1e9, 1e9) | floats(-60, 30)


@inputs(250)
@given(ints(1, 10**12), ints(1, 10**12), LOG_RATIO, LOG_TAU, powers(-16, 100) | st.just(INF))
def test_two_groups_in_logarithms(folder, k_a, k_b, log_ratio, log_tau, lam_b):
    with watched("two groups in logarithms", folder) as warned:
        found = ncutils.solve_two_groups_log(k_a, k_b, log_ratio, log_tau, max(lam_b, 1e-16))
        gone = [name for name, count in (("a_a", k_a), ("a_b", k_b)) if count == 1]
        assert [name for name, x in vars(found).items() if name != "phase" and np.isnan(x)] == gone
        assert (found.a_a == 0) == (k_a > 1 and log_tau - log_ratio / 2 >= -1e-12)
        assert (abs(found.relative_gap) <= 1e-10 + 1e-15 * abs(log_tau)) == (not warned)


EVERY_LAM_B = LAM_B | powers(-320, 308).map(lambda lam_b: max(lam_b, 5e-324))


@inputs(400)
@given(ints(1, 300), ints(1, 300), floats(-300, 300), floats(0, 12) | st.just(0.0), EVERY_LAM_B)
def test_thresholds_are_in_order(folder, k_a, k_b, power, ratio, lam_b):
    n_a, n_b = 10.0 ** max(power, ratio - 300), 10.0 ** (max(power, ratio - 300) - ratio)
    with watched("thresholds", folder):
        v = theory.vanishing_threshold(k_a, k_b, n_a, n_b, lam_b)
        last = theory.trivial_threshold(k_a, k_b, n_a, n_b, lam_b)
        lines = [theory.minority_threshold(n_b), v, last, math.sqrt(n_a)]
        assert all(one <= other * (1 + 1e-9) for one, other in zip(lines, lines[1:]))
        of_more = theory.vanishing_threshold(k_a, k_b, 4 * n_a, 4 * n_b, lam_b)
        assert of_more == pytest.approx(2 * v, rel=1e-9)
        if k_a > 1:  # minority means stay 0 above v, and are not below
            sizes = (k_a, k_b, math.log(n_a) - math.log(n_b))
            tau = math.log(v) - math.log(n_b) / 2 + np.log([1 - 1e-6, 1 + 1e-6])
            if 1e-16 <= lam_b <= 1e100 or lam_b == INF:
                phases = ncutils.solve_two_groups_log(*sizes, tau, lam_b).phase
                gone = Phase.MINORITY_VANISHES, Phase.TRIVIAL
                vanished = [phase in gone for phase in phases]
                assert vanished[1] and (not vanished[0] or n_a == n_b or last / v < 1 + 2e-6)


MANY_SIZES = st.lists(SIZES, min_size=2, max_size=20)


@inputs(500)
@given(ints(2, 60), ints(1, 60), floats(1, 1e9), floats(-300, 300), floats(-1e9, 1e9), MANY_SIZES)
def test_closed_forms(folder, k_a, k_b, ratio, power, log_n, sizes):
    c = 10.0**power
    with watched("closed forms", folder):
        Z, K = theory.limit_logits_log(k_a, k_b, math.log(ratio), log_n, c), k_a + k_b
        q = math.log(c) - math.log(K * (k_b * ratio + k_a)) / 2
        assert Z[0, 0] - Z[-1, 0] == pytest.approx(log_n / 2 - q, rel=1e-9, abs=1e-9)
        assert np.abs(Z.sum(axis=0)).max() <= 1e-12 * K * (1 + np.abs(Z).max())
        constants = theory.deviation_constants(k_a, k_b, ratio, c)
        assert np.isfinite(constants["AB"]) and np.isfinite(constants["A"])
        assert math.isnan(constants["B"]) == (k_b == 1)
        etf = theory.simplex_etf(K)
        assert etf.sum(axis=0) == pytest.approx(0, abs=1e-12) and (etf.diagonal() == 1).all()
        for cosines in theory.seli(sizes):
            assert np.abs(cosines).max() <= 1 + 1e-12
            assert cosines.diagonal() == pytest.approx(1, abs=1e-12)
        Z, level = theory.relu_logits(sizes, c), c * sum(sizes)
        lines = [theory.relu_vanishing_threshold(n, len(sizes)) for n in sizes]
        gone = [level >= line * (1 + 1e-12) for line in lines]
        assert np.isfinite(Z).all() and (Z.diagonal() >= 0).all() and not Z[:, gone].any()


SCALED = one_of([-1074, -700, -10, 0, 20, 490]), one_of([0.0, 1e-8, 1.0])
SAMPLES, DTYPES = st.lists(ints(1, 6), min_size=1, max_size=6), one_of(["f8", "f4", "i8", "f2"])


@inputs(700)
@given(ints(1, 9), SAMPLES, ints(0, 10**6), *SCALED, DTYPES, ints(0, 2**62))
def test_metrics(folder, d, sizes, seed, power, noise, dtype, first):
    rng, K = np.random.default_rng(seed), len(sizes)
    labels = rng.permutation(np.repeat(np.arange(K), sizes))
    means, turn = rng.integers(-3, 4, (d, K)), rng.permutation(K)
    features = (means[:, labels] + noise * rng.standard_normal((d, len(labels)))).astype(dtype)
    small = power < -1000  # where only whole multiples of 2^power are floats
    tiny = np.ldexp(np.round(np.float64(features), 0 if small else 6), power)
    collapse = lambda *of: (metrics.nc1(*of), metrics.trace_ratio(*of))
    same_as = lambda values, **close: pytest.approx(values, nan_ok=True, **close)
    with watched("metrics", folder):
        found = collapse(features, labels)
        assert math.isnan(found[0]) == math.isnan(found[1]) and not min(found) < 0
        assert K > 1 or math.isnan(found[0])
        assert collapse(features, turn[labels] + first) == same_as(found, rel=1e-6, abs=1e-20)
        for k in range(K):
            own = np.float64(features)[:, labels == k].mean(axis=1)
            assert metrics.class_means(features, labels)[:, k] == pytest.approx(own, abs=1e-12)
        usual = tiny * 2.0**1000 * 2.0**74 if small else tiny * 2.0**-power  # 2^1074 is no float
        assert collapse(tiny, labels) == same_as(collapse(usual, labels), rel=1e-9, abs=1e-25)
        for matrix in (tiny, means):
            cosines, zero = metrics.cosines(matrix), ~matrix.any(axis=0)
            assert np.nanmax(np.abs(cosines), initial=0) <= 1 + 1e-12
            assert np.isnan(cosines[zero]).all()
            assert not np.isnan(cosines[np.ix_(~zero, ~zero)]).any() or noise == 1e-8


@inputs(500)
@given(ints(2, 7), ints(0, 10**6), one_of([0.0, 1e-150, 1.0, 1e149]), st.data())
def test_metrics_of_logits(folder, K, seed, scale, data):
    rng, draw = np.random.default_rng(seed), data.draw
    Z, cosines = scale * rng.integers(-9, 10, (K, K)), rng.random((K, K))
    cosines[rng.random((K, K)) < 0.2] = NAN
    minority = draw(st.lists(ints(0, K - 1), min_size=2, max_size=K, unique=True))
    sizes, k_a = draw(st.lists(SIZES, min_size=K, max_size=K)), draw(ints(1, K - 1))
    W, H = rng.standard_normal((K, 3)), rng.standard_normal((3, K))
    with watched("metrics of logits", folder):
        own = [Z[k, k] for k in minority]
        other = [Z[k, l] for k in minority for l in minority if k != l]
        gap = math.fsum(own) / len(own) - math.fsum(other) / len(other)
        assert metrics.minority_gap(Z, minority) == pytest.approx(gap, rel=1e-12, abs=1e-12 * scale)
        spread = metrics.minority_spread(Z, minority)
        assert math.isnan(spread) == (not Z.any()) and not spread < 0 and not spread > 2 * K + 1e-9
        assert 0 <= metrics.block_range(Z, sizes) <= 18 * scale
        assert metrics.block_range(np.eye(K), sizes) == 0
        beside = lambda block: block[~np.eye(len(block), dtype=bool)]
        blocks = beside(cosines[:k_a, :k_a]), beside(cosines[k_a:, k_a:]), cosines[:k_a, k_a:]
        found = metrics.group_means(cosines, k_a)
        gone = [np.isnan(block).any() or not block.size for block in blocks]
        assert [math.isnan(found[group]) for group in ("A", "B", "AB")] == gone and len(found) == 3
        lam_z, balance = draw(one_of([1e-90, 1e-3, 1e100])), draw(one_of([1e-60, 1.0, 1e60]))
        ufm = UFM.from_lam_z(sizes, lam_z, balance=balance)
        assert metrics.balance_residual(0 * W, H, ufm) == 0
        usual = metrics.balance_residual(W, H, ufm)
        tiny = metrics.balance_residual(1e-100 * W, 1e-100 * H, ufm)
        assert tiny == pytest.approx(usual, rel=1e-9)


NUMBERS = floats() | ints(-(10**9), 10**9) | st.fractions().filter(lambda v: abs(v) < 10**300)
NAMES = st.text("abz_0 .-é", min_size=1, max_size=60)
EVIDENCE = one_of(["exact", "trained", "network"])


@inputs(500)
@given(NAMES, NUMBERS, NUMBERS, floats(0, 1e308), floats(0, 1e3), st.text(max_size=20), EVIDENCE)
def test_the_ledger(folder, name, measured, predicted, atol, rtol, what, evidence):
    with watched("the ledger", folder / "ledgers"):
        ledger = Ledger(name, folder / "ledgers")
        ledger.check(what, measured, predicted, atol, rtol, evidence)
        ledger.check_at_most(what, measured, predicted, evidence)
        ledger.check_at_least(what, measured, predicted, evidence)
        a, b = float(measured), float(predicted)
        finite = math.isfinite(a) and math.isfinite(b)
        assert ledger.rows[0]["passed"] == (finite and abs(a - b) <= atol + rtol * abs(b) < INF)
        assert [row["passed"] for row in ledger.rows[1:]] == [a <= b, a >= b]
        assert len(repr(ledger).split("\n")) >= 5 and "<table" in ledger._repr_html_()
        ledger.save()
    stored = (folder / "ledgers" / f"{name}.json").read_text(encoding="utf-8")
    assert len(json.loads(stored)["rows"]) == 3


WORDS = """check paper threshold collapse angles diminishing relu all list fig5 fig1 --class-sizes
    --lam-z --lam-b --lam-w --lam-h --class-weights --seed --json --help -h -- --ka --only --seeds
    --epochs --lr --data --network --features --pool --device --dry-run --out --recipe --batch-size
    --with-test-images 30x2,10x2 3,2,1 20x3 500x5,100x5 5x x5 1e400 nan inf -1 0 3 0.01 1e-3 digits
    mnist5k cifar10 cpu cuda meta mlp fast linear ../x 5 1x99999999999 1x5,4x5 1_0 0x10""".split()
WORDS += ["", "\ud800", "a\0b", "\N{SUPERSCRIPT TWO}"]
CHECK = """check; threshold angles diminishing relu all none; --class-sizes;
    30x2,10x2 3,2,1 20x3 50x5,10x5 7,7 5 2x3,x; --lam-z --lam-w; 0.01 0.3 1e-3 0 x"""
CHECK = st.tuples(*(one_of(words.split()) for words in CHECK.split(";"))).map(list)
WORDS = st.lists(one_of(WORDS) | st.text(max_size=5), max_size=7)


def no_images(*_):
    raise RuntimeError("no images are here")


@inputs(300)
@given(WORDS | st.builds(operator.add, CHECK, WORDS))
def test_the_command_line(folder, words):
    said, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, watched("the command line", folder):
        # what `paper` begins with: it would download and train
        patch.setattr("ncutils.paper.task.available", no_images)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            try:
                status = main(words)
            except SystemExit as end:
                status = end.code
    assert status in (0, 1, 2) and "Traceback" not in errors.getvalue()
    assert errors.getvalue() if status == 2 else said.getvalue()


PAGES = st.from_regex("[0-9]{2}_[a-z][a-z0-9_]{0,6}", fullmatch=True)


@inputs(300)
@given(
    PAGES | st.text("0123456789_ab./\\ é", max_size=9),
    st.none() | st.text(max_size=5) | st.just("03_threshold"),
)
def test_names_of_pages(folder, name, start):
    existing = ["03_threshold", "05_a"]
    with watched("names of pages", folder):
        why = new_claim.refusal(name, start, existing)
    number, line, rest = name[:2], name[2:3], name[3:]
    right = name.isascii() and name == name.lower() and number.isdecimal() and line == "_"
    right &= rest[:1].isalpha() and all(letter.isalnum() or letter == "_" for letter in rest)
    taken = rest in ("threshold", "a")
    assert (why is None) == (right and not taken and start in (None, *existing))
    assert why is None or "NAME = " in why or "FROM = " in why


# mnist5k takes seconds to read
IMAGE_SETS = one_of(["digits"] * 9 + ["mnist5k"] * (SHARE >= 1))
IMAGE_DTYPES = one_of(["float32", "uint8"])
IMAGE_SIZES = st.lists(ints(1, 190) | ints(1, 9), min_size=2, max_size=11)


@inputs(200)
@given(IMAGE_SETS, IMAGE_SIZES, ints(0, 2**70), one_of([1, 1, 2, 4, 3]), IMAGE_DTYPES)
def test_images(folder, name, sizes, seed, pool, dtype):
    side, held = (8, 174) if name == "digits" else (28, 500)
    with watched("images", folder):
        try:
            images, labels = ncutils.load_images(name, sizes, seed, pool, dtype=dtype)
        except ValueError:
            averaged = dtype == "uint8" and pool > 1
            assert len(sizes) > 10 or max(sizes) > held or side % pool or averaged
            return
        assert images.shape == (sum(sizes), 1, side // pool, side // pool) and images.dtype == dtype
        assert np.bincount(labels).tolist() == sizes
        assert 0 <= images.min() and images.max() <= (1 if dtype == "float32" else 255)


FEW_PROBLEMS = st.lists(problems(3, ints(1, 3), ints(1, 20)), min_size=1, max_size=3)


@inputs(40)
@given(FEW_PROBLEMS, ints(0, 5), ints(0, 2**70), one_of(["linear", "relu"]))
def test_trained_models(folder, ufms, more, seed, features):
    ufms = [ufm for ufm in ufms if ufm.num_classes == ufms[0].num_classes]
    options = dict(iterations=15, device="cpu", features=features)
    with watched("trained models", folder):
        try:
            trained = ncutils.train_ufm(ufms, ufms[0].num_classes + more, seed, **options)
        except FloatingPointError as error:
            assert "penalties are too large" in str(error) and max(ufm.lam_z for ufm in ufms) > 1e20
            return
        for model in trained:
            ufm, exact, H = model.ufm, model.exact, model.features
            assert np.isfinite(H).all() and (features == "linear" or (H >= 0).all())
            value = ncutils.ufm_objective(ufm, model.classifier(), H, model.bias, ufm.labels)
            assert value >= (exact.objective - exact.gap) * (1 - 1e-9) and value == model.objective


TINY, RECIPES, LR = problems(2, ints(1, 2), ints(1, 4)), ["fast", "authors"], [1e-3, 0.1, 1e3]


@inputs(20)
@given(TINY, ints(1, 3), ints(1, 30), one_of(LR), one_of(RECIPES), ints(0, 2**63))
def test_trained_networks(folder, ufm, epochs, batch_size, lr, recipe, seed):
    images = np.random.default_rng(seed).random((ufm.num_samples, 1, 2, 2))
    run = MLP((1, 2, 2), (5,), 6), images, ufm.labels, ufm, epochs, batch_size, lr
    options = dict(seed=seed, recipe=recipe, device="cpu", progress=False)
    with watched("trained networks", folder):
        try:
            trained = ncutils.train_network(*run, **options)
        except FloatingPointError as error:
            assert "training diverged" in str(error)
            return
        assert trained.gaps[0] >= -trained.certificate - 1e-9
        assert trained.history[-1]["epoch"] == epochs


@inputs(60)
@given(
    problems(3, ints(1, 6), ints(1, 300)),
    one_of("collapse angles threshold diminishing relu all".split()),
)
def test_checks(folder, ufm, claim):
    with watched("checks", folder):
        try:
            report = ncutils.check(claim, ufm)
        except ValueError as error:
            share = ufm.weights * ufm.sizes
            steep = share.max() > 1e6 * share.min() and "the ratio of w n must be" in str(error)
            assert steep or (claim == "diminishing" and "two" in str(error)) or "lam_" in str(error)
            return
        assert report.passed or claim == "relu" or "certified" in report.verdict, report
        assert json.loads(json.dumps(report.record(), allow_nan=False))["rows"]


def test_there_were_ten_thousand_inputs(request):
    if request.config.getoption("keyword") or any("::" in word for word in request.config.args):
        pytest.skip("not all tests ran")
    print(f"\n{COUNT.total()} inputs:", ", ".join(f"{n} of {test}" for test, n in COUNT.items()))
    assert COUNT.total() >= 10_000 * SHARE
