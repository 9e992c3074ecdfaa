"""Mechanisms of classes: abduction draws from the exact posterior of the noise."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch
from pyro.distributions import (
    Bernoulli as BernoulliDistribution,
    Categorical as CategoricalDistribution,
    TorchDistribution,
)
from torch import Tensor
from torch.nn.functional import logsigmoid

from deepscm_pl.checks import whole_number
from deepscm_pl.mechanisms.base import Context, Mechanism
from deepscm_pl.mechanisms.discrete import CellMechanism
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.nn.layers import NONLINEAR
from deepscm_pl.transforms.cells import TINY
from deepscm_pl.variables import Domain, Noise, Variables, common_shape

__all__ = ["Bernoulli", "Categorical"]

_MARGIN = 16  # units of rounding precision between arrival times
_NUDGE = 64  # units of rounding precision by which noise is moved to restore the margin


class Categorical(Mechanism):
    """A categorical variable: x := argmin_k e_k/p_k(pa), e_k = −log Φ(u_k), u_k ~ N(0, 1).

    The e_k are exponential arrival times: class k arrives first with the probability p_k(pa), the
    softmax of the logits. These are the logits of the training split, plus a learned constant or
    function of the parents.

    A value does not determine its noise; abduction draws from the exact posterior. The time of the
    first of independent exponential arrivals is exponential of rate 1, independently of its class,
    and the others follow after exponential times with their own rates (Maddison et al. 2014,
    arXiv:1411.0030). So the observed value is always recovered, the noise inferred from data is
    standard normal again, and counterfactuals are stable: if no class gains more, in proportion,
    than the observed one, the value does not change (Oberst and Sontag 2019, arXiv:1905.05824,
    definition 4). This coupling, of Gumbel-max, is an assumption that data cannot test; for two
    classes it is the monotone coupling of :class:`Bernoulli`.

    Args:
        categories: Number of classes K, at least two.
        hidden: Widths of the hidden layers of the network for the logits, which is nonlinear by
            default; empty for an affine function of the standardised parents.

    Example:
        >>> variable = Categorical(Context(), categories=3)
        >>> variable.fit(torch.tensor([[0.0], [1.0], [2.0], [2.0]]), {})
        >>> variable.log_prob(torch.tensor([[0.0], [2.0]]), {}).exp()
        tensor([0.2500, 0.5000], grad_fn=<ExpBackward0>)
    """

    initial_logits: Tensor

    def __init__(
        self, context: Context, categories: int, hidden: Sequence[int] = NONLINEAR
    ) -> None:
        super().__init__(context)
        self.categories = whole_number("categories", categories, least=2)
        self.correction = ParameterNetwork(context.features, categories, hidden)
        self.register_buffer("initial_logits", torch.zeros(categories))

    @property
    def domain(self) -> Domain:
        """The classes 0, …, K − 1."""
        return Domain(categories=self.categories)

    def logits(self, parents: Variables) -> Tensor:
        """Return log p_k(pa), ``(*batch, K)``, or ``(K,)`` without parents."""
        logits = self.initial_logits + self.correction(self.context(parents))
        # With a lower probability, a class could never come first in double precision.
        return logits.log_softmax(dim=-1).clamp(min=-600)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One number for each class, ``(K,)``."""
        return (self.categories,)

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x, the class that comes first."""
        first = _log_times(noise["u"], self.logits(parents)).argmin(dim=-1, keepdim=True)
        return first.to(noise["u"])

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draw u ~ N(0, I), conditional on x coming first."""
        logits = self.logits(parents)
        batch = common_shape(value.shape[:-1], logits.shape[:-1])
        waits = torch.empty(
            *sample_shape, *batch, self.categories, dtype=torch.float64, device=value.device
        ).exponential_()
        is_first = self._is_class(value)
        first_class = value.long().expand(*waits.shape[:-1], 1)
        first = waits.gather(-1, first_class)
        scaled_first = (first.log() + logits.double()).exp()
        noise = _normal(torch.where(is_first, scaled_first, scaled_first + waits)).to(logits)
        return {"u": torch.where(is_first, noise, _delay(noise, logits, first_class))}

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return log p(x | pa) in nats, ``(*batch,)``."""
        logits = self.logits(parents)
        return torch.where(self._is_class(value), logits, torch.zeros_like(logits)).sum(dim=-1)

    def model(self, name: str, parents: Variables) -> Tensor:
        """Sample the site ``name``."""
        logits = self.logits(parents).unsqueeze(-2)
        value: Tensor = pyro.sample(name, CategoricalDistribution(logits=logits).to_event(1))
        return value.to(logits)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and set the initial logits from the shares of the classes.

        Raises:
            ValueError: If a class does not occur in the training split.
        """
        super().fit(value, parents)
        shares = self._is_class(value).flatten(0, -2).double().mean(dim=0)
        absent = [k for k, share in enumerate(shares.tolist()) if share == 0]
        if absent:
            raise ValueError(
                f"expected every class from 0 to {self.categories - 1} in the training split, but "
                f"{', '.join(map(str, absent))} does not occur; number the classes from 0, and "
                "set categories to their number."
            )
        self.initial_logits.copy_(shares.log())

    def _is_class(self, value: Tensor) -> Tensor:
        return value.long() == torch.arange(self.categories, device=value.device)


def _log_times(noise: Tensor, logits: Tensor) -> Tensor:
    """log e_k/p_k, in double precision, ``(*batch, K)``."""
    return (-torch.special.log_ndtr(noise.double())).log() - logits.double()


def _delay(noise: Tensor, logits: Tensor, first_class: Tensor) -> Tensor:
    """u, reduced slightly where rounding, in any batch, might let another class be first."""
    sizes = logits.abs().expand_as(noise)
    unit = torch.finfo(noise.dtype).eps * (1 + sizes + sizes.gather(-1, first_class))
    log_times = _log_times(noise, logits)
    tied = log_times <= log_times.gather(-1, first_class) + _MARGIN * unit
    return torch.where(tied, noise - _NUDGE * unit * (1 + noise.abs()), noise)


def _normal(exponential: Tensor) -> Tensor:
    """u with e = −log Φ(u), computed from the probability of the smaller tail."""
    upper = -torch.special.ndtri((-torch.expm1(-exponential)).clamp(min=TINY))
    lower = torch.special.ndtri((-exponential).exp().clamp(min=TINY))
    return torch.where(exponential < 0.5, upper, lower)


class Bernoulli(CellMechanism):
    """A binary variable: x := [u > t(pa)], u ~ N(0, 1).

    It is 1 with the probability p(pa) = 1 − Φ(t(pa)) = σ(ℓ(pa)). The logit ℓ is that of the
    training split, plus a learned constant or function of the parents. A value does not determine
    its noise but bounds it: abduction draws from the posterior, the normal distribution beyond t if
    x = 1 and below t if x = 0. So the observed value is always recovered, the noise inferred from
    data is standard normal again, and counterfactuals are monotone: raising p never turns a 1 into
    a 0. The monotone coupling is an assumption; without parents it has no effect.

    Args:
        hidden: Widths of the hidden layers of the network for the logit, which is nonlinear by
            default; empty for an affine function of the standardised parents.
    """

    initial_logit: Tensor

    def __init__(self, context: Context, hidden: Sequence[int] = NONLINEAR) -> None:
        super().__init__(context)
        self.correction = ParameterNetwork(context.features, 1, hidden)
        self.register_buffer("initial_logit", torch.zeros(1))

    @property
    def domain(self) -> Domain:
        """The classes 0 and 1."""
        return Domain(categories=2)

    def logit(self, parents: Variables) -> Tensor:
        """Return ℓ(pa) = log p/(1 − p), ``(*batch, 1)``, or ``(1,)`` without parents."""
        logit: Tensor = self.initial_logit + self.correction(self.context(parents))
        return logit

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x = [u > t(pa)]."""
        return (noise["u"] > self._threshold(parents)).to(noise["u"])

    def cell(self, value: Tensor, parents: Variables) -> tuple[Tensor, Tensor]:
        """Return (t, ∞) if x = 1, and (−∞, t) if x = 0."""
        threshold, infinity = self._threshold(parents), torch.tensor(torch.inf)
        one = value > 0.5
        return torch.where(one, threshold, -infinity), torch.where(one, infinity, threshold)

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return log p(x | pa) in nats, ``(*batch,)``."""
        logit = self.logit(parents)
        return torch.where(value > 0.5, logsigmoid(logit), logsigmoid(-logit)).squeeze(-1)

    def distribution(self, parents: Variables) -> TorchDistribution:
        """Return p(x | pa)."""
        return BernoulliDistribution(logits=self.logit(parents)).to_event(1)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and set the initial logit from the share of ones.

        Raises:
            ValueError: If all values are equal.
        """
        super().fit(value, parents)
        share = value.double().mean()
        if not 0 < share < 1:
            raise ValueError(
                f"expected both 0 and 1 in the training split, but all values are {share:g}; leave "
                "the variable out of the graph."
            )
        self.initial_logit.fill_(float(share.logit()))

    def _threshold(self, parents: Variables) -> Tensor:
        """t = −Φ⁻¹(p) in double precision, computed from the smaller of p and 1 − p."""
        exact = self.logit(parents).double()
        tail = torch.special.ndtri((-exact.abs()).sigmoid().clamp(min=TINY))
        return torch.where(exact > 0, tail, -tail)
