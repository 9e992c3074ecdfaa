"""Worlds with closed forms: linear equations with normal noise."""

from __future__ import annotations

from functools import partial

import torch
from torch.distributions import AffineTransform

from deepscm_pl.mechanisms import Known, KnownCoin
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

from tiny import draw, image_mechanism


def linear(scale=1.0, offset=0.0, domain=None, **weights):
    """x := offset + Σ weight · parent + scale · u."""

    def layers(parents):
        return [AffineTransform(offset + sum(w * parents[n] for n, w in weights.items()), scale)]

    return partial(Known, layers=layers, domain=domain or Domain())


def product(scale=1.0):
    """x := (product of the parents) + scale · u."""

    def layers(parents):
        location = 1.0
        for value in parents.values():
            location = location * value
        return [AffineTransform(location, scale)]

    return partial(Known, layers=layers)


def coin(probability=0.5):
    return partial(KnownCoin, probability=probability)


def mediated() -> StructuralCausalModel:
    """z confounds x and y; x has an effect on y of 1, and of 2 · 3 through m; w is alone."""
    return StructuralCausalModel(
        "z -> x; x -> m; z, x, m -> y; w",
        {
            "z": linear(),
            "x": linear(z=0.5),
            "m": linear(scale=0.5, x=2.0),
            "y": linear(scale=2.0, z=-1.0, x=1.0, m=3.0),
            "w": linear(),
        },
    ).eval()


def image_model() -> StructuralCausalModel:
    """Linear causes of a small image, whose untrained networks depend on them."""
    torch.manual_seed(0)
    scm = StructuralCausalModel(
        "thickness -> intensity; thickness, intensity -> image",
        {
            "thickness": linear(offset=3.0),
            "intensity": linear(offset=100.0, thickness=10.0),
            "image": image_mechanism(),
        },
    ).eval()
    scm.fit(draw(50, 0))
    with torch.no_grad():
        for parameter in scm["image"].parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return scm


def image_rows(size):
    """Observations for :func:`image_model`."""
    rows = draw(size, 1)
    return {name: rows[name] for name in ("thickness", "intensity", "image")}
