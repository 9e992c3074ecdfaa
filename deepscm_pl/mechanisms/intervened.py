"""Mechanisms of variables under an intervention."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

from deepscm_pl.interventions import Expression, as_change, draw_values
from deepscm_pl.mechanisms.base import Context, Mechanism
from deepscm_pl.variables import Change, Domain, Noise, Seen, Variables

__all__ = ["Constant", "Drawn", "Modified"]


class Constant(Mechanism):
    """x := c for all parents and noise: the replacement of a mechanism under do(x = c).

    Without noise there is no coupling to choose.

    Args:
        value: c, ``(*batch, *event)``; its batch dimensions broadcast.
        domain: The domain of the variable.
    """

    value: Tensor

    def __init__(self, value: Tensor, domain: Domain) -> None:
        super().__init__(Context())
        self._domain = domain
        self.register_buffer("value", value, persistent=False)

    @property
    def domain(self) -> Domain:
        """The domain of the variable."""
        return self._domain

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return the constant."""
        return self.value

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Return no noise."""
        return {}

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Return no noise; raise if ``value`` is not the constant."""
        self.log_prob(value, parents)
        return {}

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return zero nats: a variable under do() contributes no evidence.

        Raises:
            ValueError: If ``value`` is not the constant.
        """
        if bool((value != self.value).any()):
            raise ValueError(
                "the variable is held constant by an intervention, but its value differs; query "
                "the model before act()."
            )
        return value.new_zeros(self.domain.batch_shape(value))

    def model(self, name: str, parents: Variables) -> Tensor:
        """Add a deterministic site."""
        value: Tensor = pyro.deterministic(name, self.value, event_dim=len(self.domain.shape))
        return value


class _Draws(TorchDistribution):
    """Draws from a distribution inside of a domain, as a site of Pyro."""

    def __init__(
        self,
        name: str,
        distribution: Distribution,
        domain: Domain,
        like: Tensor,
        shape: torch.Size | tuple[int, ...] = (),
    ) -> None:
        super().__init__(torch.Size(shape), torch.Size(domain.shape), validate_args=False)
        self.arguments = name, distribution, domain, like

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        name, distribution, domain, like = self.arguments
        drawn = draw_values(name, distribution, (*sample_shape, *self.batch_shape), domain)
        return drawn.to(like)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> _Draws:
        return _Draws(*self.arguments, batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        _, distribution, domain, _ = self.arguments
        found: Tensor = distribution.log_prob(value)
        event = len(domain.shape) - len(distribution.event_shape)
        return found.flatten(found.dim() - event).sum(-1) if event else found


class Drawn(Mechanism):
    """x ~ D for all parents: the replacement of a mechanism under a stochastic intervention.

    The draw is the noise, independent of all other variables. There is no other coupling.

    Args:
        distribution: D, of single values or of all in a batch.
        domain: The domain of the variable.
        name: Name of the variable, for error messages.
        like: A tensor with the type and the device of the draws.
    """

    like: Tensor

    def __init__(
        self, distribution: Distribution, domain: Domain, name: str, like: Tensor | None = None
    ) -> None:
        super().__init__(Context())
        self._arguments, self._domain = (name, distribution, domain), domain
        self.register_buffer("like", torch.zeros(()) if like is None else like, persistent=False)

    @property
    def domain(self) -> Domain:
        """The domain of the variable."""
        return self._domain

    def distribution(self, parents: Variables) -> TorchDistribution:
        """Return D."""
        return _Draws(*self._arguments, self.like)

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return the draw."""
        return noise["draw.0"]

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw from D, ``(*shape, *event)``."""
        return self.sample_draws(shape)

    def sample_draws(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw from D, ``(*shape, *event)``."""
        return {"draw.0": self.distribution({}).sample(torch.Size(shape))}

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Return the value, which is its noise."""
        return {"draw.0": value.expand(*sample_shape, *value.shape)}


class Modified(Mechanism):
    """x := h(f(u; pa), v, d): the replacement of a mechanism under do(x = h).

    The parents keep their influence through f: an increment is added to the value of f. h may
    read other variables v, which become parents, and draws d, which become noise. The coupling is
    that of f.

    Args:
        mechanism: f.
        function: h: a function from a tensor to a tensor of the same shape, or any change.
        name: Name of the variable, for error messages.
        others: The other variables that h reads, with their domains.
        seen: The values before the intervention that h reads.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        function: Callable[[Tensor], Tensor] | Change,
        name: str,
        others: Mapping[str, Domain] | None = None,
        seen: Seen | None = None,
    ) -> None:
        super().__init__(Context({**mechanism.context.domains, **(others or {})}))
        self.mechanism = mechanism
        self.function = function
        self.name = name
        self._change, self._seen = as_change(function), seen or Seen()

    @property
    def domain(self) -> Domain:
        """The domain of the variable."""
        return self.mechanism.domain

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of f."""
        return self.mechanism.dtype

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return h(f(u; pa)).

        Raises:
            ValueError: If h leaves the domain of the variable.
        """
        own = {name: parents[name] for name in self.mechanism.context.parents}
        natural = self.quantise(self.mechanism(noise, own))
        return self.apply_change(self.domain.moved_inside(natural), parents, noise)

    def apply_change(
        self, value: Tensor, others: Variables | None = None, noise: Noise | None = None
    ) -> Tensor:
        """Return h of a natural value, after checking that it is in the domain.

        Args:
            value: The natural value, ``(*batch, *event)``.
            others: The other variables that h reads, ``(*batch, 1)``, at least.
            noise: The draws of h, at least.
        """
        draws = [(noise or {})[f"draw.{k}"] for k in range(len(self._change.draws))]
        seen = Seen(
            {name: self._beside((others or {})[name]) for name in self._change.reads},
            {name: self._beside(each, name) for name, each in self._seen.before.items()},
            [each.to(value.device) for each in draws],
        )
        changed = self._change.apply(value.clone(), seen)
        changed = torch.as_tensor(changed, dtype=value.dtype, device=value.device)
        if changed.dim() == 0 and self.domain.shape == (1,):
            changed = changed.expand_as(value)
        self.domain.check(self.name, changed)
        return changed

    def _beside(self, value: Tensor, name: str = "other") -> Tensor:
        """A scalar with as many dimensions after the batch as the variable itself has."""
        is_own = name in ("", self.name)
        return value if is_own else value.reshape(*value.shape, *[1] * (len(self.domain.shape) - 1))

    def sample_draws(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw from the distributions of h, ``(*shape, *event)`` each."""
        return {name: each.sample(torch.Size(shape)) for name, each in self._draws().items()}

    def _draws(self) -> dict[str, _Draws]:
        change, like = self._change, self.mechanism._first_tensor()
        like = torch.zeros(()) if like is None else like
        # Draws that are only a part of the value need not be inside of its domain.
        inside = change.set_draws if isinstance(change, Expression) else range(len(change.draws))
        everywhere = Domain(self.domain.shape)
        return {
            f"draw.{k}": _Draws(self.name, each, self.domain if k in inside else everywhere, like)
            for k, each in enumerate(change.draws)
        }

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw the noise of f and h."""
        return {**self.mechanism.sample_noise(shape), **self.sample_draws(shape)}

    def quantise(self, value: Tensor) -> Tensor:
        """Quantise as f does."""
        return self.mechanism.quantise(value)

    def dequantise(self, value: Tensor) -> Tensor:
        """Dequantise as f does."""
        return self.mechanism.dequantise(value)

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Raise a ValueError: h may have no inverse."""
        raise ValueError(
            f"{self.name} is under an intervention; abduct with the model before act()."
        )

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Raise a ValueError: h may have no inverse."""
        raise ValueError(f"{self.name} is under an intervention and has no density.")

    def model(self, name: str, parents: Variables) -> Tensor:
        """Sample the natural value as the site ``name.natural``, with its image under h."""
        own = {each: parents[each] for each in self.mechanism.context.parents}
        natural = self.mechanism.model(f"{name}.natural", own)
        draws = {key: pyro.sample(f"{name}.{key}", each) for key, each in self._draws().items()}
        changed = self.apply_change(self.quantise(natural), parents, draws)
        value: Tensor = pyro.deterministic(name, changed, event_dim=len(self.domain.shape))
        return value
