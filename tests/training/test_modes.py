"""The caller's surroundings change no bit and stay as they were; bfloat16, compilation, GPUs."""

import sys

import numpy as np
import pytest
import torch
from noise import HUGE, MEMBERS, MODELS, Q1, Q2, interrupted, noise_run
from small_runs import (
    P1,
    SURROUNDINGS,
    assert_equal,
    matrix,
    modes,
    needs_gpu,
    parts,
    read,
    small_run,
    untouched,
)

from ncutils import MLP
from ncutils.training.checkpoint import OtherRun
from ncutils.training.modes import uses_bfloat16


@needs_gpu
def test_random_state_of_the_gpu_is_left_alone():
    torch.cuda.manual_seed(11)
    before = torch.cuda.get_rng_state()
    small_run(P1, epochs=1, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_progress_is_shown_on_a_terminal_unless_refused(monkeypatch):
    written = []

    class Terminal:
        encoding = "utf-8"
        isatty = lambda self: True
        write = lambda self, text: written.append(text)
        flush = lambda self: None

    monkeypatch.setattr(sys, "stderr", Terminal())
    small_run(P1, progress=False)
    assert not written
    small_run(P1)
    assert "3/3" in "".join(written)


def test_training_is_silent_and_leaves_model_random_state_threads_and_dtype_alone(capfd):
    model = MLP((1, 8, 8), (8,), 8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with untouched():
        small_run(P1, epochs=1, model=model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert capfd.readouterr() == ("", "")  # stderr is no terminal
    small_run(P1, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "epochs" in err and "3/3" in err


SETTINGS = {
    "stack": dict(),
    "own seeds": dict(recipe="authors", seed=[1, 2]),
    "bfloat16": dict(amp=True),
    "one": dict(ufms=Q1, recipe="authors"),
    "one bfloat16": dict(ufms=Q1, amp=True),
}
THIN = [*((around, "one bfloat16") for around in SURROUNDINGS), ("autocast", "own seeds")]


@pytest.mark.parametrize("around, name", matrix(SURROUNDINGS, SETTINGS, thin=THIN))
def test_the_callers_modes_change_no_bit_and_are_left_as_they_were(around, name):
    setting = dict(model=MODELS["batch norm"](), ufms=[Q1, Q2]) | SETTINGS[name]
    plain = noise_run(**setting)
    with SURROUNDINGS[around]():
        before = modes()
        found = noise_run(**setting)
        assert modes() == before
    assert_equal(found, plain)


@pytest.mark.parametrize("around", ["float64", "no grad", "inference", "autocast"])
def test_a_model_may_be_made_in_any_mode_of_the_callers(around):
    with SURROUNDINGS[around]():
        model = MODELS["batch norm"]()
    for ufms in (Q1, [Q1, Q2]):
        assert_equal(noise_run(model, ufms), noise_run("batch norm", ufms))


def test_the_callers_modes_are_left_as_they_were_by_a_refusal_and_warnings_name_the_callers_line():
    with torch.inference_mode(), pytest.raises(ValueError, match="seed = -1"):
        noise_run(seed=-1)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    with pytest.warns(RuntimeWarning) as found:
        noise_run(ufms=[Q1, HUGE])
    assert [w.filename for w in found] == [noise_run.__code__.co_filename]


RECIPES, NETWORKS = ["fast", "authors"], ["mlp", "convnet", "batch norm"]
THIN_RUNS = [("fast", "convnet", "one"), ("authors", "batch norm", "stack")]
RUNS = matrix(RECIPES, NETWORKS, ["one", "stack"], thin=THIN_RUNS)


@pytest.mark.parametrize("recipe, model, members", RUNS)
def test_bfloat16_is_used_for_the_network_only_and_ends_near_float32(
    tmp_path, recipe, model, members
):
    setting = dict(model=model, recipe=recipe, **MEMBERS[members])
    exact = noise_run(**setting)
    rough = noise_run(**setting, amp=True, checkpoint=tmp_path / "run.pt")
    state = read(tmp_path / "run.pt")
    kept = [state["W"], state["b"], *filter(torch.is_floating_point, state["network"].values())]
    assert {part.dtype for part in kept} == {torch.float32}
    assert rough[0].features.dtype == np.float64
    for place in (0, 2):  # W and H
        one, other = (np.array([parts(model)[place] for model in run]) for run in (exact, rough))
        assert 0 < np.linalg.norm(one - other) < 0.1 * np.linalg.norm(one)
    assert all((a.start == b.start).all() for a, b in zip(exact, rough))  # evaluated in float32
    assert rough.objectives == pytest.approx(exact.objectives, rel=0.02)


ON_GPU = pytest.param("cuda", 1, [True] * 3 + [False] * 3 + [True] * 3, marks=needs_gpu)


@pytest.mark.parametrize("device, epochs, used", [("cpu", 6, [False] * 36 + [True] * 18), ON_GPU])
def test_bfloat16_is_used_on_a_gpu_and_not_on_a_cpu_unless_asked_for(
    monkeypatch, device, epochs, used
):
    """Nor for anything outside of the network."""
    asked, autocast = [], torch.autocast

    def spy(*args, **options):
        asked.append((args, options["enabled"]))
        return autocast(*args, **options)

    monkeypatch.setattr(torch, "autocast", spy)
    for amp in (None, False, True):
        noise_run(amp=amp, device=device, epochs=epochs)
    assert [enabled for _, enabled in asked] == used
    assert {args for args, _ in asked} == {(device, torch.bfloat16)}


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_used_on_a_gpu_that_has_it(monkeypatch, able):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: able)
    assert uses_bfloat16(torch.device("cuda:0")) is able
    assert uses_bfloat16(torch.device("cpu")) is False


ENSEMBLES = [(Q1, 0), ([Q1, Q2], 0), ([Q1, Q2], [1, 2])]


@pytest.mark.parametrize("ufms, seed", ENSEMBLES, ids=["one", "stack", "own seeds"])
def test_a_network_is_compiled_where_asked_for(monkeypatch, ufms, seed):
    calls = []

    def recorder(function):
        def call(*args):
            calls.append(1)
            return function(*args)

        return call

    plain = noise_run("batch norm", ufms, seed=seed)
    monkeypatch.setattr(torch, "compile", recorder)
    for compiled in (False, True):
        assert_equal(noise_run("batch norm", ufms, seed=seed, compiled=compiled), plain)
        assert len(calls) >= 18 if compiled else not calls  # every batch


@needs_gpu
@pytest.mark.parametrize("ufms, seed", ENSEMBLES[::2], ids=["one", "stack"])
def test_on_a_gpu_features_are_close_to_those_of_the_cpu(ufms, seed):
    train = lambda **more: noise_run("batch norm", ufms, seed=seed, **more)
    cpu, gpu, rough = train(), train(device="cuda", amp=False), train(device="cuda")
    for one, other, another in zip(cpu, gpu, rough):
        H = one.features
        assert other.start == pytest.approx(one.start, abs=1e-2)
        assert np.linalg.norm(other.features - H) < 0.02 * np.linalg.norm(H)
        assert np.linalg.norm(another.features - H) < 0.1 * np.linalg.norm(H)
    assert all(row["peak_mib"] > 0 for row in gpu.history)


@needs_gpu
def test_a_run_on_a_gpu_goes_on_from_its_checkpoint(tmp_path):
    setting = dict(model="batch norm", ufms=[Q1, Q2], seed=[1, 2], device="cuda")
    whole = noise_run(**setting)
    setting |= dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0)
    interrupted(11, **setting)
    again = noise_run(**setting)
    for a, b in zip(again, whole):
        assert a.classifier() == pytest.approx(b.classifier(), abs=1e-2)
    with pytest.raises(OtherRun, match="is of another run"):  # in float32
        noise_run(**(setting | dict(device="cpu")))
    # complete: nothing is trained, only the weights are moved
    on_cpu = noise_run(**(setting | dict(device="cpu", amp=True)))
    assert all((a.classifier() == b.classifier()).all() for a, b in zip(on_cpu, again))
