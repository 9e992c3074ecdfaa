"""Bijections that Pyro lacks."""

from deepscm_pl.transforms.activation_normalisation import (
    ActivationNormalisation,
    normalise_activations,
)
from deepscm_pl.transforms.affine_coupling import AffineCoupling, ConditionerFactory
from deepscm_pl.transforms.channel_mixing import ChannelMixing
from deepscm_pl.transforms.constraint import Constraint, Interval, Positive, Real
from deepscm_pl.transforms.dequantise import Dequantise
from deepscm_pl.transforms.image_bijection import Composition, ImageBijection, Inverse, Mapped
from deepscm_pl.transforms.logit import Logit
from deepscm_pl.transforms.multiscale import MultiscaleBijection
from deepscm_pl.transforms.spline import RationalQuadraticSpline

__all__ = [
    "ActivationNormalisation",
    "AffineCoupling",
    "ChannelMixing",
    "Composition",
    "ConditionerFactory",
    "Constraint",
    "Dequantise",
    "ImageBijection",
    "Interval",
    "Inverse",
    "Logit",
    "Mapped",
    "MultiscaleBijection",
    "Positive",
    "RationalQuadraticSpline",
    "Real",
    "normalise_activations",
]
