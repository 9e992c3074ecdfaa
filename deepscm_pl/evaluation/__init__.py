"""Evaluation of a model on all three rungs of causation, against a known world if there is one."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.evaluation.association import (
        AssociationRow as AssociationRow,
        ImportanceWeightedResult as ImportanceWeightedResult,
        association_rows as association_rows,
        evaluate_importance_weighted_bound as evaluate_importance_weighted_bound,
    )
    from deepscm_pl.evaluation.calibration import calibrate as calibrate
    from deepscm_pl.evaluation.densities import (
        DensityResult as DensityResult,
        evaluate_densities as evaluate_densities,
    )
    from deepscm_pl.evaluation.estimate import Estimate as Estimate
    from deepscm_pl.evaluation.intervals import Calibration as Calibration
    from deepscm_pl.evaluation.model_on_data import ModelOnData as ModelOnData
    from deepscm_pl.evaluation.noise import (
        NoiseResult as NoiseResult,
        evaluate_noise as evaluate_noise,
    )
    from deepscm_pl.evaluation.results import CounterfactualResult as CounterfactualResult
    from deepscm_pl.evaluation.run import (
        Evaluation as Evaluation,
        EvaluationSettings as EvaluationSettings,
        check_density_values as check_density_values,
        check_questions as check_questions,
        check_settings as check_settings,
        evaluate as evaluate,
    )
    from deepscm_pl.evaluation.verdict_thresholds import VerdictThresholds as VerdictThresholds

__getattr__ = first_use(__name__)
