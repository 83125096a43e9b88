"""Members of an ensemble are what they would be alone; one that diverges leaves the others."""

import math
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from noise import HUGE, LARGE, Q1, Q2, Q3, interrupted, noise_run, quiet
from small_runs import P1, P2, assert_equal, matrix, named, parts, read, small_run

from ncutils import UFM
from ncutils.training.network import Diverged


def test_a_member_of_an_ensemble_is_what_it_would_be_alone():
    alone, together = small_run(P1), small_run([P1, P2])
    assert together[0].start == pytest.approx(alone[0].start, abs=1e-6)
    assert together[0].classifier() == pytest.approx(alone[0].classifier(), abs=1e-4)
    assert together[0].features == pytest.approx(alone[0].features, abs=1e-4)


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_divergence_stops_with_epoch_and_setting(lr):
    message = r"diverged in epoch \d+: objective .* for UFM\(class_sizes=\(60, .*smaller lr"
    with pytest.raises(FloatingPointError, match=message) as stop:
        small_run([P1, P2], epochs=20, lr=lr)
    assert repr(P1) in str(stop.value) or repr(P2) in str(stop.value)


# SGD with lr = 0.01 is unstable in W once the warm start is over
LATE = UFM([6, 5, 3], 1000.0, 0.01, 0.05)
BAD = {  # problem, recipe and seed of an ensemble
    "large": (LARGE, "authors", [1, 2, 3]),
    "huge fast": (HUGE, "fast", 0),
    "huge": (HUGE, "authors", [1, 2, 1]),
    "late": (LATE, "authors", 0),
    "late, own seeds": (LATE, "authors", [3, 2, 1]),
}
THIN_BAD = [("mlp", "huge fast"), ("batch norm", "late, own seeds"), ("convnet", "large")]


@pytest.mark.parametrize(
    "model, case", matrix(["mlp", "convnet", "batch norm"], BAD, thin=THIN_BAD)
)
def test_a_member_that_diverges_changes_no_bit_of_the_others(model, case):
    bad, recipe, seed = BAD[case]
    setting = dict(model=model, recipe=recipe, seed=seed, epochs=12, record=[1, 3, 5])
    harmless = noise_run(ufms=[Q1, Q2, Q2], **setting)
    with pytest.warns(RuntimeWarning) as found:
        trained = noise_run(ufms=[Q1, bad, Q2], **setting)
    message = trained[1].diverged
    assert named(trained) == [1]
    assert [str(w.message) for w in found] == [f"{message}; the others go on"]
    pattern = rf"training diverged in epoch (\d+): objective \S+ for {re.escape(repr(bad))}: "
    epoch = int(re.fullmatch(pattern + "try a smaller lr", message)[1])
    assert epoch == (3 if bad is LATE else 1)
    for e in (0, 2):
        for part, same in zip(parts(trained[e]), parts(harmless[e])):
            assert (part == same).all()
    assert np.isnan(trained.gaps).tolist() == [False, True, False]
    assert (trained.gaps[[0, 2]] == harmless.gaps[[0, 2]]).all()
    assert [row["epoch"] for row in trained.history] == [1, 3, 5, 12]
    for row, twin in zip(trained.history, harmless.history):
        assert set(row) == set(twin)
        for name in row.keys() - {"epoch", "seconds", "peak_mib"}:
            assert row[name].shape == (3,)
            assert np.array_equal(row[name][[0, 2]], twin[name][[0, 2]], equal_nan=True)
            assert row["epoch"] < epoch or math.isnan(row[name][1])
        assert row["epoch"] >= epoch or row["objective"][1] > 0


def test_the_first_or_the_only_member_may_be_the_one_that_diverges():
    trained = quiet(ufms=[HUGE, Q1])
    assert named(trained) == [0] and math.isnan(trained.gaps[0]) and trained.gaps[1] > 0
    assert set(trained.history[0]) == set(noise_run(ufms=[Q2, Q1]).history[0])
    with pytest.raises(Diverged) as stop:
        noise_run(ufms=HUGE)
    assert list(stop.value.members) == [0] and str(stop.value) == stop.value.members[0]


def test_a_run_goes_on_with_what_has_diverged(tmp_path):
    setting = dict(ufms=[LATE, Q1, Q2], recipe="authors", epochs=12, seed=[1, 2, 3])
    whole = quiet(**setting)
    setting |= dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        interrupted(34, **setting)
    assert read(tmp_path / "run.pt")["diverged"] == {0: whole[0].diverged}
    for _ in range(2):  # the second is complete
        assert_equal(quiet(**setting), whole)


def test_a_large_penalty_of_the_start_is_no_divergence():
    """It is above a hundred times the objective of Z = 0, and falls."""
    early = UFM([6, 5, 3], 0.05, 300.0, 0.05)
    trained = noise_run(ufms=[early, Q1], epochs=40, lr=0.05, warm_start=False, record=[1])
    assert trained.history[0]["objective"][0] > 100 * math.log(3) > trained.objectives[0]
    assert not named(trained)


def test_where_all_diverge_all_are_named(tmp_path):
    ufms, path = [LARGE, LATE, HUGE], tmp_path / "run.pt"
    setting = dict(recipe="authors", epochs=12, checkpoint=path, checkpoint_seconds=0)
    for _ in range(2):  # the second goes on from the last checkpoint with a living member
        with pytest.raises(Diverged, match=re.escape(repr(LATE))) as stop:
            quiet(ufms=ufms, **setting)
        members = stop.value.members
        assert isinstance(stop.value, FloatingPointError) and sorted(members) == [0, 1, 2]
        for e, problem in enumerate(ufms):
            assert repr(problem) in members[e] and members[e] in str(stop.value)
        assert "epoch 1:" in members[0] and "epoch 3:" in members[1]
        assert f"epoch {read(path)['epoch'] + 1}:" in members[1]


def test_divergence_can_be_sent_to_another_process():
    again = pickle.loads(pickle.dumps(Diverged({0: "one", 2: "two"})))
    assert again.members == {0: "one", 2: "two"} and str(again) == "one; two"


@pytest.mark.parametrize("ufms", [Q1, [Q1, Q2]], ids=["one", "stack"])
def test_divergence_in_the_last_step_of_an_epoch_is_divergence(ufms):
    with pytest.raises(Diverged):
        noise_run(ufms=ufms, batch_size=14, lr=1e20)


def test_divergence_of_one_in_the_last_step_of_an_epoch_leaves_the_others(monkeypatch):
    steps = []

    class Faulty(torch.optim.Adam):
        def step(self, *args, **options):
            super().step(*args, **options)
            steps.append(1)
            if len(steps) == 3:
                self.param_groups[1]["params"][0].data[1] = math.nan

    whole = noise_run(ufms=[Q1, Q2])
    monkeypatch.setattr(torch.optim, "Adam", Faulty)
    trained = quiet(ufms=[Q1, Q2])
    assert named(trained) == [1] and (trained[0].features == whole[0].features).all()


NETWORKS = ["mlp", "convnet", "batch norm", "batch norm first"]
ALONE = matrix(["fast", "authors"], NETWORKS, thin=[("fast", "mlp"), ("authors", NETWORKS[-1])])


@pytest.mark.parametrize("recipe, model", ALONE)
def test_with_a_list_of_seeds_a_member_is_what_it_would_be_alone_wherever_it_stands(model, recipe):
    """Members: UFM and seed."""
    members = [(Q1, 7), (Q2, 3), (Q1, 3), (Q3, 2**40)]
    alone = {(u, s): noise_run(model, u, seed=[s], recipe=recipe) for u, s in members}
    for mates in (members, members[::-1], members[1:3]):
        ufms, seeds = zip(*mates)
        together = noise_run(model, list(ufms), seed=list(seeds), recipe=recipe)
        for e, member in enumerate(mates):
            assert together[e].start == pytest.approx(alone[member][0].start, abs=1e-5)
            for part, twin in zip(parts(together[e]), parts(alone[member][0])):
                assert part == pytest.approx(twin, abs=1e-4)
            for row, twin in zip(together.history, alone[member].history):
                assert row["objective"][e] == pytest.approx(twin["objective"][0], rel=1e-4)
    one, other_seed, other_ufm = (alone[member][0] for member in ((Q1, 3), (Q1, 7), (Q2, 3)))
    assert np.abs(other_seed.start - one.start).max() > 0.01
    assert np.abs(other_ufm.features - one.features).max() > 1e-3


def test_members_of_one_seed_and_ufm_are_twins():
    trained = noise_run(ufms=[Q1, Q2, Q1], seed=[5, 5, 5])
    assert all((trained[0].start == other.start).all() for other in trained)
    assert trained[0].features == pytest.approx(trained[2].features, abs=1e-5)
    together = noise_run(ufms=[Q1, Q1], seed=5)  # one number: another start for each
    assert np.abs(together[0].start - together[1].start).max() > 0.01
    assert together[0].start == pytest.approx(trained[0].start, abs=1e-6)


@pytest.mark.parametrize("recipe", ["fast", "authors"])
def test_a_number_is_the_list_of_it_for_one_network(recipe):
    one = noise_run(seed=4, recipe=recipe)
    for seed in ([4], (4,), range(4, 5), 4.0):
        assert_equal(noise_run(seed=seed, recipe=recipe), one)
