"""A decoder that draws in the frame of a template, and then places the drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.checks import whole_number
from deepscm_pl.nn.convolutional import PyramidDecoder
from deepscm_pl.nn.layers import RATE_FACTOR, Features, spatial_dimensions, zero_linear

__all__ = ["Overlay", "TemplateDecoder"]

_INVISIBLE = 0.02  # opacity that is mapped to zero, so that nothing changes far from a structure
_FIRST_LOGIT = -3.0  # of the opacity: faint but visible, so that it is learned


class TemplateDecoder(nn.Module):
    r"""A decoder that draws in the frame of a learned template and places the drawing by a warp.

    The output is :math:`(t + d(z, c)) \circ A(z, c)` with a learned template t, a decoder d, and an
    affine map A from the coordinates of the output to those of the template (a spatial transformer,
    Jaderberg et al. 2015, arXiv:1506.02025). A is affine in the condition c, plus a perceptron of
    the latent z and c. At first t is 0 and A the identity. The template and the affine part learn
    ten times as fast as the rest, so that the decoder does not learn what they can explain.
    Coordinates run from −1 to 1 over the edges of the image; values are interpolated linearly and
    constant beyond.

    Args:
        latent_features: Size of the latent.
        condition_features: Size of the condition, with names if ``place`` or ``overlay`` is given
            (:class:`~deepscm_pl.nn.Features`).
        output_shape: Shape of one output, with two or three sizes.
        decoder: Factory of d, called with the first three arguments. None for
            :class:`~deepscm_pl.nn.PyramidDecoder`.
        hidden: Width of the hidden layer of the network of A.
        place: Names of the parents that determine the warp together with the latent; None for all
            that are not in ``overlay``. The other parents change the drawing but not its placement:
            the outline of a head stays when its ventricles grow. This is an assumption about the
            mechanism.
        overlay: Names of the parents whose only effect is the size of the structure that ``layer``
            draws over the rest. Neither d nor A depends on them, so that an intervention on them
            leaves the rest of the image unchanged. This is an assumption, too.
        layer: Factory of a layer over the drawing, called with the first three arguments: a network
            of a drawing, the latent, the condition, and the condition as d receives it -> a
            drawing. None for :class:`~deepscm_pl.nn.Overlay` if ``overlay`` names parents, else for
            no layer.

    Example:
        >>> decoder = TemplateDecoder(16, 2, (2, 9, 8, 8))
        >>> decoder(torch.zeros(3, 16), torch.zeros(3, 2)).shape
        torch.Size([3, 2, 9, 8, 8])
    """

    placing: Tensor
    """1 for each feature of the condition on which the warp depends, else 0."""
    drawing: Tensor
    """1 for each feature of the condition on which the drawing depends, else 0."""

    def __init__(
        self,
        latent_features: int,
        condition_features: int,
        output_shape: Sequence[int],
        decoder: Callable[[int, int, Sequence[int]], nn.Module] | None = None,
        hidden: int = 64,
        place: Sequence[str] | None = None,
        overlay: Sequence[str] = (),
        layer: Callable[[int, int, Sequence[int]], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.dimensions = spatial_dimensions(output_shape)
        hidden = whole_number("hidden", hidden, least=1)
        arguments = (latent_features, condition_features, output_shape)
        self.decoder = (decoder or PyramidDecoder)(*arguments)
        layer = layer or (Overlay if overlay else None)
        self.overlay = layer(*arguments) if layer else None
        numbers = self.dimensions * (self.dimensions + 1)
        self.slow_template = nn.Parameter(torch.zeros(*output_shape))
        self.slope = nn.Parameter(torch.zeros(condition_features, numbers))
        placing, drawing = _masks(condition_features, place, overlay)
        self.register_buffer("placing", placing, persistent=False)
        self.register_buffer("drawing", drawing, persistent=False)
        last = zero_linear(hidden, numbers)
        first = nn.Linear(latent_features + condition_features, hidden)
        self.locator = nn.Sequential(first, nn.SiLU(), last)

    @property
    def template(self) -> Tensor:
        """t, ``(channels, *sizes)``."""
        return RATE_FACTOR * self.slow_template

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return the image for ``latent`` and ``condition``."""
        drawn = condition * self.drawing.to(condition)
        drawing = self.template + self.decoder(latent, drawn)
        if self.overlay is not None:
            drawing = self.overlay(drawing, latent, condition, drawn)
        warp = self.warp(latent, condition)
        # Coordinates in low precision would be off by whole pixels.
        with torch.autocast(drawing.device.type, enabled=False):
            drawing = drawing.to(warp)
            grid = functional.affine_grid(warp, list(drawing.shape), align_corners=False)
            placed: Tensor = functional.grid_sample(
                drawing, grid, padding_mode="border", align_corners=False
            )
        return placed

    def warp(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return A of each image, ``(batch, d, d + 1)`` for d sizes, the last coordinate first."""
        condition = condition * self.placing.to(condition)
        offset = self.locator(torch.cat([latent, condition], dim=-1)).to(self.slope)
        with torch.autocast(offset.device.type, enabled=False):
            offset = offset + RATE_FACTOR * condition.to(self.slope) @ self.slope
        identity = torch.eye(self.dimensions, self.dimensions + 1).to(offset)
        matrix: Tensor = identity + offset.unflatten(-1, identity.shape)
        return matrix


def _masks(features: int, place: Sequence[str] | None, overlay: Sequence[str]) -> list[Tensor]:
    """Masks of the features on which the warp and the drawing depend."""
    both = [name for name in overlay if name in (place or ())]
    if both:
        raise ValueError(
            f"overlay: {both[0]} is in place, too; a parent that acts through the overlay only "
            "does not move the image, so leave it out of one of them."
        )
    named = features if isinstance(features, Features) else Features({})
    placing, drawing = torch.ones(features), torch.ones(features)
    if place is not None:
        placing.zero_()[named.positions("place", place)] = 1.0
    for mask in (placing, drawing):
        mask[named.positions("overlay", overlay)] = 0.0
    return [placing, drawing]


class Overlay(nn.Module):
    r"""A layer of one colour over a drawing, which grows with a condition.

    A drawing y becomes :math:`y + \alpha\,(s(z, c') - y)` in each pixel or voxel, with one colour s
    for all of them (Wang and Adelson 1994). The opacity is
    :math:`\alpha = \max(0, (\sigma(\ell) - \epsilon) / (1 - \epsilon))` of
    :math:`\ell = t + G c + d(z, c')`, with :math:`\epsilon` = 0.02, maps t and G (one for each
    feature of c), and a decoder d. Features of the whole condition c that are not in c', on which
    the drawing depends, change the layer only. Far from the layer :math:`\alpha` is exactly zero.
    t, G and the mean colour learn ten times as fast as the rest.

    Args:
        latent_features: Size of the latent z.
        condition_features: Size of the condition c, and of c'.
        output_shape: Shape of a drawing, (channels, *sizes).
        field: Factory of d, called with the first two arguments and (1, *sizes). None for
            :class:`~deepscm_pl.nn.PyramidDecoder`.
        hidden: Width of the hidden layer of the network of s.
    """

    def __init__(
        self,
        latent_features: int,
        condition_features: int,
        output_shape: Sequence[int],
        field: Callable[[int, int, Sequence[int]], nn.Module] | None = None,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        channels, *sizes = output_shape
        hidden = whole_number("hidden", hidden, least=1)
        self.decoder = (field or PyramidDecoder)(latent_features, condition_features, (1, *sizes))
        self.slow_map = nn.Parameter(torch.full((1, *sizes), _FIRST_LOGIT / RATE_FACTOR))
        self.slow_growth = nn.Parameter(torch.zeros(condition_features, *sizes))
        self.slow_colour = nn.Parameter(torch.zeros(channels))
        self.colouring = nn.Sequential(
            nn.Linear(latent_features + condition_features, hidden),
            nn.SiLU(),
            nn.Linear(hidden, channels),
        )

    def forward(self, drawing: Tensor, latent: Tensor, condition: Tensor, other: Tensor) -> Tensor:
        """Return the drawing with the layer over it, given z, c and c' (``other``)."""
        opacity = self.opacity(latent, condition, other)
        colour = self.colouring(torch.cat([latent, other], dim=-1)).to(opacity)
        colour = colour + RATE_FACTOR * self.slow_colour
        colour = colour.unflatten(-1, (-1, *[1] * (drawing.dim() - 2)))
        below = drawing.to(opacity)
        return below + opacity * (colour - below)

    def opacity(self, latent: Tensor, condition: Tensor, other: Tensor) -> Tensor:
        """Return α between 0 and 1, ``(batch, 1, *sizes)``."""
        field = self.decoder(latent, other).to(self.slow_map)
        # In the eight significant bits of bfloat16, small changes of the condition would be lost.
        with torch.autocast(field.device.type, enabled=False):
            growth = torch.tensordot(condition.to(field), self.slow_growth, dims=1)
        logit = RATE_FACTOR * (self.slow_map + growth[:, None]) + field
        visible = (torch.sigmoid(logit) - _INVISIBLE) / (1 - _INVISIBLE)
        # Below zero the gradient is that of the sigmoid, so that pixels can become visible.
        return visible + (torch.relu(visible) - visible).detach()
