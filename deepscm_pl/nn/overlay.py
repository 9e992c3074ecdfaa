"""A layer over a drawing: the structure whose size some causes determine, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from deepscm_pl.checks import whole_number
from deepscm_pl.nn.pace import PACE
from deepscm_pl.nn.pyramid import PyramidDecoder

__all__ = ["Overlay"]

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
