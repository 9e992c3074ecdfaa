"""Mechanisms: how each variable is generated from its parents and its exogenous noise."""

from deepscm_pl.mechanisms.base import Evidence, LatentEvidence, Mechanism
from deepscm_pl.mechanisms.bernoulli import Bernoulli
from deepscm_pl.mechanisms.brightness import Brightness
from deepscm_pl.mechanisms.categorical import Categorical
from deepscm_pl.mechanisms.constant import Constant
from deepscm_pl.mechanisms.context import Context
from deepscm_pl.mechanisms.flow import AffineFlow, Flow, SplineFlow
from deepscm_pl.mechanisms.image import ImageMechanism
from deepscm_pl.mechanisms.image_flow import MultiscaleFlow
from deepscm_pl.mechanisms.modified import Modified
from deepscm_pl.mechanisms.vae import ConditionalVAE

__all__ = [
    "AffineFlow",
    "Bernoulli",
    "Brightness",
    "Categorical",
    "ConditionalVAE",
    "Constant",
    "Context",
    "Evidence",
    "Flow",
    "ImageMechanism",
    "LatentEvidence",
    "Mechanism",
    "Modified",
    "MultiscaleFlow",
    "SplineFlow",
]
