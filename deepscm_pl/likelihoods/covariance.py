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

from deepscm_pl.likelihoods.base import Likelihood
from deepscm_pl.likelihoods.floor import SoftFloor

__all__ = ["CovarianceGaussian", "PredictedCovarianceGaussian", "SharedCovarianceGaussian"]

_LARGEST_SHARED = 2**14  # pixels; their factor takes a gibibyte


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
        location, log_scale = self.location_and_log_scale(decoded)
        residual = value - location
        with torch.autocast(value.device.type, enabled=False):
            return (residual - self.predict(decoded, residual)) * (-log_scale).exp()

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """log N(u; 0, I) − Σ log σ, in nats per image."""
        _, log_scale = self.location_and_log_scale(decoded)
        squares = self.abduct(decoded, value).square()
        per_pixel = -0.5 * squares - log_scale - 0.5 * math.log(2 * math.pi)
        return per_pixel.flatten(-3).sum(-1)


class SharedCovarianceGaussian(CovarianceGaussian):
    """One learned covariance of all pixels and channels, shared by all images.

    The authors' ``sharedvar_multivariate_gaussian``. μ is the decoder's output. The factor has
    (C·H·W)²/2 entries: 0.3 million for 28 × 28 pixels.

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
        self.log_scale = nn.Parameter(torch.full(self.shape, log_variance / 2))
        self.weights = nn.Parameter(torch.zeros(size * (size - 1) // 2))

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output and the learned scales."""
        return decoded, self.log_scale

    def predict(self, decoded: Tensor, residual: Tensor) -> Tensor:
        """A·r, one product of matrices for the whole batch."""
        return (residual.flatten(-3) @ self._factor().to(residual).mT).view_as(residual)

    def solve(self, decoded: Tensor, innovation: Tensor) -> Tensor:
        """One triangular system, with the whole batch on its right."""
        unit = torch.eye(self._size, dtype=innovation.dtype, device=innovation.device)
        columns = innovation.reshape(-1, self._size).mT
        found = torch.linalg.solve_triangular(
            unit - self._factor().to(innovation), columns, upper=False, unitriangular=True
        )
        return found.mT.reshape(innovation.shape)

    @property
    def _size(self) -> int:
        return math.prod(self.shape)

    def _factor(self) -> Tensor:
        """A, ``(C·H·W, C·H·W)``."""
        row, column = torch.tril_indices(
            self._size, self._size, offset=-1, device=self.weights.device
        )
        factor = self.weights.new_zeros(self._size, self._size)
        return factor.index_put((row, column), self.weights)


class PredictedCovarianceGaussian(CovarianceGaussian):
    """A covariance of each image's own, from weights that the decoder predicts.

    Each pixel is predicted from those before it that are at most ``radius`` rows and columns away,
    in its own channel: n = 2·radius·(radius + 1) of them. The precision has this band; the
    covariance is full, and takes O(n·C·H·W) memory instead of O((C·H·W)²), which is what the
    authors' ``multivariate_gaussian`` predicts. (Dorta et al. 2018, "Structured uncertainty
    prediction networks", arXiv:1802.07079, section 3.2.)

    The decoder gives μ, log σ² − ``log_variance`` and n raw weights in 2 + n blocks of C channels,
    so that zeros mean independent pixels. Raw weights w give 2·tanh(w/2), in (−2, 2), so that no
    step of the training makes an image explode that is drawn row after row.

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
        if radius < 1:
            raise ValueError(f"radius: expected at least 1 pixel, but got {radius}.")
        self.radius = radius
        self.log_variance = SoftFloor(log_variance, smallest_log_variance, "log_variance")
        # (rows up, columns to the right) of each neighbour, a negative column to the left.
        columns = range(-radius, radius + 1)
        above = [(row, column) for row in range(radius, 0, -1) for column in columns]
        self._neighbours = [*above, *((0, column) for column in range(-radius, 0))]
        self.outputs_per_channel = 2 + len(self._neighbours)

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the decoder's output."""
        location, raw, _ = self._parts(decoded)
        return location, 0.5 * self.log_variance(raw)

    def predict(self, decoded: Tensor, residual: Tensor) -> Tensor:
        """A·r: the sum over neighbours, each a shifted image times its weights."""
        _, _, weights = self._parts(decoded)
        reach = self.radius
        height, width = self.shape[1:]
        padded = nn.functional.pad(residual, (reach, reach, reach, 0))
        terms = (
            weight
            * padded[
                ..., reach - row : reach - row + height, reach + column : reach + column + width
            ]
            for weight, (row, column) in zip(weights.unbind(-4), self._neighbours, strict=True)
        )
        return torch.stack(torch.broadcast_tensors(*terms)).sum(0)

    def solve(self, decoded: Tensor, innovation: Tensor) -> Tensor:
        """Row after row, each a triangular system in its own pixels."""
        _, _, weights = self._parts(decoded)
        rows: list[Tensor] = []
        for row in range(self.shape[1]):
            right = innovation[..., row, :]
            matrices = self._matrices(weights[..., row, :], min(row, self.radius))
            for up, matrix in enumerate(matrices[1:], start=1):
                right = right + (matrix @ rows[-up].unsqueeze(-1)).squeeze(-1)
            unit = torch.eye(self.shape[2], dtype=right.dtype, device=right.device)
            system, column = torch.broadcast_tensors(unit - matrices[0], right.unsqueeze(-1))
            solved = torch.linalg.solve_triangular(
                system, column[..., :1], upper=False, unitriangular=True
            )
            rows.append(solved.squeeze(-1))
        return torch.stack(rows, dim=-2)

    def _parts(self, decoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """μ, the raw log σ² ``(*batch, C, H, W)`` and the weights ``(*batch, n, C, H, W)``."""
        parts = decoded.unflatten(-3, (self.outputs_per_channel, self.channels))
        location, raw = parts[..., 0, :, :, :], parts[..., 1, :, :, :]
        return location, raw, 2 * (0.5 * parts[..., 2:, :, :, :]).tanh()

    def _matrices(self, weights: Tensor, highest: int) -> list[Tensor]:
        """A's blocks of one row: of its own pixels, and of those 1, …, ``highest`` rows above.

        Args:
            weights: ``(*batch, n, C, W)``, each weight where its product is needed.
            highest: How many rows there are above, at most ``radius``.

        Returns:
            Matrices ``(*batch, C, W, W)``, from columns of a row to columns of this row.
        """
        width = self.shape[2]
        blocks = []
        for up in range(highest + 1):
            block = weights.new_zeros(*weights.shape[:-3], self.channels, width, width)
            for index, (row, column) in enumerate(self._neighbours):
                if row == up and abs(column) < width:
                    band = weights[..., index, :, max(-column, 0) : width - max(column, 0)]
                    block = block + torch.diag_embed(band, offset=column)
            blocks.append(block)
        return blocks
