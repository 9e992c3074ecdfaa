"""A multi-scale flow of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from deepscm_pl.checks import whole_numbers
from deepscm_pl.transforms.activation_normalisation import ActivationNormalisation
from deepscm_pl.transforms.affine_coupling import AffineCoupling, ConditionerFactory
from deepscm_pl.transforms.channel_mixing import ChannelMixing
from deepscm_pl.transforms.image_bijection import Composition, ImageBijection, Mapped

__all__ = ["MultiscaleBijection"]

_MOST_STEPS = 1000


class MultiscaleBijection(ImageBijection):
    """Image to noise of the same shape, at one scale after the other.

    At each scale 2×2 pixels become channels, K flow steps follow, each of activation normalisation,
    channel mixing and affine coupling (Kingma and Dhariwal 2018, "Glow", arXiv:1807.03039, figure
    2), and then the second half of the channels leaves as noise: the last coupling has made it a
    Gaussian given the first half, standardised. The first half goes on to the next scale; at the
    last scale all leaves.

    Noise that leaves at a coarse scale is put back to the pixels that it came from, so that noise
    and image have the same shape, place by place.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        steps: K of each scale, the finest one first; there is one halving of the image for each.
        context_features: Size of the context; 0 for none.
        conditioner: Factory of the couplings' networks.
        log_scale_bound: Bound of the couplings' log-scales.

    Raises:
        ValueError: If the image cannot be halved so often, or a scale has no steps.
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
        _check_sizes(shape, steps)
        channels, height, width = shape
        first, *others = steps
        self.steps = Composition(
            bijection
            for _ in range(first)
            for bijection in (
                ActivationNormalisation(4 * channels),
                ChannelMixing(4 * channels),
                AffineCoupling(4 * channels, context_features, conditioner, log_scale_bound),
            )
        )
        self.coarser = (
            MultiscaleBijection(
                (2 * channels, height // 2, width // 2),
                others,
                context_features,
                conditioner,
                log_scale_bound,
            )
            if others
            else None
        )

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """The noise of the image, and the log-determinant."""
        mapped: Mapped = self.steps(pixel_unshuffle(value, 2), context)
        if self.coarser is None:
            return Mapped(pixel_shuffle(mapped.value, 2), mapped.log_determinant)
        staying, leaving = mapped.value.chunk(2, dim=1)
        coarser: Mapped = self.coarser(staying, context)
        noise = pixel_shuffle(torch.cat([coarser.value, leaving], dim=1), 2)
        return Mapped(noise, mapped.log_determinant + coarser.log_determinant)

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """The image of the noise."""
        squeezed = pixel_unshuffle(value, 2)
        if self.coarser is not None:
            noise, leaving = squeezed.chunk(2, dim=1)
            squeezed = torch.cat([self.coarser.inverse(noise, context), leaving], dim=1)
        return pixel_shuffle(self.steps.inverse(squeezed, context), 2)


def _check_sizes(shape: Sequence[int], steps: Sequence[int]) -> None:
    whole_numbers("steps", steps, least=1, most=_MOST_STEPS, fewest=1)
    _, height, width = shape
    factor = 2 ** len(steps)
    if height % factor or width % factor:
        raise ValueError(
            f"steps: expected an image whose sides can be halved {len(steps)} times, once for each "
            f"scale, but {height}×{width} pixels are no multiples of {factor}; give fewer scales, "
            "or pad the images."
        )
