"""Sensitivity of counterfactuals to the couplings of the mechanisms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Guards, Question
from deepscm_pl.sensitivity import sensitivity_to_coupling

__all__ = ["SensitivityResult", "evaluate_sensitivity"]

_MOST_ROWS = 16


@dataclass(frozen=True)
class SensitivityResult:
    """The distance of counterfactuals under another coupling of one mechanism from the model's.

    ``change`` is the distance between the model's answers and the factual values; both are in the
    unit of the variable, in grey levels, or a share of rows for classes.
    """

    question: Question
    variable: str
    coupling: str
    distance: Estimate
    change: Estimate


def evaluate_sensitivity(
    model: ModelOnData,
    questions: Sequence[Question],
    rows: int = _MOST_ROWS,
    seed: int = 0,
    progress: bool = True,
) -> list[SensitivityResult]:
    """Compute how far answers for the first rows, at most 16, move under other couplings.

    Rows in which an intervention is impossible are ignored.
    """
    (_, factual), *_ = model.batches(0, min(rows, _MOST_ROWS), _MOST_ROWS)
    size = len(next(iter(factual.values())))
    results = []
    bar = tqdm(questions, "sensitivity", unit="intervention", disable=None if progress else True)
    for question in bar:
        guards = Guards(model.scm, question)
        for each in sensitivity_to_coupling(model.scm, factual, guards.do, seed=seed):
            possible = guards.possible(size).to(each.distance.device)
            if bool(possible.any()):
                distance, change = each.distance[possible], each.change[possible]
                found = Estimate.of(distance), Estimate.of(change)
                results.append(SensitivityResult(question, each.variable, each.coupling, *found))
    return results
