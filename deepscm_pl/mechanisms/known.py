"""Mechanisms of known worlds: flows of given transforms, in double precision, without learning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.distributions import (
    Bernoulli,
    Categorical,
    Normal,
    TorchDistribution,
    TransformedDistribution,
)
from scipy import special
from torch import Tensor
from torch.distributions import Transform, constraints

from deepscm_pl.likelihoods.base import standard_normal_log_prob
from deepscm_pl.mechanisms.base import Context, Mechanism
from deepscm_pl.variables import Domain, Noise, Variables

__all__ = ["GammaScore", "Given", "Known", "KnownClass", "KnownCoin", "Layers", "Logistic"]

Layers: TypeAlias = Callable[[Variables], Sequence[Transform]]
"""From the values of the parents to elementwise transforms, the one nearest to the noise first."""

_LARGEST_NOISE = 40.0  # double precision cannot represent the tail probability beyond


class Given(Mechanism):
    """x := f(u; pa), u ~ N(0, 1), without learned parameters.

    Values are in double precision for parents of any precision. The domain contains the values that
    can be set by an intervention and drawn. The mechanism may *produce* fewer; outside of those the
    log-density is minus infinity.

    Args:
        domain: The values that can be drawn.
    """

    _device: Tensor
    dtype = torch.float64

    def __init__(self, context: Context, domain: Domain) -> None:
        super().__init__(context)
        self._domain = domain
        self.register_buffer("_device", torch.zeros(()), persistent=False)

    @property
    def domain(self) -> Domain:
        """The values that can be drawn."""
        return self._domain

    @abstractmethod
    def infer(self, value: Tensor, parents: Variables) -> Tensor:
        """Return the noise u of ``value``; NaN or infinite if there is none."""

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Return the noise of ``value``; see :meth:`check_explained` for values without noise."""
        noise = self.infer(value.double(), _double(parents))
        return {"u": noise.expand(*sample_shape, *noise.shape)}

    def check_explained(self, name: str, value: Tensor, noise: Noise) -> None:
        """Raise a ValueError if the mechanism does not produce a value for any noise."""
        unexplained = ~noise["u"].isfinite()
        if bool(unexplained.any()):
            place = unexplained.nonzero()[0].tolist()
            found = value.expand(unexplained.shape)[tuple(place)].item()
            raise ValueError(
                f"{name}: expected values that its mechanism produces, but got {found:g} in row "
                f"{place[-2]}, which no noise explains; leave such rows out."
            )

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Do nothing: no parameter depends on data."""


class Known(Given):
    """x := T(u; pa), u ~ N(0, 1), with a given sequence of elementwise transforms T.

    log p(x | pa) = log N(u; 0, 1) − log |dx/du|, and minus infinity for values that T does not
    produce. The coupling is given: monotone, for the increasing transforms of the known worlds.

    Args:
        layers: From the values of the parents to T, the transform nearest to the noise first.
        domain: The values that can be drawn; all, by default.

    Example:
        >>> from torch.distributions import AffineTransform, ExpTransform
        >>> def layers(parents):
        ...     return [AffineTransform(0.5 * parents["age"], 2.0), ExpTransform()]
        >>> volume = Known(Context({"age": Domain()}), layers, Domain(lower=0.0, open=True))
        >>> volume({"u": torch.tensor([[0.0]])}, {"age": torch.tensor([[2.0]])})
        tensor([[2.7183]], dtype=torch.float64)
    """

    def __init__(self, context: Context, layers: Layers, domain: Domain | None = None) -> None:
        super().__init__(context, domain or Domain())
        self.layers = layers

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x = T(u; pa)."""
        value = noise["u"].double()
        for layer in self.layers(_double(parents)):
            value = layer(value)
        return value

    def infer(self, value: Tensor, parents: Variables) -> Tensor:
        """Return u = T⁻¹(x; pa)."""
        for layer in reversed(self.layers(parents)):
            value = layer.inv(value)
        return value

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return log p(x | pa) in nats, ``(*batch,)``."""
        value, log_scale = value.double(), torch.zeros((), dtype=self.dtype)
        produced = torch.ones_like(value, dtype=torch.bool)
        for layer in reversed(self.layers(_double(parents))):
            produced = produced & layer.codomain.check(value)
            before = layer.inv(value)
            log_scale = log_scale + layer.log_abs_det_jacobian(before, value)
            value = before
        log_prob = _log_normal(value) - log_scale
        impossible = torch.full_like(log_prob, -torch.inf)
        return torch.where(produced & ~log_prob.isnan(), log_prob, impossible).squeeze(-1)

    def distribution(self, parents: Variables) -> TorchDistribution:
        """Return p(x | pa)."""
        base = Normal(self._device.new_zeros(1, dtype=self.dtype), 1.0, validate_args=False)
        layers = list(self.layers(_double(parents)))
        return TransformedDistribution(base.to_event(1), layers, validate_args=False)


class KnownCoin(Given):
    """x := [u > t], 1 with a given probability, without parents.

    The noise of a value is the median of all noise that produces it. Without parents, no
    counterfactual depends on that choice or on the coupling.
    """

    def __init__(self, context: Context, probability: float) -> None:
        super().__init__(context, Domain(categories=2))
        self.probability = probability

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return 0 or 1."""
        return (noise["u"] > -special.ndtri(self.probability)).double()

    def infer(self, value: Tensor, parents: Variables) -> Tensor:
        """Return the median of the noise of a value; NaN if it is neither 0 nor 1."""
        one = -special.ndtri(self.probability / 2)
        zero = special.ndtri((1 - self.probability) / 2)
        return self._choose(value, zero, one, torch.nan)

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return the log-probability of the value, ``(*batch,)``."""
        zero, one = np.log1p(-self.probability), np.log(self.probability)
        return self._choose(value.double(), zero, one, -torch.inf).squeeze(-1)

    def distribution(self, parents: Variables) -> TorchDistribution:
        """Return p(x)."""
        probability = self._device.new_full((1,), self.probability, dtype=self.dtype)
        return Bernoulli(probability).to_event(1)

    @staticmethod
    def _choose(value: Tensor, zero: float, one: float, other: float) -> Tensor:
        chosen = torch.full_like(value, other)
        return chosen.masked_fill(value == 0, zero).masked_fill(value == 1, one)


class KnownClass(Given):
    """A class 0, …, K − 1, each with probability 1/K, without parents: x := ⌊K Φ(u)⌋.

    The noise of a value is the median of all noise that produces it, as for :class:`KnownCoin`.
    Without parents there is no choice of a coupling: a class is kept unless it is set.

    Example:
        >>> digit = KnownClass(Context(), categories=10)
        >>> digit({"u": torch.tensor([[-9.0], [0.1]])}, {}).flatten()
        tensor([0., 5.], dtype=torch.float64)
    """

    def __init__(self, context: Context, categories: int) -> None:
        super().__init__(context, Domain(categories=categories))
        self.categories = categories

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return a class."""
        share = torch.special.ndtr(noise["u"].double())
        return (self.categories * share).floor().clamp(max=self.categories - 1)

    def infer(self, value: Tensor, parents: Variables) -> Tensor:
        """Return the median of the noise of a class; NaN if it is none."""
        return torch.special.ndtri((self._known(value) + 0.5) / self.categories)

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return −log K, or minus infinity if the value is no class, ``(*batch,)``."""
        found = self._known(value.double()) * 0 - np.log(self.categories)
        return torch.where(found.isnan(), -torch.inf, found).squeeze(-1)

    def distribution(self, parents: Variables) -> TorchDistribution:
        """Return p(x)."""
        logits = self._device.new_zeros((1, self.categories), dtype=self.dtype)
        return Categorical(logits=logits).to_event(1)

    def _known(self, value: Tensor) -> Tensor:
        is_class = (value == value.floor()) & (value >= 0) & (value < self.categories)
        return torch.where(is_class, value, torch.nan)


class _OpenInterval(constraints.Constraint):
    """Numbers between two bounds, exclusive."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def check(self, value: Tensor) -> Tensor:
        return (value > self.low) & (value < self.high)


class Logistic(Transform):
    """y = low + (high − low) · σ(x), with an inverse that is exact near both bounds."""

    bijective = True
    sign = 1
    domain = constraints.real

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.codomain = _OpenInterval(low, high)

    def _call(self, x: Tensor) -> Tensor:
        # The rounding of SciPy, unlike that of torch.sigmoid, keeps generated data bit-identical.
        return self.low + (self.high - self.low) * _by_numpy(special.expit, x)

    def _inverse(self, y: Tensor) -> Tensor:
        # The logit of the share of the range would be inexact near the upper bound.
        return (y - self.low).log() - (self.high - y).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log dy/dx, elementwise."""
        return (y - self.low).log() + (self.high - y).log() - np.log(self.high - self.low)


class GammaScore(Transform):
    """The value of Γ(shape, rate) that has the rank of a standard normal number, y = F⁻¹(Φ(x)).

    Each tail is computed from its own end, so that noise up to ±37 is recovered.
    """

    bijective = True
    sign = 1
    domain = constraints.real
    codomain = constraints.positive

    def __init__(self, shape: float, rate: float) -> None:
        super().__init__()
        self.shape, self.rate = shape, rate

    def _call(self, x: Tensor) -> Tensor:
        return _by_numpy(self._quantile, x) / self.rate

    def _quantile(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        below = special.gammaincinv(self.shape, special.ndtr(np.minimum(x, 0)))
        above = special.gammainccinv(self.shape, special.ndtr(-np.maximum(x, 0)))
        return np.where(x < 0, below, above)

    def _inverse(self, y: Tensor) -> Tensor:
        return _by_numpy(self._score, self.rate * y)

    def _score(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        below, above = special.gammainc(self.shape, y), special.gammaincc(self.shape, y)
        return np.where(below < 0.5, special.ndtri(below), -special.ndtri(above))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log dy/dx, elementwise."""
        log_density = self.shape * np.log(self.rate) + (self.shape - 1) * y.log()
        log_density = log_density - self.rate * y - special.gammaln(self.shape)
        return _log_normal(x) - log_density


def _log_normal(noise: Tensor) -> Tensor:
    """log N(u; 0, 1), finite for infinite noise."""
    return standard_normal_log_prob(
        torch.nan_to_num(noise, nan=torch.nan, posinf=_LARGEST_NOISE, neginf=-_LARGEST_NOISE)
    )


def _by_numpy(function: Callable[[Any], Any], value: Tensor) -> Tensor:
    """A function of SciPy, without gradients."""
    return torch.from_numpy(np.asarray(function(value.detach().cpu().numpy()))).to(value)


def _double(parents: Variables) -> dict[str, Tensor]:
    return {name: value.double() for name, value in parents.items()}
