"""The caller's surroundings change no bit and stay as they were; bfloat16, compilation, GPUs."""

import sys
import warnings

import numpy as np
import pytest
import torch
from small_runs import (
    HUGE,
    MEMBERS,
    MODELS,
    P1,
    Q1,
    Q2,
    assert_equal,
    digits,
    for_a_while,
    interrupted,
    matrix,
    needs_gpu,
    noise_run,
    parts,
    read,
    small_run,
)

from ncutils import MLP, train_network
from ncutils.training.checkpoint import OtherRun
from ncutils.training.modes import uses_bfloat16


def test_the_model_is_copied_not_changed():
    model = MLP((1, 8, 8), (8,), 8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_network(model, *digits(), P1, epochs=1, device="cpu")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_global_random_state_threads_and_dtype_are_left_alone():
    model = MLP((1, 8, 8), (8,), 8)
    torch.manual_seed(11), np.random.seed(11)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    settings = (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )
    train_network(model, *digits(), P1, epochs=1, device="cpu")
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before[1]).all() and np.random.get_state()[
        2
    ] == numpy_before[2]
    assert settings == (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


def test_training_is_silent_where_stderr_is_no_terminal(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_run(P1)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@needs_gpu
def test_random_state_of_the_gpu_is_left_alone():
    torch.cuda.manual_seed(11)
    before = torch.cuda.get_rng_state()
    small_run(P1, epochs=1, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_progress_goes_to_stderr_where_asked_for(capfd):
    small_run(P1, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "epochs" in err and "3/3" in err


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


def default_dtype(dtype):
    return for_a_while(torch.get_default_dtype, torch.set_default_dtype, dtype)


def without_cache():
    """Autocast casts weights anew each time: what it has cast once cannot outlive the step."""
    return for_a_while(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, False)


SURROUNDINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "no grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "cache": without_cache,
}


def modes():
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
    )


SETTINGS = {
    "stack": dict(),
    "own seeds": dict(recipe="authors", seed=[1, 2]),
    "bfloat16": dict(amp=True),
    "one": dict(ufms=Q1, recipe="authors"),
    "one bfloat16": dict(ufms=Q1, amp=True),
}


@pytest.mark.parametrize(
    "around, name",
    matrix(
        SURROUNDINGS,
        SETTINGS,
        thin=[*((around, "one bfloat16") for around in SURROUNDINGS), ("autocast", "own seeds")],
    ),
)
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


@pytest.mark.parametrize(
    "recipe, model, members",
    matrix(
        ["fast", "authors"],
        ["mlp", "convnet", "batch norm"],
        ["one", "stack"],
        thin=[("fast", "convnet", "one"), ("authors", "batch norm", "stack")],
    ),
)
def test_bfloat16_is_used_for_the_network_only_and_ends_near_float32(
    tmp_path, recipe, model, members
):
    setting = dict(model=model, recipe=recipe, **MEMBERS[members])
    exact = noise_run(**setting)
    rough = noise_run(**setting, amp=True, checkpoint=tmp_path / "run.pt")
    state = read(tmp_path / "run.pt")
    kept = [
        state["W"],
        state["b"],
        *(part for part in state["network"].values() if part.is_floating_point()),
    ]
    assert {part.dtype for part in kept} == {torch.float32} and rough[
        0
    ].features.dtype == np.float64
    for place in (0, 2):  # W and H
        one, other = (np.array([parts(model)[place] for model in run]) for run in (exact, rough))
        assert 0 < np.linalg.norm(one - other) < 0.1 * np.linalg.norm(one)
    assert all((a.start == b.start).all() for a, b in zip(exact, rough))  # evaluated in float32
    assert rough.objectives == pytest.approx(exact.objectives, rel=0.02)


def test_bfloat16_is_not_used_on_a_cpu_unless_asked_for(monkeypatch):
    """Nor for anything outside of the network."""
    asked, autocast = [], torch.autocast

    def spy(*args, **options):
        asked.append((args, options["enabled"]))
        return autocast(*args, **options)

    monkeypatch.setattr(torch, "autocast", spy)
    for amp in (None, False, True):
        noise_run(amp=amp)
    assert [enabled for _, enabled in asked] == [False] * 36 + [True] * 18
    assert {args for args, _ in asked} == {("cpu", torch.bfloat16)}


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_used_on_a_gpu_that_has_it(monkeypatch, able):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: able)
    assert (
        uses_bfloat16(torch.device("cuda:0")) is able
        and uses_bfloat16(torch.device("cpu")) is False
    )


@pytest.mark.parametrize(
    "ufms, seed", [(Q1, 0), ([Q1, Q2], 0), ([Q1, Q2], [1, 2])], ids=["one", "stack", "own seeds"]
)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_network_is_compiled_where_asked_for(monkeypatch, compiled, ufms, seed):
    calls = []

    def recorder(function):
        def call(*args):
            calls.append(1)
            return function(*args)

        return call

    plain = noise_run("batch norm", ufms, seed=seed)
    monkeypatch.setattr(torch, "compile", recorder)
    assert_equal(noise_run("batch norm", ufms, seed=seed, compiled=compiled), plain)
    assert len(calls) >= 18 if compiled else not calls  # every batch


@needs_gpu
@pytest.mark.parametrize("ufms, seed", [(Q1, 0), ([Q1, Q2], [1, 2])], ids=["one", "stack"])
def test_on_a_gpu_features_are_close_to_those_of_the_cpu(ufms, seed):
    cpu, gpu, rough = (
        noise_run("batch norm", ufms, seed=seed, device=device, amp=amp)
        for device, amp in (("cpu", False), ("cuda", False), ("cuda", None))
    )
    for e, H in enumerate(model.features for model in cpu):
        assert gpu[e].start == pytest.approx(cpu[e].start, abs=1e-2)
        assert np.linalg.norm(gpu[e].features - H) < 0.02 * np.linalg.norm(H)
        assert np.linalg.norm(rough[e].features - H) < 0.1 * np.linalg.norm(H)
    assert all(row["peak_mib"] > 0 for row in gpu.history)


@needs_gpu
def test_bfloat16_is_used_on_a_gpu_unless_refused(monkeypatch):
    asked, autocast = [], torch.autocast

    def spy(*args, **options):
        asked.append(options["enabled"])
        return autocast(*args, **options)

    monkeypatch.setattr(torch, "autocast", spy)
    for amp in (None, False):
        noise_run(amp=amp, device="cuda", epochs=1)
    assert asked == [True] * 3 + [False] * 3


@needs_gpu
def test_a_run_on_a_gpu_goes_on_from_its_checkpoint(tmp_path):
    setting = dict(model="batch norm", ufms=[Q1, Q2], seed=[1, 2], device="cuda")
    whole = noise_run(**setting)
    setting |= dict(checkpoint=tmp_path / "run.pt", checkpoint_seconds=0)
    interrupted(11, **setting)
    again = noise_run(**setting)
    assert all(
        a.classifier() == pytest.approx(b.classifier(), abs=1e-2) for a, b in zip(again, whole)
    )
    with pytest.raises(OtherRun, match="is of another run"):  # in float32
        noise_run(**(setting | dict(device="cpu")))
    on_cpu = noise_run(
        **(setting | dict(device="cpu", amp=True))
    )  # complete: nothing is trained, only the weights are moved
    assert all((a.classifier() == b.classifier()).all() for a, b in zip(on_cpu, again))
