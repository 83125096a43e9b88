"""A ledger that cannot fail proves nothing: the package is broken in many places, one at a time,
and each time the row that speaks of that place must fail.

`mutants.py` has the table and says how it is run: on copies of the package, with the pages' own
statements, in processes of their own. Here are the mutants that take a second or two; those that
train networks anew, or draw the maps of a million solutions, run with the others in `make mutants`.
A mutant that no row finds is a missing check.
"""

import json
import os
import subprocess
import sys
from collections import Counter

import mutants
import pytest
from conftest import ROOT
from mutants import MUTANTS, Mutant, chosen, found, replaced, statements

QUICK = chosen(quick=True)
ENVIRONMENT = {
    key: value for key, value in os.environ.items() if not key.startswith(("COV_", "COVERAGE_"))
}


def key(mutant):
    return (
        f"{mutant.name}, {mutant.page}, {mutant.part}" if mutant.name == "control" else mutant.name
    )


@pytest.fixture(scope="module")
def outcomes():
    """What came of each quick mutant. One other thread and process each: neither coverage nor
    imports of ours are in it.
    """
    command = [sys.executable, ROOT / "tests" / "mutants.py", "--quick", "--json", "--jobs", "1"]
    shown = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200)
    assert shown.stdout, shown.stderr
    results = [json.loads(line) for line in shown.stdout.splitlines()]
    return {
        key(Mutant(result["name"], "", "", "", result["page"], "", result["part"])): result
        for result in results
    }


@pytest.mark.parametrize("mutant", [m for m in QUICK if m.name != "control"], ids=key)
def test_the_row_that_speaks_of_it_fails(mutant, outcomes):
    assert found(mutant, outcomes[mutant.name]), mutants.line(mutant, outcomes[mutant.name])


@pytest.mark.parametrize("mutant", [m for m in QUICK if m.name == "control"], ids=key)
def test_without_a_mutant_every_row_passes(mutant, outcomes):
    """The rows are those of the stored ledger, in order; missing are just those that rest on what
    was left out.
    """
    result = outcomes[key(mutant)]
    assert found(mutant, result), result["error"]
    if mutant.page.endswith(".py"):  # tests, which no ledger lists
        return
    rows = json.loads(
        (ROOT / "notebooks" / "ledgers" / f"{mutant.page.split('_', 1)[1]}.json").read_text(
            encoding="utf-8"
        )
    )["rows"]
    kept = {"exact": ("exact",), "trained": ("exact", "trained")}.get(
        mutant.part, ("exact", "trained", "network")
    )
    if mutant.page == "09_networks":  # recorded networks: none is trained there
        kept = ("network",)
    wanted = [row["what"] for row in rows if row["evidence"] in kept]
    if mutant.part == "general":
        wanted = [what for what in wanted if what in result["rows"]]
        assert len(wanted) >= 10
    assert result["rows"] == wanted


def test_every_replacement_can_be_made():
    assert mutants.faults() == []


def test_every_claim_is_broken_often_and_in_many_files():
    pages = Counter(mutant.page for mutant in MUTANTS)
    assert len(MUTANTS) >= 60 and len(QUICK) >= 50
    assert all(pages[path.stem] >= 3 for path in (ROOT / "notebooks").glob("0[0-5]_*.md"))
    assert len({mutant.file for mutant in MUTANTS}) >= 12


def test_what_rests_on_a_network_is_left_out_and_nothing_else(tmp_path, monkeypatch):
    import pairs

    source = tmp_path / "01_small.md"
    cells = [
        "from ncutils import Ledger, figures, train_network, solve",
        "a = solve(1)\nnet = train_network(a)\nb = net.gaps",
        "figures.draw(a)",
        "for net in [a]:\n    c = net",
        "ledger = Ledger('x')\nledger.add(a, c)\nledger.add(b)\nledger.show()",
        "after = 1",
    ]
    source.write_text(
        "---\nkernelspec: {name: python3, display_name: x, language: python}\n---\n"
        + "".join(f"\n```{{code-cell}} ipython3\n{cell}\n```\n" for cell in cells),
        encoding="utf-8",
    )
    monkeypatch.setattr(pairs, "sources", lambda: [source])
    called = []
    model = type("", (), {"gaps": 0})()
    ledger = type(
        "",
        (),
        {
            "add": lambda self, *what: called.append(what),
            "show": lambda self: called.append("shown"),
        },
    )()
    space = {"Ledger": lambda name: ledger, "solve": lambda n: n, "train_network": lambda a: model}
    for part, expected in (("network", [(1, 1), (0,), "shown"]), ("trained", [(1, 1), "shown"])):
        called.clear()
        mine = dict(space)
        for code in list(statements("01_small", part))[1:]:  # the first is the import
            exec(code, mine)
        assert called == expected and "after" not in mine


@pytest.mark.parametrize("text", ["no", "old old"])
def test_a_replacement_that_is_not_the_only_one_is_refused(text):
    with pytest.raises(ValueError, match="holds . times 'old': must be once; the file has changed"):
        replaced(text, Mutant("m", "ncutils/x.py", "old", "new", "01_collapse", "row"))


@pytest.mark.parametrize(
    "row, error, failed, verdict",
    [
        ("row 1", "LedgerError: row 1: …", ["row 1, of three"], True),
        ("row 2", "LedgerError: row 1: …", ["row 1"], False),
        ("row 1", None, [], False),
        ("ValueError: gap", "ValueError: gap of 1", [], True),
        ("row 1", "ValueError: gap of 1", ["row 1"], False),
        ("ValueError: gap", "LedgerError: row 1", ["row 1"], False),
    ],
)
def test_only_the_row_or_the_error_that_is_named_counts(row, error, failed, verdict):
    result = {"rows": ["row 1"], "failed": failed, "error": error}
    assert found(Mutant("m", "f", "old", "new", "01_collapse", row), result) == verdict


def test_a_control_passes_only_with_rows_and_without_an_error():
    control = mutants.control("01_collapse", "exact")
    assert [
        found(control, {"rows": rows, "failed": [], "error": error})
        for rows, error in ((["a"], None), ([], None), (["a"], "NameError: x"))
    ] == [True, False, False]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no mutant 'none'"):
        chosen(names=["none"])
