"""Calibrated intervals of counterfactual images, in files and in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.cli.answers import Column
from deepscm_pl.evaluation.intervals import Calibration, coupling_of
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["interval_sentences", "read_calibration"]


def read_calibration(model: TrainedModel, path: Path | None) -> Calibration | None:
    """Read a calibration, by default the one in the checkpoint.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is no calibration, or one of another number of models.
    """
    if path is None:
        return model.calibration
    if not path.is_file():
        raise FileNotFoundError(
            f"calibration: there is no file {path}; deepscm test writes one into the folder "
            "evaluation."
        )
    try:
        found = Calibration.read(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if found.members != len(model.checkpoints):
        raise ValueError(
            f"calibration: {path} is of {found.members} models that answer together, but the "
            f"question is to {len(model.checkpoints)}; test these checkpoints together."
        )
    return found


def interval_sentences(
    scm: StructuralCausalModel, calibration: Calibration | None, columns: Sequence[Column]
) -> Iterator[str]:
    """Describe the intervals of images, for interventions with several particles."""
    asked = [column for column in columns if column.particles > 1]
    if not asked:
        return
    if calibration is None:
        yield (
            "intervals: not calibrated; the spread of the particles is a lower bound of the "
            "uncertainty."
        )
        return
    level = f"{100 * calibration.level:g} %"
    yield f"intervals of {level}: calibrated on {calibration.source}."
    if not calibration.is_complete:
        yield "They are lower bounds, because no truth of interventions was available."
    others = [column.heading for column in asked if not calibration.is_exact(column.heading)]
    if others:
        yield (
            f"Not calibrated themselves: {', '.join(others)}; their factors are the largest of "
            "interventions on the same variables, or else of all."
        )
    coupling = coupling_of(scm)
    if coupling != calibration.coupling:
        yield (
            f"The calibration is of pixel noise that is {calibration.coupling}, but it is "
            f"{coupling} here; ask with --coupling {calibration.coupling}."
        )
    if any(column.particles != calibration.particles for column in asked):
        yield (
            f"The calibration is of {calibration.particles} particles; ask with "
            f"--num_particles {calibration.particles}."
        )
