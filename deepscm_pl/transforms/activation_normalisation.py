"""Normalisation of channels that depends on no batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepscm_pl.transforms.image_bijection import ImageBijection, Mapped

__all__ = ["ActivationNormalisation", "normalise_activations"]


class ActivationNormalisation(ImageBijection):
    """y = (x − m_k)·exp(s_k) for each channel k (Kingma and Dhariwal 2018, section 3.1).

    "Glow", arXiv:1807.03039. m and s are parameters like any other. They start at zero, the
    identity; :func:`normalise_activations` sets them once, before training, so that every channel
    has mean 0 and variance 1 over some images. Later no value depends on the batch around it.

    Args:
        channels: Number of channels.

    Example:
        >>> normalisation = ActivationNormalisation(2)
        >>> normalisation.fit(3 + 5 * torch.randn(100, 2, 4, 4))
        >>> normalised = normalisation(3 + 5 * torch.randn(100, 2, 4, 4), torch.empty(100, 0)).value
        >>> bool((normalised.mean(dim=(0, 2, 3)).abs() < 0.2).all())
        True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    @torch.no_grad()
    def fit(self, value: Tensor) -> None:
        """Set m and s so that the channels of ``value`` get mean 0 and variance 1.

        A channel that does not vary is only shifted.
        """
        flat = value.double().transpose(0, 1).flatten(1)
        deviation = flat.std(dim=1, correction=0)
        varies = deviation > 1e-6 * flat.abs().amax(dim=1)
        log_scale = torch.where(varies, -deviation.log(), torch.zeros_like(deviation))
        self.location.copy_(flat.mean(dim=1)[:, None, None])
        self.log_scale.copy_(log_scale[:, None, None])

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """(x − m)·exp(s), whose log-determinant is H·W·Σ s."""
        normalised = (value - self.location) * self.log_scale.exp()
        pixels = value.shape[-2] * value.shape[-1]
        return Mapped(normalised, (pixels * self.log_scale.sum()).expand(len(value)))

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """y·exp(−s) + m."""
        return value * (-self.log_scale).exp() + self.location


@torch.no_grad()
def normalise_activations(bijection: ImageBijection, value: Tensor, context: Tensor) -> None:
    """Fit every activation normalisation inside of ``bijection``, the one nearest to x first.

    Each sees ``value`` as the layers before it, fitted already, have mapped it.

    Args:
        bijection: Any map, whose parts are fitted in place.
        value: Images, ``(batch, C, H, W)``.
        context: Their contexts, ``(batch, F)``.
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
