"""Find a place in the code of ncutils by what stands there: a function, and an expression or
statement in it. Line breaks, brackets, comments, and the file that holds the function do not count.
"""

import ast
import difflib
import functools
from itertools import accumulate
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "ncutils"


@functools.cache
def scopes(package=PACKAGE):
    """(dotted name, file, node) of each module, class and function of a package."""

    def inside(node, name):
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, (ast.ClassDef, ast.FunctionDef))
            full = f"{name}.{child.name}" if named else name
            if named:
                yield full, file, child
            yield from inside(child, full)

    found = []
    for file in sorted(package.rglob("*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        name = ".".join(file.relative_to(package).with_suffix("").parts)
        found += [(name, file, module), *inside(module, name)]
    return found


def ending(where, package=PACKAGE):
    """The scopes whose dotted name ends in `where`."""
    return [scope for scope in scopes(package) if f".{scope[0]}".endswith(f".{where}")]


def pieces(scope):
    """(node, first node, last node) of all that can be replaced: an expression, a statement, or an
    argument with its value or default, from its name to the end of the value.
    """
    for node in ast.walk(scope):
        if isinstance(node, ast.arguments):
            named = [*node.posonlyargs, *node.args]
            with_default = [*zip(named[len(named) - len(node.defaults) :], node.defaults)]
            for argument, default in with_default + [*zip(node.kwonlyargs, node.kw_defaults)]:
                if default is not None:
                    yield ast.keyword(argument.arg, default), argument, default
        elif isinstance(node, (ast.expr, ast.stmt, ast.keyword)) and not isinstance(node, ast.Expr):
            yield node, node, node


def parsed(text):
    """The nodes that `text` may be: x = 1 is a statement, or an argument with its value."""
    try:
        [node] = ast.parse(text).body
    except (SyntaxError, ValueError):
        raise ValueError(f"{text!r}: must be one expression, statement or argument") from None
    if isinstance(node, ast.Expr):
        return [node.value]
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return [node, ast.keyword(node.targets[0].id, node.value)]
    return [node]


def places(where, old, package=PACKAGE):
    """{(file, first node, last node)} of `old` in the scopes whose dotted name ends in `where`."""
    wanted = {type(node): ast.unparse(node) for node in parsed(old)}
    return {
        (file, first, last)
        for _, file, scope in ending(where, package)
        for node, first, last in pieces(scope)
        if type(node) in wanted and ast.unparse(node) == wanted[type(node)]
    }


def nearest(where, old, package=PACKAGE):
    """What may have been meant by a place that is not there."""

    def likeness(scope):
        end = ".".join(scope[0].split(".")[-1 - where.count(".") :])
        return difflib.SequenceMatcher(None, where, end).ratio()

    every = scopes(package)
    here = ending(where, package) or sorted(every, key=likeness, reverse=True)[:4]
    texts = {ast.unparse(node) for _, _, scope in here for node, _, _ in pieces(scope)}
    alike = difflib.get_close_matches(ast.unparse(parsed(old)[-1]), texts, cutoff=0.5)
    holding = [name for name, _, _ in every if places(name, old, package)]
    inner = [name for name in holding if not any(n.startswith(f"{name}.") for n in holding)]
    return (
        f"{'it is' if ending(where, package) else 'there is no such name, but'} "
        f"{', '.join(name for name, _, _ in here)}, with {' | '.join(alike) or 'nothing alike'}; "
        f"{old} stands in {', '.join(inner) or 'no function'}"
    )


def place(where, old, package=PACKAGE):
    """(file, first node, last node) of `old`; ValueError that says what is there instead, unless it
    stands in `where` exactly once.
    """
    found = places(where, old, package)
    if len(found) == 1:
        return found.pop()
    lines = sorted(f"{file.relative_to(package)}:{first.lineno}" for file, first, _ in found)
    told = f"at {', '.join(lines)}; take more around it" if found else nearest(where, old, package)
    raise ValueError(f"{where} holds {len(found)} times {old!r}: must be once; {told}")


def replaced(where, old, new, package=PACKAGE):
    """(file, line, text of the file with `new` in the place of `old`)."""
    file, first, last = place(where, old, package)
    source = file.read_bytes()
    begins = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    start = begins[first.lineno - 1] + first.col_offset  # columns of nodes are bytes
    stop = begins[last.end_lineno - 1] + last.end_col_offset
    new = f"({new})" if isinstance(first, ast.expr) else new
    text = (source[:start] + new.encode() + source[stop:]).decode()
    ast.parse(text)
    return file, first.lineno, text
