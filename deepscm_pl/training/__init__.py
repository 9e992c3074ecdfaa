"""Lightning modules: how models are trained, tested, saved and loaded."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.checkpoints.export import export_model
    from deepscm_pl.checkpoints.loading import load_data
    from deepscm_pl.runs.reading import read_checkpoint
    from deepscm_pl.training.deep_scm import DeepSCM
    from deepscm_pl.training.image_classifier import ImageClassifier
    from deepscm_pl.training.image_regressor import ImageRegressor
    from deepscm_pl.training.iterates import keep_iterates
    from deepscm_pl.training.objectives import (
        CounterfactualObjective,
        EvidenceLowerBoundObjective,
        ImportanceWeightedObjective,
        Objective,
    )
    from deepscm_pl.training.predictors import TrainedPredictor
    from deepscm_pl.training.schedule import OneCycle
    from deepscm_pl.training.tuning import BoundConstraint, CounterfactualTuning, OwnPredictor

__all__ = [
    "BoundConstraint",
    "CounterfactualObjective",
    "CounterfactualTuning",
    "DeepSCM",
    "EvidenceLowerBoundObjective",
    "ImageClassifier",
    "ImageRegressor",
    "ImportanceWeightedObjective",
    "Objective",
    "OneCycle",
    "OwnPredictor",
    "TrainedPredictor",
    "export_model",
    "keep_iterates",
    "load_data",
    "read_checkpoint",
]

__getattr__ = first_use(__name__)
