"""Evaluation of a model on all three rungs of causation, against a known world if there is one."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.evaluation.association import (
        AssociationRow,
        ImportanceWeightedResult,
        association_rows,
        evaluate_importance_weighted_bound,
    )
    from deepscm_pl.evaluation.densities import DensityResult, evaluate_densities
    from deepscm_pl.evaluation.estimate import Estimate
    from deepscm_pl.evaluation.noise import NoiseResult, evaluate_noise
    from deepscm_pl.evaluation.results import CounterfactualResult
    from deepscm_pl.evaluation.run import (
        Evaluation,
        EvaluationSettings,
        check_density_values,
        check_questions,
        check_settings,
        evaluate,
    )
    from deepscm_pl.evaluation.subject import Subject

__all__ = [
    "AssociationRow",
    "CounterfactualResult",
    "DensityResult",
    "Estimate",
    "Evaluation",
    "EvaluationSettings",
    "ImportanceWeightedResult",
    "NoiseResult",
    "Subject",
    "association_rows",
    "check_density_values",
    "check_questions",
    "check_settings",
    "evaluate",
    "evaluate_densities",
    "evaluate_importance_weighted_bound",
    "evaluate_noise",
]

__getattr__ = first_use(__name__)
