"""Attributes with atoms: whole numbers and steps, ordered classes, and zero-inflated values.

A value x of such a variable does not determine its noise but a cell of it, a < u ≤ b: the noise is
inferred as a draw of N(0, 1) truncated to the cell, which is its exact posterior.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from deepscm_pl.checks import class_factory, real_number, shown, whole_number
from deepscm_pl.mechanisms.base import Context, Mechanism
from deepscm_pl.mechanisms.flow import Flow, SplineFlow
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.nn.layers import NONLINEAR
from deepscm_pl.transforms import Positive
from deepscm_pl.transforms.cells import bounded_log_scale, log_mass, truncated_quantile
from deepscm_pl.variables import Domain, Noise, Variables, common_shape

__all__ = ["CellMechanism", "Ordinal", "SteppedFlow", "ZeroInflatedFlow"]


class _Exact(TorchDistribution):
    """p(x | pa) of a mechanism with an exact log-probability, for Pyro."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, mechanism: Mechanism, parents: Variables, batch: torch.Size) -> None:
        self.mechanism, self.parents = mechanism, parents
        super().__init__(batch, torch.Size(mechanism.domain.shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, 1)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> _Exact:
        return _Exact(self.mechanism, self.parents, torch.Size(batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = self.mechanism.sample_noise((*sample_shape, *self.batch_shape))
        return self.mechanism(noise, self.parents)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.mechanism.log_prob(value, self.parents).expand(value.shape[:-1])


class _WithAtoms(Mechanism):
    """A mechanism of a variable with atoms, whose log-probability is exact."""

    def distribution(self, parents: Variables) -> TorchDistribution:
        """Return p(x | pa)."""
        domains = self.context.domains.items()
        batch = common_shape(*(d.batch_shape(parents[name]) for name, d in domains))
        return _Exact(self, parents, batch)


class CellMechanism(_WithAtoms):
    """A discrete variable: x is the value whose cell (a(x; pa), b(x; pa)) contains u ~ N(0, 1).

    P(x | pa) = Φ(b) − Φ(a). The coupling is monotone: with fixed parents, x does not fall with u.
    """

    @abstractmethod
    def cell(self, value: Tensor, parents: Variables) -> tuple[Tensor, Tensor]:
        """Return a and b in double precision, ``(*batch, 1)``; −∞ and ∞ at the ends."""

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draw u ~ N(0, 1) truncated to the cell of x."""
        low, high = self.cell(value, parents)
        shape = (*sample_shape, *common_shape(value.shape, low.shape))
        rank = torch.rand(shape, dtype=low.dtype, device=low.device)
        return {"u": truncated_quantile(rank, low, high).to(self.dtype)}

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return log P(x | pa) in nats, ``(*batch,)``."""
        low, high = self.cell(value, parents)
        return log_mass(low, high).to(self.dtype).squeeze(-1)


class SteppedFlow(CellMechanism):
    """A flow whose values are recorded in steps of size s: x := s·⌊T(u; pa)/s⌋.

    Counts are a flow of positive numbers (``constraint: Positive``: 0, 1, 2, ...), scores from 1 to
    5 a flow between 1 and 6 (``Interval(1, 6)``). P(x | pa) = Φ(T⁻¹(x + s)) − Φ(T⁻¹(x)). The
    coupling is monotone: x does not fall with u.

    Null interventions are exact if the values spread over less than about 10⁴ steps; use the flow
    itself for more.

    Args:
        context: The context of the parents.
        flow: Factory of the flow of continuous values, which belong to the cells [x, x + s).
        step: s.

    Raises:
        ValueError: If the step is not positive, a bound of the flow is not a multiple of it, or
            ``flow`` makes no :class:`Flow`.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> count = SteppedFlow(Context(), partial(AffineFlow, constraint=Positive))
        >>> count({"u": torch.tensor([[-2.0], [0.0], [1.5]])}, {}).flatten().tolist()
        [0.0, 1.0, 4.0]
        >>> count.log_prob(torch.tensor([[0.0]]), {}).exp()  # u below 0
        tensor([0.5000], grad_fn=<ExpBackward0>)
    """

    def __init__(
        self,
        context: Context,
        flow: Callable[[Context], Flow] = SplineFlow,
        step: float = 1.0,
    ) -> None:
        super().__init__(context)
        made = class_factory("flow", flow)(context)
        if not isinstance(made, Flow):
            raise ValueError(f"flow: expected a Flow, but got {shown(made)}.")
        self.flow, self.step = made, float(real_number("step", step, above=0))
        for name, bound in (("lower", made.domain.lower), ("upper", made.domain.upper)):
            if math.isfinite(bound) and abs(bound / step - round(bound / step)) > 1e-9:
                raise ValueError(
                    f"flow: expected a {name} bound that is a multiple of the step {step:g}, but "
                    f"got {bound:g}; a score from 1 to 5 has the bounds 1 and 6."
                )

    @property
    def domain(self) -> Domain:
        """Multiples of the step within the bounds of the flow."""
        inner = self.flow.domain
        is_whole = self.step == 1
        step = None if is_whole else self.step
        return Domain((1,), inner.lower, inner.upper - self.step, whole=is_whole, step=step)

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x, computed in double precision and rounded to the step."""
        exact = self.flow({"u": noise["u"].double()}, parents)
        low, high = self.domain.lower, self.domain.upper
        return (self.step * (exact / self.step).floor()).clamp(low, high).to(noise["u"])

    def cell(self, value: Tensor, parents: Variables) -> tuple[Tensor, Tensor]:
        """Return T⁻¹(x) and T⁻¹(x + s)."""
        inner = self.flow.domain
        # Multiples of the step in double precision; a single-precision 0.3 differs from them.
        low = self.step * (value.double() / self.step).round()
        high = low + self.step
        ends = low <= inner.lower, high >= inner.upper
        middle = (low + high) / 2
        a, b = (
            self.flow.abduct(torch.where(end, middle, edge), parents)["u"].double()
            for edge, end in zip((low, high), ends, strict=True)
        )
        return a.masked_fill(ends[0], -math.inf), b.masked_fill(ends[1], math.inf)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the flow to the middles of the recorded cells."""
        super().fit(value, parents)
        self.flow.fit(value + self.step / 2, parents)


class Ordinal(CellMechanism):
    """Ordered classes, such as grades of a disease.

    x is the number of thresholds t_1(pa) < … < t_{K−1}(pa) below u ~ N(0, 1). t_k(pa) = (τ_k −
    η(pa))/exp(ς(pa)), an ordered probit model with unequal spread (McKelvey and Zavoina 1975): η
    and ς are functions of the parents, τ_k start at the shares of the classes in the training
    split. Unlike :class:`~deepscm_pl.mechanisms.Categorical`, the coupling is monotone: if the
    parents raise η, no counterfactual class is lower than the factual one.

    Args:
        context: The context of the parents.
        categories: K, at least two.
        hidden: Widths of the hidden layers of the network for η and ς, which is nonlinear by
            default; empty for affine functions.

    Example:
        >>> grade = Ordinal(Context(), categories=3)
        >>> grade.fit(torch.tensor([[0.0], [1.0], [2.0], [2.0]]), {})
        >>> grade.log_prob(torch.tensor([[0.0], [2.0]]), {}).exp()
        tensor([0.2500, 0.5000], grad_fn=<ExpBackward0>)
    """

    initial_thresholds: Tensor

    def __init__(
        self, context: Context, categories: int, hidden: Sequence[int] = NONLINEAR
    ) -> None:
        super().__init__(context)
        self.categories = whole_number("categories", categories, least=2)
        self.parameters_of = ParameterNetwork(context.features, 2, hidden)
        self.log_gaps = nn.Parameter(torch.zeros(categories - 2))
        self.register_buffer(
            "initial_thresholds", torch.arange(categories - 1, dtype=torch.get_default_dtype())
        )

    @property
    def domain(self) -> Domain:
        """The classes 0, …, K − 1."""
        return Domain(categories=self.categories)

    def thresholds(self, parents: Variables) -> Tensor:
        """t_1(pa), …, t_{K−1}(pa), ``(*batch, K − 1)``, in ascending order."""
        location, log_scale = self.parameters_of(self.context(parents)).chunk(2, dim=-1)
        gaps = self.initial_thresholds.diff() * self.log_gaps.exp()
        first = self.initial_thresholds[:1]
        start = torch.cat([first, first + gaps.cumsum(0)])
        return (start - location) * (-bounded_log_scale(log_scale)).exp()

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x."""
        above = noise["u"] > self.thresholds(parents)
        return above.sum(-1, keepdim=True).to(noise["u"])

    def cell(self, value: Tensor, parents: Variables) -> tuple[Tensor, Tensor]:
        """Return the thresholds around the class."""
        inner = self.thresholds(parents).double()
        end = inner.new_full((*inner.shape[:-1], 1), math.inf)
        edges = torch.cat([-end, inner, end], dim=-1)
        batch = common_shape(value.shape[:-1], edges.shape[:-1])
        edges = edges.expand(*batch, edges.shape[-1])
        place = value.long().expand(*batch, 1)
        return edges.gather(-1, place), edges.gather(-1, place + 1)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and start from the shares of the classes in the training split.

        Raises:
            ValueError: If a class does not occur.
        """
        super().fit(value, parents)
        counts = torch.bincount(value.flatten().long(), minlength=self.categories).double()
        absent = [str(k) for k in range(self.categories) if counts[k] == 0]
        if absent:
            raise ValueError(
                f"expected every class from 0 to {self.categories - 1} in the training split, but "
                f"{', '.join(absent)} does not occur; number the classes in their order from 0 on, "
                "and give categories their number."
            )
        self.initial_thresholds.copy_(torch.special.ndtri((counts / counts.sum()).cumsum(0)[:-1]))


class ZeroInflatedFlow(_WithAtoms):
    """Nonnegative values that are often exactly zero, such as lesion volumes or doses.

    A hurdle model (Cragg 1971): x := 0 if u_1 ≤ t(pa), and x := T(u_2; pa) > 0 otherwise, with
    u_1, u_2 ~ N(0, 1). p(x | pa) is Φ(t) at zero, a probability, and
    (1 − Φ(t))·p_T(x | pa) elsewhere, a density. The amount behind an observed zero is unknown: u_2
    is then drawn from its prior.

    The coupling is monotone in both: parents that lower t never turn a positive value into zero,
    and positive values keep their quantile among the positive ones. That u_1 and u_2 are
    independent, also in counterfactuals, is part of the choice.

    Args:
        context: The context of the parents.
        flow: Factory of T, a flow of positive numbers; None for a spline.
        hidden: Widths of the hidden layers of the network for t, which is nonlinear by default;
            empty for an affine function.

    Example:
        >>> dose = ZeroInflatedFlow(Context())
        >>> dose.fit(torch.tensor([[0.0], [0.0], [1.0], [2.0]]), {})
        >>> dose.log_prob(torch.tensor([[0.0]]), {}).exp()
        tensor([0.5000], grad_fn=<ExpBackward0>)
    """

    initial_threshold: Tensor

    def __init__(
        self,
        context: Context,
        flow: Callable[[Context], Flow] | None = None,
        hidden: Sequence[int] = NONLINEAR,
    ) -> None:
        super().__init__(context)
        given = partial(SplineFlow, constraint=Positive) if flow is None else flow
        made = class_factory("flow", given)(context)
        if not isinstance(made, Flow) or made.domain.lower != 0:
            raise ValueError(
                f"flow: expected a flow of positive numbers, but got {shown(made)}; give its "
                "constraint, such as Positive."
            )
        self.flow = made
        self.threshold = ParameterNetwork(context.features, 1, hidden)
        self.register_buffer("initial_threshold", torch.zeros(1))

    @property
    def domain(self) -> Domain:
        """Zero, and the values of the flow."""
        return Domain(lower=0.0, upper=self.flow.domain.upper)

    def threshold_at(self, parents: Variables) -> Tensor:
        """Return t(pa), ``(*batch, 1)``."""
        return self.initial_threshold + self.threshold(self.context(parents))

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x."""
        presence, amount = noise["u"].split(1, dim=-1)
        value = self.flow({"u": amount}, parents)
        # A positive value that underflows must not become zero.
        value = value.clamp(min=torch.finfo(value.dtype).tiny)
        return torch.where(presence > self.threshold_at(parents), value, torch.zeros_like(value))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """u_1 and u_2, ``(2,)``."""
        return (2,)

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draw u_1 from its posterior; infer u_2 if x > 0, and draw it from its prior if x = 0."""
        threshold = self.threshold_at(parents).double()
        zero = value == 0
        end = threshold.new_tensor(math.inf)
        low, high = torch.where(zero, -end, threshold), torch.where(zero, threshold, end)
        shape = (*sample_shape, *common_shape(value.shape, threshold.shape))
        rank = torch.rand(shape, dtype=low.dtype, device=low.device)
        presence = truncated_quantile(rank, low, high).to(self.dtype)
        exact = self.flow.abduct(torch.where(zero, torch.ones_like(value), value), parents)["u"]
        amount = torch.where(zero, exact.new_empty(shape).normal_(), exact)
        return {"u": torch.cat([presence, amount.to(presence)], dim=-1)}

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """Return log Φ(t) at zero, log(1 − Φ(t)) + log p_T(x | pa) elsewhere, in nats."""
        threshold = self.threshold_at(parents).squeeze(-1)
        zero = value.squeeze(-1) == 0
        safe = torch.where(value == 0, torch.ones_like(value), value)
        some = torch.special.log_ndtr(-threshold) + self.flow.log_prob(safe, parents)
        return torch.where(zero, torch.special.log_ndtr(threshold), some)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the flow to the positive values, and start from the share of zeros.

        Raises:
            ValueError: If no value is zero, or fewer than two differ otherwise.
        """
        some = (value > 0).flatten()
        if bool(some.all()) or not bool(some.any()):
            raise ValueError(
                f"expected zeros and positive numbers in the training split, but "
                f"{'none is zero' if bool(some.all()) else 'all are zero'}; use a flow, or leave "
                "the variable out of the graph."
            )
        self.flow.fit(value[some], {name: each[some] for name, each in parents.items()})
        super().fit(value, parents)  # the context, of all rows
        self.initial_threshold.copy_(torch.special.ndtri((~some).double().mean()))
