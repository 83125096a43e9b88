"""What the notebooks checked: the directive {claims} shows it as a table, and claims.json holds it
for programs.

Both come from notebooks/ledgers/*.json. A page is not built if a notebook has no ledger, or if a
row failed: the verdict is taken from the row's numbers, not from its word.
"""

import json
import math
from collections import namedtuple
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxDirective

HEADERS = (
    "Claim",
    "What is checked",
    "Evidence",
    "Measured",
    "Predicted or bound",
    "Certificate",
    "Check",
)
ROW_HEADER = HEADERS.index("What is checked")
NARROW = "\N{NARROW NO-BREAK SPACE}"  # a line may end before "±" but not within a number
RELATIONS = {"=": f"={NARROW}", "<=": f"≤{NARROW}", ">=": f"≥{NARROW}"}
RUN = ("cell", "seconds", "hardware", "versions")

Claim = namedtuple("Claim", ["page", "name", "file", "rows", "run"])


class ClaimsError(SphinxError):
    """A claim that cannot be published."""

    category = "Claims"


def is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def holds(row):
    """Whether a row's numbers say what it claims. They are finite, or text where they were not."""
    if row.get("certificate") is not None and not is_number(row["certificate"]):
        return False
    measured, predicted = row["measured"], row["predicted"]
    if row["relation"] == "true":
        return measured is True
    if not (is_number(measured) and is_number(predicted)):
        return False
    if row["relation"] == "=":
        return is_number(row["tolerance"]) and abs(measured - predicted) <= row["tolerance"]
    return {"<=": measured <= predicted, ">=": measured >= predicted}[row["relation"]]


def read_ledgers(source, pages):
    """Yield a Claim for each notebook page, in their order.

    source: folder that holds notebooks/ledgers.  pages: names like "notebooks/03_threshold".
    """
    files = set((source / "notebooks" / "ledgers").glob("*.json"))
    for page in pages:
        name = page.partition("_")[2]
        file = source / "notebooks" / "ledgers" / f"{name}.json"
        if file not in files:
            raise ClaimsError(f"{page} has no ledger: {file.name} is missing")
        files.remove(file)
        try:
            ledger = json.loads(file.read_text(encoding="utf-8"))
            rows = ledger["rows"]
            failed = [row["what"] for row in rows if row["passed"] is not True or not holds(row)]
            run = {key: ledger["run"][key] for key in RUN} if "run" in ledger else None
        except (ValueError, KeyError, TypeError) as error:
            raise ClaimsError(f"{file.name} is not a ledger: {error!r}") from error
        if not rows:
            raise ClaimsError(f"{file.name} checks nothing")
        if failed:
            raise ClaimsError(f"{file.name}: failed: {'; '.join(failed)}")
        if run is None or ledger["ledger"] != name:
            raise ClaimsError(
                f"{file.name} was not made by this page: run notebooks/run.py --store "
                f"{Path(page).name}"
            )
        yield Claim(page, ledger["ledger"], file, rows, run)
    if files:
        raise ClaimsError(
            f"ledgers without a page: {', '.join(sorted(file.name for file in files))}"
        )


def all_claims(env):
    """The claims of all notebook pages."""
    return list(
        read_ledgers(
            Path(env.srcdir),
            sorted(page for page in env.found_docs if page.startswith("notebooks/")),
        )
    )


# The table
# ---------------------------------------------------------------------------------------------


def number(value, digits):
    """A value of a ledger as a reader wants it, to that many significant digits, as a list of
    nodes.
    """
    if isinstance(value, bool):
        return [nodes.Text("yes" if value else "no")]
    factor, _, exponent = f"{value:.{digits}g}".replace("-", "−").partition("e")
    if not exponent:
        return [nodes.Text(factor)]
    sign = "−" if exponent.startswith("−") else ""
    base = {"1": "10", "−1": "−10"}.get(factor, f"{factor}{NARROW}·{NARROW}10")
    return [nodes.Text(base), nodes.superscript(text=sign + exponent.lstrip("−+0"))]


def measured(row):
    """The left-hand side of a check: an equality in full, a value that only has to keep a bound
    more briefly.
    """
    return number(row["measured"], digits=6 if row["relation"] == "=" else 4)


def predicted(row):
    """The right-hand side of a check, with its relation and tolerance."""
    if row["relation"] == "true":
        return [nodes.Text("yes")]
    side = [nodes.Text(RELATIONS[row["relation"]]), *number(row["predicted"], digits=6)]
    if row["tolerance"]:
        side += [nodes.Text(f" ±{NARROW}"), *number(row["tolerance"], digits=2)]
    return side


def as_html(parts):
    """Inline nodes of a table cell as HTML."""
    texts = ((escape(part.astext()), isinstance(part, nodes.superscript)) for part in parts)
    return "".join(f"<sup>{text}</sup>" if raised else text for text, raised in texts)


class Claims(SphinxDirective):
    """A table of checks, each row linked to its notebook and its theorem: all of them, or with
    :headlines: the few that the notebooks mark as such."""

    option_spec = {"headlines": directives.flag}

    def run(self):
        body, claims, total = nodes.tbody(), all_claims(self.env), 0
        for claim in claims:
            total += len(claim.rows)
            for row in claim.rows:
                if "headlines" not in self.options or row.get("headline"):
                    body += self.row(self.cells(claim, row))
        group = nodes.tgroup(cols=len(HEADERS))
        for column in range(len(HEADERS)):
            group += nodes.colspec(colwidth=1, **({"stub": 1} if column == ROW_HEADER else {}))
        group += nodes.thead("", self.row([[nodes.Text(header)] for header in HEADERS]))
        group += body
        text = (
            f"{len(body)} of {total} checks"
            if "headlines" in self.options
            else f"All {total} checks"
        )
        caption = nodes.title(
            "", f"{text} on {len(claims)} pages: measured against prediction or bound."
        )
        return [nodes.table("", caption, group, classes=["ledger"])]

    def cells(self, claim, row):
        """The cells of a row, as lists of inline nodes."""
        theorem, certificate = row.get("theorem"), row.get("certificate")
        certified = (
            number(certificate, digits=1)
            if certificate is not None
            else [nodes.Text("closed form" if theorem else "")]
        )
        about = (
            self.state.inline_text(f"{{prf:ref}}`{theorem}`", self.lineno)[0]
            if theorem
            else [nodes.Text("observed")]
        )
        if theorem and row["evidence"] == "network":
            about = [nodes.Text("observed beside "), *about]
        return [
            [self.link(claim.page, claim.name), nodes.Text(", "), *about],
            [nodes.Text(row["what"])],
            [nodes.Text(row["evidence"])],
            measured(row),
            predicted(row),
            certified,
            [nodes.Text("PASS")],
        ]

    def link(self, page, name):
        """A link to the checks of a notebook's page."""
        attributes = {"refdomain": "std", "reftype": "doc", "refexplicit": True, "refwarn": True}
        target = pending_xref(refdoc=self.env.docname, reftarget=f"/{page}", **attributes)
        target += nodes.inline(text=name)
        return target

    @staticmethod
    def row(cells):
        """A table row from lists of inline nodes."""
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


# The file
# ----------------------------------------------------------------------------------------------


def entry(claim, row, env, link):
    """A row as claims.json holds it. A quantity that is a fact, true or not, has no prediction but
    true.
    """
    label, theorem = row.get("theorem"), None
    if label is not None:
        if label not in env.proof_list:
            raise ClaimsError(f"{claim.file.name}: {row['what']}: there is no theorem {label!r}")
        found = env.proof_list[label]
        numbers = env.toc_fignumbers[found["docname"]][found["countertype"]][label]
        theorem = {
            "label": label,
            "name": f"{found['realtype'].title()} {'.'.join(map(str, numbers))}",
            "url": f"{link(found['docname'])}#{label}",
        }
    return {
        "claim": claim.name,
        "theorem": theorem,
        "quantity": row["what"],
        "evidence": row["evidence"],
        "relation": row["relation"],
        "predicted": True if row["relation"] == "true" else row["predicted"],
        "measured": row["measured"],
        "tolerance": row["tolerance"],
        "verdict": "PASS",
        "certificate": row.get("certificate"),
        "headline": bool(row.get("headline")),
        "notebook": f"{claim.page}.ipynb",
        "cell": claim.run["cell"],
        "url": f"{link(claim.page)}#check",
        **{key: claim.run[key] for key in ("seconds", "hardware", "versions")},
    }


def write_claims(app, exception):
    """claims.json at the root of the site."""
    if exception is not None or app.builder.format != "html":
        return
    claims = all_claims(app.env)
    link = app.builder.get_target_uri
    content = {
        "about": "Every number that the pages of this site checked. A certificate is the largest "
        "relative duality gap of the exact optima behind a row; null, where it follows from "
        "closed forms or recorded rows alone. Seconds are those of the whole notebook.",
        "checks": [entry(claim, row, app.env, link) for claim in claims for row in claim.rows],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (Path(app.outdir) / "claims.json").write_text(text, encoding="utf-8")


def setup(app):
    app.add_directive("claims", Claims)
    app.connect("build-finished", write_claims)
    return {"version": "2", "parallel_read_safe": True, "parallel_write_safe": True}
