"""The docstrings of every public name: complete, unharmed on the reference page, and with examples
that run.
"""

import contextlib
import dataclasses
import doctest
import enum
import functools
import importlib
import inspect
import io
import pkgutil
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT

import ncutils
from ncutils import MLP, UFM, data, exact, ledger, solve, training

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(ncutils.__path__, "ncutils.")
    if module.name != "ncutils.__main__"
]
PROPERTIES = property, functools.cached_property
WITHOUT_ARGUMENTS = Exception, enum.Enum  # classes whose own arguments are no matter of their users


def public_names():
    """{name: function or class} that users see, without "ncutils." in front."""
    found = {
        "data.available": data.available,
        "exact.bisect": exact.bisect,
        "ledger.LedgerError": ledger.LedgerError,
        "training.Diverged": training.Diverged,
        "training.OtherRun": training.OtherRun,
    }
    for name in ncutils.__all__:
        thing = getattr(ncutils, name)
        if inspect.ismodule(thing):
            found |= {
                f"{name}.{part}": value
                for part, value in vars(thing).items()
                if not part.startswith("_")
                and part in getattr(thing, "__all__", [part])
                and getattr(value, "__module__", "").startswith("ncutils.")
                and (hasattr(thing, "__all__") or value.__module__ == thing.__name__)
                and callable(value)
                and value not in found.values()
            }
        else:
            found[name] = thing
    return found


PUBLIC = public_names()
CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}
MEMBERS = {
    f"{name}.{part}": value
    for name, thing in CLASSES.items()
    if not issubclass(thing, enum.Enum)
    for part, value in vars(thing).items()
    if not part.startswith("_")
}
METHODS = {
    name: getattr(value, "__func__", value)
    for name, value in MEMBERS.items()
    if callable(getattr(value, "__func__", value))
}
CALLED = PUBLIC | METHODS
TAKES = [name for name in CALLED if not issubclass(CLASSES.get(name, object), WITHOUT_ARGUMENTS)]
SAID = {
    name: inspect.getdoc(value)
    for name, value in (PUBLIC | MEMBERS).items()
    if name in CALLED or (isinstance(value, PROPERTIES) and value.__doc__)
}
EXAMPLES = {
    test.name: test
    for module in MODULES
    for test in doctest.DocTestFinder().find(module)
    if test.examples
}


def test_all_is_seen():
    assert len(PUBLIC) > 50 and len(METHODS) > 20 and len(EXAMPLES) >= len(CALLED)


@pytest.mark.parametrize("name", CALLED)
def test_a_docstring_has_a_sentence_and_an_example(name):
    text = SAID[name]
    assert text and re.search(r"[.:](\s|$)", text.split("\n\n")[0]), "no sentence"
    assert ">>> " in text
    # else it is not run
    assert f"{CALLED[name].__module__}.{CALLED[name].__qualname__}" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run_as_they_are_pasted(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NCUTILS_CACHE", str(tmp_path))
    monkeypatch.delenv("NCUTILS_LEDGERS", raising=False)
    waits = lambda: pytest.fail("an example waits for a window to be closed")
    monkeypatch.setattr(plt, "show", waits)
    EXAMPLES[name].globs = {}  # nothing is there that the example does not import
    report = io.StringIO()
    with matplotlib.rc_context():
        result = doctest.DocTestRunner().run(EXAMPLES[name], out=report.write)
    plt.close("all")
    assert result.failed == 0 and result.attempted > 0, report.getvalue()


def said_of(name):
    """Its docstring, and those of the names that it refers to for the rest."""
    text = SAID[name]
    for other in re.findall(r"as in\s`([\w.]+)`", text):
        around = name.rpartition(".")[0]
        text += SAID.get(f"{around}.{other}") or SAID[other]
    return text


@pytest.mark.parametrize("name", TAKES)
def test_every_parameter_is_named(name):
    for parameter in inspect.signature(CALLED[name]).parameters:
        if not parameter.startswith("_") and parameter not in ("self", "cls"):
            assert re.search(rf"\b{parameter}\b", said_of(name)), parameter


def attributes(thing):
    """Public names of what an object of a class holds or computes."""
    fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    computed = [name for name, value in vars(thing).items() if isinstance(value, PROPERTIES)]
    names = [field.name for field in fields] + computed
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("name", CLASSES)
def test_every_attribute_is_described(name):
    described = re.findall(r"^(\w[\w, ]*) : ", SAID[name], re.MULTILINE)
    described = {one for entry in described for one in entry.split(", ")}
    for attribute in attributes(CLASSES[name]):
        assert attribute in described or SAID.get(f"{name}.{attribute}"), attribute


NONSENSE = object()
# Calls that are refused, where nonsense alone is not.
REFUSED = {
    "MLP": ((1, 8, 8), (0,)),
    "figures.directions": (None, np.zeros((3, 3)), (9, 5, 5), ""),
    "Solution.cosines": ("angles",),
    "TwoGroups.cosines": ("angles",),
    "TwoGroups.logits": (5,),
    "TrainedModel.cosines": ("angles",),
    "TrainedModel.accuracy": ([7],),
    "theory.simplex_etf": (1,),
}


@pytest.fixture(scope="module")
def instances():
    ufm = UFM.from_lam_z([6, 6, 3], lam_z=0.03)
    return {
        "UFM": ufm,
        "Solution": solve(ufm),
        "TwoGroups": ncutils.solve_two_groups(2, 1, 6, 3, 0.03),
        "TrainedModel": ncutils.train_ufm(ufm, dim=3, iterations=2)[0],
        "Ledger": ncutils.Ledger("test"),
        "MLP": MLP((1, 2, 2)),
    }


@pytest.mark.parametrize("name", TAKES)
def test_a_refusal_is_documented_and_happens(name, instances):
    owner, _, method = name.partition(".")
    call = getattr(instances[owner], method) if name in METHODS else CALLED[name]
    all_of = inspect.signature(call).parameters.values()
    plain = [one for one in all_of if one.kind is one.POSITIONAL_OR_KEYWORD]
    needed = [one for one in plain if one.default is one.empty]
    arguments = REFUSED.get(name, [NONSENSE] * len(needed))
    try:
        call(*arguments)
        refused = False
    except Exception as error:
        refused = isinstance(error, ValueError)
    text = SAID[name]
    assert "ValueError" in said_of(name) if refused else "Raises ValueError" not in text, text


# The page
# --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(site):
    return BeautifulSoup((site / "book" / "api.html").read_text(), "html.parser")


def bare(text):
    """Without what a page sets otherwise: space, quotation marks, backticks, the signs of
    subscripts, and doctest's own.
    """
    return re.sub(r"<BLANKLINE>|\.\.\.|[\s`'\"‘’“”\\_^{}]", "", text)


@pytest.mark.parametrize("name", SAID)
def test_the_page_says_what_the_docstring_says(name, page):
    head = page.find(id=f"ncutils.{name}")
    assert head and head.name == "dt"
    shown = bare(head.find_next_sibling("dd").get_text())
    no_prose = re.compile(r"^>>> .*(\n.+)*|^\.\. math::.*(\n .+)*|^-+$", re.MULTILINE)
    prose = no_prose.sub("", SAID[name])
    for line in prose.splitlines():
        assert bare(re.sub(r"^(\w[\w, ]*) : ", r"\1:", line)) in shown, line
    for example in doctest.DocTestParser().get_examples(SAID[name]):
        assert bare(example.source) in shown and bare(example.want) in shown


def test_formulas_are_set_apart(page):
    lines = [f"theory.{line}_threshold" for line in ("minority", "vanishing", "trivial")]
    measures = [f"metrics.{name}" for name in "nc1 scatter cosines minority_gap".split()]
    for name in ("UFM", "solve", *lines, *measures):
        text = page.find(id=f"ncutils.{name}").find_next_sibling("dd")
        assert text.find("div", class_="math"), name


# Examples in texts
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["README.md", "book/extend.md"])
def test_examples_in_texts_run_and_print_what_is_said_beside_them(file, monkeypatch):
    monkeypatch.delenv("NCUTILS_LEDGERS", raising=False)
    [code] = re.findall(r"(?ms)^```python\n(.*?)^```", (ROOT / file).read_text())
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, file, "exec"), {})
    said = re.findall(r"^print\(.*\)  +# (.*)$", code, re.MULTILINE)
    for line, words in zip(printed.getvalue().splitlines(), said, strict=file == "README.md"):
        assert words.startswith(line)
