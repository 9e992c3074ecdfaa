"""The mechanism of a variable that is held fixed."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor

from deepscm_pl.mechanisms.base import Evidence, Mechanism
from deepscm_pl.mechanisms.context import Context
from deepscm_pl.types import Domain, Noise, Variables

__all__ = ["Constant"]


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
