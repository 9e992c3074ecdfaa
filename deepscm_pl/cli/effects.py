"""``deepscm effect``: effects, printed and in a folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.cli.commands import ObservationOptions
from deepscm_pl.cli.effect_commands import EffectOptions, EffectRows
from deepscm_pl.cli.questions import find_observations, load_models
from deepscm_pl.effects import (
    Effects,
    EffectSettings,
    SmallestChanges,
    average_effect,
    causes_of_event,
    contributions_of_changes,
    contributions_to_difference,
    contributions_to_rows,
    contributions_to_variance,
    individual_effects,
    mediated_effects,
    smallest_changes,
)
from deepscm_pl.effects.outcome import Condition, Outcome
from deepscm_pl.effects.units import read_do
from deepscm_pl.escaping import TableWriter, as_json, for_terminal
from deepscm_pl.figures import save_figure
from deepscm_pl.files import exit_on_termination, new_folder
from deepscm_pl.interventions import read_variables
from deepscm_pl.shipped.names import OBSERVATIONS
from deepscm_pl.suggestions import Asked
from deepscm_pl.variables import Variables

__all__ = [
    "answer_average",
    "answer_contributions",
    "answer_individual",
    "answer_mediation",
    "answer_necessity",
    "answer_reach",
]

_SHOWN = 20
"""Lines of the printed table, at most."""


def answer_average(
    options: EffectOptions, rows: EffectRows, do: str, versus: str | None, by: str | None
) -> None:
    """Write an average effect; see :func:`~deepscm_pl.effects.average_effect`."""
    asked = _Asked.read(options, rows, [do, versus], names=[by.partition(":")[0]] if by else [])
    found = average_effect(
        asked.model, options.outcome, do, versus, by, asked.observed, asked.settings
    )
    asked.write(found, {"do": do, "versus": versus, "by": by})


def answer_individual(
    options: EffectOptions, rows: EffectRows, do: str, versus: str | None
) -> None:
    """Write individual effects; see :func:`~deepscm_pl.effects.individual_effects`."""
    asked = _Asked.read(options, rows, [do, versus])
    found = individual_effects(
        asked.model, options.outcome, do, versus, asked.required, asked.row_names, asked.settings
    )
    asked.write(found, {"do": do, "versus": versus})


def answer_mediation(
    options: EffectOptions,
    rows: EffectRows,
    do: str,
    versus: str | None,
    through: Sequence[str],
) -> None:
    """Write direct and indirect effects; see :func:`~deepscm_pl.effects.mediated_effects`."""
    asked = _Asked.read(options, rows, [do, versus], names=through)
    found = mediated_effects(
        asked.model,
        options.outcome,
        do,
        versus,
        through or None,
        asked.observed,
        asked.settings,
    )
    asked.write(found, {"do": do, "versus": versus, "through": list(through) or None})


def answer_necessity(
    options: EffectOptions, rows: EffectRows, do: str, versus: str, exposed: str | None
) -> None:
    """Write probabilities of causation; see :func:`~deepscm_pl.effects.causes_of_event`."""
    asked = _Asked.read(options, rows, [do, versus], conditions=[exposed])
    found = causes_of_event(
        asked.model, options.outcome, do, versus, exposed, asked.observed, asked.settings
    )
    asked.write(found, {"do": do, "versus": versus, "exposed": exposed})


def answer_contributions(
    options: EffectOptions,
    rows: EffectRows,
    change: tuple[str | None, str | None],
    groups: tuple[str | None, str | None],
) -> None:
    """Write contributions: to the effect of a change, a difference of groups or rows, or variance.

    Raises:
        ValueError: If both a change and a group are given, or an option lacks the one it needs.
    """
    (do, versus), (group, reference) = change, groups
    if do is not None and group is not None:
        raise ValueError("group: expected either --do or --group, but got both; leave one out.")
    for name, other, value, needed in (
        ("versus", "do", versus, do),
        ("reference", "group", reference, group),
    ):
        if value is not None and needed is None:
            raise ValueError(f"{name}: expected together with --{other}; add it.")
    asked = _Asked.read(options, rows, [do, versus], conditions=[group, reference])
    model, outcome = asked.model, options.outcome
    arguments = {"do": do, "versus": versus, "group": group, "reference": reference}
    if do is not None:
        found = contributions_of_changes(model, outcome, do, versus, asked.observed, asked.settings)
    elif group is not None:
        found = contributions_to_difference(
            model, outcome, group, reference, asked.observed, asked.settings
        )
    elif asked.observed is not None:
        found = contributions_to_rows(
            model, outcome, asked.observed, row_names=asked.row_names, settings=asked.settings
        )
    else:
        found = contributions_to_variance(model, outcome, asked.settings)
    asked.write(found, arguments)


def answer_reach(
    options: EffectOptions, rows: EffectRows, change: Sequence[str], farthest: float
) -> None:
    """Write the smallest changes; see :func:`~deepscm_pl.effects.smallest_changes`."""
    asked = _Asked.read(options, rows, [], names=change)
    found = smallest_changes(
        asked.model,
        options.outcome,
        change,
        asked.required,
        asked.row_names,
        farthest,
        asked.settings,
    )
    asked.write_changes(found, {"change": list(change), "farthest": farthest})


@dataclass(frozen=True)
class _Asked:
    """A model, its options, and the observations of a question, if any."""

    model: TrainedModel
    options: EffectOptions
    rows: EffectRows
    settings: EffectSettings
    observed: Variables | None = None
    row_names: Sequence[str] = ()
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        options: EffectOptions,
        rows: EffectRows,
        dos: Sequence[str | None],
        names: Sequence[str] = (),
        conditions: Sequence[str | None] = (),
    ) -> _Asked:
        """Load the models, check the names, and read the observations of these variables."""
        if rows.index is not None and rows.observations is not None:
            raise ValueError("index: expected either --index or --observations, but got both.")
        model = load_models(options.ckpt_path, options.weights, options.trust, rows.root)
        settings = EffectSettings(
            rows.rows, rows.num_particles, rows.resample, options.seed, options.level
        )
        found = [read_do(model, do) for do in dos]
        variables = model.variables
        is_goal = not dos
        outcome = (
            Condition.parse(options.outcome, variables, "outcome")
            if is_goal
            else Outcome.of(options.outcome, variables)
        )
        wanted = {*outcome.names, *(name for do in found for name in read_variables(do))}
        for text in conditions:
            wanted.update(Condition.parse(text, variables).names if text else ())
        wanted.update(name for name in names if name in variables)
        asked = cls(model, options, rows, settings)
        if rows.index is None and rows.observations is None:
            return asked
        return asked._with_observations(wanted)

    @property
    def required(self) -> Variables:
        """The observations of a question that needs some."""
        if self.observed is None:
            raise ValueError(
                "observations: expected rows of the test split (--index) or a table "
                "(--observations), but got neither; add one."
            )
        return self.observed

    def _with_observations(self, names: set[str]) -> _Asked:
        scm = self.model.scm.restrict(n for n in self.model.variables if n in names)
        chosen = ObservationOptions(self.rows.index, self.rows.observations)
        found = find_observations(self.model, scm, chosen, self.rows.root)
        parts = list(found.read(256))
        values = {name: torch.cat([each.values[name] for each in parts]) for name in scm.graph}
        row_names = [name for each in parts for name in each.rows]
        cells = [row for each in parts for row in each.others]
        others = {
            name: [row[k] for row in cells]
            for k, name in enumerate(found.others)
            if name not in self.model.variables
        }
        return replace(self, observed=values, row_names=row_names, others=others)

    def write(self, found: Effects, arguments: Mapping[str, Any]) -> None:
        """Write and print estimates."""

        def tables() -> Iterator[tuple[str, list[str], list[list[Any]]]]:
            frame = found.describe()["estimates"]
            header = list(next(iter(frame.values())))
            rows = [[name, *(each[key] for key in header)] for name, each in frame.items()]
            yield "effect.csv", ["estimate", *header], rows
            if found.rows:
                columns = {"observation": self.row_names, **self.others, **found.rows}
                columns["observation"] = self.row_names
                yield (
                    "rows.csv",
                    list(columns),
                    list(map(list, zip(*columns.values(), strict=True))),
                )

        has_values = any(math.isfinite(each.value) for each in found.estimates.values())
        _print(found.title, found.table(_SHOWN), found.notes)
        self._write_folder(
            found.describe(),
            arguments,
            tables(),
            lambda: found.plot() if has_values else None,
        )

    def write_changes(self, found: SmallestChanges, arguments: Mapping[str, Any]) -> None:
        """Write and print smallest changes."""
        columns = {"observation": self.row_names, **self.others, **found.columns()}
        rows = list(map(list, zip(*columns.values(), strict=True)))
        _print(found.title, "\n".join(found.sentences(_SHOWN)), found.notes)
        self._write_folder(
            found.describe(), arguments, iter([("effect.csv", list(columns), rows)]), found.plot
        )

    def _write_folder(
        self,
        document: Mapping[str, Any],
        arguments: Mapping[str, Any],
        tables: Iterator[tuple[str, list[str], list[list[Any]]]],
        draw: Callable[[], Figure | None],
    ) -> None:
        """Write tables, JSON and a picture into a new folder, and print their names."""
        about = {
            "checkpoints": [str(path) for path in self.options.ckpt_path],
            "seed": self.options.seed,
            **{name: value for name, value in arguments.items() if value is not None},
        }
        written = []
        with exit_on_termination(), new_folder(self.options.out) as folder:
            for file, header, rows in tables:
                written.append(file)
                with (folder / file).open("w", newline="", encoding="utf-8") as table:
                    writer = TableWriter(table)
                    writer.writerow(header)
                    writer.writerows([[_cell(value) for value in row] for row in rows])
            (folder / "effect.json").write_text(
                as_json({**document, "asked": about}), encoding="utf-8"
            )
            written.append("effect.json")
            figure = draw()
            if figure is not None:
                save_figure(figure, folder / "effect.png")
                written.append("effect.png")
        for file in written:
            print(f"written: {for_terminal(Path(self.options.out) / file)}")
        files, trust = self.options.ckpt_path, self.options.trust
        # The data of a model that comes with observations are often elsewhere.
        is_shared = (self.model.checkpoint.path.parent / OBSERVATIONS).is_file()
        if self.model.checkpoint.content.get("data") is not None and not is_shared:
            print(f"\nCheck the graph:     {Asked(self.model.scm, files, trust).check()}")


def _print(title: str, table: str, sentences: Sequence[str]) -> None:
    print(for_terminal(title))
    print()
    print(for_terminal(table, lines=True))
    print()
    for sentence in sentences:
        print(for_terminal(sentence))


def _cell(value: Any) -> Any:
    """A number with all digits of single precision, and an empty cell for NaN."""
    if isinstance(value, float):
        return f"{value:.9g}" if math.isfinite(value) else ""
    return value
