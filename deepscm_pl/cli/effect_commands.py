"""The kinds of ``deepscm effect``, as functions whose parameters are their options."""

# ruff: noqa: D417 - options of several commands are described once, with their types

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deepscm_pl.cli.options import Kinds, NewFolder, Option, Trusted

__all__ = ["EFFECTS", "EffectOptions", "EffectRows"]

DoText = Annotated[
    str,
    Option(
        "TEXT", help="Intervention, as of deepscm counterfactual, such as age=80 or 'dose*=1.1'."
    ),
]
Versus = Annotated[
    str | None,
    Option("TEXT", help="Intervention that it is compared with, such as age=40 (default: none)."),
]


@dataclass(frozen=True)
class EffectOptions:
    """Options of all kinds of effects.

    Args:
        ckpt_path: Checkpoint of a run, exported model, or name of a model that is shipped with this
            program, such as digits; several answer together, as an ensemble.
        outcome: Variable that is affected: a number, an image for its mean grey level, or a
            condition for its probability, such as 'volume > 1000' or 'sick=yes'.
        weights: Weights of several checkpoints: a number for each, or "validation" for those that
            maximise the probability of the validation split (default: equal weights).
        seed: Seed of all random numbers.
        level: Probability of the intervals.
    """

    ckpt_path: Annotated[tuple[Path, ...], Option("FILE")]
    outcome: Annotated[str, Option("TEXT")]
    out: NewFolder
    trust: Trusted = ()
    weights: Annotated[tuple[str, ...], Option("WEIGHT")] = ()
    seed: int = 0
    level: float = 0.95


@dataclass(frozen=True)
class EffectRows:
    """Options that select the rows of an effect.

    Args:
        rows: Number of rows to draw from each model, without observations.
        index: Rows of the run's test split, from 0.
        observations: Table with a column for each variable that is needed; images by path, relative
            to the table.
        num_particles: Draws for each observation of the noise that it does not determine.
        resample: Draw latents from K candidates of the encoder by importance.
        root: Current folder of the run's data.
    """

    rows: Annotated[int, Option("NUMBER")] = 10_000
    index: Annotated[list[int] | None, Option("ROW")] = None
    observations: Annotated[Path | None, Option("FILE.csv")] = None
    num_particles: Annotated[int, Option("NUMBER")] = 1
    resample: Annotated[int | None, Option("K")] = None
    root: Annotated[Path | None, Option("DIR", ("--data.root",))] = None


def average(
    options: EffectOptions,
    do: DoText,
    rows: EffectRows,
    versus: Versus = None,
    by: Annotated[str | None, Option("NAME[:LIMITS]")] = None,
) -> None:
    """Average effect of an intervention, over all rows and in groups.

    Args:
        by: Variable by whose classes or quarters rows are grouped; age:3 for three groups of equal
            size, age:40,60 for limits.
    """
    from deepscm_pl.cli.effects import answer_average

    answer_average(options, rows, do, versus, by)


def individual(options: EffectOptions, do: DoText, rows: EffectRows, versus: Versus = None) -> None:
    """Effect of an intervention on each observation, by its counterfactuals."""
    from deepscm_pl.cli.effects import answer_individual

    answer_individual(options, rows, do, versus)


def mediation(
    options: EffectOptions,
    do: DoText,
    rows: EffectRows,
    versus: Versus = None,
    through: Annotated[tuple[str, ...], Option("NAME")] = (),
) -> None:
    """Natural direct and indirect effects of an intervention.

    Args:
        through: Mediators of the indirect effect (default: all variables between the cause and the
            outcome).
    """
    from deepscm_pl.cli.effects import answer_mediation

    answer_mediation(options, rows, do, versus, through)


def necessity(
    options: EffectOptions,
    do: DoText,
    versus: Annotated[str, Option("TEXT", help="The opposite of the cause, such as dose=0.")],
    rows: EffectRows,
    exposed: Annotated[str | None, Option("TEXT")] = None,
) -> None:
    """Probabilities that a cause was necessary, sufficient, or both, for an event.

    Args:
        exposed: Condition for exposed rows, such as 'age > 60' (default: the value of the cause,
            which has to be a class).
    """
    from deepscm_pl.cli.effects import answer_necessity

    answer_necessity(options, rows, do, versus, exposed)


def contributions(
    options: EffectOptions,
    rows: EffectRows,
    do: Annotated[str | None, Option("TEXT")] = None,
    versus: Versus = None,
    group: Annotated[str | None, Option("TEXT")] = None,
    reference: Annotated[str | None, Option("TEXT")] = None,
) -> None:
    """Contributions of causes: to the variance, or a difference of groups, rows or interventions.

    Args:
        do: Intervention on several variables, among which its effect is divided.
        group: Condition for a group of rows, whose difference from others is divided among the
            mechanisms.
        reference: Condition for the rows that the group is compared with (default: all others).
    """
    from deepscm_pl.cli.effects import answer_contributions

    answer_contributions(options, rows, (do, versus), (group, reference))


def reach(
    options: EffectOptions,
    change: Annotated[tuple[str, ...], Option("NAME")],
    rows: EffectRows,
    farthest: float = 5.0,
) -> None:
    """Smallest change of chosen causes with which observations reach an outcome.

    Args:
        change: Causes that may be changed.
        farthest: Largest change of each number, in standard deviations of the training data.
    """
    from deepscm_pl.cli.effects import answer_reach

    answer_reach(options, rows, change, farthest)


EFFECTS = Kinds(
    average=average,
    individual=individual,
    mediation=mediation,
    necessity=necessity,
    contributions=contributions,
    reach=reach,
)
