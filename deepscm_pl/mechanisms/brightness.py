"""Grey levels that are scaled by a function of named parents and of the latent.

An image is x = β(pa)·γ(z, c)·y, where the parents pa act by the factor β alone and y is what the
latent z and all other parents c give. :class:`Brightness` is this map for any image mechanism with
a latent: the mechanism models y, and the factor is put on the parameters of its likelihood
(:meth:`~deepscm_pl.likelihoods.Likelihood.scaled`), so that densities stay those of whole grey
levels. Because networks do not see pa, the effect of an intervention on them is right for values
and combinations that the data never show. It is an assumption about the mechanism.

The scale of an image is measured by its bright level, see :func:`bright_level`.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from deepscm_pl.mechanisms.base import Context
from deepscm_pl.variables import Variables

__all__ = ["Brightness", "Exposure", "ParentBrightness", "bright_level"]

_OUTLIERS = 0.005
"""The share of the pixels that may be brighter than the bright level."""

_LARGEST = 4.0
"""Bound of h, in spreads of the bright level, in both directions."""

_DEGREE = 3
"""Of the polynomials in the other parents."""

_TRUSTED_DEVIATIONS = 2.5
"""Standard deviations from the mean of a parent beyond which polynomials are constant."""

_SMALLEST_SPREAD = 1e-3
"""A quarter of a grey level of 256."""


def bright_level(images: Tensor) -> Tensor:
    """The level of the fifth brightest of 1,000 pixels of each image, ``(*batch, 1)``.

    The brightest pixel is often an outlier, in images that a model has drawn.

    Args:
        images: ``(*batch, C, H, W)``.

    Example:
        >>> bright_level(torch.arange(784.0).view(1, 1, 28, 28))
        tensor([[780.]])
    """
    pixels = images.flatten(-3)
    rank = math.ceil(_OUTLIERS * pixels.shape[-1])
    return pixels.topk(rank, dim=-1).values[..., -1:]


class Brightness(nn.Module):
    """The factor β(pa)·γ(z, c) of an image's grey levels.

    Args:
        context: All parents of the image.
        names: The parents pa whose only effect is to scale the grey levels.
        latent: Size of z.
        levels: L, the number of grey levels.

    Attributes:
        others: The context c of the other parents.

    Raises:
        ValueError: If a name is not one of a parent, or of a categorical one.
    """

    def __init__(self, context: Context, names: Collection[str], latent: int, levels: int) -> None:
        super().__init__()
        acting, self.others = context.split("brightness", names)
        for name, domain in acting.domains.items():
            if domain.categories is not None:
                raise ValueError(
                    f"brightness: expected continuous parents, but {name} is categorical."
                )
        self.levels = levels
        self.parents = ParentBrightness(acting, levels)
        self.exposure = Exposure(latent, self.others.features)

    def fit(self, images: Tensor, parents: Variables, drawing: Tensor | None = None) -> None:
        """Fit both contexts, β and the statistics of γ to the training split.

        Args:
            images: ``(N, C, H, W)``, whole grey levels.
            parents: Their parents, ``(N, *event)``.
            drawing: 1 for each feature of c that γ may depend on, else 0.
        """
        self.others.fit(parents)
        others = self.others(parents).expand(len(images), -1)
        self.parents.fit(images, parents, others)
        # Not the bright level of the scaled images, which would be a large copy.
        level = bright_level(images).to(others) + 0.5
        share = self.parents(parents).to(others)
        self.exposure.fit(self._log_share(level / share), _masked(others, drawing))

    def removed(self, value: Tensor, parents: Variables) -> Tensor:
        """Images divided by β(pa), ``(*batch, *sizes)``."""
        share = self.parents(parents).to(value)
        return value / share.view(*share.shape, *[1] * (value.dim() - share.dim()))

    def measured(self, images: Tensor, others: Tensor, drawing: Tensor | None) -> Tensor:
        """h of each image, from which its γ can be read to more digits than an encoder may keep.

        Args:
            images: Divided by β(pa), ``(*batch, C, H, W)``.
            others: c, ``(*batch, features)``.
            drawing: As of :meth:`fit`.
        """
        return self.exposure.standardise(
            self._log_share(bright_level(images)), _masked(others, drawing)
        )

    def exposure_of(self, latent: Tensor, others: Tensor, drawing: Tensor | None) -> Tensor:
        """γ(z, c), ``(*batch, 1)``."""
        found: Tensor = self.exposure(latent, _masked(others, drawing))
        return found

    def _log_share(self, level: Tensor) -> Tensor:
        return (level / self.levels).clamp(min=1 / self.levels).log()


def _masked(features: Tensor, mask: Tensor | None) -> Tensor:
    return features if mask is None else features * mask.to(features)


class ParentBrightness(nn.Module):
    """β(pa) = w·pa + b, the share of the range of grey levels that an image fills.

    Affine in the standardised parents, and fitted to the bright level of every training image. That
    level depends on the other parents c, too, which may be correlated with pa. So β(pa)·ρ(c) is
    fitted, with a polynomial ρ of mean 1 in each of c, by alternating least squares, and only β is
    kept. It is a buffer, and does not change in training.

    Args:
        context: The parents that act on the brightness.
        levels: L, the number of grey levels.

    Example:
        >>> from deepscm_pl.variables import Domain
        >>> brightness = ParentBrightness(Context({"intensity": Domain()}), levels=256)
        >>> intensity = torch.tensor([[64.0], [128.0]])
        >>> brightness.fit(torch.full((2, 1, 8, 8), 64.0) * torch.tensor([1, 2]).view(2, 1, 1, 1),
        ...                {"intensity": intensity}, content=torch.ones(2, 0))
        >>> brightness({"intensity": torch.tensor([[127.5]])})
        tensor([[0.5000]])
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, context: Context, levels: int) -> None:
        super().__init__()
        self.context = context
        self.levels = levels
        self.register_buffer("weight", torch.zeros(context.features, 1))
        self.register_buffer("bias", torch.tensor([0.5]))

    def fit(self, value: Tensor, parents: Variables, content: Tensor) -> None:
        """Fit the context, and the affine map to the bright level of every image.

        Args:
            value: Images of the training split, ``(N, C, H, W)``, in grey levels.
            parents: Their parents, ``(N, *event)``.
            content: The standardised other parents c, ``(N, features)``.
        """
        self.context.fit(parents)
        features = self.context(parents).double()
        design = torch.cat([features, torch.ones_like(features[:, :1])], dim=-1)
        # The middle of the level's cell; whole numbers of few bits stay what they are until then.
        target = (bright_level(value).double() + 0.5) / self.levels
        solution = _alternating_least_squares(design, _powers(content.double()), target)
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    def forward(self, parents: Variables) -> Tensor:
        """β(pa), ``(*batch, 1)``, at least one grey level."""
        # In the eight bits of a bfloat16, the result would be a level off.
        context = self.context(parents)
        with torch.autocast(context.device.type, enabled=False):
            brightness: Tensor = context.to(self.weight) @ self.weight + self.bias
        return brightness.clamp(min=1 / self.levels)


def _bounded(value: Tensor) -> Tensor:
    return _LARGEST * (value / _LARGEST).tanh()


def _powers(content: Tensor) -> Tensor:
    """1, c, c², …, ``(*batch, 1 + degree·features)``."""
    constant = torch.ones_like(content.sum(dim=-1, keepdim=True))
    return torch.cat([constant, *(content**k for k in range(1, _DEGREE + 1))], dim=-1)


def _alternating_least_squares(
    design: Tensor, content: Tensor, target: Tensor, rounds: int = 30
) -> Tensor:
    """w for the least-squares fit of (design·w)·(content·v) to the target, content·v of mean 1."""
    ratio = torch.ones_like(target)
    for _ in range(rounds):
        solution = _least_squares(design * ratio, target)
        brightness = design @ solution
        ratio = content @ _least_squares(content * brightness, target)
        mean = ratio.mean()
        if not mean > 0:  # black images: there is nothing to tell apart
            break
        ratio = ratio / mean
    return solution


def _least_squares(design: Tensor, target: Tensor) -> Tensor:
    # On a GPU there is no driver for designs that lack rank, such as those of constant parents.
    found: Tensor = torch.linalg.lstsq(design.cpu(), target.cpu(), driver="gelsd").solution
    return found.to(target)


class Exposure(nn.Module):
    """γ = exp(m(c) + s(c)·h(z, c)) > 0, the factor of an image's scale that β leaves open.

    The bright level is often exactly the same in many pixels of an image, and depends on the image.
    A decoder that predicts each pixel on its own would have to hit that level in all of them, and
    in low precision cannot; its error is common to these pixels, while their noise should be
    independent. So the level is one number, in full precision.

    m and s, polynomials in each of the other parents c, are the mean and the spread of the log of
    the bright level over the training images; they are buffers, and constant beyond 2.5 standard
    deviations. h is learned, starts at 0, and lies in (−4, 4), so that γ is finite for every
    latent.

    Args:
        latent: Size of z.
        content: Size of c, the standardised other parents.
        hidden: Width of the one hidden layer of h, beside which z has an affine path.

    Shape:
        ``(*batch, latent)`` and ``(*batch, content)`` -> ``(*batch, 1)``.

    Example:
        >>> Exposure(latent=2, content=0)(torch.ones(3, 2), torch.ones(3, 0)).flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, latent: int, content: int, hidden: int = 64) -> None:
        super().__init__()
        self.direct = nn.Linear(latent, 1)
        last = nn.Linear(hidden, 1)
        for layer in (self.direct, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(nn.Linear(latent + content, hidden), nn.SiLU(), last)
        constant = torch.zeros(1 + _DEGREE * content, 1)
        self.register_buffer("mean", constant.clone())
        self.register_buffer("spread", constant)
        self.spread[0] = 1.0

    def fit(self, level: Tensor, content: Tensor) -> None:
        """Fit m and s.

        Args:
            level: Of each training image the log of its bright level over β(pa), ``(N, 1)``.
            content: ``(N, content)``.
        """
        powers = _powers(content.clamp(-_TRUSTED_DEVIATIONS, _TRUSTED_DEVIATIONS).double())
        mean = _least_squares(powers, level.double())
        deviation = (level - powers @ mean).abs()
        self.mean.copy_(mean)
        # The mean deviation of a normal law is √(2/π) of the standard deviation.
        self.spread.copy_(math.sqrt(math.pi / 2) * _least_squares(powers, deviation))

    def standardise(self, level: Tensor, content: Tensor) -> Tensor:
        """The h that gives this level: (log level − m(c)) / s(c), bounded as h is."""
        mean, spread = self._mean_and_spread(content.to(level))
        return _bounded((level - mean) / spread)

    def forward(self, latent: Tensor, content: Tensor) -> Tensor:
        """γ(z, c)."""
        with torch.autocast(latent.device.type, enabled=False):
            content = content.to(latent)
            mean, spread = self._mean_and_spread(content)
            standardised = self.direct(latent) + self.layers(torch.cat([latent, content], dim=-1))
            factor: Tensor = (mean + spread * _bounded(standardised)).exp()
        return factor

    def _mean_and_spread(self, content: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(content.device.type, enabled=False):
            powers = _powers(content.clamp(-_TRUSTED_DEVIATIONS, _TRUSTED_DEVIATIONS))
            spread = (powers @ self.spread.to(content)).clamp(min=_SMALLEST_SPREAD)
            return powers @ self.mean.to(content), spread
