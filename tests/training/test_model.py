"""What is measured of a trained model and recorded of a training."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from noise import NOISE, Q1, Q2, noise_run
from pytest import approx

from ncutils import UFM, metrics, solve, train_ufm
from ncutils.training.free_features import geometric_grid
from ncutils.training.objective import ufm_objective
from ncutils.training.record import peak_mib

SMALL = UFM.from_lam_z([8, 8, 3, 3], 0.04, 0.02, balance=4)


def test_views_of_a_trained_model():
    trained = train_ufm([SMALL, SMALL], dim=5, iterations=20, device="cpu")
    model, other = trained[1], trained[0]
    W, H, b, labels = model.classifier(), model.features, model.bias, model.labels
    means = np.stack([H[:, labels == k].mean(axis=1) for k in range(4)], axis=1)
    assert model.class_means() == approx(means, abs=1e-14)
    assert model.logits == approx(W @ means, abs=1e-13)
    for of, matrix in (("logits", W @ means), ("features", means), ("classifier", W.T)):
        assert model.cosines(of) == approx(metrics.cosines(matrix), abs=1e-12)
    for view in ("logits ", "bias", None):
        with pytest.raises(ValueError, match="of = .*: must be one of 'logits', 'features', 'cl"):
            model.cosines(view)
    right = (W @ H + b[:, None]).argmax(axis=0) == labels
    for classes in ([0, 1], [2, 3], [3]):
        assert model.accuracy(classes) == np.mean(right[np.isin(labels, classes)])
    model.features[[0, 4]] = 0.0
    model.features[2, 1:] = 0.0  # still alive on one sample
    assert (other.dead_features, model.dead_features) == (0, 2)


def test_memory_is_unknown_on_windows_and_counted_in_bytes_on_a_mac(monkeypatch):
    cpu = torch.device("cpu")
    here = peak_mib(cpu)
    used = SimpleNamespace(ru_maxrss=3 * 2**20)
    resource = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: used)
    monkeypatch.setitem(sys.modules, "resource", resource)
    monkeypatch.setattr(sys, "platform", "linux")
    assert here > 50 and peak_mib(cpu) == 3 * 2**10
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_mib(cpu) == 3
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(peak_mib(cpu))


MEASURES = "objective gap gap_linear gap_relu error_linear error_relu nc1 trace_ratio a_b length_a "
MEASURES += "length_b cos_a cos_b cos_ab accuracy_a accuracy_b"


def by_hand(ufm, W, H, b, labels, features, A, B):
    """All measures of a network, with loops."""
    K, N = ufm.num_classes, len(labels)
    means = [np.mean([h for h, label in zip(H.T, labels) if label == k], axis=0) for k in range(K)]
    Z = np.stack([W @ mean for mean in means], axis=1)
    found, grand = {"objective": ufm_objective(ufm, W, H, b, labels)}, H.mean(axis=1)
    for kind in ("linear", "relu"):
        exact = solve(ufm, features=kind, tol=1e-12)
        found[f"gap_{kind}"] = (found["objective"] - exact.objective) / exact.objective
        size, apart = math.sqrt((exact.logits**2).sum()), math.sqrt(((Z - exact.logits) ** 2).sum())
        found[f"error_{kind}"] = apart / size if size else math.nan
    within = sum(np.outer(h - means[label], h - means[label]) for h, label in zip(H.T, labels)) / N
    between = sum(np.outer(means[label] - grand, means[label] - grand) for label in labels) / N
    collapse = np.trace(within @ np.linalg.pinv(between, rcond=1e-6)) / K
    found["nc1"] = collapse if between.any() else math.nan
    found["trace_ratio"] = np.trace(within) / np.trace(between) if between.any() else math.nan
    length = lambda k: math.sqrt((Z[:, k] ** 2).sum())
    ratio = lambda x, y: float(x / y) if y else math.nan
    cosine = lambda k, l: ratio(Z[:, k] @ Z[:, l], length(k) * length(l))
    average = lambda values: sum(values) / len(values) if values else math.nan
    right = [np.argmax(W @ h + b) == label for h, label in zip(H.T, labels)]
    for name, group in (("a", A), ("b", B)):
        found[f"length_{name}"] = average([length(k) for k in group])
        found[f"cos_{name}"] = average([cosine(k, l) for k in group for l in group if k != l])
        hits = [r for r, label in zip(right, labels) if label in group]
        found[f"accuracy_{name}"] = average(hits)
    found["cos_ab"] = average([cosine(k, l) for k in A for l in B if k != l])
    off = average([Z[k, l] for k in B for l in B if k != l])  # NaN for one class
    found["a_b"] = average([Z[k, k] for k in B]) - off
    return found | {"gap": found[f"gap_{features}"]}


LARGEST_AND_SMALLEST = [
    ([5, 2, 5, 2], [0, 2], [1, 3]),
    ([6, 5, 3], [0], [2]),
    ([4, 4, 4], [0, 1, 2], [0, 1, 2]),
    ([2, 6, 2, 3, 1], [1], [4]),
    ([1, 1, 7, 5], [2], [0, 1]),
]


@pytest.mark.parametrize("sizes, A, B", LARGEST_AND_SMALLEST, ids=str)
@pytest.mark.parametrize("model", ["mlp", "relu"])
def test_every_number_of_the_history_is_what_its_name_says(sizes, A, B, model):
    """A are the largest classes, B the smallest, both all of them where classes are balanced."""
    labels = np.random.default_rng(1).permutation(np.repeat(range(len(sizes)), sizes))
    kind = "relu" if model == "relu" else "linear"
    ufms = [UFM(sizes, 0.03, 0.001, 0.02), UFM(sizes, 0.02, 0.002), UFM(sizes, 1.0, 1.0)]  # trivial
    options = dict(epochs=25, lr=0.01, batch_size=7, seed=[1, 2, 3])
    trained = noise_run(model, ufms, NOISE[: len(labels)], labels, **options)
    row, names = trained.history[-1], {*MEASURES.split()}
    assert set(row) == {"epoch", "seconds", "peak_mib"} | names and row["epoch"] == 25
    for e, one in enumerate(trained):
        point = one.classifier(), one.features, one.bias
        expected = by_hand(ufms[e], *point, labels, kind, A, B)
        assert set(expected) == names
        for name, value in expected.items():
            assert row[name].shape == (3,)
            assert row[name][e] == approx(value, rel=1e-7, abs=1e-9, nan_ok=True), name
        assert math.isnan(row["error_linear"][e]) == math.isnan(row["error_relu"][e]) == (e == 2)
        assert math.isnan(row["a_b"][e]) == (len(B) == 1)
    for name, group in (("cos_a", A), ("cos_b", B)):
        assert np.isnan(row[name][:2]).tolist() == [len(group) == 1] * 2
        assert A != B or np.array_equal(row[name], row["cos_ab"], equal_nan=True)
    assert trained.gaps == approx(row["gap"], rel=1e-9) and row["gap"][0] > 0


def test_the_gap_is_that_of_the_features_that_are_asked_for():
    for features in ("linear", "relu"):
        row = noise_run("relu", [Q1, Q2], features=features).history[-1]
        assert (row["gap"] == row[f"gap_{features}"]).all()
        assert (row["gap_linear"] != row["gap_relu"]).all()


RECORDS = [([2, 4], [2, 4, 6]), ([], [6]), ((6,), [6]), (range(1, 7), [1, 2, 3, 4, 5, 6])]
RECORDS += [([3, 3, 100], [3, 6]), (np.array([5]), [5, 6]), (None, geometric_grid(6))]
RECORDS += [(dict.fromkeys([1, 2]).keys(), [1, 2, 6])]


@pytest.mark.parametrize("record, epochs", RECORDS, ids=str)
def test_the_epochs_asked_for_are_recorded_and_the_last(record, epochs):
    trained = noise_run(record=record)
    assert [row["epoch"] for row in trained.history] == epochs
    assert trained.history[-1]["objective"] == approx(trained.objectives, rel=1e-14)
