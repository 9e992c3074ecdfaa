"""Calibration: is abducted noise what the model says noise is?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.estimate import alone
from deepscm_pl.evaluation.subject import Subject
from deepscm_pl.metrics import NoiseCalibration

__all__ = ["NoiseResult", "evaluate_noise"]

_SHOWN = 20_000
"""Values of noise that a histogram is made of."""


@dataclass(frozen=True)
class NoiseResult:
    """The abducted noise of one variable.

    Attributes:
        variable: Its name.
        part: Which noise of it, such as ``u`` or ``z``.
        rows: Rows that it was inferred from.
        left_out: Rows of which some noise is infinite: values that the model holds impossible.
        entries: Numbers in the noise of one row.
        quantities: What :class:`~deepscm_pl.metrics.NoiseCalibration` found.
        sample: Some of the values, for a histogram.
    """

    variable: str
    part: str
    rows: int
    left_out: int
    entries: int
    quantities: Mapping[str, float]
    sample: Tensor


def evaluate_noise(
    subject: Subject, detail_rows: int, batch_size: int = 256, progress: bool = True
) -> list[NoiseResult]:
    """One draw of the abducted noise of every variable against its prior N(0, 1).

    Noise of scalars is inferred from all rows; that of images from the first ``detail_rows``.
    Of several rows of one person only the first counts, for the noise of the others is not
    independent of it. Correlations are with the parents in the model's graph and, if it is known,
    in the world's: a model that lacks an edge shows there.

    Args:
        subject: The model and the rows.
        detail_rows: Rows for noise of more than one number.
        batch_size: Rows at a time.
        progress: Whether to show a progress bar.
    """
    scalars = _collect(subject, subject.scalars, len(subject), batch_size, progress)
    others = tuple(name for name in subject.scm.graph.nodes if name not in subject.scalars)
    return [
        _result(subject, name, part, noise)
        for (name, part), noise in {
            **scalars,
            **_collect(subject, others, detail_rows, batch_size, progress),
        }.items()
    ]


def _collect(
    subject: Subject, names: tuple[str, ...], rows: int, batch_size: int, progress: bool
) -> dict[tuple[str, str], Tensor]:
    """The noise of some variables, ``(rows, *event)``, by variable and part."""
    found: dict[tuple[str, str], list[Tensor]] = {}
    scm = subject.scm
    with tqdm(total=rows, unit="image", desc="noise", disable=not progress or not names) as bar:
        for _, factual in subject.batches(0, rows if names else 0, batch_size):
            for name in names:
                parents = {parent: factual[parent] for parent in scm.graph.parents[name]}
                noise = scm[name].abduct_recorded(factual[name], parents)
                for part, value in noise.items():
                    found.setdefault((name, part), []).append(value.cpu())
            bar.update(len(next(iter(factual.values()))))
    return {key: torch.cat(parts) for key, parts in found.items()}


def _result(subject: Subject, name: str, part: str, noise: Tensor) -> NoiseResult:
    causes = set(subject.scm.graph.parents[name])
    if subject.world is not None and name in subject.world.graph:
        causes |= set(subject.world.graph.parents[name])
    parents = tuple(cause for cause in subject.scalars if cause in causes)
    independent = subject.independent_rows(len(noise))
    flat = noise.flatten(1)[independent]
    known = torch.isfinite(flat).all(dim=1)
    values = {cause: subject.variables[cause].cpu()[independent][known] for cause in parents}
    metric = alone(NoiseCalibration(parents), flat.device)
    quantities: Mapping[str, float] = {}
    if int(known.sum()) > 1:
        metric.update(flat[known], values)
        quantities = metric.compute()
    every = max(1, flat.numel() // _SHOWN)
    sample = flat[known].flatten()[::every]
    rows = int(known.sum())
    return NoiseResult(name, part, rows, len(known) - rows, flat.shape[1], quantities, sample)
