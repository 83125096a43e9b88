"""Settings and plans: the paper's, what the trainer is given, and what is refused."""

import math

import numpy as np
import pytest
import runs
from pytest import approx
from runs import LAMBDA_5, LISTED, by_hand, fake_data, one_thread, paper, quiet, small

from ncutils import solve
from ncutils.paper import figures as paper_figures
from ncutils.paper import settings, task
from ncutils.paper.task import Plan
from ncutils.theory import phase
from ncutils.training.network import Diverged
from ncutils.training.networks import MLP
from ncutils.ufm import Phase

alone = pytest.fixture(autouse=True, scope="module")(one_thread)


def test_the_lists_that_notebooks_read_are_those_of_the_paper():
    assert settings.LAMBDA_LAM_Z == {5: LAMBDA_5, 3: runs.LAMBDA_3}
    assert settings.SIZES_N_A == {5: runs.SIZES_5, 3: runs.SIZES_3}
    assert settings.ANGLES_N_A == runs.ANGLES
    assert (settings.LAM_B, settings.SIZES_LAM_Z, settings.ANGLES_LEVEL) == (0.02, 0.005, 0.1)
    assert (settings.LAMBDA_N_A, settings.N_B, settings.CLASSES) == (500, 100, 10)
    for make, name, k_a, value in (
        (lambda k_a, value, b: settings.structure(value, b), "block", None, 2),
        (settings.over_lambda, "lambda", 3, 0.0041),
        (settings.over_sizes, "sizes", 5, 1100),
        (settings.over_doubled_sizes, "angles", 3, 1500),
    ):
        ufm, expected = make(k_a, value, math.inf), by_hand(name, k_a, value)
        assert ufm.class_sizes == expected.class_sizes and ufm.lam_b == math.inf
        assert [ufm.lam_w, ufm.lam_h] == approx([expected.lam_w, expected.lam_h], rel=1e-12)


@pytest.mark.parametrize("recipe", ["authors", "fast"])
@pytest.mark.parametrize("figure, asked", LISTED)
def test_settings_are_those_of_the_paper(figure, asked, recipe):
    name, k_a, values, epochs, decay = LISTED[figure, asked]
    plan = Plan(figure, data="mnist5k", network="mlp", recipe=recipe, k_a=asked, device="cpu")
    assert (plan.experiment.name, plan.k_a, plan.values) == (name, k_a, values)
    expected = (epochs, decay, 0.01) if recipe == "authors" else (150, 0, 2e-3)
    assert (plan.epochs, plan.weight_decay, plan.lr) == expected and plan.batch_size == 128
    for value in values:
        ufm, other = plan.ufm(value), by_hand(name, k_a, value, plan.weight_decay)
        assert ufm.class_sizes == other.class_sizes
        penalties = [other.lam_w, other.lam_h, other.lam_b]
        assert [ufm.lam_w, ufm.lam_h, ufm.lam_b] == approx(penalties, rel=1e-12)
        if name == "angles" and recipe == "fast":
            assert ufm.lam_z * ufm.num_samples == approx(0.1)


DISTINCT = {"fig5": 3, "fig6": 3, "fig7": 2, "fig8": 2, "fig9": 11}


@pytest.mark.parametrize("figure, distinct", DISTINCT.items())
def test_the_first_settings_are_below_the_minority_threshold_and_the_others_on_it_or_above(
    figure, distinct
):
    """K_A = 5: n_A = 300 is on it: λ_Z N = 0.005 · 2000 = sqrt(100)."""
    plan = Plan(figure, device="cpu")
    for i, value in enumerate(plan.values):
        ufm, below = plan.ufm(value), i < distinct
        line = math.sqrt(min(ufm.class_sizes)) * (1 - 1e-12)
        assert (ufm.lam_z * ufm.num_samples < line) == below
        if len(set(ufm.class_sizes)) == 2:
            assert (phase(ufm) is Phase.DISTINCT) == below
        gap = paper_figures.exact_measure(solve(ufm), plan.k_a, "a_b")
        assert gap > 0.05 if below else abs(gap) < 1e-6


def given_to_the_trainer(patch):
    """The keywords of the trainer's last call, and what it is called with; it trains nothing."""
    got = {}

    def trainer(model, images, labels, ufms, **options):
        got.update(options, model=model, ufms=ufms, sizes=np.bincount(labels).tolist())
        raise Diverged({0: "stopped"})

    patch.setattr(task, "train_network", trainer)
    return got


@pytest.mark.parametrize(
    "figure, value, warm", [("fig1", 2, False), ("fig9", 500, False), ("fig8", 100, True)]
)
@pytest.mark.parametrize("recipe", ["authors", "fast"])
def test_the_trainer_gets_the_plan(monkeypatch, tmp_path, figure, value, warm, recipe):
    asked, got = fake_data(monkeypatch), given_to_the_trainer(monkeypatch)
    options = dict(recipe=recipe, batch_size=77, lr=0.3, device="cpu", compiled=True)
    more = dict(network="mlp", features="linear", seeds=4, pool=2, test_images=True)
    plan = Plan(figure, values=(value,), out=str(tmp_path), **more, **options)
    task.train(plan, [(value, 3)], progress=False)
    name, k_a, _, epochs, decay = LISTED[figure, None]
    epochs, decay = (epochs, decay) if recipe == "authors" else (150, 0)
    options |= dict(epochs=epochs, weight_decay=decay, warm_start=warm, seed=[3], progress=False)
    assert {option: got[option] for option in options} == options
    expected, (ufm,) = by_hand(name, k_a, value, decay), got["ufms"]
    penalties = [expected.lam_w, expected.lam_h, expected.lam_b]
    assert [ufm.lam_w, ufm.lam_h, ufm.lam_b] == approx(penalties)
    assert tuple(got["sizes"]) == expected.class_sizes
    assert got["checkpoint"].parent == tmp_path / "checkpoints"
    assert isinstance(got["model"], MLP) and got["model"].features == "linear"
    assert asked == [("cifar10", expected.class_sizes, 3, 2, True, "float32")]


@pytest.mark.parametrize("words, amp", [([], None), (["--float32"], False)])
def test_the_number_format_is_the_devices_unless_float32_is_asked_for(
    monkeypatch, tmp_path, words, amp
):
    got = given_to_the_trainer(monkeypatch)
    assert paper(tmp_path, "fig7", "--only", 100, *words) == 1 and got["amp"] is amp


def test_images_that_are_not_pooled_are_taken_as_stored(monkeypatch, tmp_path):
    asked = fake_data(monkeypatch)
    quiet(small(tmp_path, values=(100,), pool=1, epochs=1))
    assert asked[-1][-1] == "uint8"


def test_mlps_of_equal_class_sizes_train_together_and_other_networks_alone():
    together = [[(value, seed) for value in LAMBDA_5] for seed in (0, 1)]
    assert small("", "fig5", seeds=2).tasks() == together
    assert small("", "fig5", network="convnet").tasks() == [[(value, 0)] for value in LAMBDA_5]
    alone = [[(value, seed)] for seed in (0, 1) for value in (100, 200, 300, 400)]
    assert small("", "fig7", seeds=2).tasks() == alone


def test_a_checkpoint_is_named_by_all_that_its_result_depends_on(tmp_path):
    def path(settings=((100, 0),), **options):
        return task.checkpoint(small(tmp_path, **options), list(settings))

    base = path()
    assert base.parent == tmp_path / "checkpoints"
    assert base == path(seeds=3) == path(values=(100,))
    changes = dict(epochs=3, batch_size=64, lr=1e-3, pool=7, test_images=True, recipe="authors")
    changes |= dict(features="linear", network="convnet", k_a=3, data="cifar10", figure="fig9")
    changes |= dict(compiled=True, float32=True)
    others = [path(**{name: value}) for name, value in changes.items()]
    others += [path([(200, 0)]), path([(100, 1)]), path([(100, 0), (200, 0)])]
    assert len({base, *others}) == 1 + len(others)
    assert path(figure="fig1") == path(figure="fig2")


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(figure="fig3"), "'fig3': must be one of 'fig1', 'fig2', 'fig5', 'fig6', 'fig7', "),
        (dict(data="digits"), "data = 'digits': must be one of 'mnist5k', 'fashion-mnist', "),
        (dict(network="vit"), "network = 'vit'"),
        (dict(features="sigmoid"), "features = 'sigmoid'"),
        (dict(recipe="slow"), "recipe = 'slow'"),
        (dict(device="tpu"), "device = 'tpu'"),
        (dict(values=(100, 7)), "values = 7"),
        (dict(seeds=1.5), "seeds = 1.5"),
        (dict(lr="fast"), "lr = 'fast'"),
    ],
)
def test_a_plan_refuses_what_the_command_cannot_say(options, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{"figure": "fig7", "device": "cpu", **options})


def test_whole_numbers_of_any_type_are_the_same_plan(tmp_path):
    whole = dict(seeds=2.0, epochs=2.0, batch_size=128.0, pool=np.int64(14), values=(100.0,))
    plan = small(tmp_path, **whole)
    assert plan.tasks() == [[(100, 0)], [(100, 1)]]
    assert plan.key(100, 0) == small(tmp_path).key(100, 0)
