"""Gaussian noise that is correlated between pixels.

:class:`CovarianceGaussian` uses a triangular factor of the precision: with r = y − μ and the pixels
in raster order, the noise of pixel i is what the earlier pixels do not predict,

    u_i = (r_i − Σ_{j<i} a_ij·r_j)/σ_i,    that is  u = D⁻¹(I − A)·r,

with D = diag(σ) and A strictly lower triangular. The precision of y is (I − A)ᵀD⁻²(I − A); every
covariance has exactly one such factor. log |det du/dy| = −Σ log σ_i for every A.
:class:`LowRankGaussian` uses another root of the covariance. Roots of one covariance have equal
densities but other counterfactuals where parents change it: the coupling is a choice.

The grey levels of an image confine u to no product of cells. Therefore u is inferred from the image
with uniform dequantisation noise, see :class:`~deepscm_pl.likelihoods.Likelihood`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepscm_pl.checks import whole_number
from deepscm_pl.likelihoods.gaussian import GaussianLikelihood, PredictedScale, SharedScale
from deepscm_pl.transforms.cells import soft_ceiling

__all__ = [
    "CovarianceGaussian",
    "LowRankGaussian",
    "PredictedCovarianceGaussian",
    "PredictedLowRankGaussian",
    "SharedCovarianceGaussian",
    "SharedLowRankGaussian",
]

_LARGEST_SHARED = 2**14  # pixels; their factor takes one gibibyte
_LARGEST_FACTOR = 1e3  # in deviations of a pixel times √(C·H·W)
_LARGEST_RADIUS = 64  # pixels; the decoder predicts 8,320 weights for each pixel


class CovarianceGaussian(GaussianLikelihood):
    """y = μ + (I − A)⁻¹D·u; subclasses define μ, σ and A.

    The coupling follows the raster order: a pixel keeps what the pixels before it do not predict.
    """

    @abstractmethod
    def predict(self, decoded: Tensor, residual: Tensor) -> Tensor:
        """Return A·r, the prediction of each pixel from the earlier ones, ``(*batch, C, H, W)``."""

    @abstractmethod
    def solve(self, decoded: Tensor, innovation: Tensor) -> Tensor:
        """Return r with r − A·r = ``innovation``, ``(*batch, C, H, W)``."""

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """Return y = μ + (I − A)⁻¹D·u."""
        location, log_scale = self.location_and_log_scale(decoded)
        with torch.autocast(noise.device.type, enabled=False):
            return location + self.solve(decoded, log_scale.exp() * noise)

    def infer(self, decoded: Tensor, value: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return u = D⁻¹(I − A)(y − μ), log σ, and 0."""
        location, log_scale = self.location_and_log_scale(decoded)
        residual = value - location
        with torch.autocast(value.device.type, enabled=False):
            innovation = residual - self.predict(decoded, residual)
        return innovation / log_scale.exp(), log_scale, 0.0


class SharedCovarianceGaussian(SharedScale, CovarianceGaussian):
    """One learned covariance of all pixels and channels, shared by all images.

    The authors' ``sharedvar_multivariate_gaussian``. The factor A is a matrix of C·H·W rows and
    columns, 0.6 million numbers for 28 × 28 pixels; images have at most 16,384 values.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        log_variance: float = -5.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, log_variance, temperature)
        size = math.prod(self.shape)
        if size > _LARGEST_SHARED:
            raise ValueError(
                f"shape: expected at most {_LARGEST_SHARED:,} values of an image, but got "
                f"{size:,}, whose covariance has {size**2:,}; use SharedLowRankGaussian."
            )
        # Only the part below the diagonal is used; an index of it would take twice the memory.
        self.weights = nn.Parameter(torch.zeros(size, size))

    def predict(self, decoded: Tensor, residual: Tensor) -> Tensor:
        """Return A·r, by one matrix product for the whole batch."""
        factor = self.weights.tril(-1).to(residual)
        return (residual.flatten(-3) @ factor.mT).view_as(residual)

    def solve(self, decoded: Tensor, innovation: Tensor) -> Tensor:
        """Solve one triangular system for the whole batch."""
        factor = self.weights.tril(-1).to(innovation)
        columns = innovation.reshape(-1, len(factor)).mT
        found = torch.linalg.solve_triangular(-factor, columns, upper=False, unitriangular=True)
        return found.mT.reshape(innovation.shape)


class PredictedCovarianceGaussian(PredictedScale, CovarianceGaussian):
    """A covariance for each image, from weights that the decoder predicts.

    Each pixel is predicted from the n = 2·radius·(radius + 1) earlier pixels of its channel that
    are at most ``radius`` rows and columns away. The precision has this band, the covariance is
    full. It takes O(n·C·H·W) memory instead of O((C·H·W)²) for the authors'
    ``multivariate_gaussian`` (Dorta et al. 2018, "Structured uncertainty prediction networks",
    arXiv:1802.07079, section 3.2).

    The decoder predicts μ, log σ² − ``log_variance`` and n raw weights w_ij in 2 + n blocks of C
    channels. Weights a_ij = w_ij/(1 + Σ_j |w_ij|) have Σ_j |a_ij| < 1, so that drawn pixels never
    exceed the largest σ·u times 1 + max_i Σ_j |w_ij|, also where an intervention takes the decoder
    outside of the range of the training.

    Args:
        radius: Radius of the neighbourhood, from 1 to 64 pixels.
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
        super().__init__(shape, levels, log_variance, smallest_log_variance, temperature)
        self.radius = radius = whole_number("radius", radius, least=1, most=_LARGEST_RADIUS)
        # (rows up, columns to the right) of each neighbour, a negative column to the left.
        columns = range(-radius, radius + 1)
        above = [(row, column) for row in range(radius, 0, -1) for column in columns]
        self._neighbours = [*above, *((0, column) for column in range(-radius, 0))]
        self.outputs_per_channel = 2 + len(self._neighbours)

    def predict(self, decoded: Tensor, residual: Tensor) -> Tensor:
        """Return A·r, the sum over neighbours of shifted images times weights."""
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
        """Solve a triangular system for each row, from top to bottom."""
        reach, width = self.radius, self.shape[2]
        weights = self._weights(decoded).to(innovation)
        above, own = weights[..., :-reach, :, :, :], weights[..., -reach:, :, :, :]
        above = above.unflatten(-4, (reach, 2 * reach + 1))
        rows: list[Tensor] = []
        padded: list[Tensor] = []
        for row in range(self.shape[1]):
            right = innovation[..., row, :]
            for up in range(1, min(row, reach) + 1):
                # The row above, shifted to each of the columns within reach.
                shifted = padded[-up].unfold(-1, width, 1).transpose(-2, -3)
                right = right + (above[..., reach - up, :, :, row, :] * shifted).sum(-3)
            rows.append(_solve_row(own[..., row, :], right))
            padded.append(nn.functional.pad(rows[-1], (reach, reach)))
        return torch.stack(rows, dim=-2)

    def _weights(self, decoded: Tensor) -> Tensor:
        """a_ij, ``(*batch, n, C, H, W)``."""
        raw = self.blocks(decoded)[..., 2:, :, :, :]
        return raw / (1 + raw.abs().sum(-4, keepdim=True))


def _solve_row(weights: Tensor, right: Tensor) -> Tensor:
    """r of one row, in which each pixel is predicted from those to its left.

    Args:
        weights: Weights of the neighbours n, …, 1 columns to the left, ``(*batch, n, C, W)``.
        right: Contribution of the rows above and the noise, ``(*batch, C, W)``.
    """
    reach, width = weights.shape[-3], weights.shape[-1]
    system = right.new_zeros(width, width)
    for left in range(1, min(reach, width - 1) + 1):
        system = system - torch.diag_embed(weights[..., reach - left, :, left:], offset=-left)
    system, column = torch.broadcast_tensors(system, right.unsqueeze(-1))
    solved = torch.linalg.solve_triangular(system, column[..., :1], upper=False, unitriangular=True)
    return solved.squeeze(-1)


class LowRankGaussian(GaussianLikelihood):
    """y = μ + D·R·u, R·Rᵀ = I + V·Vᵀ; subclasses define μ, σ and V.

    K is lower triangular with K·Kᵀ = I + VᵀV. An image takes O(C·H·W·rank) memory. The coupling is
    that of this root R, the identity orthogonally to the factors: no order of pixels is preferred.
    """

    @abstractmethod
    def factors(self, decoded: Tensor) -> Tensor:
        """Return Vᵀ, ``(*batch, rank, C, H, W)``, which broadcasts over the batch."""

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """Return y = μ + D(u + V(I + K)⁻¹Vᵀu)."""
        location, log_scale = self.location_and_log_scale(decoded)
        with torch.autocast(noise.device.type, enabled=False):
            factors, triangle = self._factors_and_triangle(decoded)
            rooted = _root(factors, triangle, noise.double().flatten(-3).unsqueeze(-1))
            rooted = rooted.squeeze(-1).unflatten(-1, self.shape)
        return location + log_scale.exp() * rooted.to(noise)

    def infer(self, decoded: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return u = r − V(K(I + Kᵀ))⁻¹Vᵀr with r = (y − μ)/σ, log σ, and log |det K|."""
        residual, log_scale = self.standardise(decoded, value)
        with torch.autocast(value.device.type, enabled=False):
            factors, triangle = self._factors_and_triangle(decoded)
            flat = residual.double().flatten(-3).unsqueeze(-1)
            noise = _inverse_root(factors, triangle, flat)
            # Long factors cancel; one step of iterative refinement recovers what rounding lost.
            remainder = flat - _root(factors, triangle, noise)
            noise = noise + _inverse_root(factors, triangle, remainder)
            noise = noise.squeeze(-1).unflatten(-1, self.shape)
        log_determinant = triangle.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return noise.to(residual), log_scale, log_determinant.to(residual)

    def _factors_and_triangle(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Vᵀ ``(*batch, rank, C·H·W)`` and K (NaN where a factor is).

        In double precision: R and R⁻¹ stretch the noise along the factors, and single precision
        would lose grey levels if a factor is a hundred times as long as the noise of the pixels.
        """
        factors = self.factors(decoded).flatten(-3).double()
        gram = factors @ factors.mT
        triangle, failed = torch.linalg.cholesky_ex(_plus_unit(gram))
        return factors, triangle.masked_fill((failed != 0)[..., None, None], math.nan)


def _plus_unit(matrix: Tensor) -> Tensor:
    return matrix + torch.eye(matrix.shape[-1]).to(matrix)


def _root(factors: Tensor, triangle: Tensor, noise: Tensor) -> Tensor:
    """R·u, ``(*batch, C·H·W, 1)``."""
    inner = _solve(_plus_unit(triangle), factors @ noise, upper=False)
    return noise + factors.mT @ inner


def _inverse_root(factors: Tensor, triangle: Tensor, residual: Tensor) -> Tensor:
    """R⁻¹·r."""
    inner = _solve(triangle, factors @ residual, upper=False)
    return residual - factors.mT @ _solve(_plus_unit(triangle.mT), inner, upper=True)


class SharedLowRankGaussian(SharedScale, LowRankGaussian):
    """Learned scales and factors of all pixels and channels, shared by all images.

    The authors' ``sharedvar_lowrank_multivariate_gaussian``.

    Args:
        rank: Number of factors.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        rank: int = 10,
        log_variance: float = -5.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, log_variance, temperature)
        rank = whole_number("rank", rank, least=1)
        # At 0 no factor would have a gradient.
        deviation = 1 / math.sqrt(math.prod(self.shape))
        self.shared_factors = nn.Parameter(deviation * torch.randn(rank, *self.shape))

    def factors(self, decoded: Tensor) -> Tensor:
        """Return the learned factors."""
        return self.shared_factors


class PredictedLowRankGaussian(PredictedScale, LowRankGaussian):
    """Scales and factors for each image, predicted by the decoder.

    The authors' ``lowrank_multivariate_gaussian``. The decoder predicts μ,
    log σ² − ``log_variance`` and the factors times √(C·H·W), in 2 + rank blocks of C channels.

    Args:
        rank: Number of factors.
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
        super().__init__(shape, levels, log_variance, smallest_log_variance, temperature)
        self.outputs_per_channel = 2 + whole_number("rank", rank, least=1)
        # Factors have a length of about 1 for images of any size.
        self.factor_scale = 1 / math.sqrt(math.prod(self.shape))

    def factors(self, decoded: Tensor) -> Tensor:
        """Return the remaining blocks of the decoder's output, smoothly bounded."""
        raw = soft_ceiling(self.blocks(decoded)[..., 2:, :, :, :], _LARGEST_FACTOR)
        return self.factor_scale * -soft_ceiling(-raw, _LARGEST_FACTOR)


def _solve(triangle: Tensor, right: Tensor, upper: bool) -> Tensor:
    return torch.linalg.solve_triangular(triangle, right, upper=upper)
