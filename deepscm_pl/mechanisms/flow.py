"""Normalising flows for scalar attributes: exact densities, exact noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import pyro
import torch
from pyro.distributions import Normal, TransformedDistribution, transforms
from torch import Tensor
from torch.distributions import Transform

from deepscm_pl.checks import class_factory, real_number, shown, whole_number
from deepscm_pl.mechanisms.base import Context, Evidence, Mechanism
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.transforms import Constraint, RationalQuadraticSpline, Real
from deepscm_pl.variables import Domain, Noise, Variables

__all__ = ["AffineFlow", "Flow", "SplineFlow"]

_MOST_BINS = 1000
"""Each takes at least a thousandth of the spline."""

_LARGEST_BOUND = 1000.0
"""Standard deviations of the noise; single precision tells no more of them apart."""


class Flow(Mechanism):
    """x := c(T(u; pa)), u ~ N(0, 1): an invertible map of the noise, then a constraint.

    log p(x | pa) = log N(u; 0, 1) − log |dx/du| (Pawlowski et al. 2020, section 3, "invertible,
    explicit likelihood").

    Args:
        context: What the flow sees of its parents; without parents it is unconditional.
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
        """T as a list of elementwise transforms, the one nearest to the noise first."""

    @property
    def domain(self) -> Domain:
        """A scalar within the bounds of the constraint."""
        return Domain(lower=self.constraint.lower, upper=self.constraint.upper, open=True)

    def distribution(self, parents: Variables) -> TransformedDistribution:
        """p(x | pa)."""
        # Checked at the model's door; here a NaN has to pass, for the training to name it.
        base = Normal(torch.zeros_like(self.constraint.location), 1.0, validate_args=False)
        layers = [*self.transforms(self.context(parents)), self.constraint.transform()]
        return TransformedDistribution(base.to_event(1), layers, validate_args=False)

    def _composed(self, parents: Variables) -> Transform:
        layers = [*self.transforms(self.context(parents)), self.constraint.transform()]
        return transforms.ComposeTransform(layers)

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """x = c(T(u; pa))."""
        value: Tensor = self._composed(parents)(noise["u"])
        return value

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """u ~ N(0, 1), ``(*shape, 1)``."""
        return {"u": self.constraint.location.new_empty(*shape, 1).normal_()}

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """u = T⁻¹(c⁻¹(x); pa), exact."""
        noise = self._composed(parents).inv(value)
        return {"u": noise.expand(*sample_shape, *noise.shape)}

    def log_prob(self, value: Tensor, parents: Variables) -> Tensor:
        """log p(x | pa) in nats, ``(*batch,)``."""
        log_prob: Tensor = self.distribution(parents).log_prob(value)
        return log_prob

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """The exact log-probability."""
        log_prob = self.log_prob(value, parents)
        return Evidence(log_prob, torch.zeros_like(log_prob))

    def model(self, name: str, parents: Variables) -> Tensor:
        """The site ``name``."""
        value: Tensor = pyro.sample(name, self.distribution(parents))
        return value

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the constraint and the context to the training split."""
        super().fit(value, parents)
        self.constraint.fit(value)


class AffineFlow(Flow):
    """x := c(μ(pa) + σ(pa)·u).

    Args:
        context: What the flow sees of its parents.
        constraint: Factory of c.
        hidden: Widths of the hidden layers of the network for μ and log σ; empty for affine
            functions of the standardised parents.

    Example:
        >>> flow = AffineFlow(Context())
        >>> flow({"u": torch.tensor([[0.5]])}, {})
        tensor([[0.5000]], grad_fn=<AddBackward0>)
    """

    def __init__(
        self,
        context: Context,
        constraint: Callable[[], Constraint] = Real,
        hidden: Sequence[int] = (),
    ) -> None:
        super().__init__(context, constraint)
        self.parameters_of = ParameterNetwork(context.features, 2, hidden)

    def transforms(self, context: Tensor) -> list[Transform]:
        """u ↦ μ + σ·u."""
        return [_affine(self.parameters_of(context))]


class SplineFlow(Flow):
    """x := c(μ(pa) + σ(pa)·S(u; pa)), with a monotonic rational-quadratic spline S.

    The spline shapes the density within ±``bound`` standard deviations of the noise; the affine map
    places it, so that its tails may lie anywhere.

    Args:
        context: What the flow sees of its parents.
        constraint: Factory of c.
        hidden: Widths of the hidden layers of the network for all parameters.
        bins: Number of bins of the spline.
        bound: The spline is the identity outside of [−bound, bound].

    Example:
        >>> flow = SplineFlow(Context({"age": Domain()}))
        >>> flow.log_prob(torch.zeros(4, 1), {"age": torch.ones(4, 1)}).shape
        torch.Size([4])
    """

    def __init__(
        self,
        context: Context,
        constraint: Callable[[], Constraint] = Real,
        hidden: Sequence[int] = (32,),
        bins: int = 8,
        bound: float = 4.0,
    ) -> None:
        bins = whole_number("bins", bins, least=2, most=_MOST_BINS)
        bound = real_number("bound", bound, above=0, most=_LARGEST_BOUND)
        super().__init__(context, constraint)
        self.bound = bound
        self.parameters_of = ParameterNetwork(context.features, 2 + 3 * bins - 1, hidden)

    def transforms(self, context: Tensor) -> list[Transform]:
        """u ↦ μ + σ·S(u)."""
        parameters = self.parameters_of(context)
        spline = RationalQuadraticSpline(parameters[..., 2:], self.bound)
        return [spline, _affine(parameters[..., :2])]


def _affine(parameters: Tensor) -> Transform:
    location, log_scale = parameters[..., :1], parameters[..., 1:]
    return transforms.AffineTransform(location, log_scale.exp())
