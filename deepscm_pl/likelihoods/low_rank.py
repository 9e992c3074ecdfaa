"""Gaussian noise that is correlated between pixels by a few factors.

The covariance is D(I + VVᵀ)D with D = diag(σ) and V of as many columns as the rank. It has a
square root of the same form. With a triangular K, K·Kᵀ = I + VᵀV, and B = (I + K)⁻¹,

    R = I + V·B·Vᵀ,    R·Rᵀ = I + V(B + Bᵀ + B(KKᵀ − I)Bᵀ)Vᵀ
                            = I + V·B((I + K)(I + Kᵀ))BᵀVᵀ = I + V·Vᵀ,
    R⁻¹ = I − V(K(I + Kᵀ))⁻¹Vᵀ,    log |det R| = log |det K|,

so that y = μ + D·R·u maps the noise to the image and back with nothing larger than V.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepscm_pl.checks import whole_number
from deepscm_pl.likelihoods.base import Likelihood, logarithm, standard_normal_log_prob
from deepscm_pl.likelihoods.floor import SoftFloor

__all__ = ["LowRankGaussian", "PredictedLowRankGaussian", "SharedLowRankGaussian"]


class LowRankGaussian(Likelihood):
    """y = μ + D·R·u, R·Rᵀ = I + V·Vᵀ; subclasses say where μ, σ and V come from.

    Takes O(C·H·W·rank) memory for an image; no matrix is larger than V.
    """

    @abstractmethod
    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """μ ``(*batch, C, H, W)`` and log σ, which broadcasts with it."""

    @abstractmethod
    def factors(self, decoded: Tensor) -> Tensor:
        """Vᵀ, ``(*batch, rank, C, H, W)``, which broadcasts over the batch."""

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """y = μ + D(u + V·B·Vᵀu)."""
        location, log_scale = self.location_and_log_scale(decoded)
        with torch.autocast(noise.device.type, enabled=False):
            factors = self._exact_factors(decoded)
            triangle = _triangle(factors)
            unit = torch.eye(triangle.shape[-1]).to(triangle)
            flat = noise.double().flatten(-3).unsqueeze(-1)
            found = _solve(unit + triangle, factors @ flat, upper=False)
            rooted = (flat + factors.mT @ found).squeeze(-1).unflatten(-1, self.shape)
        return location + log_scale.exp() * rooted.to(noise)

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """u = r − V(K(I + Kᵀ))⁻¹Vᵀr with r = (y − μ)/σ."""
        return self._abduct(decoded, value)[0]

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """log N(u; 0, I) − Σ log σ − log |det K|, in nats per image."""
        noise, log_scale, triangle = self._abduct(decoded, value)
        log_determinant = triangle.diagonal(dim1=-2, dim2=-1).log().sum(-1).to(noise)
        per_pixel = standard_normal_log_prob(noise) - log_scale
        return per_pixel.flatten(-3).sum(-1) - log_determinant

    def _abduct(self, decoded: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u, log σ and K."""
        location, log_scale = self.location_and_log_scale(decoded)
        residual = (value - location) * (-log_scale).exp()
        with torch.autocast(value.device.type, enabled=False):
            factors = self._exact_factors(decoded)
            triangle = _triangle(factors)
            unit = torch.eye(triangle.shape[-1]).to(triangle)
            flat = residual.double().flatten(-3).unsqueeze(-1)
            found = _solve(triangle, factors @ flat, upper=False)
            found = _solve(unit + triangle.mT, found, upper=True)
            noise = (flat - factors.mT @ found).squeeze(-1).unflatten(-1, self.shape)
        return noise.to(residual), log_scale, triangle

    def _exact_factors(self, decoded: Tensor) -> Tensor:
        """Vᵀ, ``(*batch, rank, C·H·W)``, in double precision.

        R and R⁻¹ stretch the noise along the factors, and single precision would lose grey levels
        where a factor is a hundred times as long as the pixels' own noise.
        """
        return self.factors(decoded).flatten(-3).double()


class SharedLowRankGaussian(LowRankGaussian):
    """Learned scales and factors of all pixels and channels, shared by all images.

    The authors' ``sharedvar_lowrank_multivariate_gaussian``. μ is the decoder's output.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: Number of grey levels.
        rank: Number of factors.
        log_variance: Initial log σ².
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.

    Raises:
        ValueError: If the rank is below 1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        rank: int = 10,
        log_variance: float = -5.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        log_variance = logarithm("log_variance", log_variance)
        self.log_scale = nn.Parameter(torch.full(self.shape, log_variance / 2))
        rank = whole_number("rank", rank, least=1)
        # Not 0, where no factor has a gradient.
        deviation = 1 / math.sqrt(math.prod(self.shape))
        self.shared_factors = nn.Parameter(deviation * torch.randn(rank, *self.shape))

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output and the learned scales."""
        return decoded, self.log_scale

    def factors(self, decoded: Tensor) -> Tensor:
        """The learned factors."""
        return self.shared_factors


class PredictedLowRankGaussian(LowRankGaussian):
    """Scales and factors of each image's own, predicted by the decoder.

    The authors' ``lowrank_multivariate_gaussian``. The decoder gives μ, log σ² − ``log_variance``
    and the factors, times √(C·H·W), in 2 + rank blocks of C channels.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: Number of grey levels.
        rank: Number of factors.
        log_variance: log σ² where the decoder gives 0.
        smallest_log_variance: Lower bound of log σ², approached smoothly.
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.

    Raises:
        ValueError: If the rank is below 1, or the bound is not below ``log_variance``.

    Example:
        >>> likelihood = PredictedLowRankGaussian((1, 4, 4), rank=3)
        >>> decoded, noise = torch.randn(5, 2, 5, 4, 4), torch.randn(5, 2, 1, 4, 4)
        >>> again = likelihood.abduct(decoded, likelihood(decoded, noise))
        >>> torch.allclose(again, noise, atol=1e-4)
        True
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        rank: int = 10,
        log_variance: float = -5.0,
        smallest_log_variance: float = -12.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        self.outputs_per_channel = 2 + whole_number("rank", rank, least=1)
        self.log_variance = SoftFloor(log_variance, smallest_log_variance, "log_variance")
        # Factors of length 1 or so, however large the image is.
        self.factor_scale = 1 / math.sqrt(math.prod(self.shape))

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the decoder's output."""
        parts = self._parts(decoded)
        location, raw = parts[..., 0, :, :, :], parts[..., 1, :, :, :]
        return location, 0.5 * self.log_variance(raw)

    def factors(self, decoded: Tensor) -> Tensor:
        """The rest of the decoder's output."""
        return self.factor_scale * self._parts(decoded)[..., 2:, :, :, :]

    def _parts(self, decoded: Tensor) -> Tensor:
        return decoded.unflatten(-3, (self.outputs_per_channel, self.channels))


def _triangle(factors: Tensor) -> Tensor:
    """K, lower triangular with K·Kᵀ = I + VᵀV; nan where a factor is not a number."""
    gram = factors @ factors.mT
    triangle, failed = torch.linalg.cholesky_ex(torch.eye(gram.shape[-1]).to(gram) + gram)
    return triangle.masked_fill((failed != 0)[..., None, None], math.nan)


def _solve(triangle: Tensor, right: Tensor, upper: bool) -> Tensor:
    """``triangle``⁻¹·``right``, batch dimensions broadcast."""
    return torch.linalg.solve_triangular(triangle, right, upper=upper)
