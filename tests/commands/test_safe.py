"""Nothing here runs text or bytes that come from outside: no eval, no shell, no pickle whose hash
was not checked before.
"""

import ast
import re
import tomllib

import pairs
import pytest
import selfcontained
from conftest import ROOT

OURS = sorted(
    path
    for folder in ("ncutils", "notebooks", "book", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = sorted((ROOT / "book" / "_static").glob("*.js"))

NEVER = """eval exec builtins.eval builtins.exec os.system os.popen subprocess.getoutput
    subprocess.getstatusoutput asyncio.create_subprocess_shell tempfile.mktemp yaml.unsafe_load
    yaml.full_load marshal.load marshal.loads shelve.open pickle.load pickle.loads pickle.Unpickler
    cloudpickle.load cloudpickle.loads joblib.load dill.load dill.loads pandas.read_pickle
    torch.hub.load torch.jit.load""".split()
# A call that is safe only with this argument: its name, and whether the value is right (None where
# it is not given).
UNLESS = {
    "torch.load": ("weights_only", lambda value: value == "True"),
    "yaml.load": ("Loader", lambda value: value in ("yaml.BaseLoader", "yaml.SafeLoader")),
    "numpy.load": ("allow_pickle", lambda value: value in (None, "False")),
}


def dangers(code):
    """What in this code could run what comes from outside: calls, by their full name."""
    tree, full = ast.parse(code), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [(alias.asname or alias.name, alias.name) for alias in node.names]
            full |= {own: f"{node.module}.{name}" for own, name in names}

    def named(node):
        first, *rest = ast.unparse(node).split(".")
        return ".".join([full.get(first, first), *rest])

    found = []
    for node in ast.walk(tree):
        # also where it is only passed on
        if isinstance(node, (ast.Name, ast.Attribute)) and named(node) in NEVER:
            found.append(named(node))
        elif isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            name = named(node.func)
            argument, right = UNLESS.get(name, (None, None))
            if argument and not right(given.get(argument)):
                found.append(f"{name}({argument}={given.get(argument)})")
            if given.get("shell", "False") != "False":
                found.append(f"{name}(shell={given['shell']})")
    return found


@pytest.mark.parametrize(
    "code, found",
    [
        ("eval(text)", ["eval"]),
        ("list(map(exec, texts))", ["exec"]),
        ("model.eval()", []),
        ("from ast import literal_eval", []),
        ("import pickle\npickle.load(file)", ["pickle.load"]),
        ("import pickle as p\nload = p.loads", ["pickle.loads"]),
        ("from pickle import loads as read\nread(x)", ["pickle.loads"]),
        ("import pickle\npickle.dumps(x)", []),
        ("import subprocess\nsubprocess.run(x, shell=True)", ["subprocess.run(shell=True)"]),
        ("import subprocess\nsubprocess.run([x])", []),
        ("import os\nos.system(x)", ["os.system"]),
        ("from os import system\nsystem(x)", ["os.system"]),
        ("import torch\ntorch.load(x)", ["torch.load(weights_only=None)"]),
        ("import torch\ntorch.load(x, weights_only=True)", []),
        ("import torch\ntorch.load(x, weights_only=False)", ["torch.load(weights_only=False)"]),
        ("import numpy as np\nnp.load(x)", []),
        ("import numpy as np\nnp.load(x, allow_pickle=True)", ["numpy.load(allow_pickle=True)"]),
        ("import yaml\nyaml.load(x)", ["yaml.load(Loader=None)"]),
        ("import yaml\nyaml.load(x, Loader=yaml.BaseLoader)", []),
        ("import yaml\nyaml.load(x, Loader=yaml.Loader)", ["yaml.load(Loader=yaml.Loader)"]),
        ("import yaml\nyaml.safe_load(x)", []),
        ("from tempfile import mktemp\nmktemp()", ["tempfile.mktemp"]),
    ],
)
def test_dangers_are_found(code, found):
    assert dangers(code) == found


def test_code_runs_nothing_from_outside():
    """But for the batches of CIFAR-10, which are pickles."""
    assert len(OURS) > 30
    found = {path.relative_to(ROOT).as_posix(): dangers(path.read_text()) for path in OURS}
    assert [(name, what) for name, what in found.items() if what] == [
        ("ncutils/data.py", ["pickle.loads"])
    ]


def test_these_pickles_have_been_checked():
    """What is unpickled is what `originals.read` returns; that it refuses altered bytes before,
    tests/test_originals.py sees.
    """
    data = ast.parse((ROOT / "ncutils" / "data.py").read_text())
    nodes = [node for node in data.body if isinstance(node, ast.FunctionDef)]
    functions = {node.name: ast.unparse(node) for node in nodes}
    [reader] = [name for name, text in functions.items() if "pickle.loads" in text]
    uses = re.compile(rf"\b({reader}|PARSERS)\b")
    users = [name for name, text in functions.items() if uses.search(text)]
    assert reader == "_cifar10" and [name for name in users if name != reader] == ["_part"]
    read = "originals.read(name, file, md5) for file, md5 in ORIGINALS[name][part].items()"
    assert f"PARSERS[name](*({read}))" in functions["_part"]


@pytest.mark.parametrize("path", pairs.sources(), ids=lambda path: path.stem)
def test_notebooks_run_nothing_from_outside(path):
    cells = [cell.source for cell in pairs.read_source(path).cells if cell.cell_type == "code"]
    assert cells and [what for cell in cells for what in dangers(cell)] == []
    assert not re.search(r"^\s*[%!]", "\n".join(cells), re.M)  # nor a shell of IPython's


def test_tests_unpickle_only_what_they_made():
    """They also run cells and examples of this repository."""
    found = {}
    for path in TESTS:
        place = path.relative_to(ROOT / "tests").parts[0]
        found.setdefault(place, set()).update(set(dangers(path.read_text())) - {"eval", "exec"})
    assert {place: what for place, what in found.items() if what} == {
        "test_originals.py": {"pickle.loads"},
        "training": {"pickle.loads", "torch.load(weights_only=False)"},
    }


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_of_the_pages_run_no_text(path):
    text = path.read_text()
    assert not re.search(
        r"\b(eval|Function|execScript|importScripts)\s*\("
        r"|document\.write|insertAdjacentHTML|outerHTML|srcdoc",
        text,
    )
    assert not re.search(r"set(Timeout|Interval)\s*\(\s*[\"'`]", text)
    # what an address may do in the explorer, tests/book/test_browser.py sees
    assert path.name == "explorer.js" or "innerHTML" not in text


def test_every_dependency_has_a_reason():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    groups = project["dependencies"], *project["optional-dependencies"].values()
    names = [name for group in groups for name in group]
    assert len(names) > 30
    for name in names:
        lines = [line for line in text.splitlines() if f'"{name}"' in line]
        assert all("#" in line or name.startswith("pytest>") for line in lines), name


@pytest.mark.parametrize(
    "planted",
    [
        '<p onclick="go()">',
        '<img src="https://elsewhere.example/picture.png">',
        '<script src="//elsewhere.example/script.js"></script>',
        '<a href="javascript:go()">go</a>',
        '<svg onload="go()"></svg>',
    ],
)
def test_a_page_that_its_policy_would_break_is_not_built(planted):
    page = '<html><head><meta charset="utf-8" /></head><body>{}<a href="https://elsewhere.example/">link</a></body></html>'
    sound = page.format("<script>go()</script>")
    assert "default-src 'none'" in selfcontained.secure(sound, "page.html")
    with pytest.raises(selfcontained.PolicyError, match=r"page\.html: <(p|img|script|a|svg) "):
        selfcontained.secure(page.format(planted), "page.html")
