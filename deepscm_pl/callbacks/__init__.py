"""What a person watches: images, densities and noise in TensorBoard, and the table at the end."""

from deepscm_pl.callbacks.association import AssociationReport
from deepscm_pl.callbacks.attribute_densities import AttributeDensities
from deepscm_pl.callbacks.conditional_samples import ConditionalSampleGrid
from deepscm_pl.callbacks.evaluation import EvaluationReport
from deepscm_pl.callbacks.figure_callback import FigureCallback
from deepscm_pl.callbacks.grids import CounterfactualGrid, InterventionGrid
from deepscm_pl.callbacks.latent_traversal import LatentTraversal
from deepscm_pl.callbacks.noise_histograms import NoiseHistograms
from deepscm_pl.callbacks.reconstructions import ReconstructionGrid
from deepscm_pl.callbacks.samples import SampleGrid
from deepscm_pl.callbacks.skip_steps import SkipSteps
from deepscm_pl.callbacks.termination import SaveOnTermination

__all__ = [
    "AssociationReport",
    "AttributeDensities",
    "ConditionalSampleGrid",
    "CounterfactualGrid",
    "EvaluationReport",
    "FigureCallback",
    "InterventionGrid",
    "LatentTraversal",
    "NoiseHistograms",
    "ReconstructionGrid",
    "SampleGrid",
    "SaveOnTermination",
    "SkipSteps",
]
