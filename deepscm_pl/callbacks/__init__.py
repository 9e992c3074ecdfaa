"""Callbacks: images, densities and noise in TensorBoard, and tables after a test."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.callbacks.association import AssociationReport as AssociationReport
    from deepscm_pl.callbacks.densities import (
        AttributeDensities as AttributeDensities,
        NoiseHistograms as NoiseHistograms,
    )
    from deepscm_pl.callbacks.evaluation import EvaluationReport as EvaluationReport
    from deepscm_pl.callbacks.figure_callback import FigureCallback as FigureCallback
    from deepscm_pl.callbacks.graph import GraphPicture as GraphPicture
    from deepscm_pl.callbacks.images import (
        ConditionalSampleGrid as ConditionalSampleGrid,
        CounterfactualGrid as CounterfactualGrid,
        InterventionGrid as InterventionGrid,
        ReconstructionGrid as ReconstructionGrid,
        SampleGrid as SampleGrid,
    )
    from deepscm_pl.callbacks.latent_traversal import LatentTraversal as LatentTraversal
    from deepscm_pl.runs.finite import FiniteCheck as FiniteCheck, SkipSteps as SkipSteps
    from deepscm_pl.runs.repeatable import RepeatableRun as RepeatableRun
    from deepscm_pl.runs.termination import SaveOnTermination as SaveOnTermination

__getattr__ = first_use(__name__)
