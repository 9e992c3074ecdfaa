"""The multi-scale flow of images and its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from deepscm_pl.checks import real_number, whole_numbers
from deepscm_pl.transforms.image_bijection import ComposedBijection, ImageBijection, Mapped

__all__ = [
    "ActivationNormalisation",
    "AffineCoupling",
    "ChannelMixing",
    "ConditionerFactory",
    "MultiscaleBijection",
    "normalise_activations",
]

_MOST_STEPS = 1000


class ActivationNormalisation(ImageBijection):
    """y = (x − m_k)·exp(s_k) for each channel k (Kingma and Dhariwal 2018, section 3.1).

    "Glow", arXiv:1807.03039. m and s are learned. They start at zero, the identity;
    :func:`normalise_activations` sets them once, before training, so that every channel has mean 0
    and variance 1 over some images. The result for an image does not depend on its batch.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    @torch.no_grad()
    def fit(self, value: Tensor) -> None:
        """Standardise the channels of ``value``; a channel that does not vary is only shifted."""
        flat = value.double().transpose(0, 1).flatten(1)
        deviation = flat.std(dim=1, correction=0)
        varies = deviation > 1e-6 * flat.abs().amax(dim=1)
        log_scale = torch.where(varies, -deviation.log(), torch.zeros_like(deviation))
        self.location.copy_(flat.mean(dim=1)[:, None, None])
        self.log_scale.copy_(log_scale[:, None, None])

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """Return (x − m)·exp(s), with the log-determinant H·W·Σ s."""
        normalised = (value - self.location) * self.log_scale.exp()
        pixels = value.shape[-2] * value.shape[-1]
        return Mapped(normalised, (pixels * self.log_scale.sum()).expand(len(value)))

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """Return y·exp(−s) + m."""
        return value * (-self.log_scale).exp() + self.location


@torch.no_grad()
def normalise_activations(bijection: ImageBijection, value: Tensor, context: Tensor) -> None:
    """Fit every activation normalisation in ``bijection`` to images, in place.

    Each is fitted to the output of the layers before it, which are fitted already.
    """
    hooks = [
        module.register_forward_pre_hook(lambda layer, inputs: layer.fit(inputs[0]))
        for module in bijection.modules()
        if isinstance(module, ActivationNormalisation)
    ]
    try:
        bijection(value, context)
    finally:
        for hook in hooks:
            hook.remove()


class ChannelMixing(ImageBijection):
    """y = W x at every pixel, an invertible 1×1 convolution.

    Kingma and Dhariwal (2018), "Glow", arXiv:1807.03039, section 3.2, equation 10:
    W = P L (U + diag(σ·exp(d))) with a constant permutation P and constant signs σ, L lower
    triangular with ones on its diagonal, and U strictly upper triangular. W starts as a random
    rotation.
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
        """Return W x, with the log-determinant H·W·Σ d."""
        lower, upper = self._triangles()
        pixels = value.shape[-2] * value.shape[-1]
        log_determinant = (pixels * self.log_diagonal.sum()).expand(len(value))
        return Mapped(_at_every_pixel(self.permutation @ lower @ upper, value), log_determinant)

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """Return W⁻¹ y, by two triangular systems."""
        lower, upper = self._triangles()
        unmixed = torch.linalg.solve_triangular(
            lower, self.permutation.T, upper=False, unitriangular=True
        )
        return _at_every_pixel(torch.linalg.solve_triangular(upper, unmixed, upper=True), value)


def _at_every_pixel(matrix: Tensor, value: Tensor) -> Tensor:
    return nn.functional.conv2d(value, matrix[..., None, None])


ConditionerFactory = Callable[[int, int, int], nn.Module]
"""From the channels of the input, the size of the context and the channels of the output to a
network ``(batch, in, H, W)``, ``(batch, context)`` -> ``(batch, out, H, W)``."""


class AffineCoupling(ImageBijection):
    """(a, b) ↦ (a, (b + t)·exp(s)), with t and s of each pixel predicted from a and the context.

    RealNVP (Dinh et al. 2017, arXiv:1605.08803, section 3.2). a and b are the halves of an even
    number of channels. s = B·tanh(r/B) of the prediction r stays within ±B, the
    ``log_scale_bound``, so that neither direction multiplies rounding errors by more than exp(B).
    """

    def __init__(
        self,
        channels: int,
        context_features: int,
        conditioner: ConditionerFactory,
        log_scale_bound: float = 2.0,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"channels: expected an even number, but got {channels}.")
        self.bound = real_number("log_scale_bound", log_scale_bound, above=0)
        self.conditioner = conditioner(channels // 2, context_features, channels)

    def _shift_and_log_scale(self, passive: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.conditioner(passive, context).chunk(2, dim=1)
        return shift, self.bound * torch.tanh(raw / self.bound)

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """Return (a, (b + t)·exp(s)), with the log-determinant Σ s."""
        passive, active = value.chunk(2, dim=1)
        shift, log_scale = self._shift_and_log_scale(passive, context)
        coupled = torch.cat([passive, (active + shift) * log_scale.exp()], dim=1)
        return Mapped(coupled, log_scale.flatten(1).sum(dim=1))

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """Return (a, b·exp(−s) − t)."""
        passive, active = value.chunk(2, dim=1)
        shift, log_scale = self._shift_and_log_scale(passive, context)
        return torch.cat([passive, active * (-log_scale).exp() - shift], dim=1)


class MultiscaleBijection(ImageBijection):
    """Image to noise of the same shape, scale by scale.

    At each scale blocks of 2×2 pixels become channels, followed by K flow steps, each of activation
    normalisation, channel mixing and affine coupling (Kingma and Dhariwal 2018, "Glow",
    arXiv:1807.03039, figure 2). The second half of the channels is then noise, a standardised
    Gaussian given the first half, which is the input of the next scale; at the last scale all
    channels are noise. Noise of a coarse scale is placed at the pixels from which it was computed.

    Args:
        shape: (channels, height, width), in pixels; height and width can be halved for each scale.
        steps: K of each scale, the finest one first.
        context_features: Size of the context; 0 for none.
        conditioner: Factory of the networks of the couplings.
        log_scale_bound: B of the couplings.
    """

    def __init__(
        self,
        shape: Sequence[int],
        steps: Sequence[int],
        context_features: int,
        conditioner: ConditionerFactory,
        log_scale_bound: float = 2.0,
    ) -> None:
        super().__init__()
        whole_numbers("steps", steps, least=1, most=_MOST_STEPS, fewest=1)
        channels, height, width = shape
        factor = 2 ** len(steps)
        if height % factor or width % factor:
            raise ValueError(
                f"steps: expected an image whose sides can be halved {len(steps)} times, once for "
                f"each scale, but {height}×{width} pixels are no multiples of {factor}; give fewer "
                "scales, or pad the images."
            )
        first, *others = steps
        settings = (context_features, conditioner, log_scale_bound)
        self.steps = ComposedBijection(
            bijection
            for _ in range(first)
            for bijection in (
                ActivationNormalisation(4 * channels),
                ChannelMixing(4 * channels),
                AffineCoupling(4 * channels, *settings),
            )
        )
        half = (2 * channels, height // 2, width // 2)
        self.coarser = MultiscaleBijection(half, others, *settings) if others else None

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """Return the noise of the image, and the log-determinant."""
        mapped: Mapped = self.steps(pixel_unshuffle(value, 2), context)
        if self.coarser is None:
            return Mapped(pixel_shuffle(mapped.value, 2), mapped.log_determinant)
        staying, leaving = mapped.value.chunk(2, dim=1)
        coarser: Mapped = self.coarser(staying, context)
        noise = pixel_shuffle(torch.cat([coarser.value, leaving], dim=1), 2)
        return Mapped(noise, mapped.log_determinant + coarser.log_determinant)

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """Return the image of the noise."""
        squeezed = pixel_unshuffle(value, 2)
        if self.coarser is not None:
            noise, leaving = squeezed.chunk(2, dim=1)
            squeezed = torch.cat([self.coarser.inverse(noise, context), leaving], dim=1)
        return pixel_shuffle(self.steps.inverse(squeezed, context), 2)
