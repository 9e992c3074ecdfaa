"""The invertible mechanism of images whose flow is the solution of a differential equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.likelihoods.base import standard_normal_log_prob
from deepscm_pl.mechanisms.base import Context, Evidence
from deepscm_pl.mechanisms.image import ImageDistribution, ImageMechanism
from deepscm_pl.nn.layers import Features, image_sizes
from deepscm_pl.nn.unet import UNet
from deepscm_pl.transforms import Dequantise
from deepscm_pl.transforms.cells import in_double
from deepscm_pl.transforms.levels import LevelCells
from deepscm_pl.transforms.ode import ImplicitMidpoint, Velocity, log_determinants
from deepscm_pl.variables import Noise, Variables

__all__ = ["FlowMatching", "VelocityFactory", "coupled_noise"]

VelocityFactory: TypeAlias = Callable[[Sequence[int], int], nn.Module]
"""From the shape of an image and the size of the condition to a network of both."""

_FREQUENCIES = 8
_MARGIN = 2e-3  # of a grey level, between drawn values and the next level
_EXACT = 64  # pixels, up to which the determinant is exact


class FlowMatching(ImageMechanism):
    """x := h(ψ(u; pa)), u ~ N(0, I), where ψ is the solution of dy/ds = v(y, s; pa) from 0 to 1.

    The velocity v is a network, trained by flow matching (Lipman et al. 2023, arXiv:2210.02747): on
    the line y_s = (1 − s)·u + s·y between noise u and an image y = h⁻¹(x), it predicts y − u. The
    loss is the squared error of that prediction, averaged over pixels, at a random time, and not a
    bound of the log-probability (Tong et al. 2024, arXiv:2302.00482, have the equations).

    **Coupling.** ψ(·; pa) is a bijection for each value of the parents, and a counterfactual image
    is ψ(ψ⁻¹(y; pa); pa*): the noise is carried along the lines that the training drew. With
    ``coupling="independent"``, lines join independent noise and images. With ``"transport"``, noise
    is assigned to the images of a batch so that the sum of squared distances is least, within rows
    of comparable parents, else the conditions would be skewed (Cheng and Schwing 2025,
    arXiv:2503.10636). The limit of large batches is the conditional optimal-transport map, which
    identifies counterfactuals under the assumptions of De Sousa Ribeiro et al. (2025,
    arXiv:2510.08294); batches of finite size only approximate it, and in hundreds of dimensions
    they differ little from independent lines.

    The equation is solved by the implicit midpoint rule, whose step back is the inverse of its step
    forward: ψ is what the solver computes, so that noise is exact for any number of steps, and the
    density is that of the solver's map. It is exact for images of up to 64 pixels, else an unbiased
    estimate by random probes with the series of the determinant cut after five terms; see
    :attr:`is_exact`.

    h⁻¹ is a :class:`~deepscm_pl.transforms.LevelCells` map of the grey levels.

    Args:
        shape: (channels, height, width), in pixels.
        network: Factory of v, a :data:`VelocityFactory`. None for :class:`~deepscm_pl.nn.UNet`.
        solver: The solver and its settings. None for the default ones of
            :class:`~deepscm_pl.transforms.ImplicitMidpoint`.
        coupling: ``"independent"`` or ``"transport"``.
        comparable: Weight of squared differences of standardised parents, relative to the standard
            deviation of squared distances between noise and images; the larger, the more
            comparable are rows between which noise is exchanged.
        stretch: ρ of the map of the grey levels, 0 for an affine one.
        probes: Random probes of each log-determinant that is estimated.
        levels: L, the number of grey levels.

    Raises:
        ValueError: If a setting is out of its range; in use, if the solver does not converge.

    Example:
        >>> from functools import partial
        >>> flow = FlowMatching(Context(), (1, 8, 8), partial(UNet, channels=(4, 8)))
        >>> image = flow.dequantise(torch.full((2, 1, 8, 8), 17.0))
        >>> flow.quantise(flow(flow.abduct(image, {}), {})).detach().unique()
        tensor([17.])
    """

    def __init__(
        self,
        context: Context,
        shape: Sequence[int] = (1, 28, 28),
        network: VelocityFactory | None = None,
        solver: ImplicitMidpoint | None = None,
        coupling: Literal["independent", "transport"] = "transport",
        comparable: float = 10.0,
        stretch: float = 0.3,
        probes: int = 1,
        levels: int = 256,
    ) -> None:
        image_sizes("shape", shape)
        super().__init__(context, shape, levels=levels)
        if coupling not in ("independent", "transport"):
            raise ValueError(
                f"coupling: expected 'independent' or 'transport', but got {coupling!r}."
            )
        self.coupling = coupling
        self.comparable = real_number("comparable", comparable, least=0)
        self.probes = whole_number("probes", probes, least=1)
        self.dequantisation = Dequantise(levels)
        self.dequantisation.margin = max(self.dequantisation.margin, _MARGIN)
        self.cells = LevelCells(levels, stretch)
        self.solver = solver or ImplicitMidpoint()
        times = {"(time)": 1 + 2 * _FREQUENCIES}
        features = Features({**context.features.sizes, **times})
        self.network = (network or UNet)(self.shape, features)

    @property
    def has_training_loss(self) -> bool:
        """Whether it is trained by a loss, not by a bound: always."""
        return True

    @property
    def is_exact(self) -> bool:
        """Whether log-probabilities are exact, and not estimated by random probes."""
        return self.domain.features <= _EXACT

    @property
    def calls(self) -> int:
        """About six calls of the network for each step of the solver."""
        return 6 * self.solver.steps

    @property
    def likelihood_note(self) -> str:
        """Whether log-probabilities are exact or estimated."""
        probes = f"{self.probes} random probe{'s' if self.probes > 1 else ''}"
        return "exact" if self.is_exact else f"estimated by {probes}"

    def velocity(self, state: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Return v(y, s; c), ``(batch, C, H, W)``, of times ``(batch,)`` and contexts.

        The best affine prediction from y is given, and the network predicts the rest (in the manner
        of Karras et al. 2022, arXiv:2206.00364): both have variance one if y has.
        """
        s = time.view(-1, 1, 1, 1)
        variance = s.square() + (1 - s).square()
        condition = torch.cat([context, _time_features(time)], dim=-1)
        rest: Tensor = self.network(state * variance.rsqrt(), condition)
        return (2 * s - 1) / variance * state + variance.rsqrt() * rest.to(state)

    def training_evidence(
        self, value: Tensor, parents: Variables, num_particles: int = 1
    ) -> Evidence:
        """Return the negative mean squared error of the velocity at one time for each image."""
        weight = next(self.parameters())
        image = self.cells(in_double(value)).to(weight)
        flat, context, batch = self.one_batch(image, self.context(parents).to(weight))
        noise = torch.randn_like(flat)
        if self.coupling == "transport":
            noise = coupled_noise(flat, noise, context, self.comparable)
        time = torch.rand(len(flat), dtype=flat.dtype, device=flat.device)
        s = time.view(-1, 1, 1, 1)
        found = self.velocity((1 - s) * noise + s * flat, time, context)
        loss = (found - (flat - noise)).square().flatten(1).mean(dim=1).view(batch)
        return Evidence(-loss, torch.zeros_like(loss), is_loss=True)

    def distribution(self, parents: Variables) -> ImageDistribution:
        """Return p(x | pa) of the continuous image."""
        context = self.context(parents).to(next(self.parameters()))
        return ImageDistribution(context, 1, self.shape, self._draw, self._log_density)

    def _draw(self, context: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.generate(self.sample_noise(shape)["u"], context)

    def _log_density(self, context: Tensor, value: Tensor) -> Tensor:
        return self._log_densities(context, value).mean(dim=0)

    def _log_densities(self, context: Tensor, value: Tensor) -> Tensor:
        """Log-densities by each probe, ``(probes, *batch)``; one if they are exact."""
        flat, contexts, batch = self.one_batch(in_double(value), context)
        velocity = self._velocity_of(contexts)
        state, total = self.cells(flat), self.cells.log_slope(flat).flatten(1).sum(dim=1)
        for step in self.solver.path(velocity, state, backwards=True):
            total = total + log_determinants(velocity, step, None if self.is_exact else self.probes)
            state = step.end
        density = standard_normal_log_prob(state).flatten(1).sum(dim=1) + total
        return density.to(value).view(-1, *batch)

    def log_prob_with_error(self, value: Tensor, parents: Variables) -> tuple[Tensor, Tensor]:
        """Return log p(x | pa) in nats, and the standard error of its estimate, ``(*batch,)`` each.

        The error is that of the mean over :attr:`probes`: zero if log-probabilities are exact, NaN
        with a single probe.
        """
        context = self.context(parents).to(next(self.parameters()))
        found = self._log_densities(context, value)
        error = torch.zeros_like(found[0])
        if not self.is_exact:
            error = found.std(dim=0) if len(found) > 1 else error.fill_(math.nan)
            error = error / math.sqrt(len(found))
        return found.mean(dim=0), error

    def generate(self, noise: Tensor, context: Tensor) -> Tensor:
        """Return h(ψ(u; c)), ``(*batch, C, H, W)``, batch dimensions broadcast."""
        flat, contexts, batch = self.one_batch(in_double(noise), context)
        state = self.solver.integrate(self._velocity_of(contexts), flat)
        return self.in_own_precision(self.cells.inverse(state)).view(*batch, *self.shape)

    def _velocity_of(self, contexts: Tensor) -> Velocity:
        """The velocity of states in double precision, by the network in its own."""
        weight = next(self.parameters())

        def velocity(state: Tensor, time: float, rows: Tensor) -> Tensor:
            times = weight.new_full((len(rows),), time)
            with torch.autocast(weight.device.type, enabled=False):
                return self.velocity(state.to(weight), times, contexts[rows].to(weight))

        return velocity

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x = h(ψ(u; pa)), continuous grey levels."""
        return self.generate(noise["u"], self.context(parents))

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Return u = ψ⁻¹(h⁻¹(x); pa), in double precision if the device supports it."""
        flat, contexts, batch = self.one_batch(in_double(value), self.context(parents))
        velocity = self._velocity_of(contexts)
        noise = self.solver.integrate(velocity, self.cells(flat), backwards=True)
        noise = noise.view(*batch, *self.shape)
        return {"u": noise.expand(*sample_shape, *noise.shape)}

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context and the map of the grey levels to the training split."""
        super().fit(value, parents)
        self.cells.fit(value)


def coupled_noise(images: Tensor, noise: Tensor, context: Tensor, comparable: float) -> Tensor:
    """Assign noise to the images of a batch by the least sum of costs, ``(batch, *event)``.

    The cost of image i and the noise drawn for image j is |y_i − u_j|², divided by its standard
    deviation over pairs, plus ``comparable`` times the squared distance of their contexts.
    """
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        products = -2 * images.flatten(1) @ noise.flatten(1).T
        scale = products.std().clamp(min=torch.finfo(products.dtype).tiny)
        difference = torch.cdist(context, context).square()
        cost = (products / scale + comparable * difference).float().cpu().numpy()
        _, chosen = linear_sum_assignment(cost)
    return noise[torch.as_tensor(chosen, device=noise.device)]


def _time_features(time: Tensor) -> Tensor:
    """s, and sines and cosines of its multiples, ``(batch, features)``."""
    angles = time[:, None] * math.pi * torch.arange(1, _FREQUENCIES + 1, device=time.device)
    return torch.cat([time[:, None], angles.sin(), angles.cos()], dim=1).to(time)
