"""The structural causal model and the three rungs of Pearl's ladder."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeAlias

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from deepscm_pl.checks import class_factory, whole_number
from deepscm_pl.graph import CausalGraph
from deepscm_pl.interventions import (
    Before,
    Draw,
    Resolved,
    Where,
    as_change,
    changed_graph,
    resolve,
)
from deepscm_pl.mechanisms import Constant, Context, Drawn, Evidence, Mechanism, Modified
from deepscm_pl.mechanisms.missing import MissingValueNetworks, is_missing
from deepscm_pl.model_memory import require_buildable
from deepscm_pl.training_distribution import TrainingDistribution
from deepscm_pl.variables import Change, Do, Intervention, Noise, Variable, Variables, common_shape

__all__ = [
    "EvidenceLowerBound",
    "ImportanceWeightedBound",
    "MechanismFactory",
    "StructuralCausalModel",
]

_CANDIDATES = 32  # of missing values, for each row
_INFERRED_AT_A_TIME = 256  # rows with missing values

MechanismFactory: TypeAlias = Callable[[Context], Mechanism]
"""A mechanism class, or a ``functools.partial`` of one, called with the context of its parents."""


@dataclass(frozen=True)
class EvidenceLowerBound:
    """The log-probability and divergence of each variable of a batch, in nats."""

    evidence: Mapping[str, Evidence]

    @property
    def bound(self) -> Tensor:
        """The sum over variables: a lower bound of the joint log-probability, ``(*batch,)``.

        It is no bound, but the objective of a training, if ``has_losses``.
        """
        return _sum([evidence.bound for evidence in self.evidence.values()])

    @property
    def known_bound(self) -> Tensor:
        """The sum over the variables that have a likelihood, ``(*batch,)``."""
        return _sum(
            [
                torch.zeros_like(evidence.bound) if evidence.is_loss else evidence.bound
                for evidence in self.evidence.values()
            ]
        )

    @property
    def has_losses(self) -> bool:
        """Whether the evidence of some variable is the negative loss of its mechanism."""
        return any(evidence.is_loss for evidence in self.evidence.values())


@dataclass(frozen=True)
class ImportanceWeightedBound:
    """The importance-weighted bound of a batch, variable by variable, in nats.

    ``bounds`` has log p(x | pa) of each variable where it is exact, or its lower bound, and
    ``evidence_lower_bounds`` the mean of the log-weights over the same draws, ``(*batch,)`` each.
    """

    bounds: Mapping[str, Tensor]
    evidence_lower_bounds: Mapping[str, Tensor]

    @property
    def gaps(self) -> dict[str, Tensor]:
        """The excess of each bound over the evidence lower bound, at least 0, ``(*batch,)``.

        It is zero if the likelihood is exact, if the guide is the posterior, and for one draw.
        """
        return {
            name: (bound - self.evidence_lower_bounds[name]).clamp(min=0)
            for name, bound in self.bounds.items()
        }

    @property
    def bound(self) -> Tensor:
        """The sum over variables: a lower bound of the joint log-probability, ``(*batch,)``."""
        return _sum(self.bounds.values())


class StructuralCausalModel(nn.Module):
    """A mechanism x_k := f_k(u_k; pa_k) for each variable of a graph, with independent noise u_k.

    One trained model answers questions of three kinds (Pearl; Pawlowski et al. 2020, section 2):
    association (:meth:`sample`, :meth:`log_prob`, :meth:`elbo`), intervention (:meth:`intervene`)
    and counterfactual (:meth:`counterfactual`, which is :meth:`abduct`, :meth:`act` and
    :meth:`predict`).

    Args:
        graph: The causal graph, or an argument of :class:`~deepscm_pl.graph.CausalGraph`.
        mechanisms: The mechanism of each variable, or its factory.

    Raises:
        ValueError: If a variable has no mechanism, a mechanism no variable, or the parents of a
            mechanism differ from those in the graph.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("age -> volume", {"age": AffineFlow, "volume": AffineFlow})
        >>> factual = {"age": torch.tensor([[1.0]]), "volume": torch.tensor([[0.5]])}
        >>> answer = scm.counterfactual(factual, do={"age": 3.0})
        >>> answer["volume"].shape  # particles, observations, event
        torch.Size([1, 1, 1])
    """

    fitted: Tensor

    def __init__(
        self,
        graph: CausalGraph | str | Mapping[str, Sequence[str]],
        mechanisms: Mapping[str, MechanismFactory | Mechanism],
    ) -> None:
        super().__init__()
        self.graph = graph if isinstance(graph, CausalGraph) else CausalGraph(graph)
        _check_mechanism_names(self.graph, mechanisms)
        self.mechanisms = nn.ModuleDict()
        for name in self.graph:
            self.mechanisms[name] = self._make(name, mechanisms[name])
        self.register_buffer("fitted", torch.tensor(False))
        self.missing_values = MissingValueNetworks({name: self[name].domain for name in self.graph})
        self.training_distribution = TrainingDistribution(
            {name: self[name].domain for name in self.scalar_variables}, self.image_variables
        )
        self._described: dict[str, Variable] = {}

    def _make(self, name: str, mechanism: MechanismFactory | Mechanism) -> Mechanism:
        parents = self.graph.parents[name]
        if not isinstance(mechanism, Mechanism):
            context = Context({parent: self[parent].domain for parent in parents})
            make = class_factory(f"mechanisms.{name}", mechanism)
            require_buildable(f"mechanisms.{name}", make, context)
            made = make(context)
            if isinstance(made, Mechanism):
                return made
            raise ValueError(
                f"mechanisms: expected the factory of {name!r} to return a Mechanism, but got "
                f"{made!r}."
            )
        if not isinstance(mechanism, Constant) and set(mechanism.context.parents) != set(parents):
            raise ValueError(
                f"mechanisms: {name!r} was made for the parents {mechanism.context.parents}, but "
                f"its parents in the graph are {parents}; make it for these."
            )
        return mechanism

    def __getitem__(self, name: str) -> Mechanism:
        """The mechanism of the variable ``name``."""
        mechanism = self.mechanisms[name]
        if not isinstance(mechanism, Mechanism):
            raise TypeError(f"{name!r} is not a mechanism.")
        return mechanism

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters; without any, that of the mechanisms."""
        if (parameter := next(self.parameters(), None)) is not None:
            return parameter.dtype
        return reduce(torch.promote_types, (self[name].dtype for name in self.graph))

    @property
    def scalar_variables(self) -> tuple[str, ...]:
        """The variables whose values are single numbers, categories included."""
        return tuple(name for name in self.graph if self[name].domain.shape == (1,))

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables in the order of the graph, with units and class names if known."""
        return {
            name: replace(self._described.get(name, Variable(name)), domain=self[name].domain)
            for name in self.graph
        }

    def describe(self, variables: Mapping[str, Variable]) -> None:
        """Adopt the units and class names of the data, where the data have them.

        Raises:
            ValueError: If the data have classes, but not as many as the mechanism has categories.
        """
        self._described = {
            name: known.filled(variables.get(name, known), type(self[name]).__name__)
            for name, known in self.variables.items()
        }

    @property
    def image_variables(self) -> tuple[str, ...]:
        """The variables whose values are images or volumes."""
        return tuple(name for name in self.graph if len(self[name].domain.shape) >= 3)

    def restrict(self, names: Iterable[str]) -> StructuralCausalModel:
        """The model of some variables and their ancestors, which shares the mechanisms.

        Questions about attributes are then answered without computing the images.

        Raises:
            ValueError: If a variable is unknown.
        """
        wanted = tuple(names)
        kept = self.graph.ancestors(*wanted).union(wanted)
        parents = {name: causes for name, causes in self.graph.parents.items() if name in kept}
        return self._sharing(CausalGraph(parents), {name: self[name] for name in parents})

    def with_mechanisms(self, mechanisms: Mapping[str, Mechanism]) -> StructuralCausalModel:
        """The model with some mechanisms replaced, which shares all others."""
        return self._sharing(self.graph, {**self._all(), **mechanisms})

    def _sharing(
        self, graph: CausalGraph, mechanisms: Mapping[str, Mechanism]
    ) -> StructuralCausalModel:
        """A model that shares mechanisms, mode and descriptions with this one."""
        made = StructuralCausalModel(graph, mechanisms)
        made.fitted = self.fitted.clone()
        made.training_distribution = self.training_distribution
        made.missing_values = self.missing_values
        made._described = self._described
        # Not train(), which would change the mode of the shared mechanisms.
        made.training = self.training
        return made

    def fit(self, variables: Variables, incomplete: Iterable[str] = ()) -> None:
        """Compute the statistics for standardisation from the whole training split.

        Variables with missing values, NaN, get a network that infers them; see
        :mod:`deepscm_pl.mechanisms.missing`.

        Args:
            variables: The training split, ``(N, *event)`` for each variable.
            incomplete: Further variables that may be missing, such as in other splits.

        Raises:
            ValueError: If a variable is missing, a value is outside of its domain, or every value
                of a variable is missing.
        """
        self.check(variables)
        missing = {name: is_missing(variables[name]) for name in self.scalar_variables}
        for name in self.graph:
            if self[name].is_frozen:
                continue
            try:
                value, parents = variables[name], self._parents(name, variables)
                if name in missing and bool(missing[name].any()):
                    seen = ~missing[name]
                    if not bool(seen.any()):
                        raise ValueError("every value of the training split is missing.")
                    value, parents = value[seen], {n: each[seen] for n, each in parents.items()}
                self[name].fit(value, parents)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        self.training_distribution.fit(variables)
        self.declare_incomplete(variables, incomplete)
        self.fitted.fill_(True)

    def declare_incomplete(self, variables: Variables, names: Iterable[str] = ()) -> None:
        """Add the networks that infer missing values, if there are any in the training split.

        Args:
            variables: The training split, ``(N, *event)`` for each variable.
            names: Further variables that may be missing.

        Raises:
            ValueError: If one causes a variable whose mechanism has no likelihood.
        """
        found = {name for name in self.scalar_variables if bool(variables[name].isnan().any())}
        found |= set(names) & set(self.scalar_variables)
        for child in self.graph:
            unknown = [name for name in self.graph.parents[child] if name in found]
            if unknown and not self[child].has_likelihood:
                raise ValueError(
                    f"{unknown[0]}: expected a value in every row, because missing ones are "
                    f"inferred by the likelihood of what they cause, and the mechanism of {child}, "
                    f"{type(self[child]).__name__}, has none; leave the other rows out, or choose "
                    f"another mechanism of {child}."
                )
        if found - set(self.missing_values.names):
            mechanisms = self._all()
            self.missing_values.declare([n for n in self.graph if n in found], mechanisms)
            self.missing_values.fit(variables)

    def check(self, variables: Variables, is_complete: bool = False) -> None:
        """Raise ValueError unless ``variables`` contains possible values of every variable.

        Scalars may be NaN, missing values, unless ``is_complete``.
        """
        self._check_complete(variables)
        for name in self.graph:
            self[name].domain.check(name, variables[name], is_complete)
        if 0 in self._batch_shape(variables):
            raise ValueError("variables: expected at least one observation, but got none.")

    def is_incomplete(self, variables: Variables) -> bool:
        """Whether a scalar variable is missing, NaN, in some row."""
        return any(bool(variables[name].isnan().any()) for name in self.scalar_variables)

    def _may_be_incomplete(self, variables: Variables) -> bool:
        """Whether to infer missing values.

        A training of complete data does not look for any, which would synchronise with the device.
        """
        is_known = not self.training or self.missing_values.names
        return bool(is_known) and self.is_incomplete(variables)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        """Make the networks that infer missing values, of which the state has weights."""
        start = f"{prefix}missing_values.networks."
        found = {key[len(start) :].split(".")[0] for key in state_dict if key.startswith(start)}
        mechanisms = self._all()
        chosen = [name for name in self.scalar_variables if name in found]
        self.missing_values.declare(chosen, mechanisms)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _check_complete(self, variables: Variables) -> None:
        missing = [name for name in self.graph if name not in variables]
        if missing:
            raise ValueError(
                f"variables: expected {', '.join(self.graph.nodes)}, but {', '.join(missing)} is "
                f"missing; got {', '.join(variables) or 'nothing'}."
            )

    # Pyro

    def model(self, size: int) -> dict[str, Tensor]:
        """Pyro model of ``size`` observations, with a site of continuous values for each variable.

        It can be used with ``pyro.condition``, ``pyro.do`` and ``poutine.trace``; apply
        :meth:`dequantise` to recorded values first.
        """
        values: dict[str, Tensor] = {}
        with pyro.plate("observations", size, dim=-1):
            for name in self.graph:
                values[name] = self[name].model(name, self._recorded_parents(name, values))
        return values

    def guide(self, values: Variables) -> None:
        """Pyro guide for observed, dequantised ``values``: a site for each latent."""
        size = next(iter(values.values())).shape[0]
        with pyro.plate("observations", size, dim=-1):
            for name in self.graph:
                self[name].guide(name, values[name], self._recorded_parents(name, values))

    def dequantise(self, values: Variables) -> dict[str, Tensor]:
        """Draw continuous values whose quantised values are the recorded ones."""
        return {name: self[name].dequantise(values[name]) for name in self.graph}

    # Association

    def sample(self, size: int | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw ``size`` observations, ``(*size, *event)`` for each variable.

        Additional leading dimensions of an intervention with tensors come first.
        """
        shape = _sizes(size)
        return self._expand(self.predict(self._sample_noise(shape)), shape)

    def log_prob(self, values: Variables) -> Tensor:
        """The exact joint log-probability in nats, ``(*batch,)``.

        Raises:
            NotImplementedError: If a mechanism has only a bound; see :meth:`elbo`.
            ValueError: If a variable is missing or outside of its domain, or a value is NaN.
        """
        self.check(values, is_complete=True)
        return _sum(
            self[name].log_prob(values[name], self._parents(name, values)) for name in self.graph
        )

    def elbo(
        self, values: Variables, num_particles: int = 1, is_training: bool = False
    ) -> EvidenceLowerBound:
        """The evidence lower bound of recorded values, by variable.

        If ``is_training``, mechanisms that are trained by a loss of their own give its negative
        (:meth:`~deepscm_pl.mechanisms.Mechanism.training_evidence`); those without a likelihood
        always do.

        Scalars may be missing, NaN: the bound is then that of the observed values, and the evidence
        of a missing one is the divergence of its inferred distribution from its mechanism.

        It equals Pyro's ``TraceMeanField_ELBO`` of :meth:`model` and :meth:`guide`, but is computed
        without tracing: encoders run once, decoders on one flat batch of all particles.
        """
        whole_number("num_particles", num_particles, least=1)
        self._check_complete(values)
        continuous = self.dequantise(values)
        # In a training with several processes, every one has gradients of the same parameters.
        has_networks = self.training and self.missing_values.names
        if has_networks or self._may_be_incomplete(values):
            given = self.graph, self._all(), values, continuous
            found = self.missing_values.evidence(*given, num_particles, is_training)
            return EvidenceLowerBound(found)
        evidence = {
            name: self[name].evidence_in(
                is_training, value, self._parents(name, values), num_particles
            )
            for name, value in continuous.items()
        }
        return EvidenceLowerBound(evidence)

    def importance_weighted_bound(
        self, values: Variables, num_particles: int = 100, chunk: int = 10
    ) -> ImportanceWeightedBound:
        """The importance-weighted bound of recorded values, by variable.

        With K draws z_k ~ q(z | x, pa), log (1/K) Σ_k p(x, z_k | pa) / q(z_k | x, pa) for each
        variable (Burda et al. 2016, arXiv:1509.00519, equation 8). Its expectation is the evidence
        lower bound for K = 1, never falls with K, and tends to log p(x | pa); for exact mechanisms
        it is log p(x | pa) for any K. Without ``torch.no_grad()``, the memory for gradients grows
        with K for any chunk.

        Args:
            values: Recorded values ``(*batch, *event)``; dequantisation noise is drawn here, once.
            num_particles: K, draws of the latents.
            chunk: Number of draws in memory at a time.

        Raises:
            ValueError: If a variable is missing, or a number is less than 1.
        """
        whole_number("num_particles", num_particles, least=1)
        whole_number("chunk", chunk, least=1)
        self._check_complete(values)
        continuous = self.dequantise(values)
        found = {}
        if self._may_be_incomplete(values):
            found = self._incomplete_weights(values, continuous, num_particles)
        found |= {
            name: _mean_weights(
                self[name], value, self._parents(name, values), num_particles, chunk
            )
            for name, value in continuous.items()
            if name not in found
        }
        return ImportanceWeightedBound(
            {name: bound for name, (bound, _) in found.items()},
            {name: bound for name, (_, bound) in found.items()},
        )

    def _all(self) -> dict[str, Mechanism]:
        return {name: self[name] for name in self.graph}

    def _incomplete_weights(
        self, values: Variables, continuous: Variables, num_particles: int
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """As :func:`_mean_weights`, for variables that are or depend on missing ones, ``(N,)``.

        The gain over the mean of the log-weights, which is one of all variables together, is that
        of the missing ones.
        """
        given = self.graph, self._all(), values, continuous
        draws = [weights for _, weights in self.missing_values.draws(*given, num_particles)]
        weights = {name: torch.cat([each[name] for each in draws]) for name in draws[0]}
        means = {name: each.mean(dim=0) for name, each in weights.items()}
        bounds = {n: each.logsumexp(dim=0) - math.log(len(each)) for n, each in weights.items()}
        missing = {n: is_missing(values[n]) for n in weights if n in self.scalar_variables}
        count = _sum(each.long() for each in missing.values())
        total = _sum(weights.values()).logsumexp(dim=0) - math.log(num_particles)
        gain = (total - _sum(means.values())) / count.clamp(min=1)
        for name, bound in bounds.items():
            absent = missing.get(name, torch.zeros_like(count, dtype=torch.bool))
            inferred = torch.where(absent, means[name] + gain, means[name])
            bounds[name] = torch.where(count > 0, inferred, bound)
        return {name: (bounds[name], means[name]) for name in bounds}

    # Intervention

    def act(self, do: Do) -> StructuralCausalModel:
        """The model under an intervention; all other mechanisms are shared with this one.

        A number or tensor replaces the mechanism by a :class:`~deepscm_pl.mechanisms.Constant` and
        cuts the edges into the variable, as does a distribution
        (:class:`~deepscm_pl.mechanisms.Drawn`); a function h replaces f(u; pa) by h(f(u; pa)), and
        gets an edge from every other variable that it reads. If several variables are changed, h is
        therefore applied to the value under the other changes.

        Raises:
            ValueError: If a variable is unknown, or a value has the wrong shape, is NaN, or is
                outside of the domain of its variable; if an intervention refers to a factual value,
                or to a group of observations; if a variable reads one of its own effects.
        """
        return self._act(self._interventions(do))

    def _act(
        self, interventions: Mapping[str, Resolved], before: Before | None = None
    ) -> StructuralCausalModel:
        """The model under interventions on observations that are known before them."""
        mechanisms: dict[str, Mechanism] = self._all()
        for name, intervention in interventions.items():
            domain = self[name].domain
            if isinstance(intervention, Tensor):
                mechanisms[name] = Constant(intervention, domain)
            elif isinstance(intervention, Distribution):
                like = torch.zeros((), dtype=self.dtype, device=self.fitted.device)
                mechanisms[name] = Drawn(intervention, domain, name, like)
            else:
                change = as_change(intervention)
                kept = None if before is None else before.natural.get(name)
                mechanism = self[name] if kept is None else Constant(kept, domain)
                others = {each: self[each].domain for each in change.reads}
                seen = (before or Before()).seen(name, change)
                mechanisms[name] = Modified(mechanism, intervention, name, others, seen)
        parents = {name: mechanisms[name].context.parents for name in interventions}
        return self._sharing(CausalGraph({**self.graph.parents, **parents}), mechanisms)

    def check_do(self, do: Do, drawn: bool = False) -> None:
        """Raise a ValueError unless a question about ``do`` can be asked; see :meth:`act`.

        Args:
            do: The intervention.
            drawn: Whether it will be asked of draws, by :meth:`intervene`, rather than of
                observations, by :meth:`counterfactual`.
        """
        for name, intervention in self._interventions(do).items():
            if drawn:
                Before({}, drawn=True).check(name, as_change(intervention))

    def intervene(self, do: Do | Sequence[Do], size: int | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw ``size`` observations under do(...), as :meth:`sample` does.

        Args:
            do: One intervention, or a sequence of K that share their noise.
            size: The size or the shape of the batch.

        Returns:
            For each variable ``(*size, *event)``, or ``(K, *size, *event)`` for a sequence.

        Raises:
            ValueError: If a variable is unknown, a value is outside of its domain, ``size`` is less
                than 1, or ``do`` is an empty sequence.
        """
        shape = _sizes(size)
        dos = [self._interventions(each) for each in ([do] if isinstance(do, Mapping) else do)]
        needs_before = any(as_change(x).before for each in dos for x in each.values())
        if isinstance(do, Mapping) and not needs_before:
            self._leading_dimensions(dos[0], shape)
            return self._act(dos[0]).sample(shape)
        for each in _check_several(dos):
            if self._leading_dimensions(each, shape):
                raise ValueError(_LEADING)
        noise = self._sample_noise(shape)
        natural = self._expand(self.predict(noise), shape) if needs_before else None
        answers = []
        for each in dos:
            acted = self._act(each, None if natural is None else Before(natural, drawn=True))
            answer = acted._expand(acted.predict(acted._with_draws(noise, shape)), shape)
            answers.append(answer if natural is None else self._in_group(natural, each, answer))
        return answers[0] if isinstance(do, Mapping) else _stack(answers, dim=0)

    def _marginal(self, name: str) -> Distribution:
        return self.training_distribution.marginal(name)

    def _with_draws(self, noise: Mapping[str, Noise], shape: torch.Size) -> dict[str, Noise]:
        """Noise with the draws of stochastic interventions, for each observation of ``shape``."""
        found = dict(noise)
        for name in self.graph:
            mechanism = self[name]
            if isinstance(mechanism, Drawn | Modified):
                found[name] = {**noise.get(name, {}), **mechanism.sample_draws(shape)}
        return found

    def _sample_noise(self, shape: torch.Size) -> dict[str, dict[str, Tensor]]:
        return {name: self[name].sample_noise(shape) for name in self.graph}

    # Counterfactual

    def abduct(
        self,
        factual: Variables,
        num_particles: int | None = None,
        resample: int | None = None,
        names: Collection[str] | None = None,
    ) -> dict[str, dict[str, Tensor]]:
        """Infer the noise from ``factual``, with a leading dimension of particles.

        Noise that the values determine is repeated over particles; the rest is drawn from its
        posterior, such as the noise of an image within a grey level.

        Args:
            factual: Recorded values of every variable, ``(*batch, *event)``; scalars that are NaN
                are inferred, for each draw anew (:meth:`infer_missing`).
            num_particles: Number of draws. None for one without draws: noise that the values do not
                determine is at its most likely value (:meth:`Mechanism.likeliest
                <deepscm_pl.mechanisms.Mechanism.likeliest>`), except that of classes and whole
                numbers, which is drawn.
            resample: K candidates for each row, from which latents are drawn with the weights
                p(x, z | pa) / q(z | x, pa): exact in the limit of many candidates, at K times the
                cost. None to draw from q, whose error all particles share.
            names: The variables whose noise is needed; None for all.

        Raises:
            ValueError: If a variable is missing or outside of its domain, or ``resample`` is less
                than 2.
        """
        if num_particles is not None:
            whole_number("num_particles", num_particles, least=1)
        if resample is not None:
            whole_number("resample", resample, least=2)
        self.check(factual)
        if self.is_incomplete(factual):
            # Each particle is an observation with its own inferred values.
            complete = self._completed(factual, num_particles, resample)
            single = None if num_particles is None else 1
            noise = self.abduct(complete, single, resample, names)
            return {
                name: {key: value[0] for key, value in parts.items()}
                for name, parts in noise.items()
            }
        noise = {}
        for name in self.graph:
            # A mechanism under an intervention says whether it can have produced the value.
            is_own = not isinstance(self[name], Constant | Modified | Drawn)
            if names is not None and name not in names and is_own:
                continue
            parents = self._parents(name, factual)
            found = self._inferred(name, factual[name], parents, num_particles, resample)
            noise[name] = self[name].coupled(found, parents)
        return noise

    def _inferred(
        self,
        name: str,
        value: Tensor,
        parents: Variables,
        num_particles: int | None,
        resample: int | None,
    ) -> dict[str, Tensor]:
        """The noise of a variable, with a leading dimension of particles."""
        mechanism, shape = self[name], (num_particles or 1,)
        if resample is not None:
            return mechanism.resample(value, parents, shape, resample)
        if num_particles is not None:
            return mechanism.abduct_recorded(value, parents, shape)
        return {key: part[None] for key, part in mechanism.likeliest(value, parents).items()}

    def drawn_complete(self, variables: Variables) -> dict[str, Tensor]:
        """Replace missing values by draws of their inference networks, in a training.

        Unlike :meth:`infer_missing`, there is one draw for each row ``(N, *event)``, which is not
        resampled.
        """
        if not self._may_be_incomplete(variables):
            return dict(variables)
        return self.missing_values.draw(self.graph, self._all(), variables)

    @torch.no_grad()
    def infer_missing(
        self, factual: Variables, num_particles: int = 1, candidates: int | None = None
    ) -> dict[str, Tensor]:
        """Draw the missing values, NaN, of observations from their posterior given all others.

        Values are assumed to be missing at random. Candidates are drawn from the inference
        networks, or from the mechanisms of variables without one, and resampled with the weights
        p(x_missing, x_observed) / q(x_missing): exact in the limit of many candidates.

        Args:
            factual: Recorded values ``(*batch, *event)``; scalars may be NaN.
            num_particles: P, the number of draws.
            candidates: Number of candidates for each row; None for 32, or 2·P if that is more.

        Returns:
            ``(P, *batch, 1)`` of variables with missing values, where observed values are repeated,
            and all other values as they are.

        Raises:
            ValueError: If a variable is absent or outside of its domain.

        Example:
            >>> from deepscm_pl.mechanisms import AffineFlow
            >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
            >>> factual = {"a": torch.ones(2, 1), "b": torch.tensor([[0.5], [torch.nan]])}
            >>> scm.infer_missing(factual, num_particles=3)["b"].shape
            torch.Size([3, 2, 1])
        """
        self.check(factual)
        if not self.is_incomplete(factual):
            return dict(factual)
        batch = self._batch_shape(factual)
        flat = {
            name: factual[name].expand(*batch, *self[name].domain.shape).flatten(0, len(batch) - 1)
            if batch
            else factual[name][None]
            for name in self.graph
        }
        missing = {name: is_missing(flat[name]) for name in self.scalar_variables}
        missing = {name: each for name, each in missing.items() if bool(each.any())}
        filled = {name: flat[name].expand(num_particles, -1, -1).clone() for name in missing}
        count = candidates or max(_CANDIDATES, 2 * num_particles)
        incomplete = torch.stack([*missing.values()]).any(dim=0).nonzero().squeeze(-1)
        for rows in incomplete.split(_INFERRED_AT_A_TIME):
            some = {name: value[rows] for name, value in flat.items()}
            given = self.graph, self._all(), some, self.dequantise(some)
            draws = [*self.missing_values.draws(*given, count, is_common=True)]
            weights = torch.cat([_sum(each.values()) for _, each in draws])
            chosen = _resampled(weights, num_particles)[..., None]
            for name in draws[0][0]:
                drawn = torch.cat([values[name] for values, _ in draws])
                filled[name][:, rows] = drawn.gather(0, chosen).to(filled[name])
        shaped = {n: each.view(num_particles, *batch, 1) for n, each in filled.items()}
        return {**factual, **shaped}

    def predict(
        self, noise: Mapping[str, Noise], kept: Variables | None = None
    ) -> dict[str, Tensor]:
        """Compute recorded values from noise, over the common batch dimensions.

        Values in ``kept`` are returned unchanged in place of computed ones. Every value is inside
        its
        domain: a value that rounding puts on an open bound is moved to the nearest number inside.

        Raises:
            ValueError: If a value overflows or is NaN; the message names the variable.
        """
        values: dict[str, Tensor] = {}
        for name in self.graph:
            if kept is not None and name in kept:
                values[name] = kept[name]
                continue
            mechanism = self[name]
            value = mechanism(noise.get(name, {}), self._parents(name, values))
            values[name] = mechanism.domain.moved_inside(mechanism.quantise(value))
        self._require_finite({name: values[name] for name in values if name not in (kept or ())})
        return self._expand(values, ())

    def _require_finite(self, values: Variables) -> None:
        finite = [value.isfinite().all() for value in values.values()]
        # One look at the device for all variables.
        if not finite or bool(torch.stack(finite).all()):
            return
        name = next(name for name, each in zip(values, finite, strict=True) if not bool(each))
        found = values[name][~values[name].isfinite()].flatten()[0].item()
        causes = ", ".join(self.graph.parents[name]) or "none"
        raise ValueError(
            f"{name}: the model's answer is {found:g}, beyond the numbers of single precision; its "
            f"causes ({causes}) or its noise are too far from the training data; ask for values "
            "nearer to them."
        )

    def counterfactual(
        self,
        factual: Variables,
        do: Do | Sequence[Do],
        num_particles: int | None = None,
        resample: int | None = None,
    ) -> dict[str, Tensor]:
        """Counterfactual values of observations under ``do``: abduction, action, prediction.

        All interventions share the same noise (Pawlowski et al. 2020, section 2). Variables that do
        not descend from an intervened variable keep exactly their factual values.

        Under ``{"thickness": 4.0, "intensity": h}`` with thickness -> intensity, h is applied to
        the counterfactual intensity at a thickness of 4, and with
        ``{"intensity": OfFactual(h)}`` to the observed one. A change that reads other variables
        (:class:`~deepscm_pl.interventions.Conditional`) sees them under the other changes, too.
        Rows outside of the group of a :class:`~deepscm_pl.interventions.Where` keep exactly their
        factual values. A distribution is drawn from for each particle of each observation.

        Args:
            factual: Recorded values of every variable, ``(*batch, *event)``. Scalars may be
                missing, NaN: each particle has its own inferred value (:meth:`infer_missing`),
                which it keeps where the intervention does not change it.
            do: One intervention, or a sequence of K. A tensor with dimensions before those of the
                batch, such as ``(K, 1, 1)``, stands for K interventions.
            num_particles: P, draws of the noise that the values do not determine; None for one
                answer without draws, as for :meth:`abduct`.
            resample: Candidates of the latents, as for :meth:`abduct`.

        Returns:
            For each variable ``(P, *batch, *event)``, or ``(P, K, *batch, *event)`` for several
            interventions. Use :func:`summarise` to average over particles.

        Raises:
            ValueError: If a variable is missing, unknown or outside of its domain, or ``do`` is an
                empty sequence.
        """
        if self.is_incomplete(factual):
            return self._incomplete_counterfactual(factual, do, num_particles, resample)
        dos = [do] if isinstance(do, Mapping) else _check_several(do)
        changed = [name for name in self.graph if any(name in each for each in dos)]
        affected = self.graph.descendants(*changed) | set(changed)
        noise = self.abduct(factual, num_particles, resample, affected)
        batch = torch.Size((num_particles or 1,)), self._batch_shape(factual)
        if isinstance(do, Mapping):
            return self._answer(factual, noise, do, *batch)
        answers = [self._answer(factual, noise, each, *batch) for each in dos]
        if len({answer[self.graph.nodes[0]].shape for answer in answers}) > 1:
            raise ValueError(_LEADING)
        return _stack(answers, dim=1)

    def completed(self, variables: Variables) -> dict[str, Tensor]:
        """Replace missing values by one draw of their posterior, ``(*batch, *event)``."""
        found = self._completed(variables, 1, None)
        return {name: value[0] for name, value in found.items()}

    def answer(self, factual: Variables, noise: Mapping[str, Noise], do: Do) -> dict[str, Tensor]:
        """Answer for rows whose noise is known: action and prediction of a counterfactual.

        Args:
            factual: Recorded values of every variable, ``(N, *event)``.
            noise: The noise of each row, ``(N, *event)``, without a dimension of particles.
            do: One intervention.

        Returns:
            ``(N, *event)`` for each variable; those that do not descend from an intervened one keep
            exactly their factual values.

        Raises:
            ValueError: As of :meth:`counterfactual`.
        """
        return self._answer(factual, noise, do, torch.Size(), self._batch_shape(factual))

    def _completed(
        self, factual: Variables, num_particles: int | None, candidates: int | None
    ) -> dict[str, Tensor]:
        """Observations with inferred missing values, ``(P, *batch, *event)`` for every variable."""
        number = (
            1 if num_particles is None else whole_number("num_particles", num_particles, least=1)
        )
        count = None if candidates is None else max(candidates, _CANDIDATES, 2 * number)
        given = {name: factual[name] for name in self.graph if name in factual}
        found = self.infer_missing(given, number, count)
        return self._expand(found, torch.Size((number, *self._batch_shape(factual))))

    def _incomplete_counterfactual(
        self,
        factual: Variables,
        do: Do | Sequence[Do],
        num_particles: int | None,
        resample: int | None,
    ) -> dict[str, Tensor]:
        """Counterfactuals of observations with missing values, each particle with its own."""
        batch = self._batch_shape(factual)
        dos = [do] if isinstance(do, Mapping) else [*_check_several(do)]
        # Dimensions of interventions precede those of particles, which are observations here.
        spread = [{n: self._before_particles(n, v, batch) for n, v in each.items()} for each in dos]
        complete = self._completed(factual, num_particles, resample)
        asked = spread[0] if isinstance(do, Mapping) else spread
        single = None if num_particles is None else 1
        answer = self.counterfactual(complete, asked, single, resample)
        place = -1 - len(batch)
        return {
            name: value[0].movedim(place - len(self[name].domain.shape), 0)
            for name, value in answer.items()
        }

    def _before_particles(self, name: str, value: Intervention, batch: torch.Size) -> Intervention:
        """An intervention whose leading dimensions, if any, precede that of the particles."""
        if not isinstance(value, Tensor) or name not in self.graph or value.dim() == 0:
            return value
        place = value.dim() - len(self[name].domain.shape) - len(batch)
        return value.unsqueeze(place) if place > 0 else value

    def _answer(
        self,
        factual: Variables,
        noise: Mapping[str, Noise],
        do: Do,
        particles: torch.Size,
        batch: torch.Size,
    ) -> dict[str, Tensor]:
        checked = self._interventions(do)
        interventions, before = dict(checked), Before(factual)
        graph = changed_graph(self.graph, interventions)
        reached = graph.descendants(*interventions) | interventions.keys()
        for name, intervention in interventions.items():
            if isinstance(intervention, Tensor | Distribution):
                continue
            change = as_change(intervention)
            # Without an intervention on an ancestor, every function applies to the factual value.
            if not graph.ancestors(name) & interventions.keys():
                before.natural[name] = factual[name]
            is_known = name in before.natural or not (change.uses_value or change.reads)
            if is_known and not change.draws:
                seen = before.seen(name, change)
                modified = Modified(self[name], intervention, name, seen=seen)
                interventions[name] = modified.apply_change(factual[name], factual)
        extra = self._leading_dimensions(interventions, batch)
        kept = {name: factual[name] for name in self.graph if name not in reached}
        for name in reached:
            is_set = isinstance(interventions.get(name), Tensor | Distribution)
            if not is_set and name not in before.natural:
                self[name].check_explained(name, factual[name], noise[name])
        spread = (slice(None), *[None] * len(extra))  # after the particles
        spread_noise = {
            name: {key: value[spread] for key, value in parts.items()}
            for name, parts in noise.items()
        }
        shape = torch.Size((*particles, *extra, *batch))
        acted = self._act(interventions, before)
        answer = acted.predict(acted._with_draws(spread_noise, shape), kept)
        return self._in_group(factual, checked, self._expand(answer, shape))

    def _in_group(
        self, before: Variables, interventions: Mapping[str, Resolved], answer: Variables
    ) -> dict[str, Tensor]:
        """The answer in the groups of interventions on groups only, and ``before`` elsewhere."""
        if not interventions or not all(isinstance(x, Where) for x in interventions.values()):
            return dict(answer)
        groups = [each.group(before) for each in interventions.values() if isinstance(each, Where)]
        inside = torch.stack(torch.broadcast_tensors(*groups)).any(dim=0)
        found = {}
        for name, value in answer.items():
            event = len(self[name].domain.shape)
            mask = inside.reshape(*inside.shape, *[1] * (event - 1))
            found[name] = torch.where(mask, value, before[name].to(value.dtype))
        return found

    def _leading_dimensions(
        self, interventions: Mapping[str, object], batch: torch.Size
    ) -> torch.Size:
        """The dimensions that tensors in ``interventions`` have before those of the batch."""
        common = batch
        for name, value in interventions.items():
            if isinstance(value, Tensor):
                own = self[name].domain.batch_shape(value)
                try:
                    common = common_shape(common, own)
                except ValueError:
                    raise ValueError(
                        f"do({name}): expected batch dimensions that broadcast with those of the "
                        f"observations, {tuple(batch)}, but got {tuple(own)}; give one value, or "
                        "one for each observation."
                    ) from None
        if common[len(common) - len(batch) :] != batch:
            raise ValueError(
                f"do: expected values for {tuple(batch)} observations, but got {tuple(common)}; "
                "give one value, or one for each observation."
            )
        return common[: len(common) - len(batch)]

    def _batch_shape(self, values: Variables) -> torch.Size:
        shapes = {name: self[name].domain.batch_shape(values[name]) for name in self.graph}
        try:
            return common_shape(*shapes.values())
        except ValueError:
            found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
            raise ValueError(
                f"variables: expected batch dimensions that agree, but got {found}."
            ) from None

    def _expand(self, values: Variables, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """``values`` over ``shape``, broadcast with their own batch dimensions."""
        batch = common_shape(shape, self._batch_shape(values))
        return {
            name: value.expand(*batch, *self[name].domain.shape) for name, value in values.items()
        }

    def _parents(self, name: str, values: Variables) -> dict[str, Tensor]:
        return {parent: values[parent] for parent in self.graph.parents[name]}

    def _recorded_parents(self, name: str, values: Variables) -> dict[str, Tensor]:
        """The parents of a variable, quantised from continuous ``values``."""
        return {
            parent: self[parent].quantise(values[parent]) for parent in self.graph.parents[name]
        }

    def _interventions(self, do: Do) -> dict[str, Resolved]:
        if not isinstance(do, Mapping):
            raise ValueError(f"do: expected a mapping of variables, but got {do!r}.")
        for name in do:
            if name not in self.graph:
                raise ValueError(
                    f"do: unknown variable {name!r}; expected one of {', '.join(self.graph.nodes)}."
                )
        found = {name: self._intervention(name, do[name]) for name in self.graph if name in do}
        changed_graph(self.graph, found)
        return found

    def _intervention(self, name: str, intervention: Intervention) -> Resolved:
        if isinstance(intervention, Where):
            return replace(intervention, value=self._intervention(name, intervention.value))
        if isinstance(intervention, Draw | Distribution | Change):
            return resolve(name, intervention, self.variables, self._marginal)
        if callable(intervention):
            return intervention
        domain = self[name].domain
        try:
            value = torch.as_tensor(intervention, dtype=self.dtype, device=self.fitted.device)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"do: expected a number, a tensor or a function for {name}, but got "
                f"{intervention!r}."
            ) from None
        if value.dim() == 0 and domain.shape == (1,):
            value = value[None]
        domain.check(f"do({name})", value)
        return value


def summarise(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of ``values`` over particles, the leading dimension.

    The deviation has the divisor P − 1, and is zero for a single particle. Neither is meaningful
    for categorical variables.

    Example:
        >>> mean, deviation = summarise(torch.tensor([[1.0], [3.0]]))
        >>> mean, deviation
        (tensor([2.]), tensor([1.4142]))
    """
    # Computed relative to the first particle, so that equal particles have exactly their mean.
    first = values[:1]
    deviation = (values - first).std(dim=0, correction=min(len(values) - 1, 1))
    return (values - first).mean(dim=0) + first[0], deviation


_LEADING = (
    "do: expected values without leading dimensions in a sequence of interventions; use either "
    "the sequence or the dimension."
)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*terms)).sum(dim=0)


def _check_several(do: Sequence[Do]) -> Sequence[Do]:
    if len(do) == 0:
        raise ValueError("do: expected at least one intervention, but got an empty sequence.")
    return do


def _stack(answers: Sequence[Variables], dim: int) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in answers], dim) for name in answers[0]}


def _resampled(log_weights: Tensor, count: int) -> Tensor:
    """Indices of ``count`` of K candidates ``(K, N)`` for each row, ``(count, N)``.

    Systematic resampling, in random order: a candidate is repeated only if its weight requires it.
    """
    shares = log_weights.double().nan_to_num(-math.inf).softmax(dim=0)
    shares = torch.where(shares.isnan(), torch.full_like(shares, 1 / len(shares)), shares)
    rows = log_weights.shape[1]
    start = torch.rand(rows, 1, dtype=shares.dtype, device=shares.device)
    place = (torch.arange(count, device=shares.device) + start) / count
    found = torch.searchsorted(shares.cumsum(0).T.contiguous(), place).clamp(max=len(shares) - 1)
    order = torch.rand(rows, count, device=shares.device).argsort(dim=1)
    return found.gather(1, order).T


def _sizes(size: int | tuple[int, ...]) -> torch.Size:
    shape = torch.Size((size,) if isinstance(size, int) else size)
    if min(shape, default=0) < 1:
        raise ValueError(f"size: expected at least 1, but got {size}.")
    return shape


def _mean_weights(
    mechanism: Mechanism, value: Tensor, parents: Variables, num_particles: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """log (1/K) Σ_k w_k and (1/K) Σ_k log w_k, ``(*batch,)``, from ``chunk`` draws at a time."""
    totals, sums = [], []
    for start in range(0, num_particles, chunk):
        size = min(chunk, num_particles - start)
        weights = mechanism.log_weights(value, parents, size)
        if len(weights) < size:  # an exact log-probability, without draws
            return weights[0], weights[0]
        totals.append(weights.logsumexp(dim=0))
        sums.append(weights.sum(dim=0))
    bound = torch.stack(totals).logsumexp(dim=0) - math.log(num_particles)
    return bound, torch.stack(sums).sum(dim=0) / num_particles


def _check_mechanism_names(graph: CausalGraph, mechanisms: Mapping[str, object]) -> None:
    without = [name for name in graph if name not in mechanisms]
    unknown = [name for name in mechanisms if name not in graph]
    problems = [f"{', '.join(without)} has no mechanism"] if without else []
    problems += [f"{', '.join(unknown)} is not in the graph {graph}"] if unknown else []
    if problems:
        advice = "add one" if without else "add it there or remove the mechanism"
        advice = "correct the name" if without and unknown else advice
        raise ValueError(f"mechanisms: {', and '.join(problems)}; {advice}.")
    reserved = [name for name in graph if hasattr(nn.ModuleDict(), name)]
    if reserved:
        raise ValueError(
            f"graph: the name {reserved[0]!r} is used by PyTorch; rename the variable."
        )
