"""The mechanism of a variable that is held fixed."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from deepscm_pl.mechanisms.base import Context, Evidence, Mechanism
from deepscm_pl.variables import Domain, Noise, Variables

__all__ = ["Constant", "Modified"]


class Constant(Mechanism):
    """x := c, whatever the parents and the noise: what do(x = c) puts in a mechanism's place.

    Args:
        value: c, ``(*batch, *event)``; its batch dimensions broadcast.
        domain: Where the variable lives.

    Example:
        >>> Constant(torch.tensor([3.0]), Domain())({}, {})
        tensor([3.])
    """

    value: Tensor

    def __init__(self, value: Tensor, domain: Domain) -> None:
        super().__init__(Context())
        self._domain = domain
        self.register_buffer("value", value, persistent=False)

    @property
    def domain(self) -> Domain:
        """Where the variable lives."""
        return self._domain

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """The constant."""
        return self.value

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """No noise."""
        return {}

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """No noise.

        Raises:
            ValueError: If ``value`` is not the constant.
        """
        self._check_value(value)
        return {}

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """Nothing to explain: zero nats, as a variable under do() carries no evidence."""
        zeros = self.log_prob(value, parents)
        return Evidence(zeros, zeros)

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Zero nats.

        Raises:
            ValueError: If ``value`` is not the constant.
        """
        self._check_value(value)
        return value.new_zeros(self.domain.batch_shape(value))

    def _check_value(self, value: Tensor) -> None:
        if bool((value != self.value).any()):
            raise ValueError(
                "the variable is held constant by an intervention, but its value is another; ask "
                "the model before act()."
            )

    def model(self, name: str, parents: Variables) -> Tensor:
        """A deterministic site."""
        value: Tensor = pyro.deterministic(name, self.value, event_dim=len(self.domain.shape))
        return value


class Modified(Mechanism):
    """x := h(f(u; pa)): what do(x = h) puts in a mechanism's place, for a function h.

    The parents keep their influence through f; an increment of 1 adds to whatever the value would
    have been.

    Args:
        mechanism: f.
        function: h, from a tensor to a tensor of the same shape.
        name: Name of the variable, for error messages.
    """

    def __init__(
        self, mechanism: Mechanism, function: Callable[[Tensor], Tensor], name: str
    ) -> None:
        super().__init__(mechanism.context)
        self.mechanism = mechanism
        self.function = function
        self.name = name

    @property
    def domain(self) -> Domain:
        """Where the variable lives."""
        return self.mechanism.domain

    @property
    def dtype(self) -> torch.dtype:
        """As f has it."""
        return self.mechanism.dtype

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """h(f(u; pa)).

        Raises:
            ValueError: If h leaves the variable's domain.
        """
        return self.apply_function(self.quantise(self.mechanism(noise, parents)))

    def apply_function(self, value: Tensor) -> Tensor:
        """h of a natural value, checked."""
        changed = torch.as_tensor(
            self.function(value.clone()), dtype=value.dtype, device=value.device
        )
        if changed.dim() == 0 and self.domain.shape == (1,):
            changed = changed.expand_as(value)
        self.domain.check(self.name, changed)
        return changed

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """The noise of f."""
        return self.mechanism.sample_noise(shape)

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Not possible: h need not have an inverse."""
        raise ValueError(
            f"{self.name} is under an intervention; abduct with the model before act()."
        )

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """Not possible, as for :meth:`abduct`."""
        raise ValueError(f"{self.name} is under an intervention and has no density.")

    def log_weights(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Tensor:
        """Not possible, as for :meth:`abduct`."""
        raise ValueError(f"{self.name} is under an intervention and has no density.")

    def model(self, name: str, parents: Variables) -> Tensor:
        """The natural value as the site ``name.natural``, its image under h as ``name``."""
        natural = self.mechanism.model(f"{name}.natural", parents)
        changed = self.apply_function(self.quantise(natural))
        value: Tensor = pyro.deterministic(name, changed, event_dim=len(self.domain.shape))
        return value

    def quantise(self, value: Tensor) -> Tensor:
        """As f does."""
        return self.mechanism.quantise(value)

    def dequantise(self, value: Tensor) -> Tensor:
        """As f does."""
        return self.mechanism.dequantise(value)
