"""The contract of every likelihood, stated once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform
from torch.nn import functional

from deepscm_pl.checks import real_number, whole_number, whole_numbers
from deepscm_pl.transforms import Logit

__all__ = ["Likelihood", "SoftFloor", "logarithm", "standard_normal_log_prob"]

_LARGEST_LOGARITHM = 80.0


def standard_normal_log_prob(noise: Tensor) -> Tensor:
    """log N(u; 0, 1), elementwise."""
    return -0.5 * noise.square() - 0.5 * math.log(2 * math.pi)


def logarithm(name: str, value: Any) -> float:
    """The logarithm of a scale or variance that single precision can hold, and its inverse.

    Raises:
        ValueError: Naming it, if it is none.
    """
    return real_number(name, value, least=-_LARGEST_LOGARITHM, most=_LARGEST_LOGARITHM)


class Likelihood(nn.Module, ABC):
    """An invertible map u ↦ y from pixel noise u ~ N(0, I) to an image y, given a decoder's output.

    Because the map is invertible, u is inferred exactly from y. y is the image after
    :meth:`preprocessing`: on the real line, or in grey levels where a likelihood says so. Shapes:
    the decoder's output is ``(*batch, outputs_per_channel · C, H, W)``, u and y are
    ``(*batch, C, H, W)``; batch dimensions broadcast.

    Args:
        shape: Shape of one image, (channels C, height H, width W), in pixels.
        levels: L, the number of grey levels of recorded images.
        temperature: τ ≥ 0, the scale of the pixel noise that is *drawn*: u ~ N(0, τ² I) in
            samples and under interventions. Densities, the training bound and abduction are those
            of τ = 1, and so are counterfactuals, whose noise is inferred and not drawn. At 0 every
            drawn image is its :meth:`noise_free` one.

    Attributes:
        outputs_per_channel: How many channels the decoder has to give for each one of the image.
        brightness: Names of the parents whose only effect is to scale the grey levels.

    Raises:
        ValueError: If the shape is not that of an image, the levels are fewer than 2, or the
            temperature is not a finite number of at least 0.
    """

    outputs_per_channel: int = 1
    brightness: tuple[str, ...] = ()

    def __init__(self, shape: Sequence[int], levels: int = 256, temperature: float = 1.0) -> None:
        super().__init__()
        hint = "give (channels, height, width)"
        channels, height, width = whole_numbers("shape", shape, least=1, lengths=(3,), hint=hint)
        self.shape = (channels, height, width)
        self.levels = whole_number("levels", levels, least=2)
        self.temperature = temperature

    @property
    def channels(self) -> int:
        """C, the number of channels of the image."""
        return self.shape[0]

    @property
    def temperature(self) -> float:
        """τ, the scale of the pixel noise that is drawn."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = float(real_number("temperature", value, least=0))

    @abstractmethod
    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """y from the decoder's output and u."""

    @abstractmethod
    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """u from the decoder's output and y, the exact inverse of :meth:`forward`."""

    @abstractmethod
    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """log p(y | decoder output) in nats per image, ``(*batch,)``."""

    def scaled(self, decoded: Tensor, factor: Tensor) -> Tensor:
        """The decoder's output for an image whose grey levels are scaled.

        Only likelihoods with ``brightness`` need it.

        Args:
            decoded: The decoder's output, ``(*batch, outputs, H, W)``.
            factor: The share β > 0 of their range that the grey levels fill, ``(*batch, 1, 1, 1)``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not scale grey levels.")

    def preprocessing(self, alpha: float) -> Transform:
        """From continuous grey levels [0, L) to where y lives: logit(α + (1 − α)·x/L) by default.

        Args:
            alpha: α, how far black is kept from the end of the sigmoid.
        """
        return Logit(alpha, self.levels)

    def sample_noise(self, shape: torch.Size | tuple[int, ...], like: Tensor) -> Tensor:
        """u ~ N(0, τ² I), ``(*shape, C, H, W)``, of the type and on the device of ``like``."""
        return self.temperature * like.new_empty(*shape, *self.shape).normal_()

    def noise_free(self, decoded: Tensor) -> Tensor:
        """y at u = 0, the median of each pixel, ``(*batch, C, H, W)``."""
        return self(decoded, decoded.new_zeros(*decoded.shape[:-3], *self.shape))


class SoftFloor:
    """raw ↦ smallest + softplus(raw + c), with c such that 0 ↦ start.

    A pixel that is the same in every image would otherwise drive its scale to 0 and its density to
    infinity.

    Args:
        start: Value at raw = 0.
        smallest: Lower bound, approached smoothly.
        name: What is bounded, for the error.

    Raises:
        ValueError: If the bound is not below the start.

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
        self.smallest = smallest
        # The inverse of softplus, without overflow.
        self.shift = rise + math.log(-math.expm1(-rise))

    def __call__(self, raw: Tensor) -> Tensor:
        """The bounded value, elementwise."""
        return self.smallest + functional.softplus(raw + self.shift)
