"""``deepscm init``: from a table to an experiment that trains as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deepscm_pl.cli.options import Option
from deepscm_pl.escaping import for_shell, for_terminal
from deepscm_pl.files import new_file

__all__ = ["InitOptions", "plan_experiment"]


@dataclass(frozen=True)
class InitOptions:
    """Options of the data of ``deepscm init``.

    Args:
        images: Column with the paths of the images, or a pattern of them in which {column} stands
            for a cell, such as '{id}.png', relative to the folder of the table.
        graph: Causes and effects by the names of the columns, such as 'age, sex -> volume; volume
            -> image'; `image` is the image of a row.
        identifier: Column with the identifiers of units, such as persons, whose rows belong to one
            split (default: found by its name and values, else each row is a unit).
        visits: Columns that distinguish the rows of a unit.
        sheet: Sheet of an Excel workbook (default: the only one).
        encoding: Encoding of the text, such as mac-roman (default: found from the content).
        missing_words: Words that mean a missing value, as do empty cells (default: NA, N/A, #N/A,
            <NA>, NaN, null).
    """

    images: Annotated[str | None, Option("COLUMN|PATTERN")] = None
    graph: Annotated[str | None, Option("TEXT")] = None
    identifier: Annotated[str | None, Option("COLUMN")] = None
    visits: Annotated[tuple[str, ...], Option("COLUMN")] = ()
    sheet: Annotated[str | None, Option("NAME")] = None
    encoding: Annotated[str | None, Option("NAME")] = None
    missing_words: Annotated[tuple[str, ...], Option("WORD")] = ()


def plan_experiment(
    table: Path, data: InitOptions, out: Path, overwrite: bool, measure: bool
) -> None:
    """Describe a table, plan an experiment, write it, and measure a few steps of its training.

    Args:
        table: The table.
        data: Options of the data.
        out: The YAML file to write; the fingerprint is a JSON file beside it.
        overwrite: Whether the file may exist.
        measure: Whether to measure a few steps.

    Raises:
        FileNotFoundError: If the table or an image is missing.
        ValueError: If the table cannot be used, the graph does not fit it, or the file exists.
    """
    from deepscm_pl.data.tables import MISSING_WORDS
    from deepscm_pl.planning import make_plan, read_fingerprint, with_chosen_forms

    if out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"out: expected a name ending in .yaml, but got {out}.")
    if not out.parent.is_dir():
        raise ValueError(f"out: there is no folder {out.parent}; make it first.")
    if (out.exists() or out.is_symlink()) and not overwrite:
        raise ValueError(f"out: {out} exists; name a new file, or add --overwrite.")
    cache = out.with_suffix(".fingerprint.json")
    found = read_fingerprint(
        table,
        data.images,
        data.identifier,
        data.visits,
        data.sheet,
        cache,
        data.encoding,
        data.missing_words or MISSING_WORDS,
    )
    print(for_terminal(found.summary(), lines=True))
    plan = with_chosen_forms(make_plan(found, data.graph))
    fit = for_shell("deepscm", "fit", "--config", str(out))
    title = f"Planned by deepscm init from {table.name}. Change what you know better; then: {fit}"
    with new_file(out) as temporary:
        temporary.write_text(plan.yaml(title), encoding="utf-8")
    for note in plan.notes:
        print(for_terminal(f"note: {note}"))
    print(for_terminal(f"written: {out}, and what was found in the data: {cache}"))
    if measure:
        from deepscm_pl.cli.training import run_training_command
        from deepscm_pl.cli.training_help import DRY_RUN

        run_training_command(["fit", "--config", str(out), DRY_RUN])
    print(f"\nRead the experiment:  {for_terminal(out)}\nTrain it:             {for_terminal(fit)}")
