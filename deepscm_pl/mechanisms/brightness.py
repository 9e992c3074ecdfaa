"""Parents whose only effect on an image is how bright it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepscm_pl.mechanisms.base import Context
from deepscm_pl.variables import Variables

__all__ = ["Brightness", "Exposure", "white_level"]

_WHITE = 0.005
"""The share of the pixels that may be brighter than white: those that noise has made so."""

_LARGEST = 4.0
"""Spreads of white that are told apart, in both directions."""

_DEGREE = 3
"""Of the polynomials in the parents of the content."""

_REACH = 2.5
"""Standard deviations from the mean of a parent beyond which polynomials are not trusted."""

_SMALLEST_SPREAD = 1e-3
"""A quarter of a grey level of 256."""


def white_level(images: Tensor) -> Tensor:
    """What is white in each image: of 1,000 pixels the fifth brightest, ``(*batch, 1)``.

    The brightest one is often an outlier, in images that a model has drawn.

    Args:
        images: ``(*batch, C, H, W)``.

    Example:
        >>> white_level(torch.arange(784.0).view(1, 1, 28, 28))
        tensor([[780.]])
    """
    pixels = images.flatten(-3)
    rank = math.ceil(_WHITE * pixels.shape[-1])
    return pixels.topk(rank, dim=-1).values[..., -1:]


class Brightness(nn.Module):
    """β(pa) = w·pa + b, the share of the range of grey levels that an image fills.

    Affine in the standardised parents. It is fitted to what is white in every training image, see
    :func:`white_level`, and stays as it was fitted. White depends on the content of the image, too,
    and the content's causes may go along with the brightness: thin strokes are darker, and what is
    white in them is further above what is asked for. So it is β(pa)·ρ(c) that is fitted, with a
    polynomial ρ of mean 1 in each of the content's parents c, and ρ is forgotten.

    Args:
        context: The parents that act on the brightness.
        levels: L, the number of grey levels.

    Example:
        >>> from deepscm_pl.variables import Domain
        >>> brightness = Brightness(Context({"intensity": Domain()}), levels=256)
        >>> intensity = torch.tensor([[64.0], [128.0]])
        >>> brightness.fit(torch.full((2, 1, 8, 8), 64.0) * torch.tensor([1, 2]).view(2, 1, 1, 1),
        ...                {"intensity": intensity}, content=torch.ones(2, 0))
        >>> brightness({"intensity": torch.tensor([[127.5]])})
        tensor([[0.5000]])
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, context: Context, levels: int) -> None:
        super().__init__()
        self.context = context
        self.levels = levels
        self.register_buffer("weight", torch.zeros(context.features, 1))
        self.register_buffer("bias", torch.tensor([0.5]))

    def fit(self, value: Tensor, parents: Variables, content: Tensor) -> None:
        """Fit the context, and the affine map to what is white in every image.

        Args:
            value: Images of the training split, ``(N, C, H, W)``, in grey levels.
            parents: Their parents, ``(N, *event)``.
            content: The standardised parents of the content, ``(N, features)``.
        """
        self.context.fit(parents)
        features = self.context(parents).double()
        design = torch.cat([features, torch.ones_like(features[:, :1])], dim=-1)
        # The middle of the level's cell; whole numbers of few bits stay what they are until then.
        target = (white_level(value).double() + 0.5) / self.levels
        solution = _alternating_least_squares(design, _powers(content.double()), target)
        self.weight.copy_(solution[:-1])
        self.bias.copy_(solution[-1])

    def forward(self, parents: Variables) -> Tensor:
        """β(pa), ``(*batch, 1)``, at least one grey level."""
        # In eight bits of a bfloat16, white would be a level off.
        context = self.context(parents)
        with torch.autocast(context.device.type, enabled=False):
            brightness: Tensor = context.to(self.weight) @ self.weight + self.bias
        return brightness.clamp(min=1 / self.levels)


def _bounded(value: Tensor) -> Tensor:
    return _LARGEST * (value / _LARGEST).tanh()


def _powers(content: Tensor) -> Tensor:
    """1, c, c², …, ``(*batch, 1 + degree·features)``."""
    constant = torch.ones_like(content.sum(dim=-1, keepdim=True))
    return torch.cat([constant, *(content**k for k in range(1, _DEGREE + 1))], dim=-1)


def _alternating_least_squares(
    design: Tensor, content: Tensor, target: Tensor, rounds: int = 30
) -> Tensor:
    """w for the least-squares fit of (design·w)·(content·v) to the target, content·v of mean 1."""
    ratio = torch.ones_like(target)
    for _ in range(rounds):
        solution = _least_squares(design * ratio, target)
        brightness = design @ solution
        ratio = content @ _least_squares(content * brightness, target)
        mean = ratio.mean()
        if not mean > 0:  # black images: there is nothing to tell apart
            break
        ratio = ratio / mean
    return solution


def _least_squares(design: Tensor, target: Tensor) -> Tensor:
    # On a GPU there is no driver for designs that lack rank, such as those of constant parents.
    found: Tensor = torch.linalg.lstsq(design.cpu(), target.cpu(), driver="gelsd").solution
    return found.to(target)


class Exposure(nn.Module):
    """γ = exp(m(c) + s(c)·h(z, c)) > 0, by which an image is brighter than its brightness says.

    What is white in an image is often one level, the same for all white pixels, and depends on the
    image: after its median has been scaled, say. A decoder that predicts each pixel on its own
    would have to hit that level pixel by pixel, and in low precision cannot; what it misses by is
    common to all white pixels, while their noise should be independent. So it is one number, in
    full precision.

    m and s, polynomials in each of the content's parents c, are the mean and the spread of the log
    of what white is in the training images; they stay as they were fitted, and level off beyond
    2.5 standard deviations. h is learned, starts at 0, and lies in (−4, 4), so that no latent makes
    an image explode; 1 is common.

    Args:
        latent: Size of z.
        content: Size of c, the standardised parents of the content.
        hidden: Width of the one hidden layer of h, beside which z has an affine path.

    Shape:
        ``(*batch, latent)`` and ``(*batch, content)`` -> ``(*batch, 1)``.

    Example:
        >>> Exposure(latent=2, content=0)(torch.ones(3, 2), torch.ones(3, 0)).flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, latent: int, content: int, hidden: int = 64) -> None:
        super().__init__()
        self.direct = nn.Linear(latent, 1)
        last = nn.Linear(hidden, 1)
        for layer in (self.direct, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(nn.Linear(latent + content, hidden), nn.SiLU(), last)
        constant = torch.zeros(1 + _DEGREE * content, 1)
        self.register_buffer("mean", constant.clone())
        self.register_buffer("spread", constant)
        self.spread[0] = 1.0

    def fit(self, white: Tensor, content: Tensor) -> None:
        """Fit m and s.

        Args:
            white: Of each training image the log of its white level over its brightness,
                ``(N, 1)``.
            content: ``(N, content)``.
        """
        powers = _powers(content.clamp(-_REACH, _REACH).double())
        mean = _least_squares(powers, white.double())
        deviation = (white - powers @ mean).abs()
        self.mean.copy_(mean)
        # The mean deviation of a normal law is √(2/π) of the standard deviation.
        self.spread.copy_(math.sqrt(math.pi / 2) * _least_squares(powers, deviation))

    def standardise(self, white: Tensor, content: Tensor) -> Tensor:
        """What h has to be for γ to be white: (log white − m(c)) / s(c), bounded as h is."""
        mean, spread = self._mean_and_spread(content.to(white))
        return _bounded((white - mean) / spread)

    def forward(self, latent: Tensor, content: Tensor) -> Tensor:
        """γ(z, c)."""
        with torch.autocast(latent.device.type, enabled=False):
            content = content.to(latent)
            mean, spread = self._mean_and_spread(content)
            standardised = self.direct(latent) + self.layers(torch.cat([latent, content], dim=-1))
            factor: Tensor = (mean + spread * _bounded(standardised)).exp()
        return factor

    def _mean_and_spread(self, content: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(content.device.type, enabled=False):
            powers = _powers(content.clamp(-_REACH, _REACH))
            spread = (powers @ self.spread.to(content)).clamp(min=_SMALLEST_SPREAD)
            return powers @ self.mean.to(content), spread


def split_context(context: Context, names: Sequence[str]) -> tuple[Context, Context]:
    """The contexts of the parents ``names`` and of all others.

    Raises:
        ValueError: If a name is no parent, or a categorical one.
    """
    for name in names:
        if name not in context.domains:
            raise ValueError(
                f"brightness: expected names of parents, {', '.join(context.domains) or 'none'}, "
                f"but got {name!r}."
            )
        if context.domains[name].categories is not None:
            raise ValueError(f"brightness: expected continuous parents, but {name} is categorical.")
    chosen = {name: domain for name, domain in context.domains.items() if name in names}
    others = {name: domain for name, domain in context.domains.items() if name not in names}
    return Context(chosen), Context(others)
