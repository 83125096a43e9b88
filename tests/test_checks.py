"""Checks of arguments: what is taken, and that a refusal says what was given and what to do."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from ncutils import (
    UFM,
    dual_bound,
    figures,
    metrics,
    solve_two_groups,
    train_network,
    ufm_objective,
)
from ncutils._checks import (
    check_array,
    check_choice,
    check_finite,
    check_integer,
    check_number,
    check_positive,
    check_square,
    check_text,
)
from ncutils.exact.convex import objective
from ncutils.training import MLP

NAN, INF = math.nan, math.inf
NO_NUMBERS = ["1", None, True, np.True_, [1.0, 2.0], 1j]


# One number -------------------------------------------------------------------------------------


def refusal(call, *arguments, **options):
    """What the ValueError says that a call raises."""
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_whole_keeps_its_bound_and_large_numbers_exactly():
    assert check_integer("n", 1, 1) == 1 and check_integer("n", 0, 0) == 0
    assert check_integer("n", 10**18 + 1, 1) == 10**18 + 1
    # no float, hence no formula, can hold it
    assert refusal(check_integer, "n", 10**400, 1).startswith("n = ")


def test_positive_numbers_of_any_type():
    assert check_positive("x", np.float32(0.5)) == check_positive("x", torch.tensor(0.5)) == 0.5
    assert check_positive("x", INF, infinite=True) == INF


NOT_POSITIVE = [0, -1e-3, NAN, -INF, *NO_NUMBERS]
AT_MOST = "a finite number, at most 1e+300 in size"


@pytest.mark.parametrize(
    "check, more, bad, allowed",
    [
        (check_integer, (1,), [0, -1, 2.5, NAN, INF, *NO_NUMBERS], "a whole number >= 1"),
        (check_positive, (), [INF, *NOT_POSITIVE], "a positive number, finite"),
        (check_positive, (True,), NOT_POSITIVE, "a positive number or math.inf"),
        (check_number, (), NO_NUMBERS, "a number"),
        (check_finite, (1e300,), [*NO_NUMBERS, NAN, INF, -1e301], AT_MOST),
        (check_text, (), [None, 1, b"x"], "text"),
        (check_choice, (("a", "b"),), [*NO_NUMBERS, "c"], "one of 'a', 'b'"),
    ],
)
def test_a_refusal_shows_the_value_and_what_is_allowed(check, more, bad, allowed):
    for value in bad:
        assert refusal(check, "x", value, *more) == f"x = {value!r}: must be {allowed}"


def test_what_is_allowed_comes_back():
    assert math.isnan(check_number("x", NAN)) and check_finite("x", -1e300, 1e300) == -1e300
    assert check_text("x", "a") == "a" and check_choice("x", "a", ("a", "b")) == "a"


# Arrays -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, message",
    [
        *((values, "m has shape .*must have 2") for values in ([1.0, 2.0], [[]], 3.0, [[[1.0]]])),
        *(([[1.0, bad]], "m holds NaN or infinite values") for bad in (NAN, INF, -INF)),
        (None, "m = None: must be an array of real numbers with 2 dimensions$"),
        ("text", "m = 'text': must be"),
        ([[1, 2], [3]], "m is a list of which NumPy makes no array: must be"),
        ([["a"]], r"m is a list of type <U1, shape \(1, 1\): must be"),
        ([[1j]], r"m is a list of type complex128, shape \(1, 1\): must be"),
        (np.array([["1"]]), r"m is a numpy.ndarray of type <U1, shape \(1, 1\): must be"),
        (np.array([[1 + 2j]]), r"m is a numpy.ndarray of type complex128, shape \(1, 1\): must be"),
        (np.array([[None]]), r"m is a numpy.ndarray of type object, shape \(1, 1\): must be"),
        ([[1e200]], r"m holds numbers as large as 1e\+200: must be at most 1e\+150"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check_array("m", values, 2)


def test_a_square_array_may_have_gaps_where_it_is_said():
    assert np.isnan(check_square("m", [[1, NAN], [0, 1]])[0, 1])
    with pytest.raises(ValueError, match="m holds NaN or infinite"):
        check_square("m", [[1, NAN], [0, 1]], gaps=False)
    with pytest.raises(ValueError, match=r"m has shape \(1, 2\): must be \(K, K\)"):
        check_square("m", [[1, NAN]])


# An array that NumPy does not have --------------------------------------------------------------


class Elsewhere(torch.Tensor):
    """A tensor as if it were on a GPU."""

    device = torch.device("cuda:0")

    def __array__(self, *_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


PLAIN = np.arange(1.0, 10.0).reshape(3, 3)
TENSOR = torch.tensor(PLAIN, dtype=torch.float32)
FOREIGN = {  # what NumPy does not have: as it is given, what is said of it, what helps
    "bfloat16": (TENSOR.bfloat16(), "torch.Tensor of type bfloat16", ".float().numpy()"),
    "gradient": (TENSOR.clone().requires_grad_(), "of type float32", ".detach().numpy()"),
    "sparse": (TENSOR.to_sparse(), "torch.Tensor of type float32", ".to_dense().numpy()"),
    "GPU": (TENSOR.as_subclass(Elsewhere), "Elsewhere of type float32", ".cpu().numpy()"),
    "all of it": (
        TENSOR.bfloat16().requires_grad_().as_subclass(Elsewhere),
        "Elsewhere of type bfloat16",
        ".detach().cpu().float().numpy()",
    ),
    "SciPy": (sparse.csr_array(PLAIN), "scipy.csr_array of type float64", ".toarray()"),
    "masked": (
        np.ma.masked_greater(PLAIN, 5),
        "numpy.MaskedArray of type float64",
        ".filled(VALUE)",
    ),
}
UFM_3, LABELS = UFM([1, 1, 1], 0.1, 0.1, 0.1), np.arange(3)
PICTURES = np.arange(48.0).reshape(3, 1, 4, 4)
TAKERS = {  # every public function that takes arrays: the argument's name, and a call with it
    "class_means": ("features", lambda x: metrics.class_means(x, LABELS)),
    "scatter": ("features", lambda x: metrics.scatter(x, LABELS)),
    "nc1": ("features", lambda x: metrics.nc1(x, LABELS)),
    "trace_ratio": ("features", lambda x: metrics.trace_ratio(x, LABELS)),
    "cosines": ("matrix", metrics.cosines),
    "group_means": ("matrix", lambda x: metrics.group_means(x, 1)),
    "block_range": ("logits", lambda x: metrics.block_range(x, [1, 1, 1])),
    "minority_gap": ("logits", lambda x: metrics.minority_gap(x, [0, 1])),
    "minority_spread": ("logits", lambda x: metrics.minority_spread(x, [0, 1])),
    "balance_residual, W": ("classifier", lambda x: metrics.balance_residual(x, PLAIN, UFM_3)),
    "balance_residual, H": ("class_means", lambda x: metrics.balance_residual(PLAIN, x, UFM_3)),
    "relative_gap": ("objective", lambda x: metrics.relative_gap(x, 1.0)),
    "relative_gap, optimum": ("optimum", lambda x: metrics.relative_gap(1.0, x)),
    "ufm_objective, W": ("W", lambda x: ufm_objective(UFM_3, x, PLAIN, LABELS, LABELS)),
    "ufm_objective, H": ("H", lambda x: ufm_objective(UFM_3, PLAIN, x, LABELS, LABELS)),
    "objective": ("logits", lambda x: objective(UFM_3, x, np.zeros(3))),
    "dual_bound": ("logits", lambda x: dual_bound(UFM_3, x, np.zeros(3), 2)),
    "heatmap": ("matrix", lambda x: figures.heatmap(None, x, "", [1, 1, 1])),
    "plane_of_means": ("features", lambda x: figures.plane_of_means(None, x, LABELS, LABELS, "")),
    "directions": ("means", lambda x: figures.directions(None, x, [1, 1, 1], "")),
    "solve_two_groups, n_a": ("n_a", lambda x: solve_two_groups(2, 3, x, 1, 0.1)),
    "solve_two_groups, k_a": ("k_a", lambda x: solve_two_groups(x, 3, 9, 1, 0.1)),
    "solve_two_groups, lam_b": ("lam_b", lambda x: solve_two_groups(2, 3, 9, 1, 0.1, x)),
    "train_network": (
        "images",
        lambda x: train_network(MLP((1, 4, 4), dim=3), x, LABELS, UFM_3, epochs=1),
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("taker", TAKERS)
def test_an_array_that_numpy_does_not_have_is_refused_with_what_to_do(taker, kind):
    (name, call), (array, said, advice) = TAKERS[taker], FOREIGN[kind]
    text = refusal(call, array)
    assert text.startswith(f"{name} is a ") and said in text and ", shape (3, 3): must be" in text
    assert text.endswith(advice)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: metrics.nc1(np.eye(3), x),
        lambda x: ufm_objective(UFM_3, PLAIN, PLAIN, LABELS, x),
        lambda x: figures.plane_of_means(None, PLAIN, x, LABELS, ""),
        lambda x: train_network(MLP((1, 4, 4), dim=3), PICTURES, x, UFM_3, epochs=1),
    ],
    ids=["metrics", "ufm_objective", "figures", "train_network"],
)
def test_labels_that_numpy_does_not_have_are_refused_with_what_to_do(call):
    allowed = "must be 3 class indices, one for each sample; convert it by .to_dense().numpy()"
    said = f"labels is a torch.Tensor of type int64, shape (3,): {allowed}"
    assert refusal(call, torch.tensor([0, 1, 2]).to_sparse()) == said


@pytest.mark.parametrize("taker", ["class_means", "scatter", "nc1", "trace_ratio"])
def test_features_with_a_sample_a_row_are_told_apart_from_labels_that_do_not_fit(taker):
    features, labels = np.ones((60, 4)), np.arange(60) % 3
    said = "features has shape (N, d) = (60, 4) with 60 labels: must be (d, N); transpose it by .T"
    assert refusal(getattr(metrics, taker), features, labels) == said
    text = refusal(getattr(metrics, taker), features, labels[:59])
    assert text.startswith("labels has shape (59,)") and ": must be 4 class indices" in text


def test_the_objective_and_figures_tell_a_sample_a_row_too():
    features, labels = np.ones((60, 4)), np.arange(60) % 3
    ufm = UFM([20, 20, 20], 0.1, 0.1)
    for call, name in (
        (lambda x: ufm_objective(ufm, np.ones((3, 4)), x, np.zeros(3), labels), "H"),
        (lambda x: figures.plane_of_means(None, x, labels, [0, 1, 2], ""), "features"),
    ):
        said = (
            f"{name} has shape (N, d) = (60, 4) with 60 labels: must be (d, N); transpose it by .T"
        )
        assert refusal(call, features) == said


def test_tensors_on_the_cpu_are_arrays():
    assert check_array("m", TENSOR, 2) == pytest.approx(PLAIN)
    assert metrics.nc1(TENSOR, torch.arange(3)) == metrics.nc1(PLAIN, LABELS)
    whole = np.ma.masked_array(PLAIN, mask=False)  # nothing is masked
    assert metrics.cosines(whole) == pytest.approx(metrics.cosines(PLAIN))
