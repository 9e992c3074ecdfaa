"""Sensitivity of counterfactuals to the coupling of the noise, which no data determine.

Data determine the conditionals p(x | pa), hence association and intervention. A counterfactual
also depends on the *coupling*: which values of a variable, under its factual and under other
parents, belong to the same noise. Every mechanism chooses one, such as the monotone coupling of a
flow. Here the same question is asked under others, with the same conditionals:

- ``independent``: noise drawn anew where the parents change, so that nothing is kept;
- ``reversed``: of scalars, −u in place of u where the parents change: the value with quantile q
  becomes that with 1 − q. For continuous values, the monotone and the reversed coupling are the
  extremes (−u under all parents would be the coupling of the model again);
- ``classes in order``: of :class:`~deepscm_pl.mechanisms.Categorical`, one uniform number that
  selects a class by the cumulative probabilities, in place of Gumbel-max. The reversed order is
  the same coupling;
- ``rotated latent``: of a VAE, a rotation of z by 30 degrees where the parents change;
- ``new pixel noise``: of a VAE, u drawn anew where the parents change;
- ``reversed raster order``: of a VAE with a predicted covariance of its pixel noise, the root of
  the same covariance in which a pixel keeps what the pixels *after* it do not predict.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Transform

from deepscm_pl.checks import whole_number
from deepscm_pl.interventions import is_set_anew, read_variables
from deepscm_pl.likelihoods import (
    Likelihood,
    PredictedCovarianceGaussian,
    PredictedLowRankGaussian,
)
from deepscm_pl.mechanisms import (
    Categorical,
    CellMechanism,
    Evidence,
    LatentImageMechanism,
    Mechanism,
)
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do, Domain, Noise, Variables, common_shape

__all__ = ["CouplingChange", "Recoupled", "couplings", "recouple", "sensitivity_to_coupling"]

Coupling: TypeAlias = Callable[[Mechanism, Variables], Mechanism]
"""From a mechanism and the factual values of its parents to one with another coupling."""

_OTHER = "_other"
_ANGLE = math.pi / 6
_LARGEST_COVARIANCE = 4096  # pixels; a covariance takes 128 MB


@dataclass(frozen=True)
class CouplingChange:
    """The distance of a variable's counterfactuals under another coupling from the model's.

    Distances are absolute differences, averaged over particles and pixels; for classes, the share
    of particles that differ.

    Attributes:
        variable: The variable.
        coupling: The other coupling of its mechanism.
        distance: Distance between both answers, ``(*batch,)``.
        change: Distance between the model's answer and the factual value, ``(*batch,)``.
    """

    variable: str
    coupling: str
    distance: Tensor
    change: Tensor


def sensitivity_to_coupling(
    scm: StructuralCausalModel, factual: Variables, do: Do, num_particles: int = 1, seed: int = 0
) -> list[CouplingChange]:
    """Compute how far counterfactuals move under other couplings, one mechanism at a time.

    Args:
        scm: The model.
        factual: Recorded values of every variable, ``(*batch, *event)``.
        do: One intervention.
        num_particles: Number of draws of the noise.
        seed: Seed of the noise, which all couplings share.

    Returns:
        A result for each effect of the intervention and each of its :func:`couplings`.

    Raises:
        ValueError: If the intervention or an observation is not valid.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
        >>> factual = {"a": torch.tensor([[0.0]]), "b": torch.tensor([[1.5]])}
        >>> found = sensitivity_to_coupling(scm, factual, {"a": 1.0})
        >>> [(each.variable, each.coupling) for each in found]
        [('b', 'independent'), ('b', 'reversed')]
        >>> found[1].distance.item()  # from 1.5, the quantile 0.93, to -1.5, the quantile 0.07
        3.0
    """
    whole_number("num_particles", num_particles, least=1)
    scm.check_do(do)
    results = []
    for name in scm.graph:
        is_set = name in do and is_set_anew(do[name])
        if is_set or not scm.graph.ancestors(name) & do.keys():
            continue
        # Changes of ancestors may read variables that are none.
        kept = {each: do[each] for each in do if each == name or each in scm.graph.ancestors(name)}
        part = scm.restrict([name, *read_variables(kept)])
        values = {each: factual[each] for each in part.graph}
        asked = partial(_answer, name, values, kept, num_particles, seed)
        answer = asked(part)
        change = _distance(scm[name].domain, answer, factual[name])
        for coupling in couplings(scm[name]):
            other = asked(recouple(part, name, coupling, factual))
            distance = _distance(scm[name].domain, other, answer)
            results.append(CouplingChange(name, coupling, distance, change))
    return results


def _answer(
    name: str, factual: Variables, do: Do, count: int, seed: int, scm: StructuralCausalModel
) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        return scm.counterfactual(factual, do, count)[name]


def _distance(domain: Domain, first: Tensor, second: Tensor) -> Tensor:
    """The distance of particles, averaged over these and pixels, ``(*batch,)``."""
    if domain.categories is not None:
        difference = (first != second).double()
    else:
        difference = (first.double() - second.double()).abs()
    return difference.flatten(difference.dim() - len(domain.shape)).mean(dim=-1).mean(dim=0)


def couplings(mechanism: Mechanism) -> dict[str, Coupling]:
    """Return the other couplings of a mechanism by name.

    Example:
        >>> from deepscm_pl.mechanisms import Context
        >>> list(couplings(Categorical(Context(), 3)))
        ['independent', 'classes in order']
    """
    found: dict[str, Coupling] = {"independent": _coupling(_independent)}
    if isinstance(mechanism, Categorical):
        found["classes in order"] = lambda each, factual: _InOrder(each)
    elif mechanism.domain.shape == (1,):
        found["reversed"] = _coupling(_reversed)
    if isinstance(mechanism, LatentImageMechanism):
        found["rotated latent"] = _coupling(_rotated, "z")
        found["new pixel noise"] = _coupling(_independent, "u")
        # A covariance that is the same under all parents has one coupling for every root.
        predicted = PredictedCovarianceGaussian, PredictedLowRankGaussian
        if (
            isinstance(mechanism.likelihood, predicted)
            and math.prod(mechanism.shape) <= _LARGEST_COVARIANCE
        ):
            found["reversed raster order"] = lambda each, factual: _with_reversed_order(each)
    return found


def recouple(
    scm: StructuralCausalModel, name: str, coupling: str, factual: Variables
) -> StructuralCausalModel:
    """Return a model with equal conditionals and another coupling of one mechanism.

    Args:
        scm: The model, whose other mechanisms are shared.
        name: The variable.
        coupling: One of its :func:`couplings`.
        factual: Values of its parents in the observations that counterfactuals will be of.

    Raises:
        ValueError: If the mechanism has no such coupling.
    """
    known = couplings(scm[name])
    if coupling not in known:
        raise ValueError(
            f"coupling: expected one of {', '.join(known)} for {name}, but got {coupling!r}."
        )
    parents = {each: factual[each] for each in scm.graph.parents[name]}
    return scm.with_mechanisms({name: known[coupling](scm[name], parents)})


class Recoupled(Mechanism):
    """x := f(u; pa) at the factual parents, and x := f(T(u, u'); pa) at all others.

    u' is further standard normal noise. T preserves the distribution of u, so that p(x | pa) is
    that of f for all parents; only the coupling differs.

    Args:
        mechanism: f.
        transforms: T for each part of the noise that it changes.
        factual: The factual parents, ``(*batch, *event)``.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        transforms: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
        factual: Variables,
    ) -> None:
        super().__init__(mechanism.context)
        self.mechanism = mechanism
        self.transforms = dict(transforms)
        self.factual = dict(factual)

    @property
    def domain(self) -> Domain:
        """The domain of f."""
        return self.mechanism.domain

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of f."""
        return self.mechanism.dtype

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x."""
        changed = torch.zeros((), dtype=torch.bool)
        for name, value in self.factual.items():
            domain = self.mechanism.context.domains[name]
            differs = parents[name] != value
            changed = changed | differs.flatten(differs.dim() - len(domain.shape)).any(dim=-1)
        parts = {key: value for key, value in noise.items() if not key.endswith(_OTHER)}
        for key, transform in self.transforms.items():
            moved = transform(parts[key], noise[key + _OTHER])
            where = changed.view(*changed.shape, *[1] * self._event_dims(key))
            parts[key] = torch.where(where, moved, parts[key])
        return self.mechanism(parts, parents)

    def _event_dims(self, key: str) -> int:
        is_latent = key == "z" or len(self.domain.shape) == 1
        return 1 if is_latent else len(self.domain.shape)

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw u and u'."""
        return self._with_other(self.mechanism.sample_noise(shape))

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Infer u from a value under the factual parents, and draw u' from its prior."""
        return self._with_other(self.mechanism.abduct(value, parents, sample_shape))

    def abduct_recorded(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Infer u from a recorded value, and draw u' from its prior."""
        return self._with_other(self.mechanism.abduct_recorded(value, parents, sample_shape))

    def likeliest(self, value: Tensor, parents: Variables) -> dict[str, Tensor]:
        """Infer u as f does, and draw u' from its prior."""
        return self._with_other(self.mechanism.likeliest(value, parents))

    def resample(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...], candidates: int
    ) -> dict[str, Tensor]:
        """Infer u by importance resampling as f does, and draw u' from its prior."""
        return self._with_other(self.mechanism.resample(value, parents, sample_shape, candidates))

    def _with_other(self, noise: Noise) -> dict[str, Tensor]:
        others = {key + _OTHER: torch.randn_like(noise[key]) for key in self.transforms}
        return {**noise, **others}

    def check_explained(self, name: str, value: Tensor, noise: Noise) -> None:
        """Raise a ValueError if f does not explain a value."""
        self.mechanism.check_explained(name, value, noise)

    def distribution(self, parents: Variables) -> TorchDistribution:
        """Return p(x | pa), that of f."""
        return self.mechanism.distribution(parents)

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return log p(x | pa), that of f."""
        return self.mechanism.log_prob(value, parents)

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """Return log p(x | pa) or its bound, that of f."""
        return self.mechanism.evidence(value, parents, num_particles)

    def quantise(self, value: Tensor) -> Tensor:
        """Quantise as f does."""
        return self.mechanism.quantise(value)

    def dequantise(self, value: Tensor) -> Tensor:
        """Dequantise as f does."""
        return self.mechanism.dequantise(value)


def _coupling(transform: Callable[[Tensor, Tensor], Tensor], *parts: str) -> Coupling:
    """A coupling with one transform of some parts of the noise, by default of all."""

    def recoupled(mechanism: Mechanism, factual: Variables) -> Mechanism:
        chosen = parts or ("z", "u") if isinstance(mechanism, LatentImageMechanism) else ("u",)
        return Recoupled(mechanism, dict.fromkeys(chosen, transform), factual)

    return recoupled


def _independent(noise: Tensor, other: Tensor) -> Tensor:
    return other


def _reversed(noise: Tensor, other: Tensor) -> Tensor:
    return -noise


def _rotated(noise: Tensor, other: Tensor) -> Tensor:
    """Rotate pairs of the entries; a last one without a partner is rotated against new noise."""
    half = noise.shape[-1] // 2
    first, second, last = noise.split((half, half, noise.shape[-1] - 2 * half), dim=-1)
    cosine, sine = math.cos(_ANGLE), math.sin(_ANGLE)
    turned = (cosine * first - sine * second, sine * first + cosine * second)
    return torch.cat([*turned, cosine * last + sine * other[..., 2 * half :]], dim=-1)


class _InOrder(CellMechanism):
    """A categorical variable that is selected by one number: x := #{k: Φ(u) > p_0 + … + p_k}."""

    def __init__(self, mechanism: Mechanism) -> None:
        super().__init__(mechanism.context)
        if not isinstance(mechanism, Categorical):
            raise TypeError(f"expected a Categorical, but got {type(mechanism).__name__}.")
        self.mechanism = mechanism

    @property
    def domain(self) -> Domain:
        return self.mechanism.domain

    def _edges(self, parents: Variables) -> Tensor:
        """Φ⁻¹ of the cumulative probabilities from both ends, ``(*batch, K + 1)``."""
        probability = self.mechanism.logits(parents).double().exp()
        below = probability.cumsum(-1)[..., :-1]
        above = probability.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        upper = -torch.special.ndtri(above)
        inner = torch.where(below < 0.5, torch.special.ndtri(below), upper)
        end = inner.new_full((*inner.shape[:-1], 1), math.inf)
        return torch.cat([-end, inner, end], dim=-1)

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        above = noise["u"] > self._edges(parents)[..., 1:-1]
        return above.sum(-1, keepdim=True).to(noise["u"])

    def cell(self, value: Tensor, parents: Variables) -> tuple[Tensor, Tensor]:
        edges = self._edges(parents)
        batch = common_shape(value.shape[:-1], edges.shape[:-1])
        edges = edges.expand(*batch, edges.shape[-1])
        place = value.long().expand(*batch, 1)
        return edges.gather(-1, place), edges.gather(-1, place + 1)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (1,)

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        return self.mechanism.log_prob(value, parents)


class _ReversedOrder(Likelihood):
    """y = μ + U·u with the upper triangular root of a likelihood's covariance, U·Uᵀ = Σ."""

    basis: Tensor

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__(likelihood.shape, likelihood.levels, likelihood.temperature)
        self.likelihood = likelihood
        self.outputs_per_channel = likelihood.outputs_per_channel
        self.register_buffer("basis", torch.eye(math.prod(self.shape), dtype=torch.float64))

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        return self._by_row(decoded, noise, self._value_of)

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        return self._by_row(decoded, value, self._noise_of)

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        return self.likelihood.log_prob(decoded, value)

    def preprocessing(self, alpha: float) -> Transform:
        return self.likelihood.preprocessing(alpha)

    def _by_row(
        self, decoded: Tensor, image: Tensor, function: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Apply ``function`` to one row at a time, whose covariance is a large matrix."""
        batch = common_shape(decoded.shape[:-3], image.shape[:-3])
        outputs = decoded.expand(*batch, *decoded.shape[-3:]).reshape(-1, *decoded.shape[-3:])
        images = image.expand(*batch, *self.shape).reshape(-1, *self.shape)
        rows = [function(*each) for each in zip(outputs.double(), images.double(), strict=True)]
        return torch.stack(rows).view(*batch, *self.shape).to(image)

    def _value_of(self, decoded: Tensor, noise: Tensor) -> Tensor:
        location, inverse = self._location_and_inverse_root(decoded)
        residual = torch.linalg.solve_triangular(inverse, noise.view(-1, 1), upper=True)
        return location + residual.view(self.shape)

    def _noise_of(self, decoded: Tensor, value: Tensor) -> Tensor:
        location, inverse = self._location_and_inverse_root(decoded)
        return (inverse @ (value - location).flatten()).view(self.shape)

    def _location_and_inverse_root(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """μ and U⁻¹, the transposed Cholesky factor of the precision."""
        location = self.likelihood.noise_free(decoded)
        images = location + self.basis.view(-1, *self.shape)
        noise = self.likelihood.abduct(decoded[None], images)
        columns = noise.flatten(1)  # a row for each pixel, its effect on the noise
        return location, torch.linalg.cholesky(columns @ columns.mT).mT


def _with_reversed_order(mechanism: Mechanism) -> Mechanism:
    if not isinstance(mechanism, LatentImageMechanism):
        raise TypeError(f"expected a LatentImageMechanism, but got {type(mechanism).__name__}.")
    made = copy.copy(mechanism)
    made._modules = {**mechanism._modules}
    made.likelihood = _ReversedOrder(mechanism.likelihood)
    return made
