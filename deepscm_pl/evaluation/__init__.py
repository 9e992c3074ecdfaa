"""Is a model right? Its answers on all three rungs, against a world that is known."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.evaluation.association import (
        AssociationRow,
        association_rows,
        evaluate_importance_weighted_bound,
    )
    from deepscm_pl.evaluation.counterfactuals import CounterfactualResult
    from deepscm_pl.evaluation.densities import DensityResult, evaluate_densities
    from deepscm_pl.evaluation.estimate import Estimate
    from deepscm_pl.evaluation.noise import NoiseResult, evaluate_noise
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
