"""A ladder of stochastic scales, from one vector down to half the resolution of an image.

Bottom-up, an encoder computes features of the image at every scale. Top-down, a state passes from
the coarsest scale to the finest, and receives a latent at each (Sønderby et al. 2016,
arXiv:1602.02282; Child 2021, arXiv:2011.10650). Every residual block on both ways is modulated by
the condition. There is no latent at full resolution, and few, wide blocks: on a processor this is
faster than many narrow ones with as many operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.checks import whole_number, whole_numbers
from deepscm_pl.nn.layers import (
    CONVOLUTIONS,
    call_in_precision,
    depth_to_space,
    end_padding,
    scale_channels,
    space_to_depth,
    spatial_dimensions,
)
from deepscm_pl.nn.modulated import Embedding, Modulation, ResidualBlock, start_unmodulated

__all__ = ["Ladder", "LadderShapes", "Moments", "Rung"]

_MOST_BLOCKS = 100
_LARGEST_LOG_SCALE = 2.0  # of q, for images unlike any in training, and of p


class LadderShapes(NamedTuple):
    """The shapes at the ends of a ladder.

    Attributes:
        image: Shape of one image or volume that is encoded.
        output: Shape of one output, of the same sizes.
        observed: Size of the condition on the way up.
        condition: Size of the condition on the way down.
    """

    image: tuple[int, ...]
    output: tuple[int, ...]
    observed: int
    condition: int


class Moments(NamedTuple):
    """Mean and log standard deviation of a normal distribution, ``(batch, latents, *sizes)``."""

    location: Tensor
    log_scale: Tensor


class _Scale(NamedTuple):
    """One scale: its sizes, channels, latent channels and the kernel of its convolutions."""

    sizes: tuple[int, ...]
    channels: int
    latents: int

    @property
    def dimensions(self) -> int:
        return len(self.sizes)

    @property
    def kernel(self) -> int:
        return 3 if max(self.sizes) > 1 else 1

    def convolution(self, inputs: int, outputs: int, kernel: int | None = None) -> nn.Module:
        size = self.kernel if kernel is None else kernel
        return CONVOLUTIONS[self.dimensions](inputs, outputs, size, padding=size // 2)

    def blocks(self, count: int, condition: int) -> nn.ModuleList:
        return nn.ModuleList(
            ResidualBlock(self.channels, condition, self.dimensions, self.kernel)
            for _ in range(count)
        )


class Ladder(nn.Module):
    """The networks of q(ε | x, pa), of p(z | pa) and of the decoder of z, in one.

    Args:
        shapes: The shapes at both ends.
        has_prior: Whether p(z_l | z_<l, pa) = N(μ, σ²) with moments that depend on the state above;
            otherwise z is standard normal.
        channels: Channels at half, a quarter, … of the sizes, then those of the coarsest scale, one
            vector.
        latents: Channels of the latent at each of these scales; 0 for none.
        blocks: Residual blocks at each scale, on both ways.
        embedding: Size of the embedding of the condition that modulates the blocks.
        separate: Whether each named parent has an embedding of its own, see
            :class:`~deepscm_pl.nn.Embedding`.

    Attributes:
        rungs: The scales on the way down, the coarsest first.
        counts: Number of latent variables at each of them.
        latent: Number of latent variables of all scales.

    Example:
        >>> shapes = LadderShapes((1, 28, 28), (2, 28, 28), observed=3, condition=3)
        >>> ladder = Ladder(shapes, False, channels=(8, 8, 16), latents=(1, 2, 4), embedding=5)
        >>> ladder.latent, [rung.scale.sizes for rung in ladder.rungs]
        (298, [(1, 1), (7, 7), (14, 14)])
    """

    def __init__(
        self,
        shapes: LadderShapes,
        has_prior: bool,
        channels: Sequence[int] = (48, 96, 256),
        latents: Sequence[int] = (1, 4, 32),
        blocks: int = 1,
        embedding: int = 64,
        separate: bool = False,
    ) -> None:
        super().__init__()
        sizes = shapes.image[1:]
        dimensions = spatial_dimensions(shapes.image)
        *below, top = whole_numbers("channels", channels, least=1, fewest=2)
        scale_channels(below, sizes)
        found = whole_numbers("latents", latents, least=0, lengths=(len(channels),))
        blocks = whole_number("blocks", blocks, least=0, most=_MOST_BLOCKS)
        self.sizes, self.padding = sizes, end_padding(sizes, len(below))
        padded = [size + -size % 2 ** len(below) for size in sizes]
        halved = [[size // 2**k for size in padded] for k in range(1, len(below) + 1)]
        # From the finest scale to the coarsest.
        scales = [_Scale(tuple(n), c, z) for n, c, z in zip(halved, below, found, strict=False)]
        scales.append(_Scale((1,) * dimensions, top, found[-1]))
        self.embed_up = Embedding(shapes.observed, embedding, separate)
        self.embed = Embedding(shapes.condition, embedding, separate)
        entries = [shapes.image[0], *below]
        self.encoder = nn.ModuleList(
            _Ascent(count, finer, scale, blocks, self.embed_up.features)
            for count, finer, scale in zip(entries, [None, *scales[:-1]], scales, strict=True)
        )
        condition = self.embed.features
        rungs = [
            Rung(coarser, scale, blocks, condition, has_prior)
            for coarser, scale in zip([None, *scales[:0:-1]], scales[::-1], strict=True)
        ]
        self.rungs = nn.ModuleList(rungs)
        self.modulation = Modulation(scales[0].channels, condition)
        self.last = scales[0].convolution(scales[0].channels, shapes.output[0] * 2**dimensions)
        if separate:
            start_unmodulated(self)
            for rung in rungs:
                if rung.enter_condition is not None:
                    nn.init.zeros_(rung.enter_condition.weight)
        self.counts = tuple(scale.latents * math.prod(scale.sizes) for scale in reversed(scales))
        self.latent = sum(self.counts)

    def encode(self, image: Tensor, condition: Tensor) -> list[Tensor]:
        """Return features of images at each scale, the coarsest first, ``(batch, C, *sizes)``."""
        embedded = self.embed_up(condition)
        hidden, found = functional.pad(image, self.padding), []
        for ascent in self.encoder:
            hidden = ascent(hidden, embedded)
            found.append(hidden)
        return found[::-1]

    def forward(
        self, condition: Tensor, choose: Callable[[int, Rung, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Pass down the ladder, and return the output ``(batch, *output)``.

        Args:
            condition: ``(batch, condition)``.
            choose: Called at each scale that has a latent with its position, the rung, the state
                and the embedded condition; returns z ``(batch, latents, *sizes)``.
        """
        embedded = self.embed(condition)
        state = condition.new_zeros(())
        for position, rung in enumerate(self._descent):
            state = rung.enter(state, embedded)
            if rung.scale.latents:
                state = rung.merged(state, choose(position, rung, state, embedded))
            for block in rung.blocks:
                state = block(state, embedded)
        hidden = functional.silu(self.modulation(state, embedded))
        # The output has grey levels, which low precision would round.
        dtype = next(self.last.parameters()).dtype
        expanded = call_in_precision(self.last, dtype, hidden.to(dtype))
        output: Tensor = depth_to_space(expanded)
        crop: tuple[Any, ...] = tuple(slice(size) for size in self.sizes)
        return output[(..., *crop)]

    def split(self, latent: Tensor) -> list[Tensor]:
        """Return flat latents ``(batch, latent)`` by scale, ``(batch, latents, *sizes)`` each."""
        parts = latent.split(self.counts, dim=-1)
        return [
            part.reshape(len(part), rung.scale.latents, *rung.scale.sizes)
            for part, rung in zip(parts, self._descent, strict=True)
        ]

    @property
    def _descent(self) -> list[Rung]:
        return [rung for rung in self.rungs if isinstance(rung, Rung)]

    def posterior_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that only q depends on."""
        modules: list[nn.Module] = [self.embed_up, self.encoder]
        for rung in self._descent:
            if rung.scale.latents:
                modules += [rung.posterior_in, rung.posterior_out]
        for module in modules:
            yield from module.parameters()


class _Ascent(nn.Module):
    """One scale of the way up: halving, or the map to one vector, then residual blocks."""

    def __init__(
        self, channels: int, finer: _Scale | None, scale: _Scale, blocks: int, condition: int
    ) -> None:
        super().__init__()
        self.is_vector = max(scale.sizes) == 1
        factor = math.prod(finer.sizes) if self.is_vector and finer else 2**scale.dimensions
        self.reduce = scale.convolution(channels * factor, scale.channels)
        self.blocks = scale.blocks(blocks, condition)

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        if self.is_vector:
            features = features.reshape(len(features), -1, *[1] * (features.dim() - 2))
        else:
            features = space_to_depth(features)
        hidden: Tensor = self.reduce(features)
        for block in self.blocks:
            hidden = block(hidden, embedded)
        return hidden


class Rung(nn.Module):
    """One scale of the way down.

    Args:
        coarser: The scale above; None for the coarsest.
        scale: The scale.
        blocks: Residual blocks behind the latent.
        condition: Size of the embedded condition.
        has_prior: Whether there are moments of p(z | state).
    """

    def __init__(
        self, coarser: _Scale | None, scale: _Scale, blocks: int, condition: int, has_prior: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        channels, latents = scale.channels, scale.latents
        self.start = None if coarser else nn.Parameter(torch.zeros(channels))
        self.enter_condition = nn.Linear(condition, channels) if condition else None
        if coarser is not None:
            self.from_vector = max(coarser.sizes) == 1
            outputs = channels * (
                math.prod(scale.sizes) if self.from_vector else 2**scale.dimensions
            )
            self.expand = coarser.convolution(coarser.channels, outputs)
        self.blocks = scale.blocks(blocks, condition)
        if latents:
            self.posterior_in = scale.convolution(2 * channels, channels)
            self.posterior_out = scale.convolution(channels, 2 * latents, 1)
            self.merge = scale.convolution(latents, channels, 1)
        if latents and has_prior:
            self.prior_modulation = Modulation(channels, condition)
            self.prior = scale.convolution(channels, 2 * latents, 1)
        self.has_prior = bool(latents) and has_prior

    def enter(self, state: Tensor, embedded: Tensor) -> Tensor:
        """Return the state ``(batch, channels, *sizes)`` before the latent, from the one above."""
        ones = [1] * self.scale.dimensions
        if self.start is not None:
            hidden = self.start.expand(len(embedded), -1).view(len(embedded), -1, *ones)
        else:
            hidden = self.expand(functional.silu(state))
            if self.from_vector:
                hidden = hidden.reshape(len(hidden), -1, *self.scale.sizes)
            else:
                hidden = depth_to_space(hidden)
        if self.enter_condition is not None:
            shift = self.enter_condition(embedded)
            hidden = hidden + shift.view(*shift.shape, *ones)
        return hidden

    def merged(self, state: Tensor, latent: Tensor) -> Tensor:
        """Return the state with a latent ``(batch, latents, *sizes)`` added to it."""
        found: Tensor = state + self.merge(latent.to(state))
        return found

    def posterior_moments(self, state: Tensor, features: Tensor, dtype: torch.dtype) -> Moments:
        """Return the moments of q(ε_l | ε_<l, x, pa)."""
        joint = torch.cat([state, features.to(state)], dim=1)
        hidden = self.posterior_in(functional.silu(joint))
        found: Tensor = self.posterior_out(functional.silu(hidden))
        location, log_scale = found.to(dtype).chunk(2, dim=1)
        return Moments(location, log_scale.clamp(max=_LARGEST_LOG_SCALE))

    def latent_of(self, noise: Tensor, state: Tensor, embedded: Tensor) -> Tensor:
        """Return z_l = μ + σ·ε_l, with the moments of p(z_l | z_<l, pa); ε_l without a prior."""
        if not self.has_prior:
            return noise
        location, scale = self._prior_moments(noise, state, embedded)
        return torch.addcmul(location, scale, noise)

    def noise_of(self, latent: Tensor, state: Tensor, embedded: Tensor) -> Tensor:
        """Return ε_l = (z_l − μ)/σ, the inverse of :meth:`latent_of`."""
        if not self.has_prior:
            return latent
        location, scale = self._prior_moments(latent, state, embedded)
        return (latent - location) / scale

    def _prior_moments(
        self, like: Tensor, state: Tensor, embedded: Tensor
    ) -> tuple[Tensor, Tensor]:
        hidden = functional.silu(self.prior_modulation(state, embedded))
        location, log_scale = self.prior(hidden).to(like).chunk(2, dim=1)
        # Bounded, so that z of an unusual image stays finite under unusual parents.
        return location, (_LARGEST_LOG_SCALE * torch.tanh(log_scale / _LARGEST_LOG_SCALE)).exp()
