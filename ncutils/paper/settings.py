"""The settings of the paper's experiments with networks, by figure.

Source: Hong and Ling, arXiv:2309.09725, and their code. Every list of settings stands here once.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..ufm import UFM

DATA = ("mnist5k", "fashion-mnist", "cifar10")
CLASSES = 10
LAM_B = 0.02  # penalty on the bias, in every experiment
BALANCE = 10.0  # λ_W/λ_Z = λ_Z/λ_H in figures 5 to 9
WEIGHT_DECAY = 5e-4  # in two of the authors' four scripts, W and b included

# Figures 1 and 2: class sizes by structure, and the penalties.
STRUCTURES = {
    1: (5000,) * 4 + (4000,) * 3 + (3000,) * 3,
    2: (5000,) * 4 + (3000,) * 2 + (1000,) * 4,
}
STRUCTURE_LAM_W, STRUCTURE_LAM_H = 2e-3, 2e-6
# Figures 5 and 6: λ_Z by number of majority classes, at n_A = 500, n_B = 100.
LAMBDA_N_A, N_B = 500, 100
LAMBDA_LAM_Z = {
    5: (0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075),
    3: (0.0037, 0.0041, 0.0045, 0.0053, 0.0062, 0.0070, 0.0078, 0.0086, 0.0094, 0.0102),
}
# Figures 7 and 8: n_A by number of majority classes, at n_B = 100 and this λ_Z.
SIZES_LAM_Z = 0.005
SIZES_N_A = {
    5: (100, 200, 300, 400, 600, 800, 1000, 1100, 1200, 1400),
    3: (100, 400, 450, 500, 700, 1000, 1600, 2200, 2500, 2800),
}
# Figure 9: n_A = 2 n_B at this λ_Z N.
ANGLES_LEVEL = 0.1
ANGLES_N_A = tuple(range(500, 5501, 500))


def structure(number, lam_b=LAM_B):
    """The UFM of figure 1 or 2, by the number of its structure."""
    return UFM(STRUCTURES[number], STRUCTURE_LAM_W, STRUCTURE_LAM_H, lam_b)


def two_groups(k_a, n_a, n_b, lam_z, lam_b=LAM_B):
    """The UFM of `k_a` majority classes of n_a images and 10 − k_a minority classes of n_b."""
    return UFM.from_lam_z([n_a] * k_a + [n_b] * (CLASSES - k_a), lam_z, lam_b, BALANCE)


def over_lambda(k_a, lam_z, lam_b=LAM_B):
    """The UFM of figures 5 and 6 at a value of λ_Z."""
    return two_groups(k_a, LAMBDA_N_A, N_B, lam_z, lam_b)


def over_sizes(k_a, n_a, lam_b=LAM_B):
    """The UFM of figures 7 and 8 at a value of n_A."""
    return two_groups(k_a, n_a, N_B, SIZES_LAM_Z, lam_b)


def over_doubled_sizes(k_a, n_a, lam_b=LAM_B):
    """The UFM of figure 9 at a value of n_A = 2 n_B."""
    n_b = n_a // 2
    lam_z = ANGLES_LEVEL / (k_a * n_a + (CLASSES - k_a) * n_b)
    return two_groups(k_a, n_a, n_b, lam_z, lam_b)


@dataclass(frozen=True)
class Experiment:
    """What one script of the authors varies.

    Attributes
    ----------
    figures : of the paper, each with the number of majority classes that it shows.
    x : the name of what is varied.
    values : by number of majority classes.
    ufm : k_a, value → UFM.
    epochs : of the authors.
    warm_start : whether they train with smaller penalties first; where not, they use weight decay.
    """

    name: str
    figures: dict
    x: str
    values: dict
    ufm: Callable
    epochs: int
    warm_start: bool


EXPERIMENTS = {
    "block": Experiment(
        "block",
        figures={"fig1": None, "fig2": None},
        x="structure",
        values={None: tuple(STRUCTURES)},
        ufm=lambda k_a, number: structure(number),
        epochs=1000,
        warm_start=False,
    ),
    "lambda": Experiment(
        "lambda",
        figures={"fig5": 5, "fig6": 3},
        x="lam_z",
        values=LAMBDA_LAM_Z,
        ufm=over_lambda,
        epochs=2000,
        warm_start=True,
    ),
    "sizes": Experiment(
        "sizes",
        figures={"fig7": 5, "fig8": 3},
        x="n_a",
        values=SIZES_N_A,
        ufm=over_sizes,
        epochs=2000,
        warm_start=True,
    ),
    "angles": Experiment(
        "angles",
        figures={"fig9": 5},
        x="n_a",
        values={5: ANGLES_N_A, 3: ANGLES_N_A},
        ufm=over_doubled_sizes,
        epochs=2000,
        warm_start=False,
    ),
}
FIGURES = {
    figure: (experiment, k_a)
    for experiment in EXPERIMENTS.values()
    for figure, k_a in experiment.figures.items()
}
