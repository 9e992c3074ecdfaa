"""Gaussian noise that is correlated between pixels, by a triangular factor of the precision.

With r = y − μ and the pixels in raster order, the noise of pixel i is what the pixels before it do
not predict:

    u_i = (r_i − Σ_{j<i} a_ij·r_j)/σ_i,    that is  u = D⁻¹(I − A)·r,

with D = diag(σ) and A strictly lower triangular. The precision of y is (I − A)ᵀD⁻²(I − A); every
covariance has exactly one such factor. log |det du/dy| = −Σ log σ_i, whatever A is.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepscm_pl.checks import whole_number
from deepscm_pl.likelihoods.base import Likelihood, SoftFloor, logarithm, standard_normal_log_prob

__all__ = [
    "CovarianceGaussian",
    "LowRankGaussian",
    "PredictedCovarianceGaussian",
    "PredictedLowRankGaussian",
    "SharedCovarianceGaussian",
    "SharedLowRankGaussian",
]

_LARGEST_SHARED = 2**14  # pixels; their factor takes a gibibyte
_LARGEST_RADIUS = 64  # pixels; the decoder gives 8,320 weights for each pixel


class CovarianceGaussian(Likelihood):
    """y = μ + (I − A)⁻¹D·u; subclasses say where μ, σ and A come from."""

    @abstractmethod
    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """μ ``(*batch, C, H, W)`` and log σ, which broadcasts with it."""

    @abstractmethod
    def predict(self, decoded: Tensor, residual: Tensor) -> Tensor:
        """A·r, what the pixels before each pixel say about it, ``(*batch, C, H, W)``."""

    @abstractmethod
    def solve(self, decoded: Tensor, innovation: Tensor) -> Tensor:
        """r with r − A·r = ``innovation``, ``(*batch, C, H, W)``."""

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """y = μ + (I − A)⁻¹D·u."""
        location, log_scale = self.location_and_log_scale(decoded)
        with torch.autocast(noise.device.type, enabled=False):
            return location + self.solve(decoded, log_scale.exp() * noise)

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """u = D⁻¹(I − A)(y − μ)."""
        return self._noise_and_log_scale(decoded, value)[0]

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """log N(u; 0, I) − Σ log σ, in nats per image."""
        noise, log_scale = self._noise_and_log_scale(decoded, value)
        return (standard_normal_log_prob(noise) - log_scale).flatten(-3).sum(-1)

    def _noise_and_log_scale(self, decoded: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = self.location_and_log_scale(decoded)
        residual = value - location
        with torch.autocast(value.device.type, enabled=False):
            innovation = residual - self.predict(decoded, residual)
        return innovation * (-log_scale).exp(), log_scale


class SharedCovarianceGaussian(CovarianceGaussian):
    """One learned covariance of all pixels and channels, shared by all images.

    The authors' ``sharedvar_multivariate_gaussian``. μ is the decoder's output. The factor is a
    matrix of C·H·W rows and columns: 0.6 million numbers for 28 × 28 pixels.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: Number of grey levels.
        log_variance: Initial log σ²; A starts at 0.
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.

    Raises:
        ValueError: If an image has more than 16,384 values, whose covariance would not fit.

    Example:
        >>> likelihood = SharedCovarianceGaussian((1, 4, 4), log_variance=0.0)
        >>> likelihood.log_prob(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
        tensor([-14.7030, -14.7030], grad_fn=<SumBackward1>)
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        log_variance: float = -5.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        size = math.prod(self.shape)
        if size > _LARGEST_SHARED:
            raise ValueError(
                f"shape: expected at most {_LARGEST_SHARED:,} values of an image, but got "
                f"{size:,}, whose covariance has {size**2:,}; use SharedLowRankGaussian."
            )
        log_variance = logarithm("log_variance", log_variance)
        self.log_scale = nn.Parameter(torch.full(self.shape, log_variance / 2))
        # Only what is below the diagonal is used: an index of it would take twice its memory.
        self.weights = nn.Parameter(torch.zeros(size, size))

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output and the learned scales."""
        return decoded, self.log_scale

    def predict(self, decoded: Tensor, residual: Tensor) -> Tensor:
        """A·r, one product of matrices for the whole batch."""
        factor = self.weights.tril(-1).to(residual)
        return (residual.flatten(-3) @ factor.mT).view_as(residual)

    def solve(self, decoded: Tensor, innovation: Tensor) -> Tensor:
        """One triangular system, with the whole batch on its right."""
        factor = self.weights.tril(-1).to(innovation)
        columns = innovation.reshape(-1, len(factor)).mT
        found = torch.linalg.solve_triangular(-factor, columns, upper=False, unitriangular=True)
        return found.mT.reshape(innovation.shape)


class PredictedCovarianceGaussian(CovarianceGaussian):
    """A covariance of each image's own, from weights that the decoder predicts.

    Each pixel is predicted from those before it that are at most ``radius`` rows and columns away,
    in its own channel: n = 2·radius·(radius + 1) of them. The precision has this band; the
    covariance is full, and takes O(n·C·H·W) memory instead of O((C·H·W)²), which is what the
    authors' ``multivariate_gaussian`` predicts. (Dorta et al. 2018, "Structured uncertainty
    prediction networks", arXiv:1802.07079, section 3.2.)

    The decoder gives μ, log σ² − ``log_variance`` and n raw weights in 2 + n blocks of C channels,
    so that zeros mean independent pixels. Raw weights w_ij give a_ij = w_ij/(1 + Σ_j |w_ij|), of
    Σ_j |a_ij| < 1: what is drawn pixel after pixel never grows to more than the largest σ·u times
    1 + max_i Σ_j |w_ij|, also where an intervention leads the decoder to outputs that it was not
    trained for, and the density, which sees the recorded pixels, would not tell.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: Number of grey levels.
        radius: Of the neighbourhood, in pixels.
        log_variance: log σ² where the decoder gives 0.
        smallest_log_variance: Lower bound of log σ², approached smoothly.
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.

    Raises:
        ValueError: If the radius is below 1, or the bound is not below ``log_variance``.

    Example:
        >>> likelihood = PredictedCovarianceGaussian((1, 5, 5))
        >>> likelihood.outputs_per_channel
        14
        >>> likelihood(torch.randn(3, 14, 5, 5), torch.randn(3, 1, 5, 5)).shape
        torch.Size([3, 1, 5, 5])
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        radius: int = 2,
        log_variance: float = -5.0,
        smallest_log_variance: float = -12.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        self.radius = radius = whole_number("radius", radius, least=1, most=_LARGEST_RADIUS)
        self.log_variance = SoftFloor(log_variance, smallest_log_variance, "log_variance")
        # (rows up, columns to the right) of each neighbour, a negative column to the left.
        columns = range(-radius, radius + 1)
        above = [(row, column) for row in range(radius, 0, -1) for column in columns]
        self._neighbours = [*above, *((0, column) for column in range(-radius, 0))]
        self.outputs_per_channel = 2 + len(self._neighbours)

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the decoder's output."""
        parts = self._parts(decoded)
        return parts[..., 0, :, :, :], 0.5 * self.log_variance(parts[..., 1, :, :, :])

    def predict(self, decoded: Tensor, residual: Tensor) -> Tensor:
        """A·r: the sum over neighbours, each a shifted image times its weights."""
        reach = self.radius
        height, width = self.shape[1:]
        padded = nn.functional.pad(residual, (reach, reach, reach, 0))
        total = residual.new_zeros(())
        weights = self._weights(decoded).unbind(-4)
        for weight, (up, right) in zip(weights, self._neighbours, strict=True):
            first_row, first_column = reach - up, reach + right
            rows = padded[..., first_row : first_row + height, :]
            total = total + weight * rows[..., first_column : first_column + width]
        return total

    def solve(self, decoded: Tensor, innovation: Tensor) -> Tensor:
        """Row after row, each a triangular system in its own pixels."""
        reach, width = self.radius, self.shape[2]
        weights = self._weights(decoded).to(innovation)
        above, own = weights[..., :-reach, :, :, :], weights[..., -reach:, :, :, :]
        above = above.unflatten(-4, (reach, 2 * reach + 1))
        rows: list[Tensor] = []
        padded: list[Tensor] = []
        for row in range(self.shape[1]):
            right = innovation[..., row, :]
            for up in range(1, min(row, reach) + 1):
                # The row above, seen from each of the columns that are within reach.
                shifted = padded[-up].unfold(-1, width, 1).transpose(-2, -3)
                right = right + (above[..., reach - up, :, :, row, :] * shifted).sum(-3)
            rows.append(_solve_row(own[..., row, :], right))
            padded.append(nn.functional.pad(rows[-1], (reach, reach)))
        return torch.stack(rows, dim=-2)

    def _parts(self, decoded: Tensor) -> Tensor:
        """μ, the raw log σ² and the n raw weights, ``(*batch, 2 + n, C, H, W)``."""
        return decoded.unflatten(-3, (self.outputs_per_channel, self.channels))

    def _weights(self, decoded: Tensor) -> Tensor:
        """a_ij, ``(*batch, n, C, H, W)``."""
        raw = self._parts(decoded)[..., 2:, :, :, :]
        return raw / (1 + raw.abs().sum(-4, keepdim=True))


def _solve_row(weights: Tensor, right: Tensor) -> Tensor:
    """r of one row, where each pixel is predicted from those to its left.

    Args:
        weights: Of the neighbours n, …, 1 columns to the left, ``(*batch, n, C, W)``.
        right: What the rows above and the noise give, ``(*batch, C, W)``.
    """
    reach, width = weights.shape[-3], weights.shape[-1]
    system = right.new_zeros(width, width)
    for left in range(1, min(reach, width - 1) + 1):
        system = system - torch.diag_embed(weights[..., reach - left, :, left:], offset=-left)
    system, column = torch.broadcast_tensors(system, right.unsqueeze(-1))
    solved = torch.linalg.solve_triangular(system, column[..., :1], upper=False, unitriangular=True)
    return solved.squeeze(-1)


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
