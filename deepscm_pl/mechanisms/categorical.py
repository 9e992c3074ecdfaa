"""The mechanism of a variable of several classes: a race whose winner is the class."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch
from pyro.distributions import (
    Bernoulli as BernoulliDistribution,
    Categorical as CategoricalDistribution,
)
from torch import Tensor
from torch.nn.functional import logsigmoid

from deepscm_pl.checks import whole_number
from deepscm_pl.mechanisms.base import Context, Evidence, Mechanism
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.variables import Domain, Noise, Variables

__all__ = ["Bernoulli", "Categorical"]


class Categorical(Mechanism):
    r"""x := argmin_k e_k/p_k(pa), e_k = −log Φ(u_k), u_k ~ N(0, 1) for each class k.

    The e_k are exponential, so that class k comes first with the probability p_k(pa), the softmax
    of the logits ℓ(pa). (In other words, −log e_k are Gumbel variables, and x is where ℓ_k − log
    e_k is largest.) The logits are those of the training split, plus what is learned: numbers, or a
    function of the parents.

    A value does not determine its noise; abduction draws from the posterior exactly. Of independent
    exponential arrivals the first one's time is exponential of rate 1, whoever it is, and the
    others come later by exponential times of their own rates (Maddison et al. 2014,
    arXiv:1411.0030). So the observed value always comes back, over data the noise is standard
    normal again, and counterfactuals are stable: where no class gains more, in proportion, than the
    observed one, it stays (Oberst and Sontag 2019, arXiv:1905.05824, definition 4). That is an
    assumption; data cannot tell it from others. For two classes it is the monotonicity of
    :class:`~deepscm_pl.mechanisms.Bernoulli`.

    Args:
        context: What the logits see of the parents.
        categories: Number of classes K, at least two.
        hidden: Widths of the hidden layers of the network for the logits; empty for an affine
            function of the standardised parents.

    Raises:
        ValueError: If there are fewer than two classes.

    Example:
        >>> site = Categorical(Context(), categories=3)
        >>> site.fit(torch.tensor([[0.0], [1.0], [2.0], [2.0]]), {})
        >>> site.log_prob(torch.tensor([[0.0], [2.0]]), {}).exp()
        tensor([0.2500, 0.5000], grad_fn=<ExpBackward0>)
        >>> noise = site.abduct(torch.tensor([[1.0]]), {})
        >>> noise["u"].shape, site(noise, {})
        (torch.Size([1, 3]), tensor([[1.]]))
    """

    initial_logits: Tensor

    def __init__(self, context: Context, categories: int, hidden: Sequence[int] = ()) -> None:
        super().__init__(context)
        self.categories = whole_number("categories", categories, least=2)
        self.correction = ParameterNetwork(context.features, categories, hidden)
        self.register_buffer("initial_logits", torch.zeros(categories))

    @property
    def domain(self) -> Domain:
        """The classes 0, …, K − 1."""
        return Domain(categories=self.categories)

    def logits(self, parents: Variables) -> Tensor:
        """log p_k(pa), ``(*batch, K)``, or ``(K,)`` without parents."""
        logits = self.initial_logits + self.correction(self.context(parents))
        # A class of a smaller probability than e^-600 could not come first in double precision.
        return logits.log_softmax(dim=-1).clamp(min=-600)

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """x, the class that comes first."""
        first = _log_times(noise["u"], self.logits(parents)).argmin(dim=-1, keepdim=True)
        return first.to(noise["u"])

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """u ~ N(0, I), ``(*shape, K)``."""
        return {"u": self.initial_logits.new_empty(*shape, self.categories).normal_()}

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draws of u ~ N(0, I) of those where x comes first."""
        logits = self.logits(parents)
        batch = torch.broadcast_shapes(value.shape[:-1], logits.shape[:-1])
        waits = torch.empty(
            *sample_shape, *batch, self.categories, dtype=torch.float64, device=value.device
        ).exponential_()
        won = self._is_class(value)
        log_rates = logits.double()
        winner = value.long().expand(*waits.shape[:-1], 1)
        first = waits.gather(-1, winner)
        scaled_first = (first.log() + log_rates).exp()
        noise = _normal(torch.where(won, scaled_first, scaled_first + waits)).to(logits)
        return {"u": torch.where(won, noise, _later(noise, logits, winner))}

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """log p(x | pa) in nats, ``(*batch,)``."""
        logits = self.logits(parents)
        return torch.where(self._is_class(value), logits, torch.zeros_like(logits)).sum(dim=-1)

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """The exact log-probability."""
        log_prob = self.log_prob(value, parents)
        return Evidence(log_prob, torch.zeros_like(log_prob))

    def model(self, name: str, parents: Variables) -> Tensor:
        """The site ``name``."""
        logits = self.logits(parents).unsqueeze(-2)
        value: Tensor = pyro.sample(name, CategoricalDistribution(logits=logits).to_event(1))
        return value.to(logits)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and start from the shares of the classes in the training split.

        Raises:
            ValueError: If a class does not occur.
        """
        super().fit(value, parents)
        shares = self._is_class(value).flatten(0, -2).double().mean(dim=0)
        absent = [k for k, share in enumerate(shares.tolist()) if share == 0]
        if absent:
            raise ValueError(
                f"expected every class from 0 to {self.categories - 1} in the training split, but "
                f"{', '.join(map(str, absent))} does not occur; number the classes from 0 on, and "
                "give categories their number."
            )
        self.initial_logits.copy_(shares.log())

    def _is_class(self, value: Tensor) -> Tensor:
        """For each class whether it is the value, ``(*batch, K)``."""
        return value.long() == torch.arange(self.categories, device=value.device)


_MARGIN = 16
"""Units of rounding precision by which times (categories) and noise (binary) stay apart."""

_NUDGE = 64
"""By how many units of its precision u is moved where they do not."""

_TINY = 1e-300
"""A probability that the normal quantile still tells from zero."""


def _log_times(noise: Tensor, logits: Tensor) -> Tensor:
    """log e_k/p_k, in double precision, ``(*batch, K)``."""
    return (-torch.special.log_ndtr(noise.double())).log() - logits.double()


def _later(noise: Tensor, logits: Tensor, winner: Tensor) -> Tensor:
    """u where it is clear that the winner comes before; a little less where it is not.

    Rounding may let another class come as early, here, or where forward() sees it in another batch.
    """
    sizes = logits.abs().expand_as(noise)
    unit = torch.finfo(noise.dtype).eps * (1 + sizes + sizes.gather(-1, winner))
    log_times = _log_times(noise, logits)
    tied = log_times <= log_times.gather(-1, winner) + _MARGIN * unit
    return torch.where(tied, noise - _NUDGE * unit * (1 + noise.abs()), noise)


def _normal(exponential: Tensor) -> Tensor:
    """u of e = −log Φ(u), each tail from its own end."""
    upper = -torch.special.ndtri((-torch.expm1(-exponential)).clamp(min=_TINY))
    lower = torch.special.ndtri((-exponential).exp().clamp(min=_TINY))
    return torch.where(exponential < 0.5, upper, lower)


class Bernoulli(Mechanism):
    """x := [u > t(pa)], u ~ N(0, 1): 1 with the probability p(pa) = 1 − Φ(t(pa)) = σ(ℓ(pa)).

    The logit ℓ is that of the training split, plus what is learned: a number, or a function of the
    parents. A value does not determine its noise but bounds it: abduction draws from the posterior,
    the normal law beyond t where x = 1 and below where x = 0. So the observed value always comes
    back, over data the noise is standard normal again, and counterfactuals under other parents are
    monotone: raising p never turns a 1 into a 0. Monotonicity is an assumption; for a variable
    without parents, such as sex, it says nothing.

    Args:
        context: What the logit sees of the parents.
        hidden: Widths of the hidden layers of the network for the logit; empty for an affine
            function of the standardised parents.

    Example:
        >>> sex = Bernoulli(Context())
        >>> sex.fit(torch.tensor([[1.0], [1.0], [1.0], [0.0]]), {})
        >>> sex.log_prob(torch.tensor([[1.0]]), {}).exp()
        tensor([0.7500], grad_fn=<ExpBackward0>)
    """

    initial_logit: Tensor

    def __init__(self, context: Context, hidden: Sequence[int] = ()) -> None:
        super().__init__(context)
        self.correction = ParameterNetwork(context.features, 1, hidden)
        self.register_buffer("initial_logit", torch.zeros(1))

    @property
    def domain(self) -> Domain:
        """The classes 0 and 1."""
        return Domain(categories=2)

    def logit(self, parents: Variables) -> Tensor:
        """ℓ(pa) = log p/(1 − p), ``(*batch, 1)``, or ``(1,)`` without parents."""
        logit: Tensor = self.initial_logit + self.correction(self.context(parents))
        return logit

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """x = [u > t(pa)]."""
        return (noise["u"] > self._threshold(parents)).to(noise["u"])

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """u ~ N(0, 1), ``(*shape, 1)``."""
        return {"u": self.initial_logit.new_empty(*shape, 1).normal_()}

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draws of u ~ N(0, 1), beyond t where x = 1 and below where x = 0."""
        threshold = self._threshold(parents)
        batch = torch.broadcast_shapes(value.shape, threshold.shape)
        rank = torch.rand(*sample_shape, *batch, dtype=torch.float64, device=value.device)
        logit = self.logit(parents).double()
        # Each tail from its own end, so that no probability is 1 minus a tiny one.
        above = -torch.special.ndtri((rank * logit.sigmoid()).clamp(min=_TINY))
        below = torch.special.ndtri((rank * (-logit).sigmoid()).clamp(min=_TINY))
        one = value > 0.5
        noise = torch.where(one, above, below).to(threshold)
        # Rounding may cross the threshold, here, or where forward() sees it in another batch.
        margin = _MARGIN * torch.finfo(noise.dtype).eps * (1 + threshold.abs())
        above, below = noise.maximum(threshold + margin), noise.minimum(threshold - margin)
        return {"u": torch.where(one, above, below)}

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """log p(x | pa) in nats, ``(*batch,)``."""
        logit = self.logit(parents)
        return torch.where(value > 0.5, logsigmoid(logit), logsigmoid(-logit)).squeeze(-1)

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """The exact log-probability."""
        log_prob = self.log_prob(value, parents)
        return Evidence(log_prob, torch.zeros_like(log_prob))

    def model(self, name: str, parents: Variables) -> Tensor:
        """The site ``name``."""
        distribution = BernoulliDistribution(logits=self.logit(parents)).to_event(1)
        value: Tensor = pyro.sample(name, distribution)
        return value

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and start from the share of ones in the training split.

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
        """t = −Φ⁻¹(p), the smaller tail from its own end."""
        logit = self.logit(parents)
        exact = logit.double()
        tail = torch.special.ndtri((-exact.abs()).sigmoid().clamp(min=_TINY))
        return torch.where(exact > 0, tail, -tail).to(logit)
