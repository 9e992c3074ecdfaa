"""Mechanisms of variables under an intervention."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from deepscm_pl.mechanisms.base import Context, Mechanism
from deepscm_pl.variables import Domain, Noise, Variables

__all__ = ["Constant", "Modified"]


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


class Modified(Mechanism):
    """x := h(f(u; pa)) for a function h: the replacement of a mechanism under do(x = h).

    The parents keep their influence through f: an increment is added to the value of f. The
    coupling is that of f.

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
        natural = self.quantise(self.mechanism(noise, parents))
        return self.apply_function(self.domain.moved_inside(natural))

    def apply_function(self, value: Tensor) -> Tensor:
        """Return h of a natural value, after checking that it is in the domain."""
        changed = torch.as_tensor(
            self.function(value.clone()), dtype=value.dtype, device=value.device
        )
        if changed.dim() == 0 and self.domain.shape == (1,):
            changed = changed.expand_as(value)
        self.domain.check(self.name, changed)
        return changed

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw the noise of f."""
        return self.mechanism.sample_noise(shape)

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
        natural = self.mechanism.model(f"{name}.natural", parents)
        changed = self.apply_function(self.quantise(natural))
        value: Tensor = pyro.deterministic(name, changed, event_dim=len(self.domain.shape))
        return value
