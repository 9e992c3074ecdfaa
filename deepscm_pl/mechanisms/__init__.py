"""Mechanisms, which generate variables from their parents and exogenous noise."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.mechanisms.base import Context, Evidence, LatentEvidence, Mechanism
    from deepscm_pl.mechanisms.brightness import Brightness
    from deepscm_pl.mechanisms.categorical import Bernoulli, Categorical
    from deepscm_pl.mechanisms.discrete import (
        CellMechanism,
        Ordinal,
        SteppedFlow,
        ZeroInflatedFlow,
    )
    from deepscm_pl.mechanisms.flow import (
        AdditiveNoise,
        AffineFlow,
        Flow,
        Heteroscedastic,
        SplineFlow,
    )
    from deepscm_pl.mechanisms.flow_matching import FlowMatching
    from deepscm_pl.mechanisms.formula import Formula
    from deepscm_pl.mechanisms.hierarchical_vae import HierarchicalVAE
    from deepscm_pl.mechanisms.image import ImageMechanism
    from deepscm_pl.mechanisms.image_flow import MultiscaleFlow
    from deepscm_pl.mechanisms.implicit import (
        AdversarialLoss,
        AdversarialNetworks,
        ImplicitMechanism,
    )
    from deepscm_pl.mechanisms.intervened import Constant, Drawn, Modified
    from deepscm_pl.mechanisms.known import GammaScore, Known, KnownClass, KnownCoin, Logistic
    from deepscm_pl.mechanisms.latent import LatentImageMechanism
    from deepscm_pl.mechanisms.vae import ConditionalVAE
    from deepscm_pl.mechanisms.vector_flow import AutoregressiveFlow, CouplingFlow, VectorFlow

__all__ = [
    "AdditiveNoise",
    "AdversarialLoss",
    "AdversarialNetworks",
    "AffineFlow",
    "AutoregressiveFlow",
    "Bernoulli",
    "Brightness",
    "Categorical",
    "CellMechanism",
    "ConditionalVAE",
    "Constant",
    "Context",
    "CouplingFlow",
    "Drawn",
    "Evidence",
    "Flow",
    "FlowMatching",
    "Formula",
    "GammaScore",
    "Heteroscedastic",
    "HierarchicalVAE",
    "ImageMechanism",
    "ImplicitMechanism",
    "Known",
    "KnownClass",
    "KnownCoin",
    "LatentEvidence",
    "LatentImageMechanism",
    "Logistic",
    "Mechanism",
    "Modified",
    "MultiscaleFlow",
    "Ordinal",
    "SplineFlow",
    "SteppedFlow",
    "VectorFlow",
    "ZeroInflatedFlow",
]

__getattr__ = first_use(__name__)
