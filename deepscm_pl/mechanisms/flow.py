"""Normalising flows of scalar attributes, with exact densities and exact noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pyro.distributions import Normal, TransformedDistribution, transforms
from torch import Tensor
from torch.distributions import Transform

from deepscm_pl.checks import class_factory, real_number, shown, whole_number
from deepscm_pl.mechanisms.base import Context, Mechanism
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.nn.layers import NONLINEAR
from deepscm_pl.transforms import Constraint, RationalQuadraticSpline, Real
from deepscm_pl.transforms.cells import bounded_log_scale
from deepscm_pl.variables import Domain, Noise, Variables

__all__ = ["AdditiveNoise", "AffineFlow", "Flow", "Heteroscedastic", "SplineFlow", "SplineForm"]

_MOST_BINS = 1000  # each bin takes at least a thousandth of the spline
_LARGEST_BOUND = 1000.0  # standard deviations of the noise


@dataclass(frozen=True)
class SplineForm:
    """The form u ↦ μ + σ·S(u) of a map of single numbers, with a monotonic spline S.

    Args:
        bins: Number of bins of S; 0 for the identity in its place, an affine map.
        bound: S is the identity outside of [−bound, bound].

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> SplineForm(bins=8).parameters, SplineForm().parameters
        (25, 2)
    """

    bins: int = 0
    bound: float = 4.0

    def __post_init__(self) -> None:
        """Check the settings."""
        whole_number("bins", self.bins, least=0, most=_MOST_BINS)
        if self.bins == 1:
            raise ValueError("bins: expected 0, for affine maps, or at least 2, but got 1.")
        real_number("bound", self.bound, above=0, most=_LARGEST_BOUND)

    @property
    def parameters(self) -> int:
        """The number of parameters: μ, log σ and those of S."""
        return 2 + (3 * self.bins - 1 if self.bins else 0)

    def transforms(self, location: Tensor, log_scale: Tensor, spline: Tensor) -> list[Transform]:
        """Return S, unless it is the identity, and the affine map, of numbers ``(*batch, 1)``."""
        affine = transforms.AffineTransform(location, bounded_log_scale(log_scale).exp())
        return [RationalQuadraticSpline(spline, self.bound), affine] if self.bins else [affine]


class Flow(Mechanism):
    """An invertible map T of noise, then a constraint c: x := c(T(u; pa)), u ~ N(0, 1).

    log p(x | pa) = log N(u; 0, 1) − log |dx/du| (Pawlowski et al. 2020, section 3, "invertible,
    explicit likelihood").

    The coupling is monotone if T increases with u: a value keeps its quantile given the parents.

    Args:
        constraint: Factory of c, a :class:`~deepscm_pl.transforms.Constraint`.
    """

    def __init__(self, context: Context, constraint: Callable[[], Constraint] = Real) -> None:
        super().__init__(context)
        made = class_factory("constraint", constraint)()
        if not isinstance(made, Constraint):
            raise ValueError(f"constraint: expected a Constraint, but got {shown(made)}.")
        self.constraint = made

    @abstractmethod
    def transforms(self, context: Tensor) -> list[Transform]:
        """Return T as a list of elementwise transforms, in the order from the noise to x."""

    @property
    def domain(self) -> Domain:
        """A scalar within the bounds of the constraint."""
        return Domain(lower=self.constraint.lower, upper=self.constraint.upper, open=True)

    def distribution(self, parents: Variables) -> TransformedDistribution:
        """Return p(x | pa)."""
        # The model has validated its inputs; NaN is accepted, because the training reports it.
        base = Normal(torch.zeros_like(self.constraint.location), 1.0, validate_args=False)
        return TransformedDistribution(base.to_event(1), self._layers(parents), validate_args=False)

    def _layers(self, parents: Variables) -> list[Transform]:
        return [*self.transforms(self.context(parents)), self.constraint.transform()]

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x = c(T(u; pa))."""
        value: Tensor = transforms.ComposeTransform(self._layers(parents))(noise["u"])
        return value

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Return u = T⁻¹(c⁻¹(x); pa), exactly."""
        noise = transforms.ComposeTransform(self._layers(parents)).inv(value)
        return {"u": noise.expand(*sample_shape, *noise.shape)}

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the constraint and the context to the training split."""
        super().fit(value, parents)
        self.constraint.fit(value)


class _ParametricFlow(Flow):
    """A flow whose location μ, log-scale and spline are predicted from the parents.

    Args:
        form: The map from the noise.
        hidden: Widths of the hidden layers of the network.
        additive: Whether only the location depends on the parents.
    """

    def __init__(
        self,
        context: Context,
        constraint: Callable[[], Constraint],
        form: SplineForm,
        hidden: Sequence[int],
        additive: bool,
    ) -> None:
        super().__init__(context, constraint)
        self.form = form
        predicted = 1 if additive else form.parameters
        self.parameters_of = ParameterNetwork(context.features, predicted, hidden)
        self.shape = ParameterNetwork(0, form.parameters - 1) if additive else None

    def parameters_at(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return μ, log σ and the parameters of S; those without parents have no batch."""
        found: Tensor = self.parameters_of(context)
        rest = found[..., 1:] if self.shape is None else self.shape(context)
        return found[..., :1], rest[..., :1], rest[..., 1:]

    def transforms(self, context: Tensor) -> list[Transform]:
        """Return u ↦ μ + σ·S(u)."""
        return self.form.transforms(*self.parameters_at(context))


class AffineFlow(_ParametricFlow):
    """A flow with an affine map: x := c(μ(pa) + σ(pa)·u).

    The coupling is monotone: a value keeps its quantile given the parents.

    Args:
        hidden: Widths of the hidden layers of the network for μ and log σ, which is nonlinear by
            default; empty for affine functions of the standardised parents.
        additive: Whether σ is the same for all parents, as in an additive noise model (Hoyer et al.
            2009) of c⁻¹(x).

    Example:
        >>> AffineFlow(Context())({"u": torch.tensor([[0.5]])}, {})
        tensor([[0.5000]], grad_fn=<AddBackward0>)
    """

    def __init__(
        self,
        context: Context,
        constraint: Callable[[], Constraint] = Real,
        hidden: Sequence[int] = NONLINEAR,
        additive: bool = False,
    ) -> None:
        super().__init__(context, constraint, SplineForm(), hidden, additive)


class _NamedForm(AffineFlow):
    """An affine flow of which it is known whether its scale depends on the parents."""

    is_additive: ClassVar[bool]

    def __init__(
        self,
        context: Context,
        constraint: Callable[[], Constraint] = Real,
        hidden: Sequence[int] = NONLINEAR,
    ) -> None:
        super().__init__(context, constraint, hidden, self.is_additive)


class AdditiveNoise(_NamedForm):
    """An additive noise model: x := c(μ(pa) + σ·u), with the same σ for all parents.

    The form in which the direction of a cause can be identified from data (Hoyer et al. 2009,
    "Nonlinear causal discovery with additive noise models"). An :class:`AffineFlow` with
    ``additive``; the coupling is monotone.

    Args:
        hidden: Widths of the hidden layers of the network for μ; empty for a linear model.

    Example:
        >>> model = AdditiveNoise(Context({"age": Domain()}), hidden=())
        >>> noise = {"u": torch.tensor([[1.0]])}
        >>> model(noise, {"age": torch.tensor([[40.0]])}).shape
        torch.Size([1, 1])
    """

    is_additive = True


class Heteroscedastic(_NamedForm):
    """A location-scale noise model: x := c(μ(pa) + σ(pa)·u).

    Both the location and the scale of the noise depend on the parents (Immer et al. 2023,
    arXiv:2210.09054). An :class:`AffineFlow`; the coupling is monotone.

    Args:
        hidden: Widths of the hidden layers of the network for μ and log σ.

    Example:
        >>> model = Heteroscedastic(Context({"age": Domain()}))
        >>> model.sample_noise((2,))["u"].shape
        torch.Size([2, 1])
    """

    is_additive = False


class SplineFlow(_ParametricFlow):
    """A flow with a monotonic rational-quadratic spline S: x := c(μ(pa) + σ(pa)·S(u; pa)).

    The spline shapes the density within ±``bound`` standard deviations of the noise, and the affine
    map shifts and scales it. The coupling is monotone: a value keeps its quantile given the
    parents.

    Args:
        hidden: Widths of the hidden layers of the network for all parameters.
        bins: Number of bins of the spline, from 2 to 1,000.
        bound: The spline is the identity outside of [−bound, bound].
        additive: Whether σ and S are the same for all parents, as in an additive noise model (Hoyer
            et al. 2009) of c⁻¹(x).
    """

    def __init__(
        self,
        context: Context,
        constraint: Callable[[], Constraint] = Real,
        hidden: Sequence[int] = (32,),
        bins: int = 8,
        bound: float = 4.0,
        additive: bool = False,
    ) -> None:
        bins = whole_number("bins", bins, least=2, most=_MOST_BINS)
        super().__init__(context, constraint, SplineForm(bins, bound), hidden, additive)
