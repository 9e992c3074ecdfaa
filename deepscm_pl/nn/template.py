"""A decoder that draws in the frame of a template, and then places the drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.checks import whole_number
from deepscm_pl.nn.convolutional import PyramidDecoder
from deepscm_pl.nn.layers import PACE

__all__ = ["Overlay", "TemplateDecoder"]


class TemplateDecoder(nn.Module):
    r"""A template and what differs from it, placed by an affine warp (spatial transformer).

    The output is :math:`(t + d(z, c)) \circ A(z, c)` with a learned template t, a decoder d, and an
    affine map A of the coordinates of the output to those of the template (Jaderberg et al. 2015,
    arXiv:1506.02025). Latent z and condition c determine the warp, so that it is a part of the
    deterministic map: where a cause moves, turns or scales what an image shows, the network need
    not draw it anew at every place. Every channel of the output is warped, whatever it means to a
    likelihood. At first t is 0 and A the identity; A is affine in c, plus a perceptron of z and c.
    The template and this affine part learn ten times as fast as the rest: what is common to all
    images, and where a condition puts it, is found before the decoder draws it otherwise. A may
    see a part of the condition only, see :meth:`place_by`.

    An overlay lies over t + d(z, c) in the frame of the template: one structure, whose size
    features of the condition may determine without a change of anything else, see
    :meth:`overlay_by`.

    Coordinates run from −1 to 1 over the edges of the image; values are interpolated linearly, and
    beyond the edges those of the edge go on.

    Args:
        latent_features: Size of the latent.
        condition_features: Size of the condition.
        output_shape: Shape of one output, (channels, *sizes), with two or three sizes.
        decoder: Factory of d, called with the three arguments before. None for
            :class:`~deepscm_pl.nn.PyramidDecoder`.
        hidden: Width of the hidden layer of the network of A.
        overlay: Factory of a layer over the drawing, such as :class:`~deepscm_pl.nn.Overlay`,
            called with the first three arguments: a network of a drawing, the latent, the
            condition, and the condition as the drawing sees it -> a drawing.

    Shape:
        ``(batch, latent_features)`` and ``(batch, condition_features)`` ->
        ``(batch, *output_shape)``.

    Raises:
        ValueError: If there are not two or three sizes.

    Example:
        >>> decoder = TemplateDecoder(16, 2, (2, 9, 8, 8))
        >>> decoder(torch.zeros(3, 16), torch.zeros(3, 2)).shape
        torch.Size([3, 2, 9, 8, 8])
        >>> decoder.warp(torch.zeros(3, 16), torch.zeros(3, 2)).shape
        torch.Size([3, 3, 4])
    """

    placing: Tensor
    drawing: Tensor

    def __init__(
        self,
        latent_features: int,
        condition_features: int,
        output_shape: Sequence[int],
        decoder: Callable[[int, int, Sequence[int]], nn.Module] | None = None,
        hidden: int = 64,
        overlay: Callable[[int, int, Sequence[int]], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.dimensions = len(output_shape) - 1
        if self.dimensions not in (2, 3):
            raise ValueError(
                f"output_shape: expected (channels, *sizes) with two or three sizes, but got "
                f"{tuple(output_shape)}."
            )
        hidden = whole_number("hidden", hidden, least=1)
        self.decoder = (decoder or PyramidDecoder)(
            latent_features, condition_features, output_shape
        )
        self.overlay = (
            None if overlay is None else overlay(latent_features, condition_features, output_shape)
        )
        numbers = self.dimensions * (self.dimensions + 1)
        self.slow_template = nn.Parameter(torch.zeros(*output_shape))
        self.slope = nn.Parameter(torch.zeros(condition_features, numbers))
        self.register_buffer("placing", torch.ones(condition_features), persistent=False)
        self.register_buffer("drawing", torch.ones(condition_features), persistent=False)
        last = nn.Linear(hidden, numbers)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.locator = nn.Sequential(
            nn.Linear(latent_features + condition_features, hidden), nn.SiLU(), last
        )

    @property
    def template(self) -> Tensor:
        """t, ``(channels, *sizes)``."""
        return PACE * self.slow_template

    def place_by(self, features: Sequence[int]) -> None:
        """Let the warp see the latent and these features of the condition, nothing else.

        Args:
            features: Positions in the condition.

        Example:
            >>> decoder = TemplateDecoder(16, 2, (1, 8, 8))
            >>> decoder.place_by([0])
            >>> decoder.placing
            tensor([1., 0.])
        """
        self.placing.zero_()
        self.placing[list(features)] = 1.0

    def overlay_by(self, features: Sequence[int]) -> None:
        """Let the growth of the overlay alone see these features of the condition.

        Args:
            features: Positions in the condition.

        Raises:
            ValueError: If there is no overlay.

        Example:
            >>> from deepscm_pl.nn import Overlay
            >>> decoder = TemplateDecoder(16, 2, (1, 8, 8), overlay=Overlay)
            >>> decoder.overlay_by([1])
            >>> decoder.drawing, decoder.placing
            (tensor([1., 0.]), tensor([1., 0.]))
        """
        if self.overlay is None:
            raise ValueError("expected a decoder with an overlay; give TemplateDecoder one.")
        self.drawing[list(features)] = 0.0
        self.placing[list(features)] = 0.0

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """The image for ``latent``."""
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
        """A of each image, ``(batch, d, d + 1)`` for d sizes, the last size's coordinate first."""
        condition = condition * self.placing.to(condition)
        offset = self.locator(torch.cat([latent, condition], dim=-1)).to(self.slope)
        with torch.autocast(offset.device.type, enabled=False):
            offset = offset + PACE * condition.to(self.slope) @ self.slope
        identity = torch.eye(self.dimensions, self.dimensions + 1).to(offset)
        matrix: Tensor = identity + offset.unflatten(-1, identity.shape)
        return matrix


_INVISIBLE = 0.02
"""An opacity below which there is nothing, so that far from a structure nothing changes."""

_FIRST_LOGIT = -3.0
"""Of the opacity everywhere at first: faint, but not invisible, where nothing could be learned."""


class Overlay(nn.Module):
    r"""A layer of one colour over a drawing, which grows with a condition.

    A drawing y becomes :math:`y + \alpha\,(s(z, c') - y)`, element by element, with the same colour
    s in all of them, as in layered models of images (Wang and Adelson 1994). The opacity is
    :math:`\alpha = \max(0, (\sigma(\ell) - \epsilon) / (1 - \epsilon))` of
    :math:`\ell = t + G c + d(z, c')`, with :math:`\epsilon` = 0.02, a map t, a map G for each
    feature of c, and a decoder d.

    What is in the whole condition c, but not in its part c' that the drawing sees, makes the layer
    come and go, in every element from a value on that t, G and d give the element, and changes
    nothing else. Where the layer is far, :math:`\alpha` is zero exactly. The maps t and G and the
    mean colour are learned ten times as fast as the rest.

    Args:
        latent_features: Size of the latent z.
        condition_features: Size of the condition c, and of c'.
        output_shape: Shape of a drawing, (channels, *sizes).
        field: Factory of d, called with the first two arguments and (1, *sizes). None for
            :class:`~deepscm_pl.nn.PyramidDecoder`.
        hidden: Width of the hidden layer of the network of s.

    Shape:
        ``(batch, *output_shape)``, ``(batch, latent_features)`` and twice ``(batch,
        condition_features)`` -> ``(batch, *output_shape)``.

    Example:
        >>> overlay = Overlay(16, 2, (3, 8, 8))
        >>> latent, condition = torch.zeros(5, 16), torch.zeros(5, 2)
        >>> overlay(torch.zeros(5, 3, 8, 8), latent, condition, condition).shape
        torch.Size([5, 3, 8, 8])
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
        self.slow_map = nn.Parameter(torch.full((1, *sizes), _FIRST_LOGIT / PACE))
        self.slow_growth = nn.Parameter(torch.zeros(condition_features, *sizes))
        self.slow_colour = nn.Parameter(torch.zeros(channels))
        self.colouring = nn.Sequential(
            nn.Linear(latent_features + condition_features, hidden),
            nn.SiLU(),
            nn.Linear(hidden, channels),
        )

    def forward(self, drawing: Tensor, latent: Tensor, condition: Tensor, other: Tensor) -> Tensor:
        """The drawing with the layer over it.

        Args:
            drawing: y.
            latent: z.
            condition: c, by which the layer grows.
            other: c', all of it that the field and the colour see.
        """
        opacity = self.opacity(latent, condition, other)
        colour = self.colouring(torch.cat([latent, other], dim=-1)).to(opacity)
        colour = colour + PACE * self.slow_colour
        colour = colour.unflatten(-1, (-1, *[1] * (drawing.dim() - 2)))
        below = drawing.to(opacity)
        return below + opacity * (colour - below)

    def opacity(self, latent: Tensor, condition: Tensor, other: Tensor) -> Tensor:
        """α, of 0 to 1, ``(batch, 1, *sizes)``."""
        field = self.decoder(latent, other).to(self.slow_map)
        # In eight bits, small changes of the condition would change nothing.
        with torch.autocast(field.device.type, enabled=False):
            growth = torch.tensordot(condition.to(field), self.slow_growth, dims=1)
        logit = PACE * (self.slow_map + growth[:, None]) + field
        visible = (torch.sigmoid(logit) - _INVISIBLE) / (1 - _INVISIBLE)
        # The gradient is that of the sigmoid, below zero, too: what is invisible can come to be.
        return visible + (torch.relu(visible) - visible).detach()
