"""Lightning modules: how models are trained, tested, saved and loaded."""

from deepscm_pl.training.checkpoint import read_checkpoint
from deepscm_pl.training.deep_scm import DeepSCM
from deepscm_pl.training.image_classifier import ImageClassifier
from deepscm_pl.training.schedule import OneCycle

__all__ = ["DeepSCM", "ImageClassifier", "OneCycle", "read_checkpoint"]
