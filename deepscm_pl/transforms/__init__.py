"""Bijections that Pyro lacks."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.transforms.constraint import Constraint, Interval, Positive, Real
    from deepscm_pl.transforms.dequantise import Dequantise, Logit
    from deepscm_pl.transforms.image_bijection import (
        ComposedBijection,
        ImageBijection,
        Inverse,
        Mapped,
    )
    from deepscm_pl.transforms.levels import LevelCells
    from deepscm_pl.transforms.multiscale import (
        ActivationNormalisation,
        AffineCoupling,
        ChannelMixing,
        ConditionerFactory,
        MultiscaleBijection,
        normalise_activations,
    )
    from deepscm_pl.transforms.ode import ImplicitMidpoint
    from deepscm_pl.transforms.spline import RationalQuadraticSpline

__all__ = [
    "ActivationNormalisation",
    "AffineCoupling",
    "ChannelMixing",
    "ComposedBijection",
    "ConditionerFactory",
    "Constraint",
    "Dequantise",
    "ImageBijection",
    "ImplicitMidpoint",
    "Interval",
    "Inverse",
    "LevelCells",
    "Logit",
    "Mapped",
    "MultiscaleBijection",
    "Positive",
    "RationalQuadraticSpline",
    "Real",
    "normalise_activations",
]

__getattr__ = first_use(__name__)
