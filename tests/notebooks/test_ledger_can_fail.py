"""A ledger that cannot fail proves nothing: the package is broken in many places, one at a time,
and each time the row that speaks of that place must fail.

`mutants.py` has the table and says how it is run: on copies of the package, with the pages' own
statements, in processes of their own. `make test` runs a few, `make test-all` all that take a
second or two; those that train networks anew, or draw the maps of a million solutions, run with the
others in `make mutants`. A mutant that no row finds is a missing check.
"""

import functools
import json
import os
import re
import subprocess
import sys
from collections import Counter

import code_places
import mutants
import pytest
from conftest import ROOT
from mutants import MUTANTS, Mutant, chosen, found, statements

# One of each page at least, and of each way to be found: a row, an error, a record, a test.
FEW = (
    "certificate with the sign flipped",
    "class means without D^{-1/2}",
    "training stopped at a tenth",
    "a_g not divided by sqrt(n_g)",
    "λ_W = 2 λ_Z",
    "threshold × 1.02",
    "C without the factor 2",
    "ReLU threshold without 1 − 1/K",
    "a recorded run that diverged",
    "dual point not kept in the simplex",
)
REST = tuple(mutant.name for mutant in MUTANTS if mutant.quick and mutant.name not in FEW)
# names, number of controls (None: of every page), marks; `make test` runs every page itself
RUNS = [(FEW, 1, []), (REST, None, [pytest.mark.depth])]
ENVIRONMENT = {
    key: value for key, value in os.environ.items() if not key.startswith(("COV_", "COVERAGE_"))
}


def key(name, page, part):
    return f"{name}, {page}, {part}" if name == "control" else name


@functools.cache
def outcomes(names, controls):
    """What came of each of these mutants. One other thread and process each: neither coverage nor
    imports of ours are in it.
    """
    command = [sys.executable, ROOT / "tests" / "mutants.py", "--json", "--jobs", "1", *names]
    command += [] if controls is None else ["--controls", str(controls)]
    shown = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200)
    assert shown.stdout, shown.stderr
    results = map(json.loads, shown.stdout.splitlines())
    return {key(result["name"], result["page"], result["part"]): result for result in results}


def each(control):
    """The mutants, or the controls, of each run, with what names it."""
    return [
        pytest.param(mutant, run, marks=marks, id=key(mutant.name, mutant.page, mutant.part))
        for *run, marks in RUNS
        for mutant in chosen(names=run[0], controls=run[1])
        if (mutant.name == "control") == control
    ]


@pytest.mark.parametrize("mutant, run", each(control=False))
def test_the_row_that_speaks_of_it_fails(mutant, run):
    result = outcomes(*run)[mutant.name]
    assert found(mutant, result), mutants.line(mutant, result)


@pytest.mark.parametrize("mutant, run", each(control=True))
def test_without_a_mutant_every_row_passes(mutant, run):
    """The rows are those of the stored ledger, in order; missing are just those that rest on what
    was left out.
    """
    result = outcomes(*run)[key(mutant.name, mutant.page, mutant.part)]
    assert found(mutant, result), result["error"]
    if mutant.page == "tests":  # which no ledger lists
        return
    kept = {"exact": ("exact",), "trained": ("exact", "trained")}.get(
        mutant.part, ("exact", "trained", "network")
    )
    if mutant.page == "09_networks":  # recorded networks: none is trained there
        kept = ("network",)
    rows = mutants.stored_rows(mutant.page)
    wanted = [row["what"] for row in rows if row["evidence"] in kept]
    if mutant.part == "general":
        wanted = [what for what in wanted if what in result["rows"]]
        assert len(wanted) >= 10
    assert result["rows"] == wanted


def test_every_mutant_has_its_place():
    assert mutants.faults() == []


def test_every_claim_is_broken_often_and_in_many_files():
    pages = Counter(mutant.page for mutant in MUTANTS)
    assert len(MUTANTS) >= 60 and len(FEW) + len(REST) >= 50
    assert all(pages[path.stem] >= 3 for path in (ROOT / "notebooks").glob("0[0-5]_*.md"))
    parts = {mutant.part for mutant in MUTANTS if mutant.page != "tests"}
    assert parts == set(mutants.PARTS)
    assert all(mutant.part == mutant.row for mutant in MUTANTS if mutant.page == "tests")
    assert len({mutants.placed(mutant)[0] for mutant in MUTANTS}) >= 12


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


CODE = """
def f(a, tol=1e-10, *, slow=True):  # π
    b = (  # a comment
        a
        * "x"
    ) + 1
    return g(b, key=a - 1) - 1 - 1


class C:
    def f(self, tol=1):
        def inner(a):
            return a - 1

        return inner
"""


@pytest.fixture
def package(tmp_path):
    (tmp_path / "wing").mkdir()
    (tmp_path / "wing" / "one.py").write_text(CODE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "where, old, new, before, after",
    [
        ("one.f", "a * 'x'", "a", 'a\n        * "x"', "(a)"),  # layout, quotes, a comment before it
        (
            "f",
            "b = a * 'x' + 1",
            "b = 2",
            CODE[CODE.index("b =") : CODE.index(" + 1")] + " + 1",
            "b = 2",
        ),
        ("one.f", "tol=1e-10", "tol=1", "tol=1e-10", "tol=1"),
        ("f", "slow=True", "slow=False", "slow=True", "slow=False"),
        ("wing.one.f", "key = a-1", "key=0", "key=a - 1", "key=0"),
        ("C.f", "a - 1", "a + 1", "return a - 1", "return (a + 1)"),
        ("inner", "return a - 1", "pass", "return a - 1", "pass"),
        ("one", "tol=1", "tol=2", "tol=1)", "tol=2)"),
    ],
)
def test_code_is_found_by_its_function_and_syntax(where, old, new, before, after, package):
    assert CODE.count(before) == 1
    file, line, text = code_places.replaced(where, old, new, package)
    assert text == CODE.replace(before, after)
    assert (file, line) == (package / "wing" / "one.py", CODE[: CODE.index(before)].count("\n") + 1)


@pytest.mark.parametrize(
    "where, old, message",
    [
        (
            "C.g",
            "a - 1",
            r"0 times 'a - 1': .* no such name, but wing.one.C.f, .*; a - 1 stands in",
        ),
        ("h.f", "a - 1", r"a - 1 stands in wing.one.f, wing.one.C.f.inner$"),
        ("C.f", "a + 1", r"it is wing.one.C.f, with a - 1; a \+ 1 stands in no function$"),
        ("f", "a - 1", r"holds 2 times 'a - 1': must be once; at wing.*:13, wing.one.py:7; take"),
        ("f", "a -", "'a -': must be one expression, statement or argument"),
        ("f", "", "'': must be one expression, statement or argument"),
    ],
)
def test_a_place_that_is_not_the_only_one_is_refused(where, old, message, package):
    with pytest.raises(ValueError, match=message):
        code_places.replaced(where, old, "0", package)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"where": "notebooks/template.md", "old": "no such text"}, "holds 0 times 'no such"),
        ({"where": "relative_gap", "old": "gap"}, "'m': relative_gap holds 0 times 'gap'"),
        ({"new": "1 +"}, "'m': .*invalid syntax"),
        ({"row": "no such row"}, "no row of 01_collapse begins 'no such row'"),
        ({"page": "99_none"}, "99|none"),
        ({"page": "tests", "row": "test_none"}, "0 files of tests define 'test_none': must be one"),
    ],
)
def test_what_has_changed_is_said(change, message):
    """Also where only the row, the page or the test is another one."""
    entry = {"where": "relative_gap", "old": "objective / optimum", "new": "1", "part": "exact"}
    entry |= {"page": "01_collapse", "row": "exact: relative duality gap"}
    assert mutants.fault(Mutant("m", **entry)) is None
    assert re.search(message, mutants.fault(Mutant("m", **entry | change)))


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
    assert found(Mutant("m", "f", "old", "new", "01_collapse", row, "exact"), result) == verdict


def test_a_control_passes_only_with_rows_and_without_an_error():
    control = mutants.control("01_collapse", "exact")
    assert [
        found(control, {"rows": rows, "failed": [], "error": error})
        for rows, error in ((["a"], None), ([], None), (["a"], "NameError: x"))
    ] == [True, False, False]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no mutant 'none'"):
        chosen(names=["none"])


def test_the_list_says_where_each_stands_or_what_is_there_instead(capsys, monkeypatch):
    assert mutants.main(["--list", "λ_W = 2 λ_Z"]) == 0
    said = r"ncutils/\S+\.py:\d+: λ_W = 2 λ_Z \(UFM.from_lam_z\)\n"
    assert re.fullmatch(said, capsys.readouterr().out)
    lost = Mutant("lost", "UFM.from_lam", "1", "2", "01_collapse", "ValueError: x", "exact")
    monkeypatch.setattr(mutants, "MUTANTS", [lost])
    assert mutants.main(["--list"]) == 1 and "ufm.UFM.from_lam_z" in capsys.readouterr().out
