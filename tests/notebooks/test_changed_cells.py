"""The last cell of each notebook, as readers change it: what it prints is right, and what makes no
sense is refused by name.
"""

import re

import matplotlib.pyplot as plt
import numpy as np
import pairs
import pytest

from ncutils import theory
from ncutils.paper.figures import over_seeds

NAN = float("nan")


@pytest.fixture(scope="module")
def cells():
    """What the first cell of a notebook defines, and the text of its last one; cells are run where
    the notebooks are.
    """
    known = {}

    def of(name):
        if name not in known:
            code = [
                cell.source
                for cell in pairs.read_source(pairs.HERE / f"{name}.md").cells
                if cell.cell_type == "code"
            ]
            defined = {}
            exec(code[0], defined)
            known[name] = defined, code[-1]
        return known[name]

    with pytest.MonkeyPatch.context() as patch, plt.rc_context():
        patch.chdir(pairs.HERE)
        patch.setattr(plt, "show", lambda: None)
        yield of
    plt.close("all")


@pytest.fixture
def changed(cells, capsys):
    """Runs the last cell of a notebook with replacements; returns what it defines and the lines it
    prints.
    """

    def run_it(name, *changes):
        defined, text = cells(name)
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        defined = dict(defined)
        exec(text, defined)
        return defined, capsys.readouterr().out.splitlines()

    return run_it


def numbers(line):
    return [float(text) for text in re.findall(r"(?<![\w.])[+-]?(?:nan|\d+\.\d+)", line)]


def angles(changed, small, *penalties):
    lines = changed(
        "00_summary", ("optimum(30", f"optimum({small}"), ("(0.01, 0.005)", repr(penalties))
    )[1]
    return [float(re.search(r"([\d.]+|nan)°", line)[1]) for line in lines]


# now class 1 is the small one, and zero
@pytest.mark.parametrize(
    "small, penalties, expected",
    [
        (500, (0.01, 0.0149), [120, 120]),  # equal classes: a simplex
        (30, (0.02, 0.03, 0.04), [0, 0, NAN]),  # collapse until all is zero, at λ_Z N = 18.5
        (1, (0.005,), [0]),  # 502 λ_Z > √1
        (5000, (0.005, 0.01), [180, NAN]),
    ],
)
def test_the_summarys_angles(changed, small, penalties, expected):
    assert angles(changed, small, *penalties) == pytest.approx(expected, abs=0.05, nan_ok=True)


def test_the_summarys_threshold(changed):
    """√31 = λ_Z (500 + 2 · 31) at λ_Z = 0.009907."""
    below, above = angles(changed, 31, 0.0098, 0.00991)
    assert below > 10 and above == 0


@pytest.mark.parametrize(
    "sizes, penalties, collapsed, optimal",
    [
        ("[40, 30, 20, 1]", "lam_w=1e-2, lam_h=1e-3", True, True),
        ("[1, 1, 1, 1]", "lam_w=1e-2, lam_h=1e-3, lam_b=0.02", True, True),
        ("[40, 30, 20, 10]", "lam_w=1, lam_h=1e-7", True, True),
        ("[400, 300]", "lam_w=1e-5, lam_h=1e-4", True, True),
    ],
)
def test_collapse_needs_no_balance_nor_many_samples(changed, sizes, penalties, collapsed, optimal):
    lines = changed(
        "01_collapse", ("[40, 30, 20, 10]", sizes), ("lam_w=1e-2, lam_h=1e-3", penalties)
    )[1]
    assert lines == [f"collapsed: {collapsed}   optimal: {optimal}"]


def test_too_few_iterations_are_seen(changed):
    assert changed("01_collapse", ("iterations=1000", "iterations=5"))[1] == [
        "collapsed: False   optimal: False"
    ]


def within(changed, sizes, penalty):
    lines = changed(
        "02_angles", ("[1000] * 2 + [300] * 3 + [30] * 4", sizes), ("lam_z=2e-4", penalty)
    )[1]
    return {int(re.search(r"\d+", line)[0]): (numbers(line) or ["one class"])[0] for line in lines}


def test_angles_of_other_groups(changed):
    assert within(changed, "[100] * 10", "lam_z=1e-3") == {100: pytest.approx(-1 / 9, abs=5e-5)}
    assert within(changed, "[1000, 300, 300, 300]", "lam_z=1e-3")[1000] == "one class"
    assert within(changed, "[900] * 2 + [100] * 2", "lam_z=0.0051")[100] == 1  # 2000 λ_Z > √100
    assert np.isnan(
        list(within(changed, "[900] * 2 + [100] * 2", "lam_z=0.0151").values())
    ).all()  # > √900
    mixed = within(changed, "[30, 1000, 300, 30, 300, 1000, 30, 300, 30]", "lam_z=2e-4")
    assert mixed == within(changed, "[1000] * 2 + [300] * 3 + [30] * 4", "lam_z=2e-4")
    features, _ = theory.seli([1000] * 2 + [300] * 3 + [30] * 4)  # the limit, which comes slowly
    limit = {1000: features[0, 1], 300: features[2, 3], 30: features[5, 6]}
    assert within(changed, "[1000] * 2 + [300] * 3 + [30] * 4", "lam_z=1e-100") == pytest.approx(
        limit, abs=5e-3
    )


@pytest.mark.parametrize(
    "sizes", [[900, 900, 400, 100, 100, 100], [100, 100, 900, 900, 900], [7, 7, 7]]
)
def test_each_group_collapses_at_its_own_threshold(changed, sizes):
    groups = {n for n in sizes if sizes.count(n) > 1}
    levels = tuple(
        level for n in sorted(groups) for level in (0.999 * n**0.5, n**0.5, 1.001 * n**0.5)
    )
    lines = changed(
        "03_threshold",
        ("[900] * 3 + [400] * 3 + [100] * 3", repr(sizes)),
        ("(5, 15, 25, 35)", repr(levels)),
    )[1]
    told = [sorted(map(int, re.findall(r"\d+", line.rpartition(": ")[2]))) for line in lines]
    assert told == [sorted(n for n in groups if level < n**0.5) for level in levels]


def test_the_constants_of_other_ratios_and_numbers_of_classes(changed):
    ratios = ("(2, 10, 100)", "(1, 1.5, 2)")
    first, middle, last = changed("04_diminishing", ratios)[1]
    assert numbers(first)[-3:] == [0, 0, 0] and "r = 1.5:" in middle  # balanced: no deviation
    assert changed("04_diminishing", ratios, ("c=0.1", "c=7"))[1] == [first, middle, last]
    five = changed("04_diminishing", ratios, ("k_a, k_b = 3, 7", "k_a, k_b = 1, 1"))[1]
    assert five[2].startswith("1+1 classes") and numbers(five[2])[-3:] == pytest.approx(
        [NAN, NAN, 0], nan_ok=True
    )


@pytest.mark.parametrize(
    "level, lost", [(5, ()), (9.7, (2, 4, 10)), (9.9, (2, 4, 10, 30)), (50, (2, 4, 10, 30, 100))]
)
def test_the_price_of_the_relu(changed, level, lost):
    """The minority is lost at √(n_B (1 − 1/K)), and never costs less than with linear features."""
    lines = changed("05_relu", ("level = 9.7", f"level = {level}"))[1]
    for K, line in zip((2, 4, 10, 30, 100), lines, strict=True):
        ratio, relu, linear = numbers(line)
        assert ratio >= 1 and (relu == 0) == (K in lost) and relu <= linear
        assert (linear > 0) == (level < 50) and (ratio == 1) == (level == 50)


@pytest.mark.parametrize("level, lost", [(9.85, False), (9.91, True)])
def test_the_price_of_the_relu_with_a_bias(changed, level, lost):
    """At λ_b = 0.02 and K = 10 the minority is lost at 0.988 √n_B, tabulated beforehand."""
    changes = (
        ("level = 9.7", f"level = {level}"),
        ("level / sum(sizes)", "level / sum(sizes), 0.02"),
        ("(2, 4, 10, 30, 100)", "(10,)"),
    )
    _, relu, linear = numbers(changed("05_relu", *changes)[1][0])
    assert (relu == 0) == lost and linear > 0.5


@pytest.mark.parametrize(
    "sizes, level, rank",
    [
        ("[900] * 3 + [400]", 15, 3),
        ("[900] * 3 + [400] * 2", 15, 4),
        ("[900] * 3 + [400] * 2", 20.1, 3),
        ("[900] * 3 + [1]", 15, 2),
        ("[900] * 3 + [400]", 31, 0),
    ],
)
def test_the_templates_rank(changed, sizes, level, rank):
    number = sum(eval(sizes))
    _, [line] = changed(
        "template", ("[900] * 3 + [400]", sizes), ("15 / 3100", f"{level} / {number}")
    )
    assert line.startswith(f"rank of Z {rank}, gaps")


@pytest.fixture
def drawn(changed, cells):
    """Draws recorded networks: the axes, and the rows of both kinds of features."""
    defined, _ = cells("09_networks")

    def draw(figure, network, measure):
        if "compare" not in defined or "both" not in defined:
            pytest.fail("the first cell defines what the last one needs")
        found, _ = changed(
            "09_networks",
            ('"fig8", "mlp", "a_b"', repr((figure, network, measure))[1:-1].replace("'", '"')),
        )
        return found["ax"], found["rows"]

    return draw


@pytest.mark.parametrize(
    "figure, network, measure",
    [("fig5", "convnet", "length_b"), ("fig9", "mlp", "cos_a"), ("fig6", "mlp", "a_b")],
)
def test_other_recorded_networks_are_drawn(drawn, figure, network, measure):
    ax, rows = drawn(figure, network, measure)
    shown = {line.get_label(): line.get_xydata() for line in ax.lines}
    for kind, label in (("linear", "linear features, network"), ("relu", "ReLU features, network")):
        x, mean, *_ = over_seeds(rows[kind], measure)
        assert len(x) >= 10 and shown[label] == pytest.approx(
            np.column_stack([x, mean]), nan_ok=True
        )
    assert ax.get_ylabel()


@pytest.mark.parametrize(
    "name, change, complaint",
    [
        ("00_summary", ("(0.01, 0.005)", "(0,)"), "lam_z = 0: must be a positive number"),
        (
            "00_summary",
            ("optimum(30", "optimum(2.5"),
            r"class_sizes\[1\] = 2.5: must be a whole number",
        ),
        ("01_collapse", ("dim=4", "dim=3"), "dim = 3: must be a whole number >= 4"),
        ("01_collapse", ("lam_h=1e-3", "lam_h=0"), "lam_h = 0: must be a positive number"),
        ("02_angles", ('"features"', '"feature"'), "of = 'feature': must be one of"),
        ("02_angles", ("[30] * 4", "[0]"), r"class_sizes\[5\] = 0"),
        ("03_threshold", ("(5, 15, 25, 35)", "(-1,)"), "lam_z = .*: must be a positive number"),
        (
            "03_threshold",
            ("[900] * 3 + [400] * 3 + [100] * 3", "[900]"),
            r"class_sizes = \[900\]: must be at least 2",
        ),
        ("04_diminishing", ("(2, 10, 100)", "(0.5,)"), "r = 0.5: must be n_A/n_B >= 1"),
        (
            "04_diminishing",
            ("k_a, k_b = 3, 7", "k_a, k_b = 0, 7"),
            "k_a = 0: must be a whole number",
        ),
        ("05_relu", ("(2, 4, 10, 30, 100)", "(1,)"), "class_sizes = .*: must be at least 2"),
        ("05_relu", ("level = 9.7", "level = 0"), "lam_z = 0.0: must be a positive number"),
        ("template", ("lam_b=0.02", "lam_b=0"), "lam_b = 0: must be a positive number or math.inf"),
        ("template", ("15 / 3100", "float('nan')"), "lam_z = nan: must be a positive number"),
        (
            "09_networks",
            ('"fig8", "mlp", "a_b"', '"fig3", "mlp", "a_b"'),
            "figure = 'fig3': must be one of",
        ),
        (
            "09_networks",
            ('"fig8", "mlp", "a_b"', '"fig1", "mlp", "a_b"'),
            "figure = 'fig1': has no curve over its structures",
        ),
        (
            "09_networks",
            ('"fig8", "mlp", "a_b"', '"fig8", "convnet", "a_b"'),
            "no such network was recorded",
        ),
        (
            "09_networks",
            ('"fig8", "mlp", "a_b"', '"fig8", "mlp", "accuracy"'),
            "measure = 'accuracy': must be one of 'a_b'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changed, name, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        changed(name, change)
