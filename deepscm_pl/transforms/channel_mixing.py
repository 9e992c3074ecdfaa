"""Invertible linear mixing of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepscm_pl.transforms.image_bijection import ImageBijection, Mapped

__all__ = ["ChannelMixing"]


class ChannelMixing(ImageBijection):
    """y = W x at every pixel, an invertible 1×1 convolution.

    Kingma and Dhariwal (2018), "Glow", arXiv:1807.03039, section 3.2, equation 10:
    W = P L (U + diag(σ·exp(d))) with a permutation P and signs σ that stay as they are, L lower
    triangular with ones on its diagonal, and U strictly upper triangular. The log-determinant
    H·W·Σ d costs nothing, and the inverse needs no general solver. W starts as a random rotation.

    Args:
        channels: Number of channels.

    Example:
        >>> mixing = ChannelMixing(4)
        >>> image, context = torch.randn(2, 4, 3, 3), torch.empty(2, 0)
        >>> again = mixing.inverse(mixing(image, context).value, context)
        >>> torch.allclose(again, image, atol=1e-4)
        True
    """

    permutation: Tensor
    signs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def _triangles(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(len(self.lower)).to(self.lower)
        upper = self.upper.triu(1) + torch.diag(self.signs * self.log_diagonal.exp())
        return lower, upper

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """W x, whose log-determinant is H·W·Σ d."""
        lower, upper = self._triangles()
        pixels = value.shape[-2] * value.shape[-1]
        log_determinant = (pixels * self.log_diagonal.sum()).expand(len(value))
        return Mapped(_at_every_pixel(self.permutation @ lower @ upper, value), log_determinant)

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """W⁻¹ y by two triangular systems."""
        lower, upper = self._triangles()
        unmixed = torch.linalg.solve_triangular(
            lower, self.permutation.T, upper=False, unitriangular=True
        )
        return _at_every_pixel(torch.linalg.solve_triangular(upper, unmixed, upper=True), value)


def _at_every_pixel(matrix: Tensor, value: Tensor) -> Tensor:
    return nn.functional.conv2d(value, matrix[..., None, None])
