"""Callbacks: images, densities and noise in TensorBoard, and tables after a test."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.callbacks.association import AssociationReport
    from deepscm_pl.callbacks.densities import AttributeDensities, NoiseHistograms
    from deepscm_pl.callbacks.evaluation import EvaluationReport
    from deepscm_pl.callbacks.figure_callback import FigureCallback
    from deepscm_pl.callbacks.images import (
        ConditionalSampleGrid,
        CounterfactualGrid,
        InterventionGrid,
        ReconstructionGrid,
        SampleGrid,
    )
    from deepscm_pl.callbacks.latent_traversal import LatentTraversal
    from deepscm_pl.runs.finite import FiniteCheck, SkipSteps
    from deepscm_pl.runs.repeatable import RepeatableRun
    from deepscm_pl.runs.termination import SaveOnTermination

__all__ = [
    "AssociationReport",
    "AttributeDensities",
    "ConditionalSampleGrid",
    "CounterfactualGrid",
    "EvaluationReport",
    "FigureCallback",
    "FiniteCheck",
    "InterventionGrid",
    "LatentTraversal",
    "NoiseHistograms",
    "ReconstructionGrid",
    "RepeatableRun",
    "SampleGrid",
    "SaveOnTermination",
    "SkipSteps",
]

__getattr__ = first_use(__name__)
