"""The settings of the paper's experiments with networks. Source: Hong and Ling, arXiv:2309.09725, and their code."""

from dataclasses import dataclass

from ..ufm import UFM

WEIGHT_DECAY = 5e-4  # in two of the authors' four scripts, W and b included
DATA = ("mnist5k", "fashion-mnist", "cifar10")


@dataclass(frozen=True)
class Experiment:
    """What one script of the authors varies.

    figures : of the paper, each with the number of majority classes that it shows.   x : the name of what is varied.
    values : by number of majority classes.   ufm : k_a, value → UFM.   epochs : of the authors.
    warm_start : whether they train with smaller penalties first; where not, they use weight decay.
    """

    name: str
    about: str
    figures: dict
    x: str
    values: dict
    ufm: object
    epochs: int
    warm_start: bool


def _two_groups(k_a, n_a, n_b, lam_z):
    return UFM.from_lam_z([n_a] * k_a + [n_b] * (10 - k_a), lam_z, 0.02, balance=10)


STRUCTURES = {1: [5000] * 4 + [4000] * 3 + [3000] * 3, 2: [5000] * 4 + [3000] * 2 + [1000] * 4}
EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "block",
            "collapse and block structure",
            {"fig1": None, "fig2": None},
            "structure",
            {None: (1, 2)},
            lambda k_a, structure: UFM(STRUCTURES[structure], 2e-3, 2e-6, 0.02),
            1000,
            False,
        ),
        Experiment(
            "lambda",
            "minority collapse over the penalty, 500/100 images a class",
            {"fig5": 5, "fig6": 3},
            "lam_z",
            {
                5: (0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075),
                3: (0.0037, 0.0041, 0.0045, 0.0053, 0.0062, 0.0070, 0.0078, 0.0086, 0.0094, 0.0102),
            },
            lambda k_a, lam_z: _two_groups(k_a, 500, 100, lam_z),
            2000,
            True,
        ),
        Experiment(
            "sizes",
            "minority collapse over the majority's size, 100 images of a minority class, λ_Z = 0.005",
            {"fig7": 5, "fig8": 3},
            "n_a",
            {
                5: (100, 200, 300, 400, 600, 800, 1000, 1100, 1200, 1400),
                3: (100, 400, 450, 500, 700, 1000, 1600, 2200, 2500, 2800),
            },
            lambda k_a, n_a: _two_groups(k_a, n_a, 100, 0.005),
            2000,
            True,
        ),
        Experiment(
            "angles",
            "cosines over the majority's size, ratio 2, λ_Z N = 0.1",
            {"fig9": 5},
            "n_a",
            {k_a: tuple(range(500, 5501, 500)) for k_a in (5, 3)},
            lambda k_a, n_a: _two_groups(
                k_a, n_a, n_a // 2, 0.1 / (k_a * n_a + (10 - k_a) * n_a // 2)
            ),
            2000,
            False,
        ),
    )
}
FIGURES = {
    figure: (experiment, k_a)
    for experiment in EXPERIMENTS.values()
    for figure, k_a in experiment.figures.items()
}
