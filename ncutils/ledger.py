"""The ledger of a claim: predicted, measured, tolerance, PASS or FAIL."""

import html
import json
import math
import os
import tempfile
from pathlib import Path

from .ufm import choice

EVIDENCE = ("exact", "trained", "network")
CERTIFIED = 1e-9  # the largest relative duality gap that the optima behind a row may have, unless it says otherwise


class LedgerError(AssertionError):
    """A row of a ledger failed."""


class Ledger:
    """Checks of one claim, shown as a table; a failed one raises in `show`, after the table.

    `evidence` says where the measured number comes from: "exact" (solver or closed form),
    "trained" (a trained UFM) or "network". Trained values differ between processors in their last
    digits, so the table shows only the bound they were checked against; so it does for residuals
    and gaps of any origin. Every measured value goes in full to `<folder>/<name>.json`, `folder`
    being $NCUTILS_LEDGERS unless given; without either no file is written. A check with `headline=True` is one of
    the few that the book's front page shows.
    """

    def __init__(self, name, folder=None):
        self.name = name
        self.folder = folder if folder is not None else os.environ.get("NCUTILS_LEDGERS")
        self.rows = []
        self._theorem, self._certificate = None, None

    def about(self, theorem, *optima, at_most=CERTIFIED):
        """The checks that follow are about `theorem` and rest on `optima`.

        theorem : label of a theorem or proposition in the book, such as "thm-threshold".
        optima : what was solved: Solutions, TwoGroups, trained models (their exact optima), or lists and dicts of these.
            The largest of their relative duality gaps becomes the certificate of the rows; with none, a row
            follows from closed forms alone and has no certificate.
        at_most : how large that gap may be.

        Raises ValueError where it is larger or NaN, or where something has no certificate.
        """
        gaps = [abs(gap) for gap in _certificates(optima)]
        worst = max(gaps, key=lambda gap: math.inf if math.isnan(gap) else gap, default=None)
        if worst is not None and not worst <= at_most:
            raise ValueError(f"optima have a relative duality gap of {worst!r}: must be at most {at_most!r}")
        self._theorem, self._certificate = theorem, worst

    def _add(self, what, evidence, relation, measured, predicted, tolerance, passed, headline):
        choice("evidence", evidence, EVIDENCE)
        self.rows.append({
            "what": what, "theorem": self._theorem, "evidence": evidence, "relation": relation, "measured": measured,
            "predicted": predicted, "tolerance": tolerance, "passed": bool(passed), "certificate": self._certificate,
            "headline": bool(headline)})

    def check(self, what, measured, predicted, atol=0.0, rtol=0.0, evidence="exact", headline=False):
        """|measured − predicted| ≤ atol + rtol |predicted|; NaN fails."""
        for name, value in (("atol", atol), ("rtol", rtol)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value!r}: must be a finite number >= 0")
        measured, predicted = _number("measured", measured), _number("predicted", predicted)
        tolerance = atol + rtol * abs(predicted)
        passed = abs(measured - predicted) <= tolerance
        self._add(what, evidence, "=", measured, predicted, tolerance, passed, headline)

    def check_at_most(self, what, measured, bound, evidence="exact", headline=False):
        """measured ≤ bound; NaN fails."""
        measured, bound = _number("measured", measured), _number("bound", bound)
        self._add(what, evidence, "<=", measured, bound, None, measured <= bound, headline)

    def check_at_least(self, what, measured, bound, evidence="exact", headline=False):
        """measured ≥ bound; NaN fails."""
        measured, bound = _number("measured", measured), _number("bound", bound)
        self._add(what, evidence, ">=", measured, bound, None, measured >= bound, headline)

    def check_true(self, what, fact, evidence="exact", headline=False):
        """A fact that is true or not."""
        if not isinstance(fact, bool) and type(fact).__name__ not in ("bool", "bool_"):
            raise ValueError(f"fact = {fact!r}: must be True or False")
        self._add(what, evidence, "true", bool(fact), None, None, fact, headline)

    def table(self):
        """Header and rows of strings, as shown: no digit of a trained model."""
        rows = []
        for row in self.rows:
            relation, tolerance = row["relation"], row["tolerance"]
            measured, predicted = "", ""
            if relation == "=":
                digits = _decimals(tolerance, row["predicted"])
                predicted = f"{row['predicted']:.{digits}f}"
                if row["evidence"] == "exact":
                    measured = f"{row['measured']:.{digits}f}"
            elif relation != "true":
                predicted = f"{'≤' if relation == '<=' else '≥'} {row['predicted']:.4g}"
            rows.append([
                row["what"], row["evidence"], measured, predicted,
                f"{tolerance:.1e}" if tolerance is not None else "", "PASS" if row["passed"] else "FAIL"])
        return ["check", "evidence", "measured", "predicted", "tolerance", "result"], rows

    def _repr_html_(self):
        header, rows = self.table()
        cells = lambda tag, row, more="": "".join(f"<{tag}{more}>{html.escape(cell)}</{tag}>" for cell in row)
        body = "".join(
            f'<tr><th scope="row">{html.escape(row[0])}</th>{cells("td", row[1:])}</tr>' for row in rows)
        return (f'<table class="ledger"><caption>Ledger: {html.escape(self.name)}</caption>'
                f'<thead><tr>{cells("th", header, " scope=col")}</tr></thead><tbody>{body}</tbody></table>')

    def __repr__(self):
        header, rows = self.table()
        widths = [max(map(len, column)) for column in zip(header, *rows)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *rows]]
        return "\n".join([f"Ledger: {self.name}", *lines])

    def save(self):
        """Write the JSON file, whole or not at all; nothing where there is no folder."""
        if self.folder is None:
            return
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        finite = lambda value: value if not isinstance(value, float) or math.isfinite(value) else str(value)
        rows = [{key: finite(value) for key, value in row.items()} for row in self.rows]
        text = json.dumps({"ledger": self.name, "rows": rows}, indent=1, ensure_ascii=False) + "\n"
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, folder / f"{self.name}.json")

    def show(self):
        """Display the whole table, write the JSON file, then raise LedgerError if a row failed."""
        try:
            from IPython.display import display
        except ImportError:
            display = print
        display(self)
        self.save()
        failed = [row for row in self.rows if not row["passed"]]
        if failed:
            raise LedgerError("; ".join(
                f"{row['what']}: measured {row['measured']!r}, {row['relation']} {row['predicted']!r}"
                f" (tolerance {row['tolerance']!r})" for row in failed))
        if not self.rows:
            raise LedgerError(f"ledger {self.name} has no row")


def _certificates(optima):
    """The relative duality gaps of Solutions, TwoGroups and trained models, however they are nested."""
    for one in optima.values() if isinstance(optima, dict) else optima:
        if hasattr(one, "relative_gap"):
            yield float(getattr(one, "worst_gap", one.relative_gap))
        elif hasattr(one, "exact"):
            yield from _certificates(one.exact)
        elif isinstance(one, (dict, list, tuple)):
            yield from _certificates(one)
        else:
            raise ValueError(f"optima hold {one!r}: must be solutions, trained models, or lists or dicts of these")


def _number(name, value):
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {value!r}: must be a number") from None


def _decimals(tolerance, predicted):
    """Decimals to print a value with: those that its tolerance speaks for, two digits at least."""
    if not (0 < tolerance < math.inf and 0 < abs(predicted) < math.inf):
        return 8
    return max(0, min(8, max(math.floor(1e-9 - math.log10(tolerance)), 1 - math.floor(math.log10(abs(predicted))))))
