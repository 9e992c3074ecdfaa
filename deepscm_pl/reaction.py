"""Reaction of images to their causes, from draws of a model, without data.

The noise of an image carries the factual picture into counterfactuals. An image model that has
learned nothing therefore gives crisp answers, which show what was observed and not what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deepscm_pl.checks import real_number
from deepscm_pl.mechanisms import Mechanism
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Noise

__all__ = [
    "ImageReaction",
    "ReactionThresholds",
    "image_reactions",
    "without_pixel_noise",
]

_FEWEST_DRAWS, _MOST_DRAWS = 8, 256
_FEWEST_EXPENSIVE_DRAWS = 16
_NUMBERS = 2**22
"""Numbers in the drawn images, at most, unless fewer than the fewest draws have more."""


@dataclass(frozen=True)
class ReactionThresholds:
    """Limits of the verdicts on an image model.

    Attributes:
        change: An image does not react to a cause if another value of it changes the image by less
            than this share of the difference between two images; likewise for the latent.
        pixel_noise: A model with a larger share of pixel noise is untrained, or its posterior has
            collapsed.
        collapsed: The posterior of a model whose latent does not change the image has collapsed if
            the share of pixel noise is larger than this; otherwise there is nothing left to encode.
        response: An image does not react to a cause if it shows less than this share of the changes
            that are asked, as read by a predictor.
        skill: A predictor is used if it removes at least this share of the error of the best
            constant on the validation split.

    Raises:
        ValueError: If a limit is not between 0 and 1.
    """

    change: float = 0.02
    pixel_noise: float = 0.9
    collapsed: float = 0.1
    response: float = 0.1
    skill: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            real_number(name, value, least=0, most=1)


@dataclass(frozen=True)
class ImageReaction:
    """Reaction of an image to its causes, over draws of the model.

    Changes are root mean squares over draws and pixels, divided by that of two images of the
    training split; of two draws, if the model is of an earlier version that does not know it.

    Attributes:
        image: Name of the image.
        changes: Change of the image by another value of a cause and unchanged noise, by cause. It
            is 0 for variables that are no causes of the image in the graph.
        causes: Scalar causes of the image in the graph.
        latent: Change of the image without pixel noise by another latent; None without a latent.
        pixel_noise: Share of the variance of images that the output of the decoder lacks, and that
            pixel noise therefore carries: 1 − Var(image without pixel noise) / Var(image), from 0
            to 1. None without a latent.
    """

    image: str
    changes: Mapping[str, float]
    causes: frozenset[str] = field(default_factory=frozenset)
    latent: float | None = None
    pixel_noise: float | None = None

    def verdicts(
        self, asked: Iterable[str], thresholds: ReactionThresholds | None = None
    ) -> list[str]:
        """Describe what the image does not react to; empty if there is nothing to report.

        Args:
            asked: The variables of interest, such as those that an intervention sets.
            thresholds: Limits; None for the defaults.
        """
        limits = thresholds or ReactionThresholds()
        return [*self._of_noise(limits), *self._of_causes(asked, limits)]

    def _of_noise(self, limits: ReactionThresholds) -> Iterator[str]:
        noise, latent = self.pixel_noise, self.latent
        if noise is None or latent is None:
            return
        if noise >= limits.pixel_noise:
            yield (
                f"{self.image}: {100 * noise:.0f} % of the variation of the images is pixel noise; "
                "the image model is untrained or its posterior has collapsed, so that "
                "counterfactual images repeat the factual ones"
            )
        elif latent < limits.change and noise >= limits.collapsed:
            yield (
                f"{self.image}: another latent changes the image by {100 * latent:.1f} % of the "
                f"difference between two images, and {100 * noise:.0f} % of their variation is "
                "pixel noise; the posterior has collapsed, so that pixel noise carries all that "
                "the causes do not determine"
            )

    def _of_causes(self, asked: Iterable[str], limits: ReactionThresholds) -> Iterator[str]:
        for name in dict.fromkeys(asked):
            change = self.changes.get(name)
            if change is None or not change < limits.change:
                continue
            if name in self.causes:
                share = f"{100 * change:.1f} %"
                reason = f"another value changes it by {share} of the difference between two images"
            else:
                reason = "there is no path between them in the graph"
            yield f"{self.image}: the image does not react to {name}; {reason}"


def without_pixel_noise(mechanism: Mechanism, noise: Noise) -> dict[str, Tensor] | None:
    """Set pixel noise u to 0, which gives the median of each pixel; None without a latent."""
    if "u" not in noise or noise.keys() == {"u"}:
        return None
    return {**noise, "u": torch.zeros_like(noise["u"])}


@torch.no_grad()
def image_reactions(
    scm: StructuralCausalModel, draws: int | None = None, seed: int = 0
) -> list[ImageReaction]:
    """Measure how each image of a model reacts to its causes, its latent and its pixel noise.

    Another value of a cause is that of another draw, and all noise is kept. The state of torch's
    generators is restored.

    Args:
        scm: The model.
        draws: Number of draws; None for 256, or fewer if images are large or expensive.
        seed: Random seed.

    Example:
        >>> from functools import partial
        >>> from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE
        >>> image = partial(ConditionalVAE, shape=(1, 8, 8), latent=2)
        >>> mechanisms = {"a": AffineFlow, "b": AffineFlow, "x": image}
        >>> scm = StructuralCausalModel("a; b; a -> x", mechanisms)
        >>> image_reactions(scm)[0].changes["b"]
        0.0
    """
    device = scm.fitted.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return [_reaction(scm, name, draws) for name in scm.image_variables]


def _reaction(scm: StructuralCausalModel, image: str, draws: int | None) -> ImageReaction:
    part = scm.restrict([image])
    features = part[image].domain.features
    most = max(_MOST_DRAWS // part[image].calls, _FEWEST_EXPENSIVE_DRAWS)
    size = draws or min(max(_NUMBERS // features, _FEWEST_DRAWS), most)
    noise = {name: part[name].sample_noise((size,)) for name in part.graph}
    drawn = part.predict(noise)
    first = drawn[image].double()
    known = scm.training_distribution.variance_of(image)
    variance = float(first.var(dim=0, correction=0).mean()) if known is None else known
    causes = [name for name in scm.scalar_variables if name in part.graph.ancestors(image)]
    changes = {
        name: 0.0
        for name in scm.scalar_variables
        if name not in causes and image not in scm.graph.ancestors(name)
    }
    for name in causes:
        another = drawn[name].roll(1, dims=0)
        differs = (another != drawn[name])[:, 0]
        changed = part.act({name: another}).predict(noise)[image].double()
        changes[name] = _change(changed[differs], first[differs], variance)
    medians = without_pixel_noise(part[image], noise[image])
    if medians is None:
        return ImageReaction(image, changes, frozenset(causes))
    parents = {name: drawn[name] for name in part.graph.parents[image]}
    median = _median(part[image], medians, parents)
    others = {key: value.roll(1, dims=0) for key, value in medians.items()}
    varied = float(median.var(dim=0, correction=0).mean())
    return ImageReaction(
        image,
        changes,
        frozenset(causes),
        _change(_median(part[image], others, parents), median, variance),
        max(0.0, 1 - varied / variance) if variance > 0 else None,
    )


def _median(mechanism: Mechanism, noise: Noise, parents: Mapping[str, Tensor]) -> Tensor:
    return mechanism.quantise(mechanism(noise, parents)).double()


def _change(first: Tensor, second: Tensor, variance: float) -> float:
    """Root mean square difference, divided by that of two images with ``variance``."""
    if not (len(first) and variance > 0):
        return math.nan
    return math.sqrt(float((first - second).square().mean()) / (2 * variance))
