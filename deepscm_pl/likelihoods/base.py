"""The base classes of likelihoods, and the law that they obey."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform
from torch.nn import functional

from deepscm_pl.checks import real_number, whole_numbers
from deepscm_pl.transforms import Dequantise, Logit
from deepscm_pl.transforms.cells import in_double, log_mass, soft_ceiling, truncated_quantile

__all__ = ["Likelihood", "LocationScale", "SoftFloor", "logarithm", "standard_normal_log_prob"]

_LARGEST_LOGARITHM = 80.0
_LARGEST_LOCATION = 1e3
_RANGE = 16.0  # of logarithms above their start


def standard_normal_log_prob(noise: Tensor) -> Tensor:
    """Return log N(u; 0, 1), elementwise."""
    return -0.5 * noise.square() - 0.5 * math.log(2 * math.pi)


def logarithm(name: str, value: Any) -> float:
    """Check that exp(``value``) and its inverse are finite in single precision."""
    return real_number(name, value, least=-_LARGEST_LOGARITHM, most=_LARGEST_LOGARITHM)


class Likelihood(nn.Module, ABC):
    """An invertible map u ↦ y from pixel noise u ~ N(0, I) to an image y, given a decoder's output.

    Because the map is invertible, u is inferred exactly from y, the image after
    :meth:`preprocessing`. Shapes: the decoder's output is
    ``(*batch, outputs_per_channel · C, H, W)``, u and y are ``(*batch, C, H, W)``; batch dimensions
    broadcast. ``brightness`` contains the names of the parents whose only effect is to scale the
    grey levels, and ``exposure`` is whether the scale of the grey levels of an image is one number.

    The map is one coupling of many with the same density: elementwise ones are monotone, so that
    each pixel keeps its quantile, and correlated ones keep what their order of pixels or their
    factors call noise.

    A recorded grey level k does not determine u. If the likelihood is ``elementwise``, where each
    pixel increases with its own u alone, it determines the cell of u that returns k: u is drawn
    from its exact posterior, N(0, 1) truncated to the cell, and the mass of the cell is the exact
    probability of k. The first and the last level take the tails. Otherwise u is that of an image
    with uniform dequantisation noise, which is the posterior only if the density is constant within
    levels, and the probability of the recorded image has a lower bound only.

    Args:
        shape: (channels C, height H, width W), in pixels.
        levels: L, the number of grey levels of recorded images, at least 2.
        temperature: τ ≥ 0, the scale of *drawn* pixel noise: u ~ N(0, τ² I) in samples and under
            interventions. Densities, the training bound and abduction are those of τ = 1, and so
            are counterfactuals, whose noise is inferred and not drawn. At 0, every drawn image is
            the :meth:`noise_free` one.
    """

    outputs_per_channel: int = 1
    brightness: tuple[str, ...] = ()
    exposure: bool = False
    elementwise: bool = False

    def __init__(self, shape: Sequence[int], levels: int = 256, temperature: float = 1.0) -> None:
        super().__init__()
        hint = "give (channels, height, width)"
        channels, height, width = whole_numbers("shape", shape, least=1, lengths=(3,), hint=hint)
        self.shape = (channels, height, width)
        self.dequantisation = Dequantise(levels)
        self.levels = self.dequantisation.levels
        self.temperature = temperature

    @property
    def channels(self) -> int:
        """The number of channels C of the image."""
        return self.shape[0]

    @property
    def temperature(self) -> float:
        """The scale τ of drawn pixel noise."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = float(real_number("temperature", value, least=0))

    @abstractmethod
    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """Return y, given the decoder's output and u."""

    @abstractmethod
    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Return u, given the decoder's output and y; the exact inverse of :meth:`forward`."""

    @abstractmethod
    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Return log p(y | decoder output) in nats per image, ``(*batch,)``."""

    def abduct_recorded(self, decoded: Tensor, image: Tensor, transform: Transform) -> Tensor:
        """Draw u given recorded grey levels.

        Args:
            decoded: The decoder's output.
            image: The levels with uniform dequantisation noise, ``(*batch, C, H, W)``.
            transform: The :meth:`preprocessing`.
        """
        if not self.elementwise:
            return self.abduct(decoded, transform(image))
        level, rank = self.dequantisation.parts(image)
        margin = self.dequantisation.margin
        return truncated_quantile(rank, *self._cell(decoded, level, transform, margin))

    def log_prob_recorded(self, decoded: Tensor, levels: Tensor, transform: Transform) -> Tensor:
        """Return log P(recorded grey levels | decoder output) in nats per image, ``(*batch,)``.

        Raises:
            NotImplementedError: If the likelihood is not elementwise.
        """
        if not self.elementwise:
            raise NotImplementedError(
                f"{type(self).__name__} correlates pixels, so that the probability of whole grey "
                "levels is unknown; log_prob() gives the density of the dequantised image."
            )
        return log_mass(*self._cell(decoded, levels, transform)).to(decoded).flatten(-3).sum(-1)

    def moments(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale of y in each pixel, ``(*batch, C, H, W)``.

        Raises:
            NotImplementedError: If the likelihood is not elementwise.
        """
        raise NotImplementedError(f"{type(self).__name__} does not give moments of pixels.")

    def _cell(
        self, decoded: Tensor, level: Tensor, transform: Transform, margin: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The cell of u for each grey level, without a margin in grey levels at both edges."""
        level = in_double(level)
        low = self.abduct(decoded, transform(level + margin))
        high = self.abduct(decoded, transform(level + 1 - margin))
        low = low.masked_fill(level <= 0, -math.inf)
        return low, high.masked_fill(level >= self.levels - 1, math.inf)

    def scaled(self, decoded: Tensor, factor: Tensor) -> Tensor:
        """Return the decoder's output for grey levels scaled by ``factor``, ``(*batch, 1, 1, 1)``.

        Likelihoods with ``exposure`` define it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not scale grey levels.")

    def preprocessing(self, alpha: float) -> Transform:
        """Return the map from grey levels [0, L) to y, logit(α + (1 − α)·x/L) by default."""
        return Logit(alpha, self.levels)

    def sample_noise(self, shape: torch.Size | tuple[int, ...], like: Tensor) -> Tensor:
        """Draw u ~ N(0, τ² I), ``(*shape, C, H, W)``, with the type and device of ``like``."""
        return self.temperature * like.new_empty(*shape, *self.shape).normal_()

    def noise_free(self, decoded: Tensor) -> Tensor:
        """Return y at u = 0, the median of each pixel, ``(*batch, C, H, W)``."""
        return self(decoded, decoded.new_zeros(*decoded.shape[:-3], *self.shape))


class LocationScale(Likelihood):
    """A likelihood with a location μ and a scale σ, which subclasses define."""

    @abstractmethod
    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ ``(*batch, C, H, W)`` and log σ, which broadcasts with it."""

    def moments(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and σ."""
        location, log_scale = self.location_and_log_scale(decoded)
        return location, log_scale.exp().expand_as(location)

    @staticmethod
    def bounded(location: Tensor) -> Tensor:
        """Return μ within ±10³, so that double precision always recovers recorded levels."""
        return location.clamp(-_LARGEST_LOCATION, _LARGEST_LOCATION)

    def standardise(self, decoded: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y − μ)/σ and log σ."""
        location, log_scale = self.location_and_log_scale(decoded)
        return (value - location) / log_scale.exp(), log_scale

    def blocks(self, decoded: Tensor) -> Tensor:
        """Return the decoder's output in blocks of C channels, ``(*batch, blocks, C, H, W)``."""
        return decoded.unflatten(-3, (self.outputs_per_channel, self.channels))


class SoftFloor:
    """The map raw ↦ smallest + softplus(raw + c), with c such that 0 ↦ start, up to start + 16.

    Without a lower bound, a pixel that is the same in every image would drive its scale to 0 and
    its density to infinity. Without an upper one, scales overflow where an intervention takes the
    decoder outside of the range of the training. ``name`` is the name of the setting, for errors.

    Example:
        >>> import torch
        >>> SoftFloor(-5.0, smallest=-12.0, name="log_variance")(torch.tensor([0.0, -100.0]))
        tensor([ -5., -12.])
    """

    def __init__(self, start: float, smallest: float, name: str) -> None:
        start = logarithm(name, start)
        smallest = logarithm(f"smallest_{name}", smallest)
        if not smallest < start:
            raise ValueError(
                f"smallest_{name}: expected less than {name} ({start:g}), but got {smallest:g}."
            )
        rise = start - smallest
        self.smallest, self.largest = smallest, start + _RANGE
        # The inverse of softplus, without overflow.
        self.shift = rise + math.log(-math.expm1(-rise))

    def __call__(self, raw: Tensor) -> Tensor:
        """Return the bounded value, elementwise."""
        value = self.smallest + functional.softplus(raw + self.shift)
        return soft_ceiling(value, self.largest, sharpness=2.0)
