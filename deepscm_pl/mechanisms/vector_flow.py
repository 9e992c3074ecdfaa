"""Normalising flows of vectors, with exact densities and exact noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import Transform

from deepscm_pl.checks import whole_number
from deepscm_pl.mechanisms.base import Context
from deepscm_pl.mechanisms.flow import Flow, SplineForm
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.transforms import Constraint, Real
from deepscm_pl.variables import Domain, common_shape

__all__ = ["AutoregressiveFlow", "CouplingFlow", "VectorFlow"]

_MOST_ENTRIES = 1_000


class VectorFlow(Flow):
    """An invertible map T of noise in D dimensions, then a constraint c of each entry.

    x := c(T(u; pa)), u ~ N(0, I), with c standardised for each entry. The density is exact
    (Papamakarios et al. 2021, arXiv:1912.02762). Many T have the same density and other
    counterfactuals: each subclass states its coupling.

    Args:
        size: D, the number of entries; values are ``(*batch, D)``.
        constraint: Factory of c, the same for all entries.
        hidden: Widths of the hidden layers of the networks.
        bins: Number of bins of a monotonic spline of each entry; 0 for affine maps.
        bound: The splines are the identity outside of [−bound, bound].

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        context: Context,
        size: int,
        constraint: Callable[[], Constraint] = Real,
        hidden: Sequence[int] = (32,),
        bins: int = 8,
        bound: float = 4.0,
    ) -> None:
        super().__init__(context, constraint)
        self.size = whole_number("size", size, least=2, most=_MOST_ENTRIES)
        self.form = SplineForm(bins, bound)
        self.hidden = tuple(hidden)
        self.constraint.of_entries(size)

    @property
    def domain(self) -> Domain:
        """A vector whose entries are within the bounds of the constraint."""
        scalar = super().domain
        return Domain((self.size,), scalar.lower, scalar.upper, open=True)


class AutoregressiveFlow(VectorFlow):
    """A flow of one entry after the other: x_i := c(T_i(u_i; x_1, …, x_{i−1}, pa)).

    T_i is monotone in u_i: an affine map after a spline, whose parameters a network predicts from
    the parents and the entries before. T is triangular (Papamakarios et al. 2017, arXiv:1705.07057)
    and can represent every continuous density.

    The coupling is that of Knothe and Rosenblatt in the order of the entries: each entry keeps its
    quantile given the parents and the entries before. Another order has the same density and other
    counterfactuals. Values are computed entry by entry, noise as well, in D steps.

    Example:
        >>> flow = AutoregressiveFlow(Context(), size=3)
        >>> flow({"u": torch.tensor([[0.5, -1.0, 0.0]])}, {}).detach()
        tensor([[ 0.5000, -1.0000,  0.0000]])
    """

    def __init__(
        self,
        context: Context,
        size: int,
        constraint: Callable[[], Constraint] = Real,
        hidden: Sequence[int] = (32,),
        bins: int = 8,
        bound: float = 4.0,
    ) -> None:
        super().__init__(context, size, constraint, hidden, bins, bound)
        self.networks = nn.ModuleList(
            ParameterNetwork(context.features + before, self.form.parameters, hidden)
            for before in range(size)
        )

    def transforms(self, context: Tensor) -> list[Transform]:
        """Return the triangular map."""
        return [_Triangular([*self.networks], context, self.form)]


class CouplingFlow(VectorFlow):
    """A flow in layers, each of which maps one half of the entries, given the other half.

    A layer keeps the first entries and maps the last ones by splines or affine maps, whose
    parameters a network predicts from the parents and the kept entries; then the halves change
    places (Dinh et al. 2017, arXiv:1605.08803; Durkan et al. 2019, arXiv:1906.04032). Values and
    noise take equally many steps, the number of layers.

    The coupling is that of the layers: every entry may depend on all noise, and no quantile is kept
    as such. It suits densities of many entries more than counterfactuals with a stated meaning;
    for these, see :class:`AutoregressiveFlow`.

    Args:
        layers: Number of layers, at least 2, so that every entry is mapped.

    Example:
        >>> flow = CouplingFlow(Context(), size=3)
        >>> flow.log_prob(torch.zeros(1, 3), {}).shape
        torch.Size([1])
    """

    def __init__(
        self,
        context: Context,
        size: int,
        constraint: Callable[[], Constraint] = Real,
        hidden: Sequence[int] = (32,),
        bins: int = 8,
        bound: float = 4.0,
        layers: int = 4,
    ) -> None:
        super().__init__(context, size, constraint, hidden, bins, bound)
        layers = whole_number("layers", layers, least=2)
        self.kept = [size // 2 if n % 2 == 0 else size - size // 2 for n in range(layers)]
        self.networks = nn.ModuleList(
            ParameterNetwork(
                context.features + count, (size - count) * self.form.parameters, hidden
            )
            for count in self.kept
        )

    def transforms(self, context: Tensor) -> list[Transform]:
        """Return the layers, in the order from the noise to x."""
        return [
            _Coupling(network, context, kept, self.size, self.form)
            for network, kept in zip(self.networks, self.kept, strict=True)
        ]


class _Vectors(Transform):
    """A bijection of vectors ``(*batch, D)`` for a context ``(*batch, A)``."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, context: Tensor, form: SplineForm) -> None:
        super().__init__(cache_size=0)
        self.context, self.form = context, form

    def forward_shape(self, shape: tuple[int, ...]) -> torch.Size:
        """Return the shape of the input, broadcast with the batch of the context."""
        return common_shape(shape, (*self.context.shape[:-1], 1))

    inverse_shape = forward_shape

    def given(self, network: nn.Module, before: Tensor) -> Tensor:
        """Return the parameters for the entries ``before``, with the batch of both."""
        batch = common_shape(before.shape[:-1], self.context.shape[:-1])
        parts = (self.context.to(before), before)
        joint = torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], dim=-1)
        found: Tensor = network(joint)
        return found

    def elementwise(self, parameters: Tensor) -> list[Transform]:
        """Return u ↦ μ + σ·S(u) of numbers ``(*batch, 1)``."""
        return self.form.transforms(*parameters.split([1, 1, parameters.shape[-1] - 2], dim=-1))


class _Triangular(_Vectors):
    def __init__(self, networks: Sequence[nn.Module], context: Tensor, form: SplineForm) -> None:
        super().__init__(context, form)
        self.networks = networks

    def _call(self, x: Tensor) -> Tensor:
        x = x.expand(self.forward_shape(x.shape))
        found = x[..., :0]
        for place, network in enumerate(self.networks):
            entry = x[..., place, None]
            for each in self.elementwise(self.given(network, found)):
                entry = each(entry)
            found = torch.cat([found, entry], dim=-1)
        return found

    def _inverse(self, y: Tensor) -> Tensor:
        y = y.expand(self.forward_shape(y.shape))
        found = []
        for place, network in enumerate(self.networks):
            entry = y[..., place, None]
            for each in reversed(self.elementwise(self.given(network, y[..., :place]))):
                entry = each.inv(entry)
            found.append(entry)
        return torch.cat(found, dim=-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum over entries of log dy_i/dx_i, ``(*batch,)``."""
        total = torch.zeros_like(y[..., 0])
        for place, network in enumerate(self.networks):
            entry = x[..., place, None]
            for each in self.elementwise(self.given(network, y[..., :place])):
                mapped = each(entry)
                total = total + each.log_abs_det_jacobian(entry, mapped).squeeze(-1)
                entry = mapped
        return total


class _Coupling(_Vectors):
    def __init__(
        self, network: nn.Module, context: Tensor, kept: int, size: int, form: SplineForm
    ) -> None:
        super().__init__(context, form)
        self.network, self.kept, self.changed = network, kept, size - kept

    def _layers(self, kept: Tensor) -> list[Transform]:
        parameters = self.given(self.network, kept)
        return self.elementwise(parameters.unflatten(-1, (self.changed, -1)))

    def _call(self, x: Tensor) -> Tensor:
        x = x.expand(self.forward_shape(x.shape))
        kept, others = x.split([self.kept, self.changed], dim=-1)
        entries = others.unsqueeze(-1)
        for each in self._layers(kept):
            entries = each(entries)
        return torch.cat([entries.squeeze(-1), kept], dim=-1)

    def _inverse(self, y: Tensor) -> Tensor:
        y = y.expand(self.forward_shape(y.shape))
        others, kept = y.split([self.changed, self.kept], dim=-1)
        entries = others.unsqueeze(-1)
        for each in reversed(self._layers(kept)):
            entries = each.inv(entries)
        return torch.cat([kept, entries.squeeze(-1)], dim=-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the logarithms of the slopes of the changed entries, ``(*batch,)``."""
        kept, others = x.split([self.kept, self.changed], dim=-1)
        entries, total = others.unsqueeze(-1), torch.zeros_like(y[..., 0])
        for each in self._layers(kept):
            mapped = each(entries)
            total = total + each.log_abs_det_jacobian(entries, mapped).squeeze(-1).sum(-1)
            entries = mapped
        return total
