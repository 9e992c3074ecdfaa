"""Grey levels that are scaled by a function of named parents and of the latent.

An image is x = β(pa)·γ(z, c)·y: the parents pa act by the factor β alone, and y depends on the
latent z and all other parents c. :class:`Brightness` is this map for any image mechanism with a
latent: the mechanism models y, and the factor is applied to the parameters of its likelihood
(:meth:`~deepscm_pl.likelihoods.Likelihood.scaled`), so that densities stay those of whole grey
levels. Networks do not depend on pa, so that interventions on pa are right for values and
combinations that are not in the data. It is an assumption about the mechanism.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from deepscm_pl.mechanisms.base import Context
from deepscm_pl.nn.layers import zero_linear
from deepscm_pl.variables import Variables

__all__ = ["Brightness", "Exposure", "ParentBrightness", "bright_level"]

_OUTLIERS = 0.005  # the share of the pixels that may be brighter than the bright level
_LARGEST = 4.0  # bound of h, in spreads of the bright level, in both directions
_DEGREE = 3  # degree of the polynomials in the other parents
_TRUSTED_DEVIATIONS = 2.5  # of a parent, beyond which polynomials are constant
_SMALLEST_SPREAD = 1e-3  # a quarter of a grey level of 256


def bright_level(images: Tensor) -> Tensor:
    """Return the level of the fifth brightest of 1,000 pixels of each image, ``(*batch, 1)``.

    The brightest pixel is often an outlier in images that a model has drawn.
    """
    pixels = images.flatten(-3)
    rank = math.ceil(_OUTLIERS * pixels.shape[-1])
    return pixels.topk(rank, dim=-1).values[..., -1:]


class Brightness(nn.Module):
    """The factor β(pa)·γ(z, c) of the grey levels of an image.

    The context c of the other parents is ``others``. Without names, all parents are in c, and the
    factor is γ(z, c) alone: that the scale of an image is one number, not which parents act on it.

    Args:
        context: All parents of the image.
        names: The continuous parents pa whose only effect is to scale the grey levels.
        latent: Size of z.
        levels: L, the number of grey levels.

    Raises:
        ValueError: If a name is not one of a continuous parent.
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
        self.parents = ParentBrightness(acting, levels) if acting.domains else None
        self.exposure = Exposure(latent, self.others.features)

    def fit(self, images: Tensor, parents: Variables, mask: Callable[[Tensor], Tensor]) -> None:
        """Fit both contexts, β and the statistics of γ to the training split.

        Args:
            images: ``(N, C, H, W)``, whole grey levels.
            parents: Their parents, ``(N, *event)``; rows with missing ones, NaN, are left out.
            mask: Sets the features of c to zero on which γ does not depend.
        """
        unknown = [value.isnan().flatten(1).any(dim=1) for value in parents.values()]
        if unknown and bool((incomplete := torch.stack(unknown).any(dim=0)).any()):
            images = images[~incomplete]
            parents = {name: value[~incomplete] for name, value in parents.items()}
        self.others.fit(parents)
        others = self.others(parents).expand(len(images), -1)
        # The bright level of the scaled images would need a copy of all of them.
        level = bright_level(images).to(others) + 0.5
        if self.parents is not None:
            self.parents.fit(images, parents, others)
            level = level / self.parents(parents).to(others)
        self.exposure.fit(self._log_share(level), mask(others))

    def remove(self, value: Tensor, plane: Tensor, parents: Variables) -> tuple[Tensor, Tensor]:
        """Divide images by β(pa); without names by the share of the range that they fill.

        Args:
            value: ``(*batch, *sizes)``.
            plane: The same pixels, ``(*batch, C, H, W)``.
            parents: Their parents.

        Returns:
            The divided images, and the log of the share of the range that their bright level fills,
            beyond β(pa), ``(*batch, 1)``: more precise than the features of an encoder.
        """
        level = bright_level(plane)
        if self.parents is None:
            share = (level / self.levels).clamp(min=1 / self.levels)
        else:
            share = self.parents(parents).to(value)
            level = level / share
        sizes = [1] * (value.dim() - plane.dim() + 2)
        return value / share.view(*share.shape, *sizes), self._log_share(level)

    def _log_share(self, level: Tensor) -> Tensor:
        return (level / self.levels).clamp(min=1 / self.levels).log()


class ParentBrightness(nn.Module):
    """β(pa) = w·pa + b, the share of the range of grey levels that an image fills.

    It is affine in the standardised parents and fitted to the bright level of every training image.
    That level also depends on the other parents c, which may be correlated with pa. Therefore
    β(pa)·ρ(c) is fitted by alternating least squares, with a polynomial ρ of mean 1 in each feature
    of c, and only β is kept. It is a buffer, constant in training.

    Args:
        context: The parents that act on the brightness.
        levels: L, the number of grey levels.
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
        """Fit the context, and β to the bright level of every training image, given c."""
        self.context.fit(parents)
        features = self.context(parents).double()
        design = torch.cat([features, torch.ones_like(features[:, :1])], dim=-1)
        # The middle of the cell of the level, in double precision.
        target = (bright_level(value).double() + 0.5) / self.levels
        solution = _alternating_least_squares(design, _powers(content.double()), target)
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    def forward(self, parents: Variables) -> Tensor:
        """Return β(pa), ``(*batch, 1)``, at least one grey level."""
        context = self.context(parents)
        # The eight significant bits of bfloat16 would be off by a grey level.
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
    """w of the least-squares fit of (design·w)·(content·v) to the target, content·v of mean 1."""
    ratio = torch.ones_like(target)
    for _ in range(rounds):
        solution = _least_squares(design * ratio, target)
        brightness = design @ solution
        ratio = content @ _least_squares(content * brightness, target)
        mean = ratio.mean()
        if not mean > 0:  # black images have no ratio
            break
        ratio = ratio / mean
    return solution


def _least_squares(design: Tensor, target: Tensor) -> Tensor:
    # GPUs have no driver for rank-deficient designs, such as those of constant parents.
    solution: Tensor = torch.linalg.lstsq(design.cpu(), target.cpu(), driver="gelsd").solution
    return solution.to(target)


class Exposure(nn.Module):
    """γ = exp(m(c) + s(c)·h(z, c)) > 0, the factor of the scale of an image beside β.

    Many pixels of an image often have exactly its bright level. A decoder that predicts each pixel
    separately cannot match that level in all of them in low precision, and its error is common to
    these pixels, whereas their noise should be independent. So the level is one number, in full
    precision.

    m and s, polynomials in each feature of the other parents c, are the mean and the spread of the
    log of the bright level over the training images, constant beyond 2.5 standard deviations of c.
    h is a network with one hidden layer beside an affine path from z. It starts at 0 and lies in
    (−4, 4).
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, latent: int, content: int, hidden: int = 64) -> None:
        super().__init__()
        self.direct = zero_linear(latent, 1)
        last = zero_linear(hidden, 1)
        self.layers = nn.Sequential(nn.Linear(latent + content, hidden), nn.SiLU(), last)
        constant = torch.zeros(1 + _DEGREE * content, 1)
        self.register_buffer("mean", constant.clone())
        self.register_buffer("spread", constant)
        self.spread[0] = 1.0

    def fit(self, level: Tensor, content: Tensor) -> None:
        """Fit m and s to the log of the bright level over β(pa) of each training image."""
        powers = _powers(content.clamp(-_TRUSTED_DEVIATIONS, _TRUSTED_DEVIATIONS).double())
        mean = _least_squares(powers, level.double())
        deviation = (level - powers @ mean).abs()
        self.mean.copy_(mean)
        # The mean absolute deviation of a normal distribution is √(2/π) standard deviations.
        self.spread.copy_(math.sqrt(math.pi / 2) * _least_squares(powers, deviation))

    def standardise(self, level: Tensor, content: Tensor) -> Tensor:
        """Return h of this level, (log level − m(c)) / s(c), within the bounds of h."""
        mean, spread = self._mean_and_spread(content.to(level))
        return _bounded((level - mean) / spread)

    def forward(self, latent: Tensor, content: Tensor) -> Tensor:
        """Return γ(z, c), ``(*batch, 1)``."""
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
