"""Distributions of whole grey levels: continuous densities, integrated over the cell of a level.

With uniform dequantisation noise a recorded level k becomes x in [k, k + 1), and a distribution P
of levels becomes a density that is constant on each cell. Its distribution function F is piecewise
linear, so that

    u = Φ⁻¹(F(x)),    F(x) = Σ_{i<k} P(i) + (x − k)·P(k)

is an invertible map between x and standard normal noise: u is inferred exactly from x, and with
uniform dequantisation noise it is a draw from its posterior given the recorded level.
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
from deepscm_pl.transforms.cells import normal_distribution
from deepscm_pl.variables import common_shape

__all__ = ["DiscretisedGaussian", "DiscretisedLikelihood", "DiscretisedLogisticMixture"]

_CPU_BLOCK, _GPU_BLOCK = 2**16, 2**24  # components of pixels at a time; on a CPU they fit the cache
_SMALLEST_OFFSET = 1e-6  # from both ends of a cell, more than the rounding of double precision
_MOST_COMPONENTS = 1_000
_ACCURACY = 1e-15  # absolute accuracy of probabilities


class _Components(NamedTuple):
    """Weights, locations (grey levels) and 1/scales of K components, ``(*batch, K, C, H, W)``."""

    weight: Tensor
    location: Tensor
    inverse_scale: Tensor

    def at(self, where: Tensor, shape: torch.Size) -> _Components:
        """The components ``(K, 1, 1, N)`` of the pixels ``where``, ``(N,)``, of all images."""
        batch, *plane = shape
        parts = (part.expand(batch, -1, *plane).transpose(0, 1).flatten(1) for part in self)
        return _Components(*(part[:, where][:, None, None] for part in parts))


class DiscretisedLikelihood(Likelihood):
    """A mixture over whole grey levels for each pixel, integrated over the cell of each level.

    P(k) = (1 − ε)·Σ_j w_j·(F_j(k + 1) − F_j(k)) + ε/L, levels k = 0, …, L − 1. F_j is the
    distribution function of a component over continuous grey levels, in which level k occupies
    [k, k + 1); the first and the last level include its tails. y is the image in grey levels,
    [0, L), without preprocessing. Subclasses define the distribution function.

    The decoder predicts logits of the weights (of mixtures only), a_j and b_j in blocks of K·C
    channels. The location of component j is L·((j + ½)/K + a_j/2) grey levels, so that zeros spread
    the components over the range, and its scale is L/(2K) at b_j = 0, times e for each further
    unit.

    The uniform share ε makes every level probable enough for single precision to separate its noise
    from that of its neighbours: an inferred u always returns the recorded level. It costs at most
    −log(1 − ε) nats per pixel, 0.08 nats for 28 × 28 pixels at ε = 10⁻⁴.

    Args:
        num_components: K, the number of components.
        smallest_scale: Lower bound of the scales of components in grey levels, approached smoothly.
        uniform_weight: ε, at least 10⁻⁴.
        brightness: Names of the parents whose only effect is to scale the grey levels by β
            (:class:`~deepscm_pl.mechanisms.Brightness`): locations lie between black and β·L, and
            scales are multiplied by β, down to the smallest scale.
        exposure: Whether the scale of the grey levels of each image is one number γ, a function of
            its latent and of all parents (:class:`~deepscm_pl.mechanisms.Exposure`). It does not
            say which parents act on it, and is included in ``brightness``.
    """

    middles: Tensor
    elementwise = True
    variance: float = 1.0
    """Variance of the standard distribution."""
    _predicts_weights = True

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        num_components: int = 5,
        smallest_scale: float = 0.1,
        uniform_weight: float = 1e-4,
        temperature: float = 1.0,
        brightness: Sequence[str] = (),
        exposure: bool = False,
    ) -> None:
        super().__init__(shape, levels, temperature)
        self.brightness = tuple(brightness)
        self.exposure = exposure or bool(brightness)
        self.num_components = whole_number(
            "num_components", num_components, least=1, most=_MOST_COMPONENTS
        )
        real_number("smallest_scale", smallest_scale, above=0)
        hint = "with less, single precision cannot separate the noise of two levels"
        self.uniform_weight = real_number(
            "uniform_weight", uniform_weight, least=1e-4, below=1, hint=hint
        )
        self.outputs_per_channel = (3 if self._predicts_weights else 2) * num_components
        middles = torch.tensor([(k + 0.5) / num_components for k in range(num_components)])
        self.register_buffer("middles", middles.view(-1, 1, 1, 1), persistent=False)
        start = max(levels / (2 * num_components), 2 * smallest_scale)
        self.log_scale = SoftFloor(math.log(start), math.log(smallest_scale), "log_scale")

    @staticmethod
    @abstractmethod
    def distribution(z: Tensor) -> Tensor:
        """Return the standard distribution function, with high relative accuracy."""

    @staticmethod
    @abstractmethod
    def mass(low: Tensor, high: Tensor) -> Tensor:
        """Return F(high) − F(low) ≥ 0 of the standard distribution, accurate in both tails."""

    def components(self, decoded: Tensor) -> _Components:
        """Return the components of every pixel."""
        *logits, offset, raw = self._blocks(decoded)
        weight = logits[0].softmax(-4) if logits else decoded.new_ones(1, 1, 1, 1)
        location = self.levels * (self.middles + 0.5 * offset)
        return _Components(weight, location, (-self.log_scale(raw)).exp())

    def scaled(self, decoded: Tensor, factor: Tensor) -> Tensor:
        """Return outputs for locations L·β·σ(a_j + logit((j + ½)/K)) and scales times β."""
        *logits, offset, raw = self._blocks(decoded)
        share = factor.unsqueeze(-4)
        location = share * (offset + self.middles.logit()).sigmoid()
        blocks = (*logits, 2 * (location - self.middles), raw + share.log())
        return torch.stack(torch.broadcast_tensors(*blocks), dim=-5).flatten(-5, -3)

    def _blocks(self, decoded: Tensor) -> tuple[Tensor, ...]:
        return decoded.unflatten(-3, (-1, self.num_components, self.channels)).unbind(-5)

    def preprocessing(self, alpha: float) -> Transform:
        """Return the identity: y is the image in continuous grey levels, [0, L)."""
        return identity_transform

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """Return y = F⁻¹(Φ(u)): the level by bisection, then the position in its cell."""
        return self._in_blocks(self._value_of, decoded, noise)

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Return u = Φ⁻¹(F(y)), with Φ(u) always inside of the cell of the level."""
        return self._in_blocks(self._noise_of, decoded, value)

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Return Σ log P(⌊y⌋) over channels and pixels, also a density since cells have width 1."""
        probability = self._probability(self.components(decoded), self._level(value))
        inside = (value >= 0) & (value < self.levels)
        return probability.log().where(inside, -math.inf).flatten(-3).sum(-1)

    def abduct_recorded(self, decoded: Tensor, image: Tensor, transform: Transform) -> Tensor:
        """Draw u: the density is constant within levels, so that dequantisation is exact."""
        return self.abduct(decoded, image)

    def moments(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the mixture, with tails beyond [0, L)."""
        weight, location, inverse_scale = self.components(decoded)
        mean = (weight * location).sum(-4)
        variance = (self.variance / inverse_scale.square()).expand_as(location)
        spread = (location - mean.unsqueeze(-4)).square() + variance
        return mean, (weight * spread).sum(-4).sqrt()

    def log_prob_recorded(self, decoded: Tensor, levels: Tensor, transform: Transform) -> Tensor:
        """Return log P(recorded grey levels), the density as well."""
        return self.log_prob(decoded, levels)

    def _level(self, value: Tensor) -> Tensor:
        return value.detach().floor().clamp(0, self.levels - 1)

    def _in_blocks(
        self, function: Callable[[Tensor, Tensor], Tensor], decoded: Tensor, image: Tensor
    ) -> Tensor:
        """Apply ``function`` to a few images, or a few rows of one, at a time, to save memory."""
        batch = common_shape(decoded.shape[:-3], image.shape[:-3])
        plane = common_shape(decoded.shape[-2:], image.shape[-2:])
        decoded = decoded.expand(*batch, -1, *plane).reshape(-1, decoded.shape[-3], *plane)
        image = image.expand(*batch, -1, *plane).reshape(-1, image.shape[-3], *plane)
        row_size = self.num_components * self.channels * plane[1]
        block = _CPU_BLOCK if decoded.device.type == "cpu" else _GPU_BLOCK
        images, rows = max(block // (row_size * plane[0]), 1), max(block // row_size, 1)
        results = [
            torch.cat([*map(function, outputs.split(rows, -2), part.split(rows, -2))], dim=-2)
            for outputs, part in zip(decoded.split(images), image.split(images), strict=True)
        ]
        return torch.cat(results).reshape(*batch, self.channels, *plane)

    def _value_of(self, decoded: Tensor, noise: Tensor) -> Tensor:
        components = self._exact_components(decoded)
        exact = noise.double()
        probability = normal_distribution(exact)
        level, start, end = self._cell_of(components, probability)
        offset = torch.where(
            exact <= 0,
            (probability - start) / (end - start),
            1 - (normal_distribution(-exact) - (1 - end)) / (end - start),
        )
        # The sum stays below the next level in floating point.
        largest = 1 - self.levels * torch.finfo(noise.dtype).eps
        return (level + offset.clamp(0, largest)).to(noise)

    def _noise_of(self, decoded: Tensor, value: Tensor) -> Tensor:
        components = self._exact_components(decoded)
        level = self._level(value).double()
        start, end = self._below(components, level), self._below(components, level + 1)
        offset = (value - level).clamp(_SMALLEST_OFFSET, 1 - _SMALLEST_OFFSET)
        below = start + offset * (end - start)
        above = (1 - end) + (1 - offset) * (end - start)
        noise = _normal_quantile(below, above).to(value)
        return _move_inside(noise, start, end.masked_fill(level >= self.levels - 1, math.inf))

    def _exact_components(self, decoded: Tensor) -> _Components:
        """The components in double precision, because levels may be only 10⁻⁶ apart in u."""
        weight, location, inverse_scale = (part.double() for part in self.components(decoded))
        # Weights that sum to 1 in single precision do not sum to 1 in double precision.
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
        """F at ``edge`` in {0, …, L}, ``(*batch, C, H, W)``."""
        weight, location, inverse_scale = components
        z = (edge.unsqueeze(-4) - location) * inverse_scale
        below = self._with_uniform((weight * self.distribution(z)).sum(-4), edge)
        return below.masked_fill(edge <= 0, 0).masked_fill(edge >= self.levels, 1)

    def _with_uniform(self, probability: Tensor, count: Tensor | float) -> Tensor:
        """A probability of ``count`` levels, mixed with their uniform probability."""
        share = self.uniform_weight / self.levels
        return (1 - self.uniform_weight) * probability + share * count

    def _cell_of(self, components: _Components, probability: Tensor) -> tuple[Tensor, ...]:
        """The largest level k with F(k) ≤ ``probability``, F(k) and F(k + 1)."""
        # Most pixels of most images are black; only the others need a search.
        level = torch.zeros_like(probability)
        start, end = torch.zeros_like(probability), self._below(components, level + 1)
        bright = end <= probability
        where = bright.flatten().nonzero().squeeze(-1)
        if len(where) == 0:
            return level, start, end
        chosen = components.at(where, probability.shape)
        wanted = probability.flatten()[where].view(1, 1, -1)
        with torch.no_grad():
            found = self._search(chosen, wanted)
        start = start.masked_scatter(bright, self._below(chosen, found))
        end = end.masked_scatter(bright, self._below(chosen, found + 1))
        return level.masked_scatter(bright, found), start, end

    def _search(self, components: _Components, probability: Tensor) -> Tensor:
        """The level of :meth:`_cell_of`, by bisection in single precision, then exact steps."""
        level = self._approximate_level(components, probability)
        while True:
            above = self._below(components, level + 1) <= probability
            below = self._below(components, level) > probability
            step = (above & (level < self.levels - 1)).to(level) - (below & (level > 0)).to(level)
            if not bool(step.any()):
                return level
            level = level + step

    def _approximate_level(self, components: _Components, probability: Tensor) -> Tensor:
        """The level by bisection, of F and p below the median, and of 1 − F and 1 − p above it."""
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
    """One Gaussian for each pixel; the decoder predicts its location and scale."""

    _predicts_weights = False

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        smallest_scale: float = 0.1,
        uniform_weight: float = 1e-4,
        temperature: float = 1.0,
        brightness: Sequence[str] = (),
        exposure: bool = False,
    ) -> None:
        settings = (smallest_scale, uniform_weight, temperature, brightness, exposure)
        super().__init__(shape, levels, 1, *settings)

    @staticmethod
    def distribution(z: Tensor) -> Tensor:
        """Return Φ(z)."""
        return normal_distribution(z)

    @staticmethod
    def mass(low: Tensor, high: Tensor) -> Tensor:
        """Return Φ(high) − Φ(low), computed in the tail without cancellation."""
        sign = torch.where(low + high > 0, -1.0, 1.0).to(low)
        return (normal_distribution(sign * high) - normal_distribution(sign * low)).abs()


class DiscretisedLogisticMixture(DiscretisedLikelihood):
    """A mixture of K logistic distributions for each pixel, all predicted by the decoder.

    This is the likelihood of PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517, section 2.1), but
    with independent channels.
    """

    variance = math.pi**2 / 3

    @staticmethod
    def distribution(z: Tensor) -> Tensor:
        """Return the logistic function of z."""
        return z.sigmoid()

    @staticmethod
    def mass(low: Tensor, high: Tensor) -> Tensor:
        """Return σ(high)·σ(−low)·(1 − exp(low − high)), without cancellation."""
        return high.sigmoid() * (-low).sigmoid() * -torch.expm1(low - high)


def _normal_quantile(below: Tensor, above: Tensor) -> Tensor:
    """Φ⁻¹ of a probability given with its complement, accurate in both tails."""
    lower = below <= above
    smaller = torch.where(lower, below, above)
    quantile = torch.special.ndtri(smaller)
    return torch.where(lower, quantile, -quantile)


def _move_inside(noise: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """``noise``, moved by one float where rounding took Φ(u) out of [start, end).

    Differences in the last digits of ``start`` and ``end`` are ignored, because these may depend on
    the size of the batch.
    """
    with torch.no_grad():
        probability = normal_distribution(noise.double())
        infinity = torch.full_like(noise, math.inf)
        higher = torch.nextafter(noise, infinity)
        lower = torch.nextafter(noise, -infinity)
        too_low, too_high = probability < start + _ACCURACY, probability >= end - _ACCURACY
    return torch.where(too_high, lower, torch.where(too_low, higher, noise))
