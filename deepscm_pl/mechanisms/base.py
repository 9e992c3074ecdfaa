"""The contract of every mechanism, stated once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deepscm_pl.mechanisms.context import Context
from deepscm_pl.types import Domain, Noise, Variables

__all__ = ["Evidence", "LatentEvidence", "Mechanism"]


class LatentEvidence(NamedTuple):
    """What the evidence of a variable says of its latent z, in nats.

    Attributes:
        divergences: KL(q(z_j | x, pa) ‖ p(z_j)) of each dimension of the latent, ``(*batch, J)``.
        log_weights: log p(x, z_k | pa) − log q(z_k | x, pa) of each draw z_k ~ q(z | x, pa),
            ``(P, *batch)``.
    """

    divergences: Tensor
    log_weights: Tensor


@dataclass(frozen=True)
class Evidence:
    """What one variable contributes to the evidence lower bound, in nats.

    Attributes:
        log_prob: log p(x | pa), or E_q[log p(x | z, pa)] where there is a latent; ``(*batch,)``.
        divergence: KL(q(z | x, pa) ‖ p(z)), zero where the likelihood is exact; ``(*batch,)``.
        latent: What is known of the latent; ``None`` where the likelihood is exact.
    """

    log_prob: Tensor
    divergence: Tensor
    latent: LatentEvidence | None = None

    @property
    def bound(self) -> Tensor:
        """log p(x | pa) or its lower bound, ``(*batch,)``."""
        return self.log_prob - self.divergence

    @property
    def importance_weighted_bound(self) -> Tensor:
        """log of the mean weight of the draws (Burda et al. 2016), ``(*batch,)``.

        Equal to :attr:`bound` where the likelihood is exact.
        """
        if self.latent is None:
            return self.bound
        weights = self.latent.log_weights
        return weights.logsumexp(dim=0) - math.log(len(weights))


class Mechanism(nn.Module, ABC):
    """x := f(u; pa), with exogenous noise u ~ p(u) that can be inferred.

    The laws that every mechanism obeys, for values x, parents pa and noise u whose batch dimensions
    broadcast:

    - ``forward(abduct(x, pa), pa) == x``: abduction explains the value, for every draw, within
      rounding; recorded values that are quantised come back exactly;
    - where abduction is exact, ``abduct(forward(u, pa), pa) == u``;
    - ``log_prob`` is the density of ``forward(sample_noise(), pa)``, or raises where only a bound
      exists; ``evidence(...).bound`` never exceeds it in expectation;
    - every row of a batch is treated alone.

    Values here are continuous. Recorded ones that are quantised, such as 8-bit images, pass through
    :meth:`dequantise` before and :meth:`quantise` after.

    Args:
        context: What this mechanism sees of its parents.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """Where the values live."""

    @abstractmethod
    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """x = f(u; pa), ``(*batch, *event)``."""

    @abstractmethod
    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Noise from its prior, with batch dimensions ``shape``."""

    @abstractmethod
    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """The noise behind ``value``: exact, or draws of q(u | x, pa).

        Args:
            value: x, ``(*batch, *event)``.
            parents: The parents' values.
            sample_shape: Leading dimensions of independent draws; exact noise is repeated.
        """

    def abduct_recorded(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """The noise behind a recorded value: as :meth:`abduct`, of a draw of the continuous value.

        Where recording loses something, each draw is of a continuous value of its own, so that
        together they are draws from the posterior of the noise given what was recorded.
        """
        return self.abduct(self.dequantise(value), parents, sample_shape)

    @abstractmethod
    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """log p(x | pa), or a Monte Carlo estimate of its lower bound with ``num_particles``."""

    @abstractmethod
    def model(self, name: str, parents: Variables) -> Tensor:
        """Pyro: sample the site ``name``, and its latents as ``name.z``."""

    def guide(self, name: str, value: Tensor, parents: Variables) -> None:
        """Pyro: sample the latents of ``name`` given its value; nothing where there are none."""

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """log p(x | pa) in nats, ``(*batch,)``.

        Raises:
            NotImplementedError: If only a bound exists; see :meth:`evidence`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no exact log-probability; evidence() gives a lower bound."
        )

    def log_weights(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Tensor:
        """log p(x, z_k | pa) − log q(z_k | x, pa) for draws z_k ~ q(z | x, pa), ``(P, *batch)``.

        The mean of their exponentials over draws is an unbiased estimate of p(x | pa) (Burda et al.
        2016, arXiv:1509.00519, equation 8). Where the likelihood is exact there is nothing to draw:
        log p(x | pa) itself, with P = 1.

        Args:
            value: x, ``(*batch, *event)``.
            parents: The parents' values.
            num_particles: P, the number of draws.
        """
        return self.log_prob(value, parents)[None]

    def reconstruct(self, value: Tensor, parents: Variables) -> Tensor:
        """The recorded value that the most likely noise of ``value`` gives; itself where exact."""
        return value

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Take from the training split the statistics that this mechanism standardises with."""
        self.context.fit(parents)

    def dequantise(self, value: Tensor) -> Tensor:
        """A draw of the continuous value behind a recorded one; itself unless quantised."""
        return value

    def quantise(self, value: Tensor) -> Tensor:
        """The value as it is recorded; the inverse of :meth:`dequantise`."""
        return value
