"""Notes on interventions that the training data do not support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from deepscm_pl.effects.units import EffectQuestion
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.interventions import read_variables
from deepscm_pl.overlap import VERDICTS, OverlapEstimator, describe_overlap
from deepscm_pl.variables import Do

__all__ = ["notes_on_support"]

_ROWS, _PLACE = 500, 2**20
"""Rows whose overlap is estimated, at most, and the place of their random numbers."""


@torch.no_grad()
def notes_on_support(question: EffectQuestion, dos: Sequence[Do]) -> list[str]:
    """Sentences about interventions under which rows extrapolate beyond the training data.

    They have the number of such rows without an intervention, too, because rows at the edge of the
    training data extrapolate under any. Mechanisms on the way to the outcome count.

    Args:
        question: The question, to models that were trained.
        dos: The interventions.

    Returns:
        A sentence for each intervention that is not supported; none if the training distribution is
        unknown, or an intervention concerns images or their effects.
    """
    scm = question.scm
    reached = {*scm.image_variables, *scm.graph.descendants(*scm.image_variables)}
    names = [name for name in scm.scalar_variables if name not in reached]
    wanted = {name for do in dos for name in read_variables(do)}
    if not scm.training_distribution.is_known or not wanted <= set(names):
        return []
    inner = scm.restrict(names)
    observed = question.observed
    rows = replace(
        question,
        ensemble=Ensemble([inner]),
        observed=None if observed is None else {name: observed[name] for name in inner.graph},
    )
    with question.random(_PLACE):
        units = rows.units(inner, 0, min(question.rows, _ROWS))
        estimator = OverlapEstimator(inner)
        found = []
        for do in filter(None, dos):
            counts = [
                torch.bincount(
                    estimator.estimate(values, do, quantiles=False).verdict.flatten(),
                    minlength=len(VERDICTS),
                ).tolist()
                for values in (units.under(do), units.factual)
            ]
            sentence = describe_overlap(inner, do, counts[0])
            if sentence:
                before = counts[1][-1]
                found.append(f"{sentence} (without an intervention, {before}).")
    return found
