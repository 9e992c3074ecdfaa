"""The mechanism of a binary variable, whose noise is inferred as far as the value tells."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch
from pyro.distributions import Bernoulli as BernoulliDistribution
from torch import Tensor
from torch.nn.functional import logsigmoid

from deepscm_pl.mechanisms.base import Evidence, Mechanism
from deepscm_pl.mechanisms.context import Context
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.types import Domain, Noise, Variables

__all__ = ["Bernoulli"]


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


_MARGIN = 16
"""By how many units of its precision u stays clear of the threshold."""

_TINY = 1e-300
"""A probability that the normal quantile still tells from zero."""
