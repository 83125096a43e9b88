"""The paper's objective: one formula in PyTorch, NumPy and sample by sample."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from pytest import approx

from ncutils import UFM, solve
from ncutils.training import objective as module
from ncutils.training.objective import objective, penalties, ufm_objective

INF = math.inf
SMALL = UFM.from_lam_z([8, 8, 3, 3], 0.04, 0.02, balance=4)
PROBLEMS = [
    UFM([5, 9, 3], 0.03, 0.002, 0.02, (1, 2, 5)),
    UFM([5, 9, 3], 0.01, 0.04),
    UFM([5, 9, 3], 0.02, 0.01, 3.0),
]


def point(*E, K, d, N):
    draw = np.random.default_rng(0).standard_normal
    return draw((*E, K, d)), draw((*E, d, N)), draw((*E, K))


@pytest.mark.parametrize("batch_size", [17, 5])
@pytest.mark.parametrize("ease", [(1.0, 1.0), (0.1, 1.0)])
def test_in_pytorch_and_in_numpy_it_is_the_same(batch_size, ease):
    """With class weights and bias; batches, weighed by their sizes, add up to the whole."""
    labels = np.random.default_rng(1).permutation(PROBLEMS[0].labels)
    W, H, b = point(3, K=3, d=4, N=17)
    b[1] = 0.0  # no bias
    lam = penalties(PROBLEMS, torch.float64, "cpu")
    weights = torch.tensor(np.stack([ufm.weights[labels] for ufm in PROBLEMS]))
    W_, H_, b_ = map(torch.tensor, (W, H, b))
    y, whole = torch.tensor(labels).expand(3, -1), 0
    for batch in torch.arange(17).split(batch_size):
        features, n = H_[:, :, batch], len(batch)
        logits = W_ @ features + b_[:, :, None]
        part = lam._replace(lam_h=lam.lam_h * 17 / n)
        values = [  # samples as columns, or as rows
            objective(logits, y[:, batch], weights[:, batch], n, W_, H_batch, b_, part, ease)
            for H_batch in (features, features.mT)
        ]
        assert torch.allclose(*values, rtol=1e-14, atol=0)
        whole = whole + values[0] * n / 17
    for e, ufm in enumerate(PROBLEMS):
        lams = ease[0] * ufm.lam_w, ease[0] * ufm.lam_h, ufm.lam_b
        eased = UFM(ufm.class_sizes, *lams, ufm.class_weights)
        expected = ufm_objective(eased, W[e], H[e], b[e], labels)
        assert whole[e].item() == approx(expected, rel=1e-14)


def test_without_bias_its_penalty_is_zero_and_not_infinite():
    lam = penalties(PROBLEMS, torch.float32, "cpu")
    assert lam.lam_b.tolist() == approx([0.02, 0.0, 3.0]) and lam.has_bias.tolist() == [1, 0, 1]


TINY = [([21] * 4, 1e-16, lam_b, 4.993050784667e-14) for lam_b in (INF, 0.02)]
TINY += [([30, 30, 2], 1e-12, INF, None)]


@pytest.mark.parametrize("sizes, lam_z, lam_b, optimum", TINY)
def test_the_objective_is_right_where_the_losses_are_tiny(sizes, lam_z, lam_b, optimum):
    """1 − p of each sample is about 1e-15: as a difference from 1 it would have a digit at most."""
    problem = UFM.from_lam_z(sizes, lam_z, lam_b)
    exact = solve(problem)
    factors = exact.classifier(), exact.class_means()[:, problem.labels], exact.bias
    found = ufm_objective(problem, *factors, problem.labels)
    assert found == approx(optimum or exact.objective, rel=1e-12, abs=0)


def test_the_objective_of_wrong_and_of_huge_logits_is_the_logit_difference():
    """Loss z_l − z_k where class l wins by far, whatever the sizes of the logits."""
    problem = UFM.from_lam_z([1, 1], 1e-30)
    at = lambda W, H: ufm_objective(problem, W, H, np.zeros(2), problem.labels)
    for far in (30.0, 700.0, 1e5, 1e120):
        expected = far / 2 + 5e-31 * far**2 + math.log1p(math.exp(-far))
        assert at(np.array([[far], [0.0]]), np.ones((1, 2))) == approx(expected, rel=1e-15, abs=0)
    huge = at(np.full((2, 1), 1e150), np.full((1, 2), 1e150))
    assert huge == approx(5e-31 * 4e300, rel=1e-12)  # finite


def test_the_objective_does_not_depend_on_how_many_samples_are_taken_at_once(monkeypatch):
    problem, at = PROBLEMS[0], point(K=3, d=4, N=17)
    labels = np.random.default_rng(1).permutation(problem.labels)
    whole = ufm_objective(problem, *at, labels)
    for entries in (1, 12, 51):
        monkeypatch.setattr(module, "CHUNK", entries)
        assert ufm_objective(problem, *at, labels) == approx(whole, rel=1e-15)


def test_memory_of_the_objective_is_that_of_the_features():
    """60,000 samples of 2,000 classes: their logits are 1 GB."""
    problem = UFM.from_lam_z([30] * 2000, 1e-3)
    at_zero = np.zeros((2000, 2)), np.zeros((2, 60_000)), np.zeros(2000)
    tracemalloc.start()
    try:
        value = ufm_objective(problem, *at_zero, problem.labels)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert value == approx(math.log(2000), rel=1e-14) and peak < 100


def test_the_objective_is_the_papers_sample_by_sample():
    W, H, b = point(K=4, d=5, N=22)
    total = 0.0
    for h, k in zip(H.T, SMALL.labels):
        scores = W @ h + b
        total -= math.log(math.exp(scores[k]) / sum(math.exp(s) for s in scores)) / 22
    total += SMALL.lam_w / 2 * np.sum(W**2) + SMALL.lam_h / 2 * np.sum(H**2)
    biased = ufm_objective(SMALL, W, H, b, SMALL.labels)
    assert biased == approx(total + 0.01 * np.sum(b**2), rel=1e-13)
    unbiased = UFM(SMALL.class_sizes, SMALL.lam_w, SMALL.lam_h)
    assert ufm_objective(unbiased, W, H, b, SMALL.labels) == approx(total, rel=1e-13)
    assert ufm_objective(unbiased, 1e4 * W, H, b, SMALL.labels) < INF  # no overflow
