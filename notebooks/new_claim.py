"""Begin a page of your own: a notebook, listed in the table of contents and run once, yours to
edit.

    python notebooks/new_claim.py NAME [--from NAME]

NAME is two digits, which order the pages, and a word, as in 08_my_claim. The page starts from
template.md, or with --from as a copy of another notebook.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # which Python's safe path leaves out
import run
from pairs import HERE, ROOT, sources

NAME = re.compile(r"[0-9]{2}_[a-z][a-z0-9_]*")


def refusal(name, start, existing):
    """Why `name` or `start` cannot be taken, given the names of the existing notebooks; None if
    they can.
    """
    if not NAME.fullmatch(name):
        return (
            f"NAME = {name!r}: must be two digits, an underscore, then lower-case letters, digits "
            "and underscores, as in 08_my_claim"
        )
    word = name.partition("_")[2]
    if taken := [other for other in existing if other.partition("_")[2] == word]:
        return f"NAME = {name!r}: there is {taken[0]} already, and its ledger is called {word!r}"
    if start is not None and start not in existing:
        return f"FROM = {start!r}: must be one of {', '.join(existing)}"
    return None


def adapt(text, name):
    """The source of a notebook as the source of one called `name`: names that are unique in the
    book are its own.
    """
    word = name.partition("_")[2]
    slug = word.replace("_", "-")
    text = text.replace("fig-SLUG", f"fig-{slug}").replace(
        "TITLE", word.replace("_", " ").capitalize()
    )
    text = re.sub(rf"name: fig-(?!{slug}$)", f"name: fig-{slug}-", text, flags=re.MULTILINE)
    text = re.sub(r'Ledger\("[^"]*"\)', f'Ledger("{word}")', text)
    # the README keeps its picture
    return re.sub(r", readme\b|\breadme, |^:tags: \[readme\]\n", "", text, flags=re.MULTILINE)


def list_page(contents, name):
    """The table of contents with the notebook `name` in it, behind the last one that comes before
    it.
    """
    lines = contents.splitlines(keepends=True)
    entry = re.compile(r"( *- file: notebooks/)([0-9]{2}_\w+)(\.ipynb)")
    places = [(number, found) for number, line in enumerate(lines) if (found := entry.match(line))]
    before = [number for number, found in places if found[2] < name]
    number, found = places[0]
    place = before[-1] + 1 if before else number
    return "".join([*lines[:place], f"{found[1]}{name}{found[3]}\n", *lines[place:]])


def main(arguments=None):
    parser = argparse.ArgumentParser(  # in words: -OO drops the docstring
        description="Begin a page of your own: a notebook, listed in the table of contents and run "
        "once, yours to edit."
    )
    parser.add_argument("name", metavar="NAME", help="for example 08_my_claim")
    parser.add_argument(
        "--from", dest="start", metavar="NAME", help="the notebook to copy (default: a template)"
    )
    options = parser.parse_args(arguments)
    if why := refusal(options.name, options.start, [path.stem for path in sources()]):
        parser.error(why)

    source = HERE / (f"{options.start}.md" if options.start else "template.md")
    target, contents = HERE / f"{options.name}.md", ROOT / "_toc.yml"
    run.replace(target, adapt(source.read_text(encoding="utf-8"), options.name).encode())
    try:
        run.replace(
            contents, list_page(contents.read_text(encoding="utf-8"), options.name).encode()
        )
    except OSError:
        target.unlink()  # or the same command would be refused, the name being taken
        raise
    print(f"{target.relative_to(ROOT)} is yours to edit, and listed in {contents.name}", flush=True)
    return run.main(["--store", options.name])


if __name__ == "__main__":
    run.leave(main, "notebooks/new_claim.py")
