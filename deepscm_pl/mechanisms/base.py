"""Mechanisms, the context of their parents, and the evidence of a variable."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from deepscm_pl.nn.layers import Features, check_names
from deepscm_pl.variables import Domain, Noise, Variables, common_shape

__all__ = ["Context", "Evidence", "LatentEvidence", "Mechanism"]


class Context(nn.Module):
    """The parents as one vector: continuous ones standardised, categorical ones one-hot.

    Means and standard deviations over the training split are buffers, which move, save and load
    with the model. ``features`` is the length of the vector, with the names of its parts.

    Args:
        domains: The domain of each parent, in the order of the features.

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
        """Return new contexts of the parents in ``names``, and of all other parents.

        ``argument`` is the name of the setting, for error messages.

        Raises:
            ValueError: If a name is not that of a parent.
        """
        check_names(argument, names, self.domains)
        chosen = {name: domain for name, domain in self.domains.items() if name in names}
        others = {name: domain for name, domain in self.domains.items() if name not in names}
        return Context(chosen), Context(others)

    def fit(self, variables: Variables) -> None:
        """Set means and standard deviations from the training split, ``(N, *event)``.

        Scalars that are NaN, missing values, are left out.
        """
        for name, domain in self.domains.items():
            if domain.categories is None:
                flat = variables[name].double().flatten(1)
                if domain.shape == (1,) and bool((unknown := flat.isnan()).any()):
                    flat = flat[~unknown].unsqueeze(-1)
                deviation = flat.std(dim=0, correction=0)
                varies = flat.amax(dim=0) > flat.amin(dim=0)
                self.get_buffer(f"{name}_mean").copy_(flat.mean(dim=0))
                # A constant feature is divided by 1 and stays at zero.
                deviation = torch.where(varies, deviation, torch.ones_like(deviation))
                self.get_buffer(f"{name}_deviation").copy_(deviation)

    def forward(self, variables: Variables) -> Tensor:
        """Return the context ``(*batch, features)``, batch dimensions broadcast over all parents.

        Without parents it has the shape ``(0,)``, which broadcasts with any batch.

        Raises:
            ValueError: If a parent is missing.
        """
        missing = [name for name in self.domains if name not in variables]
        if missing:
            raise ValueError(
                f"parents: expected {', '.join(self.domains)}, but {', '.join(missing)} is missing."
            )
        encoded = [self.encode(name, variables[name]) for name in self.domains]
        if not encoded:
            return torch.zeros(0)
        batch = common_shape(*(part.shape[:-1] for part in encoded))
        return torch.cat([part.expand(*batch, part.shape[-1]) for part in encoded], dim=-1)

    def encode(self, name: str, value: Tensor) -> Tensor:
        """Return the features of one parent, ``(*batch, features)``."""
        domain = self.domains[name]
        if domain.categories is not None:
            # functional.one_hot checks the values, which synchronises with the device.
            classes = torch.arange(domain.categories, device=value.device)
            return (value.long() == classes).to(torch.get_default_dtype())
        mean, deviation = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_deviation")
        flat = value.flatten(value.dim() - len(domain.shape))
        return (flat - mean) / deviation


class LatentEvidence(NamedTuple):
    """The part of a variable's evidence that concerns its latent z, in nats.

    Attributes:
        divergences: KL(q(z_j | x, pa) ‖ p(z_j)) of each dimension of the latent, ``(*batch, J)``.
        log_weights: log p(x, z_k | pa) − log q(z_k | x, pa) of each draw z_k ~ q(z | x, pa),
            ``(P, *batch)``.
        scales: Sizes of the parts of the latent at several scales, the coarsest first, J in total;
            empty for a latent of one scale.
    """

    divergences: Tensor
    log_weights: Tensor
    scales: tuple[int, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """The contribution of one variable to the evidence lower bound, in nats.

    Attributes:
        log_prob: log p(x | pa), or E_q[log p(x | z, pa)] if there is a latent; ``(*batch,)``.
        divergence: KL(q(z | x, pa) ‖ p(z)), zero if the likelihood is exact; ``(*batch,)``.
        latent: The evidence about the latent; ``None`` if the likelihood is exact.
        is_loss: Whether ``log_prob`` is no log-probability, but the negative loss by which the
            mechanism is trained, in a unit of its own; the divergence is then zero.
    """

    log_prob: Tensor
    divergence: Tensor
    latent: LatentEvidence | None = None
    is_loss: bool = False

    @property
    def bound(self) -> Tensor:
        """log p(x | pa) or its lower bound, ``(*batch,)``."""
        return self.log_prob - self.divergence

    @property
    def importance_weighted_bound(self) -> Tensor:
        """The log of the mean weight of the draws (Burda et al. 2016), ``(*batch,)``.

        Equal to :attr:`bound` if the likelihood is exact.
        """
        if self.latent is None:
            return self.bound
        weights = self.latent.log_weights
        return weights.logsumexp(dim=0) - math.log(len(weights))


class Mechanism(nn.Module, ABC):
    """A mechanism x := f(u; pa), with exogenous noise u ~ p(u) that can be inferred.

    Every mechanism obeys these laws, for values x, parents pa and noise u whose batch dimensions
    broadcast:

    - ``forward(abduct(x, pa), pa) == x`` for every draw, within rounding; recorded values that are
      quantised are recovered exactly;
    - if abduction is exact, ``abduct(forward(u, pa), pa) == u``;
    - ``log_prob`` is the density of ``forward(sample_noise(), pa)``, or raises if only a bound
      exists; ``evidence(...).bound`` never exceeds it in expectation;
    - the result for a row does not depend on the rest of the batch.

    Values here are continuous. Quantised recorded ones, such as 8-bit images, pass through
    :meth:`dequantise` before and :meth:`quantise` after.

    Many f have the same p(x | pa) and different counterfactuals: data determine p, and f is chosen.
    The choice is the *coupling* of the values that one noise gives under different parents. Each
    mechanism documents its own; :mod:`deepscm_pl.sensitivity` computes answers under others.

    By default the noise is standard normal, and p(x | pa) is explicit: such mechanisms define
    :meth:`domain`, :meth:`forward`, :meth:`abduct` and :meth:`distribution`.

    Args:
        context: The context of the parents.

    Attributes:
        is_frozen: Whether the training leaves it and its statistics unchanged, if pre-trained.
    """

    is_frozen: bool = False

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """The domain of the values."""

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters; without any, of the buffers."""
        tensor = self._first_tensor()
        return torch.get_default_dtype() if tensor is None else tensor.dtype

    def _first_tensor(self) -> Tensor | None:
        tensors = (*self.parameters(), *self.buffers())
        return next((tensor for tensor in tensors if tensor.is_floating_point()), None)

    @abstractmethod
    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x = f(u; pa), ``(*batch, *event)``."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The event shape of the noise."""
        return self.domain.shape

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw noise from its prior, with batch dimensions ``shape``: by default u ~ N(0, I)."""
        tensor = self._first_tensor()
        device = None if tensor is None else tensor.device
        noise = torch.empty(*shape, *self.noise_shape, dtype=self.dtype, device=device)
        return {"u": noise.normal_()}

    @abstractmethod
    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Infer the noise of ``value``: exactly, or by draws of q(u | x, pa).

        Args:
            value: x, ``(*batch, *event)``.
            parents: The values of the parents.
            sample_shape: Leading dimensions of independent draws; exact noise is repeated.
        """

    def abduct_recorded(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Infer the noise of a recorded value: :meth:`abduct` of a draw of the continuous value.

        For quantised values, each draw has its own continuous value, so that the draws are from the
        posterior of the noise given the recorded value.
        """
        return self.abduct(self.dequantise(value), parents, sample_shape)

    def likeliest(self, value: Tensor, parents: Variables) -> dict[str, Tensor]:
        """Infer the noise of a recorded value without a draw, as far as the mechanism can.

        Noise that the value determines is that of :meth:`abduct`. Other noise is at its most likely
        value, or the mean, for images; by default it is a draw of :meth:`abduct_recorded`.
        """
        return self.abduct_recorded(value, parents)

    def resample(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...], candidates: int
    ) -> dict[str, Tensor]:
        """Infer the noise of a recorded value by importance resampling of its latents.

        The draws tend to those of the posterior as ``candidates`` grows, whatever q(z | x, pa) is.
        Without latents this is :meth:`abduct_recorded`, which is then exact.
        """
        return self.abduct_recorded(value, parents, sample_shape)

    def coupled(self, noise: Noise, parents: Variables) -> dict[str, Tensor]:
        """Return noise of a factual value with all that its coupling with other values needs.

        Samples and interventions do not depend on this coupling, counterfactuals do. By default,
        noise is the same under every intervention.

        Args:
            noise: Noise of :meth:`abduct_recorded`, :meth:`likeliest` or :meth:`resample`.
            parents: The factual parents.
        """
        return dict(noise)

    def check_explained(self, name: str, value: Tensor, noise: Noise) -> None:
        """Raise a ValueError if a recorded value of the variable ``name`` has no noise.

        Most mechanisms explain their whole domain. ``noise`` is from :meth:`abduct_recorded`.
        """

    def distribution(self, parents: Variables) -> TorchDistribution:
        """Return p(x | pa).

        Raises:
            NotImplementedError: If only a bound exists; see :meth:`evidence`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no exact log-probability; evidence() gives a lower bound."
        )

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return log p(x | pa) in nats, ``(*batch,)``, if there is a :meth:`distribution`."""
        log_prob: Tensor = self.distribution(parents).log_prob(value)
        return log_prob

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """Return log p(x | pa), or a Monte Carlo estimate of its lower bound."""
        log_prob = self.log_prob(value, parents)
        return Evidence(log_prob, torch.zeros_like(log_prob))

    @property
    def has_likelihood(self) -> bool:
        """Whether :meth:`evidence` gives a log-probability or a bound of it."""
        return True

    @property
    def calls(self) -> int:
        """About how many calls of its network one value takes, so that fewer are drawn."""
        return 1

    @property
    def likelihood_note(self) -> str:
        """What a table says of its log-probability, if it is not a bound; else an empty text."""
        return ""

    @property
    def has_training_loss(self) -> bool:
        """Whether the mechanism is trained by a loss of its own, :meth:`training_evidence`."""
        return False

    def training_evidence(
        self, value: Tensor, parents: Variables, num_particles: int = 1
    ) -> Evidence:
        """Return what a training maximises: by default, :meth:`evidence`.

        Mechanisms with :attr:`has_training_loss` return ``Evidence(-loss, 0, is_loss=True)``. A
        training adds it to the bounds of the other variables, and logs it as ``loss/<variable>``.
        """
        return self.evidence(value, parents, num_particles)

    def evidence_in(
        self, is_training: bool, value: Tensor, parents: Variables, num_particles: int
    ) -> Evidence:
        """Return the evidence of a training or validation, or that of a test.

        Without a likelihood it is that of the training in both.
        """
        if (is_training and self.has_training_loss) or not self.has_likelihood:
            return self.training_evidence(value, parents, num_particles)
        return self.evidence(value, parents, num_particles)

    @property
    def abduction_is_exact(self) -> bool:
        """Whether ``forward(abduct(x, pa), pa)`` is x, rather than a reconstruction."""
        return True

    @property
    def has_recorded_bound(self) -> bool:
        """Whether :meth:`recorded_bound` is tighter than the bound of :meth:`evidence`."""
        return False

    def recorded_bound(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Tensor:
        """Return log P(x | pa) of a *recorded* value, or a lower bound of it, ``(*batch,)``.

        For quantised values a probability, without the loss of uniform dequantisation noise.
        """
        return self.evidence(self.dequantise(value), parents, num_particles).bound

    def log_weights(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Tensor:
        """Return log p(x, z_k | pa) − log q(z_k | x, pa) for z_k ~ q(z | x, pa), ``(P, *batch)``.

        The mean of their exponentials over draws is an unbiased estimate of p(x | pa) (Burda et al.
        2016, arXiv:1509.00519, equation 8). If the likelihood is exact, the result is log p(x | pa)
        with P = 1, without draws.
        """
        return self.log_prob(value, parents)[None]

    def recorded_log_weights(
        self, value: Tensor, parents: Variables, num_particles: int = 1
    ) -> Tensor:
        """Return the weights of :meth:`log_weights` of a *recorded* value, ``(P, *batch)``.

        As in :meth:`recorded_bound`, those of a quantised value are of its probability.
        """
        return self.log_weights(self.dequantise(value), parents, num_particles)

    def posterior_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of q(z | x, pa) alone, on which p(x | pa) does not depend."""
        return iter(())

    def model(self, name: str, parents: Variables) -> Tensor:
        """Sample the Pyro site ``name``, and its latents as ``name.z``."""
        value: Tensor = pyro.sample(name, self.distribution(parents))
        return value

    def guide(self, name: str, value: Tensor, parents: Variables) -> None:
        """Sample the latents of the Pyro site ``name`` given its value, if there are any."""

    @property
    def diagnostics(self) -> tuple[str, ...]:
        """Names of the quantities of :meth:`diagnose`, which a validation logs; by default none."""
        return ()

    def diagnose(self, value: Tensor, parents: Variables) -> dict[str, Tensor]:
        """Return quantities of recorded values that show a failed training, ``(N,)`` each."""
        return {}

    def failure(self, means: Mapping[str, float]) -> str | None:
        """Return the description of a failure that means of :meth:`diagnose` show, if any."""
        return None

    def reconstruct(self, value: Tensor, parents: Variables) -> Tensor:
        """Return the recorded value of the most likely noise; ``value`` itself if it is exact."""
        return value

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Set the statistics for standardisation from the training split."""
        self.context.fit(parents)

    def dequantise(self, value: Tensor) -> Tensor:
        """Draw the continuous value of a recorded one; without quantisation it is unchanged."""
        return value

    def quantise(self, value: Tensor) -> Tensor:
        """Return the value as it is recorded; the inverse of :meth:`dequantise`."""
        return value
