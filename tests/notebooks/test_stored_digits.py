"""No text in a stored notebook shows a digit of a trained model: those differ from machine to
machine.
"""

import json
import re

import pytest
from conftest import ROOT

NOTEBOOKS = ROOT / "notebooks"
# the paper's; pages that others add may have fewer checks
CLAIMS = sorted(NOTEBOOKS.glob("0[1-4]_*.ipynb"))
NUMBER = re.compile(r"\d\.\d{2,}(?:e[-+]\d+)?|\d(?:\.\d+)?e[-+]\d+")


def texts(notebook):
    """What the outputs of a stored notebook say, pictures apart."""
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            yield "".join(output.get("text", ""))
            yield from ("".join(data.get(f"text/{kind}", "")) for kind in ("plain", "html"))


def shown_numbers(text):
    return {float(number) for number in NUMBER.findall(text)}


def rows_of(notebook):
    ledger = NOTEBOOKS / "ledgers" / f"{notebook.stem.split('_', 1)[1]}.json"
    return json.loads(ledger.read_text())["rows"]


def trained_values(notebook):
    """Values that were checked against a bound. One that was checked for equality is as the exact
    one that is shown.
    """
    rows = [row for row in rows_of(notebook) if row["evidence"] != "exact"]
    return [abs(row["measured"]) for row in rows if row["relation"] in ("<=", ">=")]


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_text_shows_no_value_of_a_trained_model(notebook):
    shown = set().union(*map(shown_numbers, texts(notebook)))
    for value in filter(None, trained_values(notebook)):
        close = [number for number in shown if number and abs(number / value - 1) < 1e-3]
        assert not close, f"{notebook.name} shows {close}, a trained model measured {value}"


def test_a_shown_value_would_be_found():
    assert shown_numbers("gap 1.38829e-04, a_B 0.859, n 12") == {1.38829e-04, 0.859}


@pytest.mark.parametrize("notebook", CLAIMS, ids=lambda path: path.stem)
def test_every_claim_has_enough_checks(notebook):
    rows = rows_of(notebook)
    assert len(rows) >= 6
    assert sum(row["evidence"] == "network" for row in rows) >= 2
