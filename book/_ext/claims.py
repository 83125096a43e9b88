"""The directive {claims}: every number that the notebooks checked, in one table.

It reads notebooks/ledgers/*.json and refuses to build the page if a row failed or a notebook has no ledger.
"""

import json
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxDirective

HEADERS = ("Claim", "What is checked", "Evidence", "Measured", "Predicted or bound", "Check")
ROW_HEADER = HEADERS.index("What is checked")
NARROW = "\N{NARROW NO-BREAK SPACE}"  # a line may end before "±" but not within a number
RELATIONS = {"=": f"={NARROW}", "<=": f"≤{NARROW}", ">=": f"≥{NARROW}"}


class ClaimsError(SphinxError):
    """A claim that cannot be published."""

    category = "Claims"


def read_ledgers(source, pages):
    """Yield (page, ledger name, file, rows) for the notebook pages, in their order.

    source: folder that holds notebooks/ledgers.  pages: names like "notebooks/03_threshold".
    """
    files = set((source / "notebooks" / "ledgers").glob("*.json"))
    for page in pages:
        name = page.split("_", 1)[1]
        file = source / "notebooks" / "ledgers" / f"{name}.json"
        if file not in files:
            raise ClaimsError(f"{page} has no ledger: {file.name} is missing")
        files.remove(file)
        try:
            ledger = json.loads(file.read_text())
            rows = ledger["rows"]
            failed = [row["what"] for row in rows if row["passed"] is not True]
        except (ValueError, KeyError, TypeError) as error:
            raise ClaimsError(f"{file.name} is not a ledger: {error!r}") from error
        if not rows:
            raise ClaimsError(f"{file.name} checks nothing")
        if failed:
            raise ClaimsError(f"{file.name}: failed: {'; '.join(failed)}")
        yield page, ledger["ledger"], file, rows
    if files:
        raise ClaimsError(f"ledgers without a page: {', '.join(sorted(file.name for file in files))}")


def number(value, digits):
    """A value of a ledger as a reader wants it, to that many significant digits, as a list of nodes."""
    if isinstance(value, bool):
        return [nodes.Text("yes" if value else "no")]
    factor, _, exponent = f"{value:.{digits}g}".replace("-", "−").partition("e")
    if not exponent:
        return [nodes.Text(factor)]
    sign = "−" if exponent.startswith("−") else ""
    base = {"1": "10", "−1": "−10"}.get(factor, f"{factor}{NARROW}·{NARROW}10")
    return [nodes.Text(base), nodes.superscript(text=sign + exponent.lstrip("−+0"))]


def measured(row):
    """The left-hand side of a check: an equality in full, a value that only has to keep a bound more briefly."""
    return number(row["measured"], digits=6 if row["relation"] == "=" else 4)


def predicted(row):
    """The right-hand side of a check, with its relation and tolerance."""
    if row["relation"] == "true":
        return [nodes.Text("yes")]
    side = [nodes.Text(RELATIONS[row["relation"]]), *number(row["predicted"], digits=6)]
    if row["tolerance"]:
        side += [nodes.Text(f" ±{NARROW}"), *number(row["tolerance"], digits=2)]
    return side


class Claims(SphinxDirective):
    """A table of all ledgers, each row linked to the notebook that it comes from."""

    def run(self):
        source = Path(self.env.srcdir)
        pages = sorted(page for page in self.env.found_docs if page.startswith("notebooks/"))
        body = nodes.tbody()
        for page, name, file, rows in read_ledgers(source, pages):
            self.env.note_dependency(str(file.relative_to(source)))
            for row in rows:
                cells = [
                    [self.link(page, name)],
                    self.state.inline_text(row["what"], self.lineno)[0],
                    [nodes.Text(row["evidence"])],
                    measured(row),
                    predicted(row),
                    [nodes.Text("PASS")],
                ]
                body += self.row(cells)

        group = nodes.tgroup(cols=len(HEADERS))
        for column in range(len(HEADERS)):
            group += nodes.colspec(colwidth=1, **({"stub": 1} if column == ROW_HEADER else {}))
        group += nodes.thead("", self.row([[nodes.Text(header)] for header in HEADERS]))
        group += body
        caption = nodes.title("", "Every checked number, measured against its prediction or bound.")
        return [nodes.table("", caption, group, classes=["ledger"])]

    def link(self, page, name):
        """A link to a notebook's page."""
        attributes = {"refdomain": "std", "reftype": "doc", "refexplicit": True, "refwarn": True}
        target = pending_xref(refdoc=self.env.docname, reftarget=f"/{page}", **attributes)
        target += nodes.inline(text=name)
        return target

    @staticmethod
    def row(cells):
        """A table row from lists of inline nodes."""
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def setup(app):
    app.add_directive("claims", Claims)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
