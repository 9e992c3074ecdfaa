"""Laws of whole grey levels: a continuous law, integrated over the cell of each level.

With uniform dequantisation noise a recorded level k becomes x in [k, k + 1), and a law P of levels
becomes a density that is constant on each cell. Its distribution function F is piecewise linear, so

    u = Φ⁻¹(F(x)),    F(x) = Σ_{i<k} P(i) + (x − k)·P(k)

is an invertible map between x and standard normal noise: u is exactly inferred from x, and the
uniform dequantisation noise makes it a draw from the posterior of u given the recorded level.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform
from torch.distributions.transforms import identity_transform

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.likelihoods.base import Likelihood, SoftFloor

__all__ = ["DiscretisedGaussian", "DiscretisedLikelihood", "DiscretisedLogisticMixture"]


_BLOCKS = {"cpu": 2**16}
_BLOCK_ELSEWHERE = 2**24
"""Components of pixels that are computed at a time: on a processor what fits its cache."""

_SMALLEST_PLACE = 1e-6
"""Of a value in its cell, from either end: more than rounding in double precision can cross."""

_ACCURACY = 1e-15
"""Absolute accuracy of probabilities."""


class _Components(NamedTuple):
    """Weights, locations (grey levels) and 1/scales of K components, ``(*batch, K, C, H, W)``."""

    weight: Tensor
    location: Tensor
    inverse_scale: Tensor

    def at(self, where: Tensor, shape: torch.Size) -> _Components:
        """Those of some pixels, ``(K, 1, 1, N)``.

        Args:
            where: Positions among all pixels of ``shape``, ``(N,)``.
            shape: ``(batch, C, H, W)``.
        """
        batch, *plane = shape
        parts = (part.expand(batch, -1, *plane).transpose(0, 1).flatten(1) for part in self)
        return _Components(*(part[:, where][:, None, None] for part in parts))


class _LevelCell(NamedTuple):
    """A level k, F(k) and F(k + 1), ``(*batch, C, H, W)``."""

    level: Tensor
    start: Tensor
    end: Tensor


class DiscretisedLikelihood(Likelihood):
    """P(k) = (1 − ε)·Σ_j w_j·(F_j(k + 1) − F_j(k)) + ε/L for each pixel, levels k = 0, …, L − 1.

    F_j is the distribution function of a component over continuous grey levels, where level k
    occupies [k, k + 1); the first and the last level take its tails. y is the image in grey levels,
    [0, L), without preprocessing. Subclasses give the components and F.

    The uniform share ε makes every level probable enough for its noise to be told apart from that
    of its neighbours in single precision: an inferred u gives back the recorded level, always. It
    costs at most −log(1 − ε) nats per pixel, 0.08 nats for 28 × 28 pixels at ε = 10⁻⁴, and bounds
    the surprise of one pixel by log(L/ε), 14.8 nats.

    Args:
        shape: Shape of one image, (channels C, height H, width W), in pixels.
        levels: L, the number of grey levels.
        num_components: K.
        smallest_scale: Lower bound of the components' scales in grey levels, approached smoothly.
        uniform_weight: ε.
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.
        brightness: Names of the parents whose only effect is to scale the grey levels
            (:class:`~deepscm_pl.mechanisms.Brightness`): locations are put between black and β·L,
            where they saturate, and scales are multiplied by β, so that β scales every quantile of
            every pixel, down to the smallest scale.

    Raises:
        ValueError: If there is no component, or the scale or the weight is out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        num_components: int = 1,
        smallest_scale: float = 0.1,
        uniform_weight: float = 1e-4,
        temperature: float = 1.0,
        brightness: Sequence[str] = (),
    ) -> None:
        super().__init__(shape, levels, temperature)
        self.brightness = tuple(brightness)
        self.num_components = whole_number("num_components", num_components, least=1)
        real_number("smallest_scale", smallest_scale, above=0)
        hint = "with less, single precision cannot tell the noise of two levels apart"
        self.uniform_weight = real_number(
            "uniform_weight", uniform_weight, least=1e-4, below=1, hint=hint
        )
        # At a decoder's output of 0, components spread over all levels and reach their neighbours.
        start = max(levels / (2 * num_components), 2 * smallest_scale)
        self.log_scale = SoftFloor(math.log(start), math.log(smallest_scale), "log_scale")

    @abstractmethod
    def components(self, decoded: Tensor) -> _Components:
        """The components of every pixel."""

    @staticmethod
    @abstractmethod
    def distribution(z: Tensor) -> Tensor:
        """The standard distribution function, of small relative error where it is small."""

    @staticmethod
    @abstractmethod
    def mass(low: Tensor, high: Tensor) -> Tensor:
        """F(high) − F(low) ≥ 0 of the standard law, of small relative error in both tails."""

    def preprocessing(self, alpha: float) -> Transform:
        """None: y is the image in continuous grey levels, [0, L)."""
        return identity_transform

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """y = F⁻¹(Φ(u)): the level by bisection, then the place within its cell."""
        return self._in_blocks(self._value_of, decoded, noise)

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """u = Φ⁻¹(F(y)), a number whose Φ lies inside of the cell of the level, always."""
        return self._in_blocks(self._noise_of, decoded, value)

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Σ log P(⌊y⌋) over channels and pixels; a cell has width 1, so this is a density, too."""
        probability = self._probability(self.components(decoded), self._level(value))
        inside = (value >= 0) & (value < self.levels)
        return probability.log().where(inside, -math.inf).flatten(-3).sum(-1)

    def _level(self, value: Tensor) -> Tensor:
        return value.detach().floor().clamp(0, self.levels - 1)

    def _in_blocks(
        self, function: Callable[[Tensor, Tensor], Tensor], decoded: Tensor, image: Tensor
    ) -> Tensor:
        """``function`` of some images, or of some lines of one, at a time: memory stays small.

        The many numbers of each pixel in double precision stay in the processor's cache, too.
        """
        batch = torch.broadcast_shapes(decoded.shape[:-3], image.shape[:-3])
        plane = torch.broadcast_shapes(decoded.shape[-2:], image.shape[-2:])
        decoded = decoded.expand(*batch, -1, *plane).reshape(-1, decoded.shape[-3], *plane)
        image = image.expand(*batch, -1, *plane).reshape(-1, image.shape[-3], *plane)
        line = self.num_components * self.channels * plane[1]
        block = _BLOCKS.get(decoded.device.type, _BLOCK_ELSEWHERE)
        rows, lines = max(block // (line * plane[0]), 1), max(block // line, 1)
        found = [
            torch.cat(list(map(function, some.split(lines, -2), of.split(lines, -2))), dim=-2)
            for some, of in zip(decoded.split(rows), image.split(rows), strict=True)
        ]
        return torch.cat(found).reshape(*batch, self.channels, *plane)

    def _value_of(self, decoded: Tensor, noise: Tensor) -> Tensor:
        components = self._exact_components(decoded)
        exact = noise.double()
        probability = _normal_distribution(exact)
        level, start, end = self._cell_of(components, probability)
        place = torch.where(
            exact <= 0,
            (probability - start) / (end - start),
            1 - (_normal_distribution(-exact) - (1 - end)) / (end - start),
        )
        # The sum stays below the next level in floating point.
        largest = 1 - self.levels * torch.finfo(noise.dtype).eps
        return (level + place.clamp(0, largest)).to(noise)

    def _noise_of(self, decoded: Tensor, value: Tensor) -> Tensor:
        components = self._exact_components(decoded)
        level = self._level(value).double()
        start, end = self._below(components, level), self._below(components, level + 1)
        place = (value - level).clamp(_SMALLEST_PLACE, 1 - _SMALLEST_PLACE)
        below = start + place * (end - start)
        above = (1 - end) + (1 - place) * (end - start)
        noise = _normal_quantile(below, above).to(value)
        return _moved_inside(noise, start, end.masked_fill(level >= self.levels - 1, math.inf))

    def _exact_components(self, decoded: Tensor) -> _Components:
        """In double precision: levels of probability ε/L next to the median are 10⁻⁶ of u apart."""
        weight, location, inverse_scale = (part.double() for part in self.components(decoded))
        # Weights that sum to 1 in single precision do not in double.
        return _Components(weight / weight.sum(-4, keepdim=True), location, inverse_scale)

    def _probability(self, components: _Components, level: Tensor) -> Tensor:
        """P(level), ``(*batch, C, H, W)``."""
        weight, location, inverse_scale = components
        level = level.unsqueeze(-4)
        low = (level - location) * inverse_scale
        high = (low + inverse_scale).masked_fill(level >= self.levels - 1, math.inf)
        mass = self.mass(low.masked_fill(level <= 0, -math.inf), high)
        return self._with_uniform((weight * mass).sum(-4), 1.0)

    def _below(self, components: _Components, edge: Tensor) -> Tensor:
        """F at ``edge`` in {0, …, L}, ``(*batch, C, H, W)``.

        No level is less probable than ε/L: in double precision 1 − F and the differences of F
        between levels are accurate, too.
        """
        weight, location, inverse_scale = components
        z = (edge.unsqueeze(-4) - location) * inverse_scale
        below = self._with_uniform((weight * self.distribution(z)).sum(-4), edge)
        return below.masked_fill(edge <= 0, 0).masked_fill(edge >= self.levels, 1)

    def _with_uniform(self, probability: Tensor, count: Tensor | float) -> Tensor:
        """The mixture with the uniform law of ``count`` levels."""
        share = self.uniform_weight / self.levels
        return (1 - self.uniform_weight) * probability + share * count

    def _cell_of(self, components: _Components, probability: Tensor) -> _LevelCell:
        """The largest level k with F(k) ≤ ``probability``, and F(k) and F(k + 1)."""
        # Most pixels of most images are black: whatever is above is looked for in the others.
        level = torch.zeros_like(probability)
        start, end = torch.zeros_like(probability), self._below(components, level + 1)
        bright = end <= probability
        where = bright.flatten().nonzero().squeeze(-1)
        if len(where) == 0:
            return _LevelCell(level, start, end)
        chosen = components.at(where, probability.shape)
        wanted = probability.flatten()[where].view(1, 1, -1)
        with torch.no_grad():
            found = self._search(chosen, wanted)
        return _LevelCell(
            level.masked_scatter(bright, found),
            start.masked_scatter(bright, self._below(chosen, found)),
            end.masked_scatter(bright, self._below(chosen, found + 1)),
        )

    def _search(self, components: _Components, probability: Tensor) -> Tensor:
        """The level of :meth:`_cell_of`: bisection in single precision, then exact steps."""
        level = self._approximate_level(components, probability)
        while True:
            above = self._below(components, level + 1) <= probability
            below = self._below(components, level) > probability
            step = (above & (level < self.levels - 1)).to(level) - (below & (level > 0)).to(level)
            if not bool(step.any()):
                return level
            level = level + step

    def _approximate_level(self, components: _Components, probability: Tensor) -> Tensor:
        """By the distribution function of the side on which the noise is, where it is small.

        There F(k) ≤ p is (1 − ε)·Σ_j w_j·F_j(k) + k·ε/L ≤ p below the median, and above it the
        same of 1 − F and 1 − p, with all signs changed.
        """
        weight, location, inverse_scale = (part.float() for part in components)
        upper = probability > 0.5
        side = torch.where(upper, -1.0, 1.0).to(weight)
        share = self.uniform_weight / self.levels
        wanted = torch.where(upper, probability - 1 + self.uniform_weight, probability).to(weight)
        slope = side.unsqueeze(-4) * inverse_scale
        start = -location * slope
        weight = (1 - self.uniform_weight) * side.unsqueeze(-4) * weight
        level = torch.zeros_like(wanted)
        for power in reversed(range(math.ceil(math.log2(self.levels)))):
            higher = level + 2**power
            found = (weight * self.distribution(start + higher.unsqueeze(-4) * slope)).sum(-4)
            level = torch.where(found + share * higher <= wanted, higher, level)
        return level.clamp(max=self.levels - 1).to(probability)


class DiscretisedGaussian(DiscretisedLikelihood):
    """One Gaussian for each pixel, its location and scale predicted by the decoder.

    The decoder gives a in the first C channels and b in the rest: the location is L·(½ + a/2) grey
    levels, the scale L/2 where b = 0, and e times that for each further unit of b.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: L, the number of grey levels.
        smallest_scale: Lower bound of the scale in grey levels.
        uniform_weight: ε.
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.
        brightness: Names of the parents that scale the grey levels; see
            :class:`DiscretisedLikelihood`.

    Example:
        >>> likelihood = DiscretisedGaussian((1, 1, 1))
        >>> likelihood.noise_free(torch.zeros(2, 1, 1)).round()
        tensor([[[128.]]])
    """

    outputs_per_channel = 2

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        smallest_scale: float = 0.1,
        uniform_weight: float = 1e-4,
        temperature: float = 1.0,
        brightness: Sequence[str] = (),
    ) -> None:
        super().__init__(shape, levels, 1, smallest_scale, uniform_weight, temperature, brightness)

    def components(self, decoded: Tensor) -> _Components:
        """One component, of weight 1."""
        offset, raw = decoded.unflatten(-3, (2, 1, self.channels)).unbind(-5)
        location = self.levels * (0.5 + 0.5 * offset)
        return _Components(decoded.new_ones(1, 1, 1, 1), location, (-self.log_scale(raw)).exp())

    def scaled(self, decoded: Tensor, factor: Tensor) -> Tensor:
        """The location L·β·σ(a), β the factor, and the scale times β."""
        offset, raw = decoded.unflatten(-3, (2, 1, self.channels)).unbind(-5)
        offset, raw = _scaled(offset, raw, decoded.new_tensor(0.5), factor)
        return torch.stack(torch.broadcast_tensors(offset, raw), dim=-5).flatten(-5, -3)

    @staticmethod
    def distribution(z: Tensor) -> Tensor:
        """Φ."""
        return _normal_distribution(z)

    @staticmethod
    def mass(low: Tensor, high: Tensor) -> Tensor:
        """The difference of Φ, taken in the tail where it does not cancel."""
        sign = torch.where(low + high > 0, -1.0, 1.0).to(low)
        return (_normal_distribution(sign * high) - _normal_distribution(sign * low)).abs()


class DiscretisedLogisticMixture(DiscretisedLikelihood):
    """K logistic laws for each pixel, all predicted by the decoder.

    As in PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517, section 2.1), but independent between
    channels. The decoder gives logits of the weights, a_j and b_j in three blocks of K·C channels:
    the location of component j is L·((j + ½)/K + a_j/2) grey levels, so that zeros spread the
    components over the range, and its scale L/(2K) where b_j = 0, e times that for each further
    unit.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: L, the number of grey levels.
        num_components: K.
        smallest_scale: Lower bound of the scales in grey levels.
        uniform_weight: ε.
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.
        brightness: Names of the parents that scale the grey levels; see
            :class:`DiscretisedLikelihood`.

    Example:
        >>> likelihood = DiscretisedLogisticMixture((1, 2, 2), num_components=3)
        >>> decoded, image = torch.randn(4, 9, 2, 2), torch.full((4, 1, 2, 2), 17.5)
        >>> again = likelihood(decoded, likelihood.abduct(decoded, image))
        >>> torch.equal(again.floor(), image.floor())
        True
    """

    offsets: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        num_components: int = 5,
        smallest_scale: float = 0.1,
        uniform_weight: float = 1e-4,
        temperature: float = 1.0,
        brightness: Sequence[str] = (),
    ) -> None:
        super().__init__(
            shape, levels, num_components, smallest_scale, uniform_weight, temperature, brightness
        )
        self.outputs_per_channel = 3 * num_components
        offsets = (torch.arange(num_components) + 0.5) / num_components
        self.register_buffer("offsets", offsets.view(-1, 1, 1, 1), persistent=False)

    def components(self, decoded: Tensor) -> _Components:
        """K components, their weights by softmax."""
        parts = decoded.unflatten(-3, (3, self.num_components, self.channels))
        logit, offset, raw = parts.unbind(-5)
        location = self.levels * (self.offsets + 0.5 * offset)
        return _Components(logit.softmax(-4), location, (-self.log_scale(raw)).exp())

    def scaled(self, decoded: Tensor, factor: Tensor) -> Tensor:
        """Locations L·β·σ(a_j + logit((j + ½)/K)), β the factor, and scales times β."""
        parts = decoded.unflatten(-3, (3, self.num_components, self.channels))
        logit, offset, raw = parts.unbind(-5)
        offset, raw = _scaled(offset, raw, self.offsets, factor)
        parts = torch.stack(torch.broadcast_tensors(logit, offset, raw), dim=-5)
        return parts.flatten(-5, -3)

    @staticmethod
    def distribution(z: Tensor) -> Tensor:
        """The logistic function."""
        return z.sigmoid()

    @staticmethod
    def mass(low: Tensor, high: Tensor) -> Tensor:
        """σ(high)·σ(−low)·(1 − exp(low − high)), a product that nothing cancels in."""
        return high.sigmoid() * (-low).sigmoid() * -torch.expm1(low - high)


def _normal_distribution(z: Tensor) -> Tensor:
    # torch.special.ndtr is 1 + erf, which loses the lower tail.
    return 0.5 * torch.erfc(-z * math.sqrt(0.5))


def _normal_quantile(below: Tensor, above: Tensor) -> Tensor:
    """Φ⁻¹ of a probability given with its complement, accurate in both tails."""
    lower = below <= above
    smaller = torch.where(lower, below, above)
    quantile = torch.special.ndtri(smaller)
    return torch.where(lower, quantile, -quantile)


def _moved_inside(noise: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """``noise``, moved by its smallest step where rounding took Φ of it out of [start, end).

    By more than the last digits of ``start`` and ``end``, which may depend on how many are computed
    at once.
    """
    with torch.no_grad():
        probability = _normal_distribution(noise.double())
        infinity = torch.full_like(noise, math.inf)
        higher = torch.nextafter(noise, infinity)
        lower = torch.nextafter(noise, -infinity)
        too_low, too_high = probability < start + _ACCURACY, probability >= end - _ACCURACY
    return torch.where(too_high, lower, torch.where(too_low, higher, noise))


def _scaled(offset: Tensor, raw: Tensor, middle: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs for locations and scales, such that the location is L·(middle + offset/2)."""
    share = factor.unsqueeze(-4)
    location = share * (offset + middle.logit()).sigmoid()
    return 2 * (location - middle), raw + share.log()
