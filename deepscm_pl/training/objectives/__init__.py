"""What a training maximises: bounds of the log-probability, and what is added to them."""

from deepscm_pl.training.objectives.base import Objective, ObjectiveValue, TrainingProgress
from deepscm_pl.training.objectives.counterfactual import CounterfactualObjective
from deepscm_pl.training.objectives.evidence_lower_bound import EvidenceLowerBoundObjective
from deepscm_pl.training.objectives.importance_weighted import ImportanceWeightedObjective

__all__ = [
    "CounterfactualObjective",
    "EvidenceLowerBoundObjective",
    "ImportanceWeightedObjective",
    "Objective",
    "ObjectiveValue",
    "TrainingProgress",
]
