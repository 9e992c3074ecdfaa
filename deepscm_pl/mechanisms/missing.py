r"""Missing values of scalar variables: q(x_missing | x_observed, images), and what it is used for.

A missing value is NaN. It is assumed to be *missing at random*: whether it is missing depends on
observed values only, so that the pattern itself carries no further information.

The bound of a row is then :math:`E_q[\log p(x_{obs}, x_{mis}) - \log q(x_{mis} | x_{obs})]`.
Missing values are inferred in the order of the graph, each given the observed and the previously
inferred ones, and relative to its mechanism: q starts at p(x | pa). A missing value without an
observed descendant contributes nothing: it is marginalised exactly, and drawn from its mechanism
where a value is needed.

=======================  ======================================================================
mechanism                q
=======================  ======================================================================
flows                    u ~ N(μ, σ²), x = f(u; pa), reparametrised; always inside the constraint
classes                  probabilities; every class is computed, weighted by its probability
counts, zero-inflated    as flows, by a score-function estimator with two draws
others                   p(x | pa), which is not learned
=======================  ======================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms.base import Context, Evidence, Mechanism
from deepscm_pl.mechanisms.discrete import CellMechanism, ZeroInflatedFlow
from deepscm_pl.mechanisms.flow import Flow
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.nn.layers import reduced_shape, zero_linear
from deepscm_pl.transforms.cells import bounded_log_scale, log_mass
from deepscm_pl.variables import Domain, Variables, common_shape

__all__ = ["MissingValueNetworks", "complete_rows", "is_missing"]

_HIDDEN = (64, 64)
_IMAGE_FEATURES = 32
_SMALL = 8  # pixels along an axis at which convolutions end
_DRAWN_AT_A_TIME = 2**17  # rows of numbers
_FAR = 40.0  # no noise is beyond
_MOST_COPIES = 256  # of one row, one for each combination of missing classes
_CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


def is_missing(value: Tensor) -> Tensor:
    """Whether each value of a scalar variable ``(*batch, 1)`` is missing, ``(*batch,)``.

    Example:
        >>> is_missing(torch.tensor([[1.0], [torch.nan]]))
        tensor([False,  True])
    """
    return value.isnan().squeeze(-1)


def complete_rows(variables: Variables, names: Iterable[str]) -> Tensor | None:
    """Numbers of the rows in which none of the named scalars is missing; None if all are complete.

    Example:
        >>> complete_rows({"a": torch.tensor([[1.0], [torch.nan]])}, ["a"])
        tensor([0])
    """
    missing = [variables[name].isnan().flatten(1).any(dim=1) for name in names]
    if not missing or not bool((incomplete := torch.stack(missing).any(dim=0)).any()):
        return None
    return (~incomplete).nonzero().squeeze(-1)


class _ImageFeatures(nn.Module):
    """Features of an image: convolutions that halve it, and moments of its grey levels."""

    def __init__(self, domain: Domain) -> None:
        super().__init__()
        channels, *sizes = domain.shape
        self.levels = domain.upper + 1 if math.isfinite(domain.upper) else 256.0
        self.axes = len(sizes)
        halvings = max(math.ceil(math.log2(max(sizes) / _SMALL)), 1)
        layers: list[nn.Module] = []
        before = channels
        for k in range(halvings):
            after = 8 if k == 0 else 16
            convolution = _CONVOLUTIONS[self.axes](before, after, 3, stride=2, padding=1)
            layers += [convolution, nn.SiLU()]
            before = after
        flat = math.prod(reduced_shape(before, sizes, halvings))
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, _IMAGE_FEATURES))
        self.out_features = _IMAGE_FEATURES + 3 * channels

    def forward(self, image: Tensor) -> Tensor:
        """Return the features ``(n, F)`` of images ``(n, C, *sizes)``."""
        scaled = 2 * image.to(next(self.parameters())) / self.levels - 1
        flat = scaled.flatten(2)
        moments = [flat.mean(-1), flat.amax(-1), flat.std(-1, correction=0)]
        return torch.cat([self.layers(scaled), *moments], dim=-1)


class _Inference(nn.Module):
    """The network of q for one variable: other variables, with a mask, to parameters of q."""

    def __init__(self, name: str, domains: Mapping[str, Domain], outputs: int) -> None:
        super().__init__()
        scalars = {n: each for n, each in domains.items() if each.shape == (1,) and n != name}
        images = {n: each for n, each in domains.items() if len(each.shape) >= 3}
        self.context = Context(scalars)
        encoders = {n: _ImageFeatures(each) for n, each in images.items()}
        self.encoders = nn.ModuleDict(encoders)
        self.widths = {n: each.out_features for n, each in encoders.items()}
        size = self.context.features + len(scalars) + sum(self.widths.values())
        self.linear = zero_linear(size, outputs) if size else None
        self.network = ParameterNetwork(size, outputs, _HIDDEN)

    def forward(self, values: Variables, known: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Return the parameters ``(n, outputs)`` for some rows of values ``(R, *event)``.

        Values that are neither observed nor inferred yet count as zero, as does what is absent.
        """
        count = len(rows)
        absent = torch.zeros(count, 1, device=rows.device)
        parts = []
        for name in self.context.domains:
            mask = known[name][rows].unsqueeze(-1) if name in values else absent.bool()
            value = values[name][rows] if name in values else absent
            encoded = self.context.encode(name, torch.where(mask, value, torch.zeros_like(value)))
            parts += [torch.where(mask, encoded, torch.zeros_like(encoded)), mask.to(encoded)]
        for name, encoder in self.encoders.items():
            if name in values:
                parts.append(encoder(values[name][rows]))
            else:
                parts.append(absent.expand(-1, self.widths[name]))
        if not parts:
            return self.network(torch.zeros(count, 0)).expand(count, -1)
        features = torch.cat(parts, dim=-1)
        predicted: Tensor = self.network(features)
        if self.linear is not None:
            with torch.autocast(features.device.type, enabled=False):
                predicted = predicted + self.linear(features.to(predicted))
        return predicted


@dataclass(frozen=True)
class _Completed:
    """Rows without missing values; a row has a copy for each combination of its missing classes.

    Attributes:
        values: ``(R, *event)`` of each variable.
        origin: The row of each copy, ``(R,)``.
        weight: q of its classes, ``(R,)``, with the sum 1 for each row.
        divergences: For each incomplete variable log q − log p, or its expectation, ``(R,)``; zero
            where it is observed, or marginalised.
        score: log q of what was drawn without a reparametrised gradient, ``(R,)``.
    """

    values: dict[str, Tensor]
    origin: Tensor
    weight: Tensor
    divergences: dict[str, Tensor] = field(default_factory=dict)
    score: Tensor | None = None

    def copied(self, copies: Tensor) -> _Completed:
        """Select copies of rows."""
        return _Completed(
            {name: value[copies] for name, value in self.values.items()},
            self.origin[copies],
            self.weight[copies],
            {name: value[copies] for name, value in self.divergences.items()},
            None if self.score is None else self.score[copies],
        )


class MissingValueNetworks(nn.Module):
    """q(x_missing | x_observed, images) of a causal model, one small network a variable.

    Variables without a network are drawn from their mechanism: a valid proposal that is not
    learned. A model of complete data has no network, and then no cost.

    Args:
        domains: The domain of each variable of the model.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> from deepscm_pl.scm import StructuralCausalModel
        >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
        >>> a, b = torch.randn(9, 1), torch.randn(9, 1)
        >>> a[:4] = torch.nan
        >>> scm.fit({"a": a, "b": b})
        >>> scm.missing_values.names
        ('a',)
        >>> scm.elbo({"a": a, "b": b}).bound.isfinite().all()
        tensor(True)
    """

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        super().__init__()
        self.domains = dict(domains)
        self.networks = nn.ModuleDict()

    @property
    def names(self) -> tuple[str, ...]:
        """The variables with a network."""
        return tuple(self.networks)

    def declare(self, names: Sequence[str], mechanisms: Mapping[str, Mechanism]) -> None:
        """Make the networks of some variables; they start at the proposal p(x | pa)."""
        for name in names:
            outputs = _parameter_count(mechanisms[name])
            if outputs and name not in self.networks:
                made = _Inference(name, self.domains, outputs)
                like = next(mechanisms[name].parameters(), None)
                self.networks[name] = made if like is None else made.to(like)

    def fit(self, variables: Variables) -> None:
        """Set the statistics for standardisation from the training split, which may have NaN."""
        for module in self.networks.modules():
            if isinstance(module, Context):
                module.fit(variables)

    def evidence(
        self,
        graph: CausalGraph,
        mechanisms: Mapping[str, Mechanism],
        values: Variables,
        continuous: Variables,
        num_particles: int,
        is_training: bool = False,
    ) -> dict[str, Evidence]:
        """Return the evidence of each variable, for rows with missing values, ``(*batch,)``.

        A missing value has the log-probability 0, and the divergence of q from its mechanism.

        Args:
            graph: The causal graph.
            mechanisms: The mechanism of each variable.
            values: Recorded values, with NaN.
            continuous: Dequantised values.
            num_particles: Draws of the latents of images.
            is_training: Whether mechanisms with a training loss give it.
        """
        rows = _Rows(graph, mechanisms, values, continuous)
        rows.is_training = is_training
        several = [self._complete(rows, is_expanded=True)]
        if several[0].score is not None and torch.is_grad_enabled():
            several.append(self._complete(rows, is_expanded=True))
        found: dict[str, Evidence] = {}
        gains: list[list[Tensor]] = [[] for _ in several]
        for name in graph:
            if name not in rows.affected:
                found[name] = rows.evidence(name, None, num_particles)
                continue
            parts = []
            for k, completed in enumerate(several):
                part = rows.evidence(name, completed, num_particles)
                gains[k].append(part.bound)
                parts.append(_gathered(part, completed, rows.count))
            found[name] = parts[0] if len(parts) == 1 else _mean_evidence(parts)
        if len(several) > 1:
            name = next(iter(rows.missing))
            gain = _score_gain(several, [sum(each, torch.zeros(())) for each in gains], rows.count)
            found[name] = replace(found[name], log_prob=found[name].log_prob + gain)
        if self.training and torch.is_grad_enabled() and self.networks:
            name = graph.nodes[0]  # no gradient of a batch is None, as if there were no network
            nothing = 0 * torch.stack([each.sum() for each in self.parameters()]).sum()
            found[name] = replace(found[name], log_prob=found[name].log_prob + nothing)
        return {name: rows.shaped(each) for name, each in found.items()}

    def draws(
        self,
        graph: CausalGraph,
        mechanisms: Mapping[str, Mechanism],
        values: Variables,
        continuous: Variables,
        count: int,
        is_common: bool = False,
    ) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Yield draws of the missing values with their log-weights log p − log q.

        There are ``count`` in all, several at a time unless the model has images.

        Args:
            graph: The causal graph.
            mechanisms: The mechanism of each variable.
            values: Recorded values ``(*batch, *event)``, with NaN.
            continuous: Dequantised values.
            count: Number of draws.
            is_common: Whether all draws have the same draws of the latents of images, so that their
                weights differ only by the missing values.

        Yields:
            The values of each incomplete variable, ``(k, *batch, 1)``, and for each variable that
            is or depends on a missing one the log-weights ``(k, *batch)``.
        """
        domains = {name: mechanisms[name].domain for name in graph}
        batch = common_shape(*(d.batch_shape(values[n]) for n, d in domains.items()))
        has_images = any(len(domain.shape) >= 3 for domain in domains.values())
        most = 1 if has_images else max(_DRAWN_AT_A_TIME // math.prod(batch), 1)
        seed = int(torch.randint(2**31, ())) if is_common else None
        for start in range(0, count, most):
            shape = (min(most, count - start), *batch)
            repeated = (
                {name: given[name].expand(*shape, *d.shape) for name, d in domains.items()}
                for given in (values, continuous)
            )
            rows = _Rows(graph, mechanisms, *repeated)
            completed = self._complete(rows, is_expanded=False)
            with nullcontext() if seed is None else torch.random.fork_rng(rows.devices):
                if seed is not None:
                    torch.manual_seed(seed)
                weights = {name: rows.log_weight(name, completed) for name in rows.affected}
            yield (
                {name: completed.values[name].view(*shape, 1) for name in rows.missing},
                {name: weight.view(shape) for name, weight in weights.items()},
            )

    def draw(
        self, graph: CausalGraph, mechanisms: Mapping[str, Mechanism], values: Variables
    ) -> dict[str, Tensor]:
        """Return one draw of q for each missing value, ``(N, *event)`` for every variable."""
        return self._complete(_Rows(graph, mechanisms, values, values), is_expanded=False).values

    def _complete(self, rows: _Rows, is_expanded: bool) -> _Completed:
        """Infer the missing values of each row, in the order of the graph."""
        first = next(iter(rows.values.values()))
        origin = torch.arange(rows.count, device=first.device)
        values = {
            name: value.nan_to_num(0.0) if name in rows.missing else value
            for name, value in rows.values.items()
        }
        made = _Completed(values, origin, torch.ones(rows.count, device=first.device))
        known = {name: torch.ones_like(origin, dtype=torch.bool) for name in values}
        known |= {name: ~missing for name, missing in rows.missing.items()}
        for name in rows.missing:
            made = self._infer(rows, name, made, known, is_expanded)
            known[name] = torch.ones_like(known[name])
        return made

    def _infer(
        self,
        rows: _Rows,
        name: str,
        made: _Completed,
        known: Mapping[str, Tensor],
        is_expanded: bool,
    ) -> _Completed:
        """Infer the missing values of one variable."""
        mechanism, missing = rows.mechanisms[name], rows.missing[name]
        needed = missing & rows.has_observed_effect[name]
        network = self.networks[name] if name in self.networks else None  # noqa: SIM401
        if network is None:
            needed = torch.zeros_like(needed)
        classes, categories = None, mechanism.domain.categories
        if is_expanded and categories is not None and bool(needed.any()):
            made, classes = _with_every_class(made, needed, categories)
        some = needed[made.origin].nonzero().squeeze(-1)
        others = (missing & ~needed)[made.origin].nonzero().squeeze(-1)
        values, weight, score = made.values[name].clone(), made.weight, made.score
        divergence = torch.zeros_like(weight)
        if len(others):
            with torch.no_grad():
                parents = rows.parents(name, made.values, others)
                noise = mechanism.sample_noise((len(others),))
                values[others] = _recorded(mechanism, mechanism(noise, parents)).to(values)
        if network is not None and len(some):
            seen = {each: value[made.origin] for each, value in known.items()}
            parents = rows.parents(name, made.values, some)
            parameters = network(made.values, seen, some)
            chosen = None if classes is None else classes[some]
            found = _propose(mechanism, parents, parameters, chosen, is_expanded)
            values = values.index_put((some,), found.value.to(values))
            divergence = divergence.index_put((some,), found.divergence.to(divergence))
            if found.log_weight is not None:
                factor = torch.ones_like(weight)
                weight = weight * factor.index_put((some,), found.log_weight.exp().to(weight))
            if found.score is not None:
                before = torch.zeros_like(weight) if score is None else score
                score = before.index_put((some,), before[some] + found.score.to(before))
        divergences = {**made.divergences, name: divergence}
        return _Completed({**made.values, name: values}, made.origin, weight, divergences, score)


class _Rows:
    """A flat batch of rows with missing values: which are missing, and what depends on them."""

    is_training = False

    def __init__(
        self,
        graph: CausalGraph,
        mechanisms: Mapping[str, Mechanism],
        values: Variables,
        continuous: Variables,
    ) -> None:
        self.graph, self.mechanisms = graph, mechanisms
        domains = {name: mechanisms[name].domain for name in graph}
        shapes = [domain.batch_shape(values[name]) for name, domain in domains.items()]
        self.shape = common_shape(*shapes)
        self.count = math.prod(self.shape)
        self.values, self.continuous = (
            {
                name: given[name].expand(*self.shape, *d.shape).reshape(self.count, *d.shape)
                for name, d in domains.items()
            }
            for given in (values, continuous)
        )
        missing = {
            name: is_missing(self.values[name]) for name in graph if domains[name].shape == (1,)
        }
        self.missing = {name: each for name, each in missing.items() if bool(each.any())}
        self.affected = [
            name
            for name in graph
            if name in self.missing or any(p in self.missing for p in graph.parents[name])
        ]
        self.has_observed_effect: dict[str, Tensor] = {}
        for name in reversed(graph.nodes):
            found = torch.zeros(self.count, dtype=torch.bool, device=self._device)
            for child in (each for each in graph if name in graph.parents[each]):
                if child not in self.missing:
                    found = torch.ones_like(found)
                else:
                    found = found | ~self.missing[child] | self.has_observed_effect[child]
            self.has_observed_effect[name] = found

    @property
    def _device(self) -> torch.device:
        return next(iter(self.values.values())).device

    @property
    def devices(self) -> list[torch.device]:
        """The device whose random numbers are used, if it is not the CPU."""
        return [self._device] if self._device.type == "cuda" else []

    def parents(
        self, name: str, values: Variables, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The parents of a variable in some of the rows of ``values``."""
        found = {parent: values[parent] for parent in self.graph.parents[name]}
        return found if rows is None else {n: value[rows] for n, value in found.items()}

    def _of(self, name: str, completed: _Completed) -> tuple[Tensor, dict[str, Tensor]]:
        """The continuous value of a variable in completed rows, and its parents."""
        is_inferred = name in self.missing
        value = completed.values[name] if is_inferred else self.continuous[name][completed.origin]
        return value, self.parents(name, completed.values)

    def evidence(self, name: str, completed: _Completed | None, num_particles: int) -> Evidence:
        """The evidence of a variable: of all rows, or of completed ones, ``(R,)``."""
        mechanism = self.mechanisms[name]
        if completed is None:
            parents = self.parents(name, self.values)
            value = self.continuous[name]
            return mechanism.evidence_in(self.is_training, value, parents, num_particles)
        value, parents = self._of(name, completed)
        found = mechanism.evidence_in(self.is_training, value, parents, num_particles)
        if name not in self.missing:
            return found
        missing = self.missing[name][completed.origin]
        log_prob = torch.where(missing, torch.zeros_like(found.log_prob), found.log_prob)
        divergence = torch.where(missing, completed.divergences[name], found.divergence)
        return replace(found, log_prob=log_prob, divergence=divergence.to(log_prob))

    def log_weight(self, name: str, completed: _Completed) -> Tensor:
        """log p − log q of a variable in completed rows, from one draw of its latents, ``(N,)``."""
        weight = self.mechanisms[name].log_weights(*self._of(name, completed), 1)[0]
        if name not in self.missing:
            return weight
        return torch.where(self.missing[name], -completed.divergences[name].to(weight), weight)

    def shaped(self, evidence: Evidence) -> Evidence:
        """The evidence of a variable with the dimensions of the batch."""
        if len(self.shape) == 1:
            return evidence
        latent = evidence.latent
        if latent is not None:
            latent = latent._replace(
                divergences=latent.divergences.reshape(*self.shape, -1),
                log_weights=latent.log_weights.reshape(-1, *self.shape),
            )
        return replace(
            evidence,
            log_prob=evidence.log_prob.reshape(self.shape),
            divergence=evidence.divergence.reshape(self.shape),
            latent=latent,
        )


@dataclass(frozen=True)
class _Proposal:
    """Inferred values of a variable.

    Attributes:
        value: ``(n, 1)``.
        divergence: log q − log p, or its expectation, ``(n,)``.
        log_weight: log q of classes that were not drawn but enumerated.
        score: log q of values that were drawn without a reparametrised gradient.
    """

    value: Tensor
    divergence: Tensor
    log_weight: Tensor | None = None
    score: Tensor | None = None


def _parameter_count(mechanism: Mechanism) -> int:
    """The number of parameters of q; 0 for a mechanism that is its own proposal."""
    categories = mechanism.domain.categories
    if mechanism.domain.shape != (1,):
        return 0
    if categories is not None:
        return categories
    if isinstance(mechanism, ZeroInflatedFlow):
        return 4
    return 2 if isinstance(mechanism, Flow | CellMechanism) else 0


def _propose(
    mechanism: Mechanism,
    parents: Variables,
    parameters: Tensor,
    classes: Tensor | None,
    is_expanded: bool,
) -> _Proposal:
    """Infer n values, of given classes if these are enumerated."""
    if mechanism.domain.categories is not None:
        return _propose_class(mechanism, parents, parameters, classes, is_expanded)
    location, log_scale = parameters[:, 0::2], bounded_log_scale(parameters[:, 1::2])
    noise = location + log_scale.exp() * torch.randn_like(location)
    if isinstance(mechanism, Flow):
        value = _recorded(mechanism, mechanism({"u": noise}, parents))
        if is_expanded:
            divergence = 0.5 * (location.square() + (2 * log_scale).exp() - 1) - log_scale
        else:
            divergence = _log_normal(noise, location, log_scale) - _log_normal(noise)
        return _Proposal(value, divergence.squeeze(-1))
    with torch.no_grad():
        value = _recorded(mechanism, mechanism({"u": noise}, parents))
    if isinstance(mechanism, CellMechanism):
        log_q = _log_cell(mechanism, parents, value, location, log_scale)
    elif isinstance(mechanism, ZeroInflatedFlow):
        log_q = _log_zero_inflated(mechanism, parents, value, location, log_scale)
    else:
        raise TypeError(f"expected flows, classes or counts, but got {type(mechanism).__name__}.")
    log_p = mechanism.log_prob(value, parents)
    return _Proposal(value, log_q.to(log_p) - log_p, score=log_q.to(log_p))


def _propose_class(
    mechanism: Mechanism,
    parents: Variables,
    parameters: Tensor,
    classes: Tensor | None,
    is_expanded: bool,
) -> _Proposal:
    count, categories = parameters.shape
    every = torch.arange(categories, device=parameters.device).to(parameters)
    every = every[:, None, None].expand(-1, count, 1)
    log_p = mechanism.log_prob(every, parents).expand(categories, count).T
    log_q = (log_p + parameters.to(log_p)).log_softmax(dim=-1)
    is_drawn = classes is None
    if classes is None:
        classes = torch.distributions.Categorical(logits=log_q.detach()).sample()
    place = classes[:, None]
    own_q, own_p = log_q.gather(1, place).squeeze(1), log_p.gather(1, place).squeeze(1)
    value = place.to(parameters)
    if not is_drawn:
        return _Proposal(value, own_q - own_p, log_weight=own_q)
    return _Proposal(value, own_q - own_p, score=own_q if is_expanded else None)


def _log_normal(
    noise: Tensor, location: Tensor | None = None, log_scale: Tensor | None = None
) -> Tensor:
    """log N(u; μ, σ²) without its constant."""
    if location is None or log_scale is None:
        return -0.5 * noise.square()
    return -0.5 * ((noise - location) * (-log_scale).exp()).square() - log_scale


def _log_cell(
    mechanism: CellMechanism, parents: Variables, value: Tensor, location: Tensor, log_scale: Tensor
) -> Tensor:
    """log q of a value whose noise is N(μ, σ²), ``(n,)``; constant in the mechanism."""
    with torch.no_grad():
        # Infinite ends would make gradients NaN.
        low, high = (each.clamp(-_FAR, _FAR) for each in mechanism.cell(value, parents))
    centre, scale = location.double(), log_scale.double().exp()
    return log_mass((low - centre) / scale, (high - centre) / scale).squeeze(-1)


def _log_zero_inflated(
    mechanism: ZeroInflatedFlow,
    parents: Variables,
    value: Tensor,
    location: Tensor,
    log_scale: Tensor,
) -> Tensor:
    """log q of zeros and amounts whose noises are N(μ, σ²), ``(n,)``; constant in the mechanism."""
    with torch.no_grad():
        threshold = mechanism.threshold_at(parents)
        safe = torch.where(value == 0, torch.ones_like(value), value)
        noise = mechanism.flow.abduct(safe, parents)["u"]
        density = mechanism.flow.log_prob(safe, parents) - _log_normal(noise).squeeze(-1)
    standardised = ((threshold - location[:, :1]) * (-log_scale[:, :1]).exp()).squeeze(-1)
    amount = density + _log_normal(noise, location[:, 1:], log_scale[:, 1:]).squeeze(-1)
    some = torch.special.log_ndtr(-standardised) + amount
    return torch.where(value.squeeze(-1) == 0, torch.special.log_ndtr(standardised), some)


def _recorded(mechanism: Mechanism, value: Tensor) -> Tensor:
    return mechanism.domain.moved_inside(mechanism.quantise(value))


def _with_every_class(
    made: _Completed, needed: Tensor, categories: int
) -> tuple[_Completed, Tensor | None]:
    """Copy the rows that need a class once for each class; return the class of each copy, too.

    Rows with too many copies already are not copied further: there is then no class.
    """
    copies = int(torch.bincount(made.origin).max())
    if copies * categories > _MOST_COPIES:
        return made, None
    counts = torch.where(needed[made.origin], categories, 1)
    source = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    classes = torch.arange(len(source), device=counts.device) - first[source]
    return made.copied(source), classes


def _gathered(evidence: Evidence, completed: _Completed, count: int) -> Evidence:
    """The mean over the copies of each row, weighted by q, ``(N,)``."""

    def gather(value: Tensor) -> Tensor:
        """The sum over copies along the first dimension."""
        weight = completed.weight.to(value).view(-1, *[1] * (value.dim() - 1))
        start = value.new_zeros(count, *value.shape[1:])
        return start.index_add(0, completed.origin, weight * value)

    latent = evidence.latent
    if latent is not None:
        weights = gather(latent.log_weights.movedim(0, -1)).movedim(-1, 0)
        divergences = gather(latent.divergences)
        latent = latent._replace(divergences=divergences, log_weights=weights)
    return replace(
        evidence,
        log_prob=gather(evidence.log_prob),
        divergence=gather(evidence.divergence),
        latent=latent,
    )


def _mean_evidence(several: Sequence[Evidence]) -> Evidence:
    latents = [each.latent for each in several if each.latent is not None]
    latent = None
    if latents:
        latent = latents[0]._replace(
            divergences=torch.stack([each.divergences for each in latents]).mean(dim=0),
            log_weights=torch.cat([each.log_weights for each in latents]),
        )
    return replace(
        several[0],
        log_prob=torch.stack([each.log_prob for each in several]).mean(dim=0),
        divergence=torch.stack([each.divergence for each in several]).mean(dim=0),
        latent=latent,
    )


def _score_gain(several: Sequence[_Completed], gains: Sequence[Tensor], count: int) -> Tensor:
    """Zero, ``(N,)``, with the score-function gradient of the bound with respect to q.

    The bound of the other draw is the baseline of each (Kool et al. 2019).
    """
    total = torch.zeros(count, device=gains[0].device)
    rows = [
        torch.zeros_like(total).index_add(0, made.origin, (made.weight * gain).detach().to(total))
        for made, gain in zip(several, gains, strict=True)
    ]
    for k, (made, gain) in enumerate(zip(several, gains, strict=True)):
        if made.score is None:
            continue
        score = made.score - made.score.detach()
        advantage = gain.detach().to(total) - rows[1 - k][made.origin]
        term = made.weight.detach() * advantage * score
        total = total.index_add(0, made.origin, term.to(total))
    return total / len(several)
