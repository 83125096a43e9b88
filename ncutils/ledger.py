"""The ledger of a claim: predicted, measured, tolerance, PASS or FAIL."""

import html
import json
import math
import os
import re
from pathlib import Path

from ._checks import check_choice, check_number, check_text, real_number, shown
from ._files import write

EVIDENCE = ("exact", "trained", "network")
NAME = re.compile(r"[\w .-]{1,60}")
CERTIFIED = 1e-9  # the largest relative duality gap of the optima behind a row, unless it says so


class LedgerError(AssertionError):
    """A row of a ledger failed, or it has no row: raised by `Ledger.show`, with the numbers of
    every failed row.

    >>> from ncutils.ledger import Ledger, LedgerError
    >>> try:
    ...     Ledger("empty").show()
    ... except LedgerError as error:
    ...     print(error)
    Ledger: empty
    check  evidence  measured  predicted  tolerance  result
    ledger empty has no row
    """


class Ledger:
    """Checks of one claim, shown as a table; a failed one raises in `show`, after the table.

    Parameters
    ----------
    name : of the claim, and of the file: letters, digits, spaces and ._- only.
    folder : where `<folder>/<name>.json` is written, with every measured value in full;
        $NCUTILS_LEDGERS unless given; without either no file is written.

    In every check `evidence` says where the measured number comes from: "exact" (solver or closed
    form), "trained" (a trained UFM) or "network". Trained values differ between processors in their
    last digits, so the table shows only the bound they were checked against; so it does for
    residuals and gaps of any origin. A check with `headline=True` is one of the few that the book's
    front page shows. The checks so far are `rows`, a list of dicts. Raises ValueError where an
    argument is not allowed. Source: ours.

    >>> from ncutils import Ledger
    >>> ledger = Ledger("demo")
    >>> ledger.check("a sum", 0.1 + 0.2, 0.3, atol=1e-9)
    >>> ledger.check_at_most("a gap", 1e-12, 1e-9)
    >>> ledger
    Ledger: demo
    check  evidence  measured    predicted   tolerance  result
    a sum  exact     0.30000000  0.30000000  1.0e-09    PASS
    a gap  exact                 ≤ 1e-09                PASS
    """

    def __init__(self, name, folder=None):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"name = {shown(name)}: must be a name of a file, "
                "60 letters, digits, spaces and ._- at most"
            )
        if not isinstance(folder, (str, os.PathLike, type(None))):
            raise ValueError(f"folder = {shown(folder)}: must be the path of a folder, or None")
        self.name, self.rows = name, []
        self.folder = folder if folder is not None else os.environ.get("NCUTILS_LEDGERS")
        self._theorem = self._certificate = None

    def about(self, theorem, *optima, at_most=CERTIFIED):
        """The checks that follow are about `theorem` and rest on `optima`.

        Parameters
        ----------
        theorem : label of a theorem or proposition in the book, such as "thm-threshold"; None where
            something is observed only.
        optima : what was solved: Solutions, TwoGroups, trained models (their exact optima), or
            lists and dicts of these. The largest of their relative duality gaps becomes the
            certificate of the rows; with none, a row follows from closed forms alone and has no
            certificate.
        at_most : how large that gap may be.

        Raises ValueError where it is larger or NaN, or where something has no certificate.

        >>> from ncutils import Ledger, UFM, solve
        >>> ledger = Ledger("demo")
        >>> ledger.about("thm-threshold", solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01)))
        """
        theorem = None if theorem is None else check_text("theorem", theorem)
        at_most = check_number("at_most", at_most)
        try:
            gaps = [abs(gap) for gap in _certificates(optima)]
        except RecursionError:
            raise ValueError(
                "optima hold a list that holds itself: "
                "must be solutions, trained models, or lists of these"
            ) from None
        worst = max(gaps, key=lambda gap: math.inf if math.isnan(gap) else gap, default=None)
        if worst is not None and not worst <= at_most:
            raise ValueError(
                f"optima have a relative duality gap of {worst!r}: must be at most {at_most!r}"
            )
        self._theorem, self._certificate = theorem, worst

    def _add(self, what, evidence, relation, measured, predicted, tolerance, passed, headline):
        self.rows.append(
            {
                "what": check_text("what", what),
                "theorem": self._theorem,
                "evidence": check_choice("evidence", evidence, EVIDENCE),
                "relation": relation,
                "measured": measured,
                "predicted": predicted,
                "tolerance": tolerance,
                "passed": bool(passed),
                "certificate": self._certificate,
                "headline": bool(check_choice("headline", headline, (False, True))),
            }
        )

    def check(
        self, what, measured, predicted, atol=0.0, rtol=0.0, evidence="exact", headline=False
    ):
        """Check that |measured − predicted| ≤ atol + rtol |predicted|; NaN and infinity fail.

        `what` is a name for the row; `evidence` and `headline` as in `Ledger`. Raises ValueError
        unless `measured` and `predicted` are numbers and the tolerances `atol` and `rtol` are
        finite and ≥ 0.

        >>> from ncutils import Ledger
        >>> ledger = Ledger("demo")
        >>> ledger.check("pi", 22 / 7, 3.14159, rtol=1e-3)
        >>> ledger.rows[0]["passed"]
        True
        """
        for name, value in (("atol", atol), ("rtol", rtol)):
            if not 0 <= (number := check_number(name, value)) < math.inf:
                raise ValueError(f"{name} = {number}: must be a finite number >= 0")
        measured = check_number("measured", measured)
        predicted = check_number("predicted", predicted)
        tolerance = float(atol) + float(rtol) * abs(predicted)
        passed = abs(measured - predicted) <= tolerance < math.inf  # infinity is near nothing
        self._add(what, evidence, "=", measured, predicted, tolerance, passed, headline)

    def check_at_most(self, what, measured, bound, evidence="exact", headline=False):
        """Check that measured ≤ bound; NaN fails.

        `what`, `evidence` and `headline` as in `check`. Raises ValueError unless `measured` and
        `bound` are numbers.

        >>> from ncutils import Ledger
        >>> Ledger("demo").check_at_most("gap", measured=1e-12, bound=1e-9)
        """
        measured, bound = check_number("measured", measured), check_number("bound", bound)
        self._add(what, evidence, "<=", measured, bound, None, measured <= bound, headline)

    def check_at_least(self, what, measured, bound, evidence="exact", headline=False):
        """Check that measured ≥ bound; NaN fails. Arguments and the ValueError as in
        `check_at_most`.

        >>> from ncutils import Ledger
        >>> Ledger("demo").check_at_least("accuracy", measured=0.97, bound=0.9, evidence="network")
        """
        measured, bound = check_number("measured", measured), check_number("bound", bound)
        self._add(what, evidence, ">=", measured, bound, None, measured >= bound, headline)

    def check_true(self, what, fact, evidence="exact", headline=False):
        """Check a fact that is true or not. `what`, `evidence` and `headline` as in `check`.

        Raises ValueError unless `fact` is True or False.

        >>> from ncutils import Ledger
        >>> Ledger("demo").check_true("the rank is 5", fact=2 + 3 == 5)
        """
        if not isinstance(fact, bool) and type(fact).__name__ not in ("bool", "bool_"):
            raise ValueError(f"fact = {shown(fact)}: must be True or False")
        self._add(what, evidence, "true", bool(fact), None, None, fact, headline)

    def table(self):
        """Header and rows of strings, as shown: no digit of a trained model.

        >>> from ncutils import Ledger
        >>> ledger = Ledger("demo")
        >>> ledger.check_at_most("loss", 0.1234, 0.2, evidence="trained")
        >>> ledger.table()[1]
        [['loss', 'trained', '', '≤ 0.2', '', 'PASS']]
        """
        header = ["check", "evidence", "measured", "predicted", "tolerance", "result"]
        return header, [_cells(row) for row in self.rows]

    def _repr_html_(self):
        header, rows = self.table()
        cell = lambda tag, text, more="": f"<{tag}{more}>{html.escape(text)}</{tag}>"
        line = lambda *cells: f"<tr>{''.join(cells)}</tr>"
        head = line(*(cell("th", text, " scope=col") for text in header))
        body = "".join(
            line(cell("th", what, ' scope="row"'), *(cell("td", text) for text in others))
            for what, *others in rows
        )
        caption = cell("caption", f"Ledger: {self.name}")
        return f'<table class="ledger">{caption}<thead>{head}</thead><tbody>{body}</tbody></table>'

    def __repr__(self):
        header, rows = self.table()
        widths = [max(map(len, column)) for column in zip(header, *rows)]
        line = lambda row: "  ".join(map(str.ljust, row, widths)).rstrip()
        return "\n".join([f"Ledger: {self.name}", *map(line, [header, *rows])])

    def record(self):
        """What `save` writes: name and rows, NaN and infinite numbers as text.

        >>> from ncutils import Ledger
        >>> Ledger("demo").record()
        {'ledger': 'demo', 'rows': []}
        """
        plain = lambda x: str(x) if isinstance(x, float) and not math.isfinite(x) else x
        rows = [{name: plain(value) for name, value in row.items()} for row in self.rows]
        return {"ledger": self.name, "rows": rows}

    def save(self):
        """Write the JSON file, whole or not at all; nothing where there is no folder.

        >>> import os, tempfile
        >>> from ncutils import Ledger
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Ledger("demo", folder).save()
        ...     os.listdir(folder)
        ['demo.json']
        """
        if self.folder is not None:
            text = json.dumps(self.record(), indent=1, ensure_ascii=False) + "\n"
            write(Path(self.folder) / f"{self.name}.json", text.encode())

    def show(self):
        """Display the whole table, write the JSON file, then raise `LedgerError` if a row failed or
        there is none.

        >>> from ncutils import Ledger
        >>> ledger = Ledger("demo")
        >>> ledger.check_true("one is less than two", 1 < 2)
        >>> ledger.show()
        Ledger: demo
        check                 evidence  measured  predicted  tolerance  result
        one is less than two  exact                                     PASS
        """
        try:
            from IPython.display import display
        except ImportError:
            display = print
        display(self)
        self.save()
        told = "{what}: measured {measured!r}, {relation} {predicted!r} (tolerance {tolerance!r})"
        if failed := [told.format(**row) for row in self.rows if not row["passed"]]:
            raise LedgerError("; ".join(failed))
        if not self.rows:
            raise LedgerError(f"ledger {self.name} has no row")


def _certificates(optima):
    """The certificates, relative duality gaps, of what was solved or trained, in lists or dicts."""
    for one in optima.values() if isinstance(optima, dict) else optima:
        if (gap := real_number(getattr(one, "certificate", None))) is not None:
            yield gap
        elif isinstance(one, (dict, list, tuple)):
            yield from _certificates(one)
        else:
            raise ValueError(
                f"optima hold {shown(one)}: must be solutions, trained models, "
                "or lists or dicts of these"
            )


def _cells(row):
    """A row as strings, as shown."""
    relation, tolerance = row["relation"], row["tolerance"]
    measured, predicted = "", ""
    if relation == "=":
        digits = _decimals(tolerance, row["predicted"])
        predicted = f"{row['predicted']:.{digits}f}"
        if row["evidence"] == "exact":
            measured = f"{row['measured']:.{digits}f}"
    elif relation != "true":
        predicted = f"{'≤' if relation == '<=' else '≥'} {row['predicted']:.4g}"
    tolerance = "" if tolerance is None else f"{tolerance:.1e}"
    result = "PASS" if row["passed"] else "FAIL"
    return [row["what"], row["evidence"], measured, predicted, tolerance, result]


def _decimals(tolerance, predicted):
    """Decimals to print a value with: those that its tolerance speaks for, two digits at least."""
    if not (0 < tolerance < math.inf and 0 < abs(predicted) < math.inf):
        return 8
    told = math.floor(1e-9 - math.log10(tolerance))
    two = 1 - math.floor(math.log10(abs(predicted)))
    return max(0, min(8, max(told, two)))
