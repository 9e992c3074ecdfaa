"""Mechanisms that are given, not learned: flows of fixed transforms, in double precision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro.distributions import Bernoulli, Normal, TransformedDistribution
from scipy import special
from torch import Tensor
from torch.distributions import Transform, constraints

from deepscm_pl.mechanisms.base import Context, Evidence, Mechanism
from deepscm_pl.variables import Domain, Noise, Variables

__all__ = ["GammaScore", "Given", "Known", "KnownCoin", "Layers", "Logistic"]

Layers: TypeAlias = Callable[[Variables], Sequence[Transform]]
"""From the values of the parents to elementwise transforms, the one nearest to the noise first."""

_UTMOST = 40.0
"""Standard normal noise that double precision does not tell from infinite."""


class Given(Mechanism):
    """x := f(u; pa), u ~ N(0, 1), without anything to learn.

    Values are in double precision, whatever the precision of the parents. The domain holds what
    can be set by an intervention and drawn; the values that the mechanism *produces* can be fewer,
    and outside of them the log-density is minus infinity.

    Args:
        context: Names the parents.
        domain: The values that can be drawn.
    """

    _device: Tensor

    def __init__(self, context: Context, domain: Domain) -> None:
        super().__init__(context)
        self._domain = domain
        self.register_buffer("_device", torch.zeros(()), persistent=False)

    @property
    def domain(self) -> Domain:
        """The values that can be drawn."""
        return self._domain

    @property
    def dtype(self) -> torch.dtype:
        """Double precision."""
        return torch.float64

    @abstractmethod
    def infer(self, value: Tensor, parents: Variables) -> Tensor:
        """The noise u of ``value``; NaN or infinite where there is none."""

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """u ~ N(0, 1), ``(*shape, 1)``."""
        noise = torch.randn(*shape, 1, dtype=self.dtype, device=self._device.device)
        return {"u": noise}

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """The noise of ``value``; see :meth:`check_explained` for values that have none."""
        noise = self.infer(value.double(), _double(parents))
        return {"u": noise.expand(*sample_shape, *noise.shape)}

    def check_explained(self, name: str, value: Tensor, noise: Noise) -> None:
        """Raise where a value is not produced, whatever the noise.

        Raises:
            ValueError: Naming the variable, the value and its row.
        """
        unexplained = ~noise["u"].isfinite()
        if bool(unexplained.any()):
            place = unexplained.nonzero()[0].tolist()
            found = value.expand(unexplained.shape)[tuple(place)].item()
            raise ValueError(
                f"{name}: expected values that its mechanism produces, but got {found:g} in row "
                f"{place[-2]}, which no noise explains; leave such rows out."
            )

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """The exact log-probability."""
        log_prob = self.log_prob(value, parents)
        return Evidence(log_prob, torch.zeros_like(log_prob))

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Nothing: everything is given."""


class Known(Given):
    """x := T(u; pa), u ~ N(0, 1), with a given sequence of elementwise transforms T.

    log p(x | pa) = log N(u; 0, 1) − log |dx/du|, and minus infinity for values outside of what T
    produces.

    Args:
        context: Names the parents.
        layers: From the values of the parents to T, the transform nearest to the noise first.
        domain: The values that can be drawn; any, unless given.

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
        """x = T(u; pa)."""
        value = noise["u"].double()
        for layer in self.layers(_double(parents)):
            value = layer(value)
        return value

    def infer(self, value: Tensor, parents: Variables) -> Tensor:
        """u = T⁻¹(x; pa)."""
        for layer in reversed(self.layers(parents)):
            value = layer.inv(value)
        return value

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """log p(x | pa) in nats, ``(*batch,)``."""
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

    def model(self, name: str, parents: Variables) -> Tensor:
        """The site ``name``."""
        base = Normal(self._device.new_zeros(1, dtype=self.dtype), 1.0, validate_args=False)
        layers = list(self.layers(_double(parents)))
        made = TransformedDistribution(base.to_event(1), layers, validate_args=False)
        value: Tensor = pyro.sample(name, made)
        return value


class KnownCoin(Given):
    """x := [u > t], 1 with a given probability, without parents.

    A value does not determine its noise; the median of the noise that gives it stands for it.
    Nothing follows from that choice: without parents, the value changes by intervention only.

    Args:
        context: Without parents.
        probability: Of 1.

    Example:
        >>> KnownCoin(Context(), 0.5)({"u": torch.tensor([[-1.0], [0.1]])}, {}).flatten()
        tensor([0., 1.], dtype=torch.float64)
    """

    def __init__(self, context: Context, probability: float) -> None:
        super().__init__(context, Domain(categories=2))
        self.probability = probability

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """0 or 1."""
        return (noise["u"] > -special.ndtri(self.probability)).double()

    def infer(self, value: Tensor, parents: Variables) -> Tensor:
        """The median of the noise of a value; NaN where it is neither 0 nor 1."""
        one = -special.ndtri(self.probability / 2)
        zero = special.ndtri((1 - self.probability) / 2)
        return self._choose(value, zero, one, torch.nan)

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """The log-probability of the value, ``(*batch,)``."""
        zero, one = np.log1p(-self.probability), np.log(self.probability)
        return self._choose(value.double(), zero, one, -torch.inf).squeeze(-1)

    def model(self, name: str, parents: Variables) -> Tensor:
        """The site ``name``."""
        chance = self._device.new_full((1,), self.probability, dtype=self.dtype)
        value: Tensor = pyro.sample(name, Bernoulli(chance).to_event(1))
        return value

    @staticmethod
    def _choose(value: Tensor, zero: float, one: float, other: float) -> Tensor:
        found = torch.full_like(value, other)
        return found.masked_fill(value == 0, zero).masked_fill(value == 1, one)


class _Inside(constraints.Constraint):
    """Numbers between bounds, which are outside."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def check(self, value: Tensor) -> Tensor:
        return (value > self.low) & (value < self.high)


class Logistic(Transform):
    """y = low + (high − low) · σ(x), with an inverse that is exact near both bounds.

    Example:
        >>> Logistic(64.0, 255.0)(torch.tensor(0.0, dtype=torch.float64))
        tensor(159.5000, dtype=torch.float64)
    """

    bijective = True
    sign = 1
    domain = constraints.real

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.codomain = _Inside(low, high)

    def _call(self, x: Tensor) -> Tensor:
        # Not torch.sigmoid, which rounds otherwise: generated data keep their bytes.
        return self.low + (self.high - self.low) * _by_numpy(special.expit, x)

    def _inverse(self, y: Tensor) -> Tensor:
        # Not by the share of the range, which is inexact near its upper end.
        return (y - self.low).log() - (self.high - y).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log dy/dx, elementwise."""
        return (y - self.low).log() + (self.high - y).log() - np.log(self.high - self.low)


class GammaScore(Transform):
    r"""The value of Γ(shape, rate) that has the rank of a standard normal number.

    :math:`y = F^{-1}(\Phi(x))` with the distribution functions :math:`\Phi` of N(0, 1) and F. Each
    tail is computed from its own end, so that noise up to ±37 returns.

    Args:
        shape: Of the Gamma distribution.
        rate: Of the Gamma distribution, one over the unit of the value.
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
        """log dy/dx, elementwise."""
        log_density = (
            self.shape * np.log(self.rate)
            + (self.shape - 1) * y.log()
            - self.rate * y
            - special.gammaln(self.shape)
        )
        return _log_normal(x) - log_density


def _log_normal(noise: Tensor) -> Tensor:
    """log N(u; 0, 1), finite for noise beyond double precision."""
    finite = torch.nan_to_num(noise, nan=torch.nan, posinf=_UTMOST, neginf=-_UTMOST)
    return -0.5 * finite**2 - 0.5 * np.log(2 * np.pi)


def _by_numpy(function: Callable[[Any], Any], value: Tensor) -> Tensor:
    """A function that torch lacks or rounds otherwise, of the values and without gradients."""
    return torch.from_numpy(np.asarray(function(value.detach().cpu().numpy()))).to(value)


def _double(parents: Variables) -> dict[str, Tensor]:
    return {name: value.double() for name, value in parents.items()}
