"""The network inside of a coupling of images."""

from __future__ import annotations

from torch import Tensor, nn

from deepscm_pl.checks import whole_number

__all__ = ["ConvolutionalConditioner"]


class ConvolutionalConditioner(nn.Module):
    """Predict a map of numbers from a map of features and the context of the whole image.

    A 3×3, a 1×1 and a 3×3 convolution with SiLU activations. A linear map of the context is added
    to the channels after the first one: what convolving constant context channels appended to the
    input would add, without their cost and without an edge at the border. The last convolution
    starts at zero, so that the prediction starts at zero for every input.

    Args:
        in_channels: Channels of the input.
        context_features: Size of the context; 0 for none.
        out_channels: Channels of the prediction.
        hidden: Channels between the convolutions.

    Shape:
        ``(batch, in_channels, H, W)`` and ``(batch, context_features)`` ->
        ``(batch, out_channels, H, W)``.

    Example:
        >>> import torch
        >>> network = ConvolutionalConditioner(2, 3, 4)
        >>> network(torch.ones(5, 2, 7, 7), torch.ones(5, 3)).shape
        torch.Size([5, 4, 7, 7])
    """

    def __init__(
        self, in_channels: int, context_features: int, out_channels: int, hidden: int = 64
    ) -> None:
        super().__init__()
        hidden = whole_number("hidden", hidden, least=1)
        self.first = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.context = nn.Linear(context_features, hidden, bias=False) if context_features else None
        self.middle = nn.Conv2d(hidden, hidden, 1)
        self.last = nn.Conv2d(hidden, out_channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """The prediction for ``features`` and ``context``."""
        hidden: Tensor = self.first(features)
        if self.context is not None:
            hidden = hidden + self.context(context)[..., None, None]
        hidden = nn.functional.silu(hidden)
        predicted: Tensor = self.last(nn.functional.silu(self.middle(hidden)))
        return predicted
