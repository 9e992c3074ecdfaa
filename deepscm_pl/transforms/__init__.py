"""Bijections that Pyro lacks."""

from deepscm_pl.transforms.constraint import Constraint, Interval, Positive, Real
from deepscm_pl.transforms.dequantise import Dequantise
from deepscm_pl.transforms.logit import Logit
from deepscm_pl.transforms.spline import RationalQuadraticSpline

__all__ = [
    "Constraint",
    "Dequantise",
    "Interval",
    "Logit",
    "Positive",
    "RationalQuadraticSpline",
    "Real",
]
