"""The reference: docstrings, which are plain text for help(), as reStructuredText for autodoc.

A docstring has paragraphs; sections such as "Parameters", a line of dashes below, of entries "name
: text", up to an empty line; formulas in `.. math::`; examples behind >>>. Everything else is text:
what reStructuredText would take for markup is not.
"""

import dataclasses
import enum
import inspect
import re

NAME = re.compile(r"[A-Za-z]\w*(\.\w+)*")
MARKED = re.compile(
    r"""
    `([^`]+)` | ("[\w.-]+")                     # code, and a word as an argument
    | (?<![A-Za-z_])([^\W\d_]\u0304?|‖)_(\{[^}]+\}|[^\W_]{1,2}|\*)(?!\w)(?<![a-z]_[ab])
                                                # λ_Z, h_{k,i}, ‖X‖_F; not lam_z, k_a, n_b
    | \^(\{[^}]+\}|\w+)                         # D^{1/2}
    | ([*|\\`]|(?<=\w)_(?!\w)|:(?=:))           # what would be markup""",
    re.VERBOSE,
)
ENTRY = re.compile(r"(\w[\w, ]*) : ")


def marked(text):
    """A line of text: code, linked if it is a name on the page, and subscripts; nothing else is
    markup, nor does "K." begin a list.
    """

    def mark(match):
        code, word, base, below, above, special = match.groups()
        if special:
            return "\\" + special
        if below or above:
            return rf"{base or ''}\ :{'sub' if below else 'sup'}:`{(below or above).strip('{}')}`\ "
        if code and NAME.fullmatch(code):
            # with a dot, a class of any module
            return rf"\ :py:obj:`{'.' * code[0].isupper()}{code}`\ "
        return rf"\ ``{code or word}``\ "

    return r"\ " + MARKED.sub(mark, text) if text else ""


def restructured(lines):
    """The lines of a docstring as reStructuredText."""
    found, section, block = [], False, None
    for line, after in zip(lines, [*lines[1:], ""]):
        if line.startswith((">>>", ".. math::")):
            block = line[:3]
        elif (block and not line.strip()) or (block == ".. " and not line.startswith(" ")):
            block = None
        if block:
            found.append(line)
        elif line and not line.startswith(" ") and re.fullmatch("-{3,}", after):
            section = True
            found += [f":{line}:", ""]
        elif not re.fullmatch("-{3,}", line):
            section = section and bool(line)
            entry = ENTRY.match(line) if section else None
            if entry:
                found.append(f"    - **{entry[1]}**: {marked(line[entry.end() :])}")
            else:
                found.append("      " * section + marked(line.strip()))
    return found


def process_docstring(app, what, name, thing, options, lines):
    lines[:] = restructured(lines)


def process_signature(app, what, name, thing, options, signature, annotation):
    """Leave out the arguments of classes that only the package makes: results, enumerations,
    errors.
    """
    made = dataclasses.is_dataclass(thing) and name != "ncutils.UFM"
    if inspect.isclass(thing) and (made or issubclass(thing, (enum.Enum, Exception))):
        return None, None


def setup(app):
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
