"""What a mechanism sees of its parents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deepscm_pl.nn.features import Features, check_names
from deepscm_pl.variables import Domain, Noise, Variables

__all__ = ["Context", "Evidence", "LatentEvidence", "Mechanism"]


class Context(nn.Module):
    """Parents as one vector: continuous ones standardised, categorical ones one-hot.

    The means and standard deviations are those of the training split. They are buffers, so they
    move, save and load with the model.

    Args:
        domains: For each parent, where it lives. The order is that of the features.

    Attributes:
        features: Length of the vector, and the names of its parts.

    Example:
        >>> context = Context({"age": Domain(), "sex": Domain(categories=2)})
        >>> context({"age": torch.tensor([[40.0]]), "sex": torch.tensor([[1.0]])})
        tensor([[40.,  0.,  1.]])
    """

    def __init__(self, domains: Mapping[str, Domain] | None = None) -> None:
        super().__init__()
        self.domains = dict(domains or {})
        self.features = Features({n: domain.features for n, domain in self.domains.items()})
        for name, domain in self.domains.items():
            if domain.categories is None:
                self.register_buffer(f"{name}_mean", torch.zeros(domain.features))
                self.register_buffer(f"{name}_deviation", torch.ones(domain.features))

    @property
    def parents(self) -> tuple[str, ...]:
        """The names of the parents."""
        return tuple(self.domains)

    def split(self, argument: str, names: Collection[str]) -> tuple[Context, Context]:
        """New contexts of some parents and of all others.

        Args:
            argument: The setting that names the parents, for the message.
            names: The parents.

        Raises:
            ValueError: If a name is not one of a parent.
        """
        check_names(argument, names, self.domains)
        chosen = {name: domain for name, domain in self.domains.items() if name in names}
        others = {name: domain for name, domain in self.domains.items() if name not in names}
        return Context(chosen), Context(others)

    def fit(self, variables: Variables) -> None:
        """Take means and standard deviations of the parents over the training split, ``(N, *)``."""
        for name, domain in self.domains.items():
            if domain.categories is None:
                flat = variables[name].double().flatten(1)
                deviation = flat.std(dim=0, correction=0)
                varies = flat.amax(dim=0) > flat.amin(dim=0)
                self.get_buffer(f"{name}_mean").copy_(flat.mean(dim=0))
                # A feature that never varies says nothing; dividing by 1 leaves it at zero.
                deviation = torch.where(varies, deviation, torch.ones_like(deviation))
                self.get_buffer(f"{name}_deviation").copy_(deviation)

    def forward(self, variables: Variables) -> Tensor:
        """The context ``(*batch, features)``, batch dimensions broadcast over all parents.

        Without parents, a tensor of shape ``(0,)``, which broadcasts with everything.

        Raises:
            ValueError: If a parent is missing.
        """
        missing = [name for name in self.domains if name not in variables]
        if missing:
            raise ValueError(
                f"parents: expected {', '.join(self.domains)}, but {', '.join(missing)} is missing."
            )
        encoded = [self._encode(name, variables[name]) for name in self.domains]
        if not encoded:
            return torch.zeros(0)
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in encoded))
        return torch.cat([part.expand(*batch, part.shape[-1]) for part in encoded], dim=-1)

    def _encode(self, name: str, value: Tensor) -> Tensor:
        domain = self.domains[name]
        if domain.categories is not None:
            # Not functional.one_hot, which looks at the values, and so waits for the device.
            classes = torch.arange(domain.categories, device=value.device)
            return (value.long() == classes).to(torch.get_default_dtype())
        mean, deviation = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_deviation")
        flat = value.flatten(value.dim() - len(domain.shape))
        return (flat - mean) / deviation


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

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters; without any, of the buffers."""
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.get_default_dtype()

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

    def check_explained(self, name: str, value: Tensor, noise: Noise) -> None:
        """Raise where ``noise``, inferred from recorded values, explains none of them.

        Most mechanisms explain every value of their domain, and check nothing.

        Args:
            name: Of the variable, for the message.
            value: ``(*batch, *event)``.
            noise: What :meth:`abduct_recorded` gave for it.

        Raises:
            ValueError: Naming the variable, the value and its row.
        """

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
