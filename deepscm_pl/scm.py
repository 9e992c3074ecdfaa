"""The structural causal model and the three rungs of Pearl's ladder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeAlias

import pyro
import torch
from torch import Tensor, nn

from deepscm_pl.checks import class_factory, whole_number
from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms import Constant, Context, Evidence, Mechanism, Modified
from deepscm_pl.model_memory import require_buildable
from deepscm_pl.training_distribution import TrainingDistribution
from deepscm_pl.variables import Do, Intervention, Noise, Variable, Variables

__all__ = [
    "EvidenceLowerBound",
    "ImportanceWeightedBound",
    "MechanismFactory",
    "StructuralCausalModel",
]

MechanismFactory: TypeAlias = Callable[[Context], Mechanism]
"""A mechanism class, or a ``functools.partial`` of one: makes the mechanism for given parents."""


@dataclass(frozen=True)
class EvidenceLowerBound:
    """The evidence lower bound of a batch, variable by variable, in nats.

    Attributes:
        evidence: For each variable its log-probability and divergence, ``(*batch,)`` each.
    """

    evidence: Mapping[str, Evidence]

    @property
    def bound(self) -> Tensor:
        """The sum over variables: a lower bound of the joint log-probability, ``(*batch,)``."""
        terms = [evidence.bound for evidence in self.evidence.values()]
        return torch.stack(torch.broadcast_tensors(*terms)).sum(dim=0)


@dataclass(frozen=True)
class ImportanceWeightedBound:
    """The importance-weighted bound of a batch, variable by variable, in nats.

    Attributes:
        bounds: For each variable log p(x | pa) where it is exact, or its lower bound, ``(*batch,)``
            each.
        evidence_lower_bounds: For each variable the mean over the same draws of the log-weights,
            whose expectation is the evidence lower bound, ``(*batch,)`` each.
    """

    bounds: Mapping[str, Tensor]
    evidence_lower_bounds: Mapping[str, Tensor]

    @property
    def gaps(self) -> dict[str, Tensor]:
        """How far each bound is above the evidence lower bound, never below 0, ``(*batch,)``.

        Zero where the likelihood is exact, where the guide is the posterior, and for one draw.
        """
        return {
            name: (bound - self.evidence_lower_bounds[name]).clamp(min=0)
            for name, bound in self.bounds.items()
        }

    @property
    def bound(self) -> Tensor:
        """The sum over variables: a lower bound of the joint log-probability, ``(*batch,)``."""
        return torch.stack(torch.broadcast_tensors(*self.bounds.values())).sum(dim=0)


class StructuralCausalModel(nn.Module):
    """x_k := f_k(u_k; pa_k) for every variable of a causal graph, with independent noise u_k.

    One trained model answers questions of three kinds (Pearl; Pawlowski et al. 2020, section 2):
    association (:meth:`sample`, :meth:`log_prob`, :meth:`elbo`), intervention (:meth:`intervene`)
    and counterfactual (:meth:`counterfactual`, that is :meth:`abduct`, :meth:`act`,
    :meth:`predict`).

    Args:
        graph: The causal graph, or what :class:`~deepscm_pl.graph.CausalGraph` is made from.
        mechanisms: For each variable a factory of its mechanism, called with the context that the
            graph gives it: a mechanism class, or ``functools.partial`` of one. Mechanisms already
            made are taken as they are.

    Raises:
        ValueError: If a variable has no mechanism, a mechanism no variable, or a made mechanism
            other parents than the graph says.

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
        for name in self.graph.nodes:
            self.mechanisms[name] = self._make(name, mechanisms[name])
        self.register_buffer("fitted", torch.tensor(False))
        self.training_distribution = TrainingDistribution(
            {name: self[name].domain for name in self.scalar_variables}
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
                f"the graph gives it {parents}; make it for these."
            )
        return mechanism

    def __getitem__(self, name: str) -> Mechanism:
        """The mechanism of the variable ``name``."""
        mechanism = self.mechanisms[name]
        if not isinstance(mechanism, Mechanism):
            raise TypeError(f"{name!r} is no mechanism.")
        return mechanism

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters; without any, that of the mechanisms."""
        if (parameter := next(self.parameters(), None)) is not None:
            return parameter.dtype
        return reduce(torch.promote_types, (self[name].dtype for name in self.graph.nodes))

    @property
    def scalar_variables(self) -> tuple[str, ...]:
        """The variables whose values are single numbers, categories included."""
        return tuple(name for name in self.graph.nodes if self[name].domain.shape == (1,))

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables in the order of the graph, with units and class names once they are known.

        Example:
            >>> from deepscm_pl.mechanisms import AffineFlow
            >>> scm = StructuralCausalModel("age", {"age": AffineFlow})
            >>> scm.describe({"age": Variable("age", unit="years")})
            >>> scm.variables["age"].format(61.34)
            '61.3 years'
        """
        return {
            name: replace(self._described.get(name, Variable(name)), domain=self[name].domain)
            for name in self.graph.nodes
        }

    def describe(self, variables: Mapping[str, Variable]) -> None:
        """Take the units and class names of the data; those known before stay where data have none.

        Args:
            variables: Of the data; what is not in the graph is ignored.

        Raises:
            ValueError: If the data have classes, and the mechanism is not one of as many.
        """
        known = self.variables
        filled = {
            name: known[name].filled(variables[name], type(self[name]).__name__)
            for name in self.graph.nodes
            if name in variables
        }
        self._described = {**known, **filled}

    @property
    def image_variables(self) -> tuple[str, ...]:
        """The variables whose values are images or volumes."""
        return tuple(name for name in self.graph.nodes if len(self[name].domain.shape) >= 3)

    def restrict(self, names: Iterable[str]) -> StructuralCausalModel:
        """The model of some variables and their ancestors, which shares the mechanisms.

        Questions about attributes then cost nothing for the images that follow from them.

        Raises:
            ValueError: If a name is none of a variable.

        Example:
            >>> from deepscm_pl.mechanisms import AffineFlow
            >>> scm = StructuralCausalModel("age -> size", {"age": AffineFlow, "size": AffineFlow})
            >>> scm.restrict(["age"]).graph.nodes
            ('age',)
        """
        wanted = tuple(names)
        kept = {*wanted, *self.graph.ancestors(*wanted)}
        parents = {name: causes for name, causes in self.graph.parents.items() if name in kept}
        return self._sharing(CausalGraph(parents), {name: self[name] for name in parents})

    def _sharing(
        self, graph: CausalGraph, mechanisms: Mapping[str, Mechanism]
    ) -> StructuralCausalModel:
        """A model of mechanisms of this one, in its mode."""
        made = StructuralCausalModel(graph, mechanisms)
        made.fitted = self.fitted.clone()
        made.training_distribution = self.training_distribution
        made._described = self._described
        # Not train(), which would reach into the mechanisms that both models share.
        made.training = self.training
        return made

    def fit(self, variables: Variables) -> None:
        """Take from the training split all statistics that mechanisms standardise with.

        Args:
            variables: The whole training split, ``(N, *event)`` for each variable.

        Raises:
            ValueError: If a variable is missing or a value is outside of its domain.
        """
        self.check(variables)
        for name in self.graph.nodes:
            try:
                self[name].fit(variables[name], self._parents(name, variables))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        self.training_distribution.fit(variables)
        self.fitted.fill_(True)

    def check(self, variables: Variables) -> None:
        """Raise unless ``variables`` holds a possible value of every variable.

        Raises:
            ValueError: Naming the variable, what was expected and what came.
        """
        self._check_complete(variables)
        for name in self.graph.nodes:
            self[name].domain.check(name, variables[name])
        if 0 in self._batch_shape(variables):
            raise ValueError("variables: expected at least one observation, but got none.")

    def _check_complete(self, variables: Variables) -> None:
        missing = [name for name in self.graph.nodes if name not in variables]
        if missing:
            raise ValueError(
                f"variables: expected {', '.join(self.graph.nodes)}, but {', '.join(missing)} is "
                f"missing; got {', '.join(variables) or 'nothing'}."
            )

    # Pyro

    def model(self, size: int) -> dict[str, Tensor]:
        """Pyro model of ``size`` observations: a site for each variable, continuous values.

        ``pyro.condition``, ``pyro.do`` and ``poutine.trace`` apply to it. Recorded values are
        passed through :meth:`dequantise` first.
        """
        values: dict[str, Tensor] = {}
        with pyro.plate("observations", size, dim=-1):
            for name in self.graph.nodes:
                values[name] = self[name].model(name, self._recorded_parents(name, values))
        return values

    def guide(self, values: Variables) -> None:
        """Pyro guide for observed, dequantised ``values``: a site for each latent."""
        size = next(iter(values.values())).shape[0]
        with pyro.plate("observations", size, dim=-1):
            for name in self.graph.nodes:
                self[name].guide(name, values[name], self._recorded_parents(name, values))

    def dequantise(self, values: Variables) -> dict[str, Tensor]:
        """A draw of the continuous values behind recorded ones, for each variable of the graph."""
        return {name: self[name].dequantise(values[name]) for name in self.graph.nodes}

    # Association

    def sample(self, size: int | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw ``size`` observations, ``(*size, *event)`` for each variable.

        Under an intervention by a tensor with further leading dimensions, these come first.
        """
        shape = _sizes(size)
        return self._expand(self.predict(self._sample_noise(shape)), shape)

    def log_prob(self, values: Variables) -> Tensor:
        """The exact joint log-probability in nats, ``(*batch,)``.

        Raises:
            NotImplementedError: If a mechanism has only a bound; see :meth:`elbo`.
            ValueError: If a variable is missing or outside of its domain.
        """
        self.check(values)
        terms = [
            self[name].log_prob(values[name], self._parents(name, values))
            for name in self.graph.nodes
        ]
        return torch.stack(torch.broadcast_tensors(*terms)).sum(dim=0)

    def elbo(self, values: Variables, num_particles: int = 1) -> EvidenceLowerBound:
        """The evidence lower bound of recorded values, by variable.

        The same number as Pyro's ``TraceMeanField_ELBO`` of :meth:`model` and :meth:`guide` gives,
        computed from the mechanisms without tracing: encoders run once, decoders on one flat batch
        of all particles.

        Args:
            values: Recorded values ``(*batch, *event)``; dequantisation noise is drawn here.
            num_particles: Draws of the latents.
        """
        _check_particles(num_particles)
        self._check_complete(values)
        continuous = self.dequantise(values)
        return EvidenceLowerBound(
            {
                name: self[name].evidence(
                    continuous[name], self._parents(name, values), num_particles
                )
                for name in self.graph.nodes
            }
        )

    def importance_weighted_bound(
        self, values: Variables, num_particles: int = 100, chunk: int = 10
    ) -> ImportanceWeightedBound:
        """The importance-weighted bound of recorded values, by variable.

        With K draws z_k ~ q(z | x, pa), log (1/K) Σ_k p(x, z_k | pa) / q(z_k | x, pa) for each
        variable (Burda et al. 2016, arXiv:1509.00519, equation 8). Its expectation is the evidence
        lower bound for K = 1, never falls with K, and tends to log p(x | pa); exact mechanisms give
        log p(x | pa) for any K. Use it under ``torch.no_grad()``, or the memory for gradients grows
        with K whatever the chunk.

        Args:
            values: Recorded values ``(*batch, *event)``; dequantisation noise is drawn here, once.
            num_particles: K, draws of the latents.
            chunk: How many draws are held in memory at a time.

        Raises:
            ValueError: If a variable is missing, or a number is less than 1.

        Example:
            >>> from deepscm_pl.mechanisms import AffineFlow
            >>> scm = StructuralCausalModel("age", {"age": AffineFlow})
            >>> scm.importance_weighted_bound({"age": torch.zeros(2, 1)}).bounds["age"].shape
            torch.Size([2])
        """
        _check_particles(num_particles)
        if chunk < 1:
            raise ValueError(f"chunk: expected at least 1, but got {chunk}.")
        self._check_complete(values)
        continuous = self.dequantise(values)
        found = {
            name: _mean_weights(
                self[name], continuous[name], self._parents(name, values), num_particles, chunk
            )
            for name in self.graph.nodes
        }
        return ImportanceWeightedBound(
            {name: bound for name, (bound, _) in found.items()},
            {name: bound for name, (_, bound) in found.items()},
        )

    # Intervention

    def act(self, do: Do) -> StructuralCausalModel:
        """The model under an intervention; all other mechanisms are shared with this one.

        A number or tensor puts a :class:`~deepscm_pl.mechanisms.Constant` in the mechanism's place
        and cuts the edges into the variable; a function h puts h(f(u; pa)) there.

        Raises:
            ValueError: If a variable is unknown, or a value has the wrong shape, is NaN or outside
                of the variable's domain.
        """
        mechanisms: dict[str, Mechanism] = {name: self[name] for name in self.graph.nodes}
        constants = []
        for name, intervention in self._interventions(do).items():
            if isinstance(intervention, Tensor):
                mechanisms[name] = Constant(intervention, self[name].domain)
                constants.append(name)
            else:
                mechanisms[name] = Modified(self[name], intervention, name)
        return self._sharing(self.graph.do(*constants), mechanisms)

    def intervene(self, do: Do | Sequence[Do], size: int | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw ``size`` observations under do(...), as :meth:`sample` does.

        Args:
            do: One intervention, or a sequence of K that share their noise.
            size: Of the batch; with several dimensions, its shape.

        Returns:
            For each variable ``(*size, *event)``, or ``(K, *size, *event)`` for a sequence.

        Raises:
            ValueError: If a variable is unknown, a value is outside of its domain, ``size`` is less
                than 1, or ``do`` is an empty sequence.
        """
        shape = _sizes(size)
        if isinstance(do, Mapping):
            self._leading_dimensions(self._interventions(do), shape)
            return self.act(do).sample(shape)
        acted = []
        for each in _several(do):
            if self._leading_dimensions(self._interventions(each), shape):
                raise ValueError(_LEADING)
            acted.append(self.act(each))
        noise = self._sample_noise(shape)
        answers = [each._expand(each.predict(noise), shape) for each in acted]
        return _stack(answers, dim=0)

    def _sample_noise(self, shape: torch.Size) -> dict[str, dict[str, Tensor]]:
        return {name: self[name].sample_noise(shape) for name in self.graph.nodes}

    # Counterfactual

    def abduct(
        self, factual: Variables, num_particles: int = 1, resample: int | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """The noise behind ``factual``, with a leading dimension of particles.

        Args:
            factual: Recorded values of every variable, ``(*batch, *event)``.
            num_particles: Draws of what is not determined by the values; what is, is repeated.
                An image's grey levels do not determine its noise within a level, which is drawn.
            resample: K, candidates for each row from which latents are drawn again in proportion
                to p(x, z | pa) / q(z | x, pa): exact in the limit of many, and K times the work.
                None to draw from q alone, whose error the particles then share.

        Raises:
            ValueError: If a variable is missing or outside of its domain, or ``resample`` is less
                than 2.
        """
        _check_particles(num_particles)
        if resample is not None:
            whole_number("resample", resample, least=2)
        self.check(factual)
        noise = {}
        for name in self.graph.nodes:
            recorded = factual[name], self._parents(name, factual), (num_particles,)
            if resample is None:
                noise[name] = self[name].abduct_recorded(*recorded)
            else:
                noise[name] = self[name].resample(*recorded, resample)
        return noise

    def predict(
        self, noise: Mapping[str, Noise], kept: Variables | None = None
    ) -> dict[str, Tensor]:
        """The values that follow from ``noise``, as recorded, over the common batch dimensions.

        Args:
            noise: For each variable its noise.
            kept: Values already known, that are returned as they are and not computed.
        """
        values: dict[str, Tensor] = {}
        for name in self.graph.nodes:
            if kept is not None and name in kept:
                values[name] = kept[name]
                continue
            mechanism = self[name]
            value = mechanism(noise.get(name, {}), self._parents(name, values))
            values[name] = mechanism.quantise(value)
        return self._expand(values, ())

    def counterfactual(
        self,
        factual: Variables,
        do: Do | Sequence[Do],
        num_particles: int = 1,
        resample: int | None = None,
    ) -> dict[str, Tensor]:
        """What the observations would have been, had ``do`` been done.

        Abduction, action, prediction (Pawlowski et al. 2020, section 2). The same noise answers
        every intervention. Variables that are no descendants of what is intervened on keep their
        factual values, bit for bit.

        Args:
            factual: Recorded values of every variable, ``(*batch, *event)``.
            do: One intervention, or a sequence of K. A tensor with dimensions before those of the
                batch, such as ``(K, 1, 1)``, means as many interventions at once.
            num_particles: P, draws of what is not determined by the values.
            resample: Candidates of the latents, as for :meth:`abduct`.

        Returns:
            For each variable ``(P, *batch, *event)``, or ``(P, K, *batch, *event)`` for several
            interventions; nothing is averaged, see :func:`summarise` for that.

        Raises:
            ValueError: If a variable is missing, unknown or outside of its domain, or ``do`` is an
                empty sequence.
        """
        noise = self.abduct(factual, num_particles, resample)
        batch = torch.Size((num_particles,)), self._batch_shape(factual)
        if isinstance(do, Mapping):
            return self._answer(factual, noise, do, *batch)
        answers = [self._answer(factual, noise, each, *batch) for each in _several(do)]
        if len({answer[name].shape for answer in answers for name in self.graph.nodes[:1]}) > 1:
            raise ValueError(_LEADING)
        return _stack(answers, dim=1)

    def _answer(
        self,
        factual: Variables,
        noise: Mapping[str, Noise],
        do: Do,
        particles: torch.Size,
        batch: torch.Size,
    ) -> dict[str, Tensor]:
        interventions = self._interventions(do)
        for name, intervention in interventions.items():
            # Where nothing above is changed, the value that a function replaces is the factual.
            if not isinstance(intervention, Tensor) and not (
                self.graph.ancestors(name) & interventions.keys()
            ):
                natural = Modified(self[name], intervention, name)
                interventions[name] = natural.apply_function(factual[name])
        extra = self._leading_dimensions(interventions, batch)
        changed = self.graph.descendants(*interventions) | interventions.keys()
        kept = {name: factual[name] for name in self.graph.nodes if name not in changed}
        for name in changed:
            if not isinstance(interventions.get(name), Tensor):
                self[name].check_explained(name, factual[name], noise[name])
        spread = {
            name: {key: _insert_dimensions(value, len(extra)) for key, value in parts.items()}
            for name, parts in noise.items()
        }
        answer = self.act(interventions).predict(spread, kept)
        return self._expand(answer, torch.Size((*particles, *extra, *batch)))

    def _leading_dimensions(
        self, interventions: Mapping[str, object], batch: torch.Size
    ) -> torch.Size:
        """The dimensions that tensors in ``interventions`` have before those of the batch."""
        common = batch
        for name, value in interventions.items():
            if isinstance(value, Tensor):
                own = self[name].domain.batch_shape(value)
                try:
                    common = torch.broadcast_shapes(common, own)
                except RuntimeError:
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
        shapes = {name: self[name].domain.batch_shape(values[name]) for name in self.graph.nodes}
        try:
            return torch.broadcast_shapes(*shapes.values())
        except RuntimeError:
            found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
            raise ValueError(
                f"variables: expected batch dimensions that agree, but got {found}."
            ) from None

    def _expand(self, values: Variables, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """``values`` over ``shape``, broadcast with their own batch dimensions."""
        batch = torch.broadcast_shapes(shape, self._batch_shape(values))
        return {
            name: value.expand(*batch, *self[name].domain.shape) for name, value in values.items()
        }

    def _parents(self, name: str, values: Variables) -> dict[str, Tensor]:
        return {parent: values[parent] for parent in self.graph.parents[name]}

    def _recorded_parents(self, name: str, values: Variables) -> dict[str, Tensor]:
        """Parents as they are recorded, of continuous ``values``: what every mechanism sees."""
        return {
            parent: self[parent].quantise(values[parent]) for parent in self.graph.parents[name]
        }

    def _interventions(self, do: Do) -> dict[str, Tensor | Callable[[Tensor], Tensor]]:
        if not isinstance(do, Mapping):
            raise ValueError(f"do: expected a mapping of variables, but got {do!r}.")
        for name in do:
            if name not in self.graph:
                raise ValueError(
                    f"do: unknown variable {name!r}; expected one of {', '.join(self.graph.nodes)}."
                )
        return {name: self._intervention(name, do[name]) for name in self.graph.nodes if name in do}

    def _intervention(
        self, name: str, intervention: Intervention
    ) -> Tensor | Callable[[Tensor], Tensor]:
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
    """Mean and standard deviation over particles, the leading dimension.

    For categorical variables neither means anything; look at the particles.

    Args:
        values: ``(P, *batch, *event)``.

    Returns:
        Mean and standard deviation (zero for a single particle), ``(*batch, *event)`` each.

    Example:
        >>> mean, deviation = summarise(torch.tensor([[1.0], [3.0]]))
        >>> mean, deviation
        (tensor([2.]), tensor([1.]))
    """
    # Relative to the first particle, so that particles that agree have exactly their value as mean.
    first = values[:1]
    return (values - first).mean(dim=0) + first[0], (values - first).std(dim=0, correction=0)


_LEADING = (
    "do: expected values without leading dimensions in a sequence of interventions; give either "
    "the sequence or the dimension."
)


def _several(do: Sequence[Do]) -> Sequence[Do]:
    if len(do) == 0:
        raise ValueError("do: expected at least one intervention, but got an empty sequence.")
    return do


def _stack(answers: Sequence[Variables], dim: int) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in answers], dim) for name in answers[0]}


def _sizes(size: int | tuple[int, ...]) -> torch.Size:
    shape = torch.Size((size,) if isinstance(size, int) else size)
    if min(shape, default=0) < 1:
        raise ValueError(f"size: expected at least 1, but got {size}.")
    return shape


def _insert_dimensions(value: Tensor, count: int) -> Tensor:
    """Put ``count`` dimensions of size 1 after the leading one."""
    return value[(slice(None), *[None] * max(count, 0))]


def _mean_weights(
    mechanism: Mechanism, value: Tensor, parents: Variables, num_particles: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """log (1/K) Σ_k w_k and (1/K) Σ_k log w_k, ``(*batch,)``, from ``chunk`` draws at a time."""
    totals, sums = [], []
    for start in range(0, num_particles, chunk):
        size = min(chunk, num_particles - start)
        weights = mechanism.log_weights(value, parents, size)
        if len(weights) < size:  # exact: nothing is drawn, and one weight says it all
            return weights[0], weights[0]
        totals.append(weights.logsumexp(dim=0))
        sums.append(weights.sum(dim=0))
    bound = torch.stack(totals).logsumexp(dim=0) - math.log(num_particles)
    return bound, torch.stack(sums).sum(dim=0) / num_particles


def _check_particles(num_particles: int) -> None:
    if num_particles < 1:
        raise ValueError(f"num_particles: expected at least 1, but got {num_particles}.")


def _check_mechanism_names(graph: CausalGraph, mechanisms: Mapping[str, object]) -> None:
    without = [name for name in graph.nodes if name not in mechanisms]
    unknown = [name for name in mechanisms if name not in graph]
    if without and unknown:
        raise ValueError(
            f"mechanisms: expected one for each variable of the graph {graph}, but "
            f"{', '.join(without)} has none, and {', '.join(unknown)} is no variable; correct the "
            "name."
        )
    if without:
        raise ValueError(f"mechanisms: {', '.join(without)} has no mechanism; add one.")
    if unknown:
        raise ValueError(
            f"mechanisms: {', '.join(unknown)} is not in the graph {graph}; add it there or remove "
            "the mechanism."
        )
    reserved = [name for name in graph.nodes if hasattr(nn.ModuleDict(), name)]
    if reserved:
        raise ValueError(
            f"graph: the name {reserved[0]!r} is used by PyTorch; call the variable otherwise."
        )
