"""Tables of interventions: a row for each, in the grammar of ``--do``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from deepscm_pl.checks import nearest
from deepscm_pl.cli.commands import InterventionOptions
from deepscm_pl.data.tables import Table, read_table
from deepscm_pl.interventions import parse_do, quote_class, quote_variable
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do, Variable

__all__ = ["read_do_table", "read_interventions"]

_DO, _WHERE = "do", "where"
_OPERATOR = re.compile(r"\s*(?:[-+*]?=|~)")


def read_interventions(options: InterventionOptions, scm: StructuralCausalModel) -> list[Do]:
    """Read the interventions of texts and of a table.

    Raises:
        FileNotFoundError: If there is no such table.
        ValueError: If there is no intervention, or one is invalid.
    """
    texts = list(options.do or ())
    if options.do_table is not None:
        texts += read_do_table(options.do_table, scm.variables)
    if not texts:
        raise ValueError(
            "do: expected at least one intervention, but got none; give --do TEXT, such as "
            "--do age=60, or --do_table FILE."
        )
    return [parse_do(text, scm.variables) for text in texts]


def read_do_table(path: Path, variables: Mapping[str, Variable]) -> list[str]:
    """Read the interventions of a table, one a row, as texts.

    A column with the name of a variable has its value, as after ``variable=`` in ``--do``, or an
    operator and an operand such as ``+=5`` and ``~train``; a cell without a value changes nothing.
    The column ``do`` has whole texts, and ``where`` the group of a row.

    Args:
        path: The table: CSV, TSV, Parquet or Excel.
        variables: The variables of the model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no table, a column is no variable, or a row cannot be read.
    """
    table = read_table(path)
    known = [*variables, *({_DO, _WHERE} - variables.keys())]
    for column in table.columns:
        if column not in known:
            raise ValueError(
                f"do_table: {path.name} has the column {column!r}, which is no variable; expected "
                f"some of {', '.join(known)}{nearest(column, known) or '.'}"
            )
    cells = {column: _cells(table, column, variables.get(column)) for column in table.columns}
    return [_text(table, row, cells, variables) for row in range(len(table))]


def _cells(table: Table, column: str, variable: Variable | None) -> list[str]:
    """The statements of a column, empty where it changes nothing."""
    missing, texts = table.is_missing(column), table[column]
    numbers = table.numbers(column) if variable is not None and not variable.classes else None
    found = []
    for row, text in enumerate(map(str, texts)):
        is_class = variable is not None and text in variable.classes
        if missing[row] and not is_class:
            found.append("")
        elif variable is None:
            found.append(text)
        else:
            name = quote_variable(column)
            if is_class:
                found.append(f"{name}={quote_class(text)}")
            elif numbers is not None and math.isfinite(numbers[row]) and not _OPERATOR.match(text):
                found.append(f"{name}={float(numbers[row])!r}")
            else:
                found.append(f"{name}{text}" if _OPERATOR.match(text) else f"{name}={text}")
    return found


def _text(
    table: Table, row: int, cells: Mapping[str, list[str]], variables: Mapping[str, Variable]
) -> str:
    """The intervention of a row."""
    group = cells[_WHERE][row] if _WHERE in cells and _WHERE not in variables else ""
    statements = [
        texts[row]
        for column, texts in cells.items()
        if texts[row] and (column in variables or column == _DO)
    ]
    if not statements:
        raise ValueError(
            f"do_table: {table.where(row)} changes nothing; give a value to a variable, or remove "
            "the row."
        )
    text = ", ".join(statements) + (f" where {group}" if group else "")
    try:
        parse_do(text, variables)
    except ValueError as error:
        raise ValueError(f"do_table: {table.where(row)}: {error}") from None
    return text
