"""Runs under other conditions are compared: what is the same counts as the same, and every planted
difference is told.
"""

import asyncio
import re
import sys
from types import SimpleNamespace

import pytest
import reproduce
import run
from conftest import NOTEBOOK_HEAD

CELL = "\n```{{code-cell}} ipython3\n{}\n```\n"
FAILING = ["import os", "assert os.environ['OMP_NUM_THREADS'] == '1', 'two are too many'"]
SOUND = ['print("value", 0.125)']
# One cell for each condition that tells it apart from the others, after what a sound notebook does
# with a trained model.
PLANTED = [
    """import os
from ncutils import UFM, Ledger, load_images, train_ufm
ufm = UFM.from_lam_z([6, 4], 0.05)""",
    """trained = train_ufm(ufm, 4, iterations=300)
print(f'{trained.objectives[0]:.6f}, gap below 1e-9: {trained.gaps[0] < 1e-9}')""",
    "print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])",
    "print(train_ufm([ufm] * 2, 4, 5, iterations=1)[0].start[0, 0])",
    "images, _ = load_images('digits', [5, 5])\nprint(images.sum())",
    """ledger = Ledger("planted")
start = abs(trained[0].start).max()
ledger.check_at_most("start of a trained model", start, 99, evidence="trained")
ledger.check_at_most("one that is called exact", start, 99)
ledger.check_at_most("one that is exact", trained[0].certificate, 1e-9)
ledger.show()""",
    "import random\nprint(random.random())",
]


def reproduced(monkeypatch, capsys, folder, conditions, **notebooks):
    """Whether nothing was at fault, and the table {(notebook, condition): (same pictures, same
    values, verdict)}.
    """
    paths = [folder / f"{name}.md" for name in notebooks]
    for path, cells in zip(paths, notebooks.values()):
        path.write_text(NOTEBOOK_HEAD + "".join(map(CELL.format, cells)))
    asyncio.run(run.run_all(paths, folder / "stored", jobs=2))
    chosen = {name: reproduce.CONDITIONS[name] for name in conditions}
    monkeypatch.setattr(reproduce, "CONDITIONS", chosen)
    (folder / "output" / "former").mkdir(parents=True)
    fine = reproduce.reproduce(paths, folder / "stored", folder / "output", jobs=2)
    assert not (folder / "output" / "former").exists()
    lines = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert lines[0].split("  ")[0] == "notebook"
    cells = [re.split("  +", line) for line in lines[1:]]
    return fine, {tuple(line[:2]): tuple(line[2:]) for line in cells}


def test_what_is_the_same_what_differs_and_what_fails_is_told(tmp_path, monkeypatch, capsys):
    conditions = ["as stored", "two threads"]
    planted = [PLANTED[2].replace("print", "import os\nprint"), PLANTED[-1]]
    notebooks = {"n01_sound": SOUND, "n02_planted": planted, "n03_failing": FAILING}
    fine, table = reproduced(monkeypatch, capsys, tmp_path, conditions, **notebooks)
    random, both = (f"another text in {n} of 2 cells: " for n in (1, 2))
    told = {
        "n01_sound": ["same", "same"],
        "n02_planted": [f"{random}cell-002", f"{both}cell-001, cell-002"],
        "n03_failing": ["same", "FAILED: AssertionError: two are too many"],
    }
    assert not fine and {key: line[-1] for key, line in table.items()} == {
        (name, condition): line for name in told for condition, line in zip(conditions, told[name])
    }


@pytest.mark.depth
def test_every_planted_difference_is_told_in_its_condition(tmp_path, monkeypatch, capsys):
    conditions = reproduce.CONDITIONS
    fine, table = reproduced(monkeypatch, capsys, tmp_path, conditions, n02_planted=PLANTED)
    last = "cell-007"  # is random
    told = {"as stored": last, "again": last, "two threads": f"cell-003, {last}"}
    told |= {"other seeds": f"cell-004, {last}", "other images": f"cell-005, {last}"}
    more = {"other seeds": "; called exact, but depends on it: one that is called exact"}
    assert not fine and table == {
        ("n02_planted", condition): (
            "0 of 0",
            "1 of 3" if condition == "other seeds" else "3 of 3",
            f"another text in {cells.count('cell')} of 7 cells: {cells}{more.get(condition, '')}",
        )
        for condition, cells in told.items()
    }


NOT_THE_FIRST = {"again": "not the first run's row"}
CALLED_EXACT = dict.fromkeys(
    ["other seeds", "other images"], "called exact, but depends on it: row"
)
OTHER_TEXT = dict.fromkeys(reproduce.CONDITIONS, "another text in 1 of 1 cells: cell-001")
PICTURE = "not the first run's picture in cell-001"


@pytest.mark.parametrize("condition", reproduce.CONDITIONS)
@pytest.mark.parametrize(
    "part, other, told_in",
    [
        ("pictures", {"cell-001": [(None, {"image/png": "b"})]}, {"again": PICTURE}),
        ("values", {"row": ("network", 2.0)}, NOT_THE_FIRST),
        ("values", {"row": ("exact", 1.0)}, NOT_THE_FIRST | CALLED_EXACT),
        ("text", {"cell-001": [(["b", None, None], {})]}, OTHER_TEXT),
    ],
)
def test_pictures_and_measured_values_may_differ_but_in_a_second_run(
    condition, part, other, told_in
):
    first = dict(
        text={"cell-001": [(["a", None, None], {})]},
        pictures={"cell-001": [(None, {"image/png": "a"})]},
        values={"row": ("network", 1.0)},
    )
    runs = SimpleNamespace(**first | {part: other}), SimpleNamespace(**first)
    verdict, *same = reproduce.compare(condition, *runs)
    assert verdict == told_in.get(condition, "same")
    assert same == [f"{int(part != of)} of 1" for of in ("pictures", "values")]


def test_seeds_are_shifted_whatever_way_they_are_given(monkeypatch):
    taken = []
    train = lambda ufm, seed=0, **options: taken.append((ufm, seed, options))
    train.__module__ = "planted"
    module, own = SimpleNamespace(train=train), SimpleNamespace(train=train)
    monkeypatch.setitem(sys.modules, "ncutils", module)
    monkeypatch.setitem(sys.modules, "planted", own)
    reproduce.shift_seeds(1000, "train")
    module.train("a"), module.train("b", 3), module.train("c", seed=[1, 2], epochs=5)
    own.train("d", seed=7)
    assert taken[:2] == [("a", 1000, {}), ("b", 1003, {})]
    assert taken[2:] == [("c", [1001, 1002], {"epochs": 5}), ("d", 1007, {})]
