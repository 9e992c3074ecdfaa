"""The base class of mechanisms of images with a latent and a likelihood of pixels."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

import pyro
import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor, nn

from deepscm_pl.checks import shown
from deepscm_pl.likelihoods import FixedVarianceGaussian, Likelihood
from deepscm_pl.mechanisms.base import Context, Evidence, LatentEvidence
from deepscm_pl.mechanisms.brightness import Brightness
from deepscm_pl.mechanisms.image import ImageDistribution, ImageMechanism
from deepscm_pl.memory import require_memory
from deepscm_pl.transforms.cells import in_double
from deepscm_pl.variables import Noise, Variables, common_shape

__all__ = [
    "Coupling",
    "GaussianPosterior",
    "LatentDraws",
    "LatentImageMechanism",
    "Posterior",
    "couple_pixel_noise",
]

Coupling: TypeAlias = Literal["kept", "renewed"]
"""The coupling of the pixel noise of a factual image with that of a counterfactual one."""

LARGEST_LOG_SCALE = 2.0
"""Bound of the log standard deviation of q(z | x, pa), for images unlike any in training."""

LARGEST_LATENT = 2**14
"""Bound of the size of z: the calibration of the noise computes all correlations."""

_RENEWAL = ("new", "location", "scale")
"""Parts of the noise of a factual image beside z and u: ε, and the moments of each pixel."""
_ROOT = 0.2
_SAME = 1e-3  # difference from 1 of the affinity of distributions that count as equal
_TENSOR_BYTES = 1_000  # of one tensor in a list, besides its numbers
_COPIES_OF_LATENTS, _COPIES_OF_WEIGHTS = 4, 3  # of candidates, at least
_DECODED_AT_A_TIME = 2**22  # numbers that the decoder outputs at a time without gradients; 16 MB


class LatentDraws(NamedTuple):
    """Draws of q(z | x, pa), with a batch ``(P, B)`` of draws of B images, or broadcast ones.

    Attributes:
        latent: z, ``(*sample, *batch, J)``.
        log_ratio: log p(z) − log q(z | x, pa), in nats, ``(*sample, *batch)``.
        divergences: KL(q(z_j | z_<j, x, pa) ‖ p(z_j)) of each dimension, in nats, the mean over the
            draws of those before, ``(*batch, J)``.
        content: The output of the decoder without brightness, if it was computed on the way.
    """

    latent: Tensor
    log_ratio: Tensor
    divergences: Tensor
    content: Tensor | None = None


class Posterior(Protocol):
    """q(z | x, pa) of a batch of images."""

    @property
    def location(self) -> Tensor:
        """The mean of z, or its most likely value, ``(*batch, J)``."""

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch."""

    def draw(self, sample_shape: tuple[int, ...]) -> LatentDraws:
        """Return reparametrised draws."""

    def distribution(self) -> TorchDistribution:
        """Return q as a distribution of Pyro."""


@dataclass(frozen=True)
class GaussianPosterior:
    """N(μ, σ²) with independent dimensions.

    Args:
        location: μ, ``(*batch, J)``.
        log_scale: log σ, ``(*batch, J)``.
    """

    location: Tensor
    log_scale: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch."""
        return self.location.shape[:-1]

    def draw(self, sample_shape: tuple[int, ...]) -> LatentDraws:
        """Return μ + σ·ε of new ε ~ N(0, I)."""
        location = self.location.expand(*sample_shape, *self.location.shape)
        latent = location + self.log_scale.exp() * torch.randn_like(location)
        ratio = gaussian_log_ratio(latent, self.location, self.log_scale)
        return LatentDraws(latent, ratio, gaussian_divergences(self.location, self.log_scale))

    def distribution(self) -> TorchDistribution:
        """Return the normal distribution."""
        normal: TorchDistribution = Normal(self.location, self.log_scale.exp()).to_event(1)
        return normal


def gaussian_divergences(location: Tensor, log_scale: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² − 1 − log σ²), elementwise, in nats."""
    return 0.5 * (location.square() + (2 * log_scale).exp() - 1 - 2 * log_scale)


def gaussian_log_ratio(latent: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """log N(z; 0, I) − log N(z; μ, σ²) = Σ ½ ((z − μ)²/σ² − z²) + log σ, in nats, ``(*batch,)``."""
    standardised = (latent - location) * (-log_scale).exp()
    return (0.5 * (standardised.square() - latent.square()) + log_scale).sum(-1)


class LatentImageMechanism(ImageMechanism):
    """A mechanism of images with a latent z ~ N(0, I) and a likelihood: x := h(g(z, pa), u).

    A decoder g depends on the latent and the parents, and the map h of the likelihood adds pixel
    noise u. Both are exogenous; u is exact given z, and z is inferred by q(z | x, pa). The coupling
    is that of the decoder, which keeps z, and of the likelihood, which keeps or renews u.

    Subclasses define :meth:`posterior`, :meth:`_decode_rows` and :meth:`posterior_parameters`, and
    set ``latent``, the size of z, by :meth:`_set_latent`.

    Args:
        likelihood: Factory, called with the shape of :attr:`plane` and ``levels``.
        coupling: See :class:`~deepscm_pl.mechanisms.ConditionalVAE`.
    """

    brightness: Brightness | None
    latent: int
    scales: tuple[int, ...] = ()

    def __init__(
        self,
        context: Context,
        shape: Sequence[int],
        likelihood: Callable[[Sequence[int], int], Likelihood] | None,
        alpha: float,
        levels: int,
        coupling: Coupling,
    ) -> None:
        super().__init__(context, shape, alpha, levels)
        made = (likelihood or FixedVarianceGaussian)(self.plane, levels)
        if not isinstance(made, Likelihood):
            raise ValueError(f"likelihood: expected a Likelihood, but got {shown(made)}.")
        self.likelihood = made
        self.coupling = coupling
        self.outputs = self.shape[0] * self.likelihood.outputs_per_channel
        self.preprocessing = self.likelihood.preprocessing(alpha)

    def _set_latent(self, latent: int) -> None:
        """Set the size of z, and make the brightness if the likelihood has one."""
        self.latent = latent
        names, levels = self.likelihood.brightness, self.dequantisation.levels
        made = self.likelihood.exposure
        self.brightness = Brightness(self.context, names, latent, levels) if made else None

    @property
    def coupling(self) -> Coupling:
        """The coupling of factual and counterfactual pixel noise; it can be changed at any time."""
        return self._coupling

    @coupling.setter
    def coupling(self, value: Coupling) -> None:
        if value not in get_args(Coupling):
            expected = " or ".join(get_args(Coupling))
            raise ValueError(f"coupling: expected {expected}, but got {shown(value)}.")
        if value == "renewed" and not self.likelihood.elementwise:
            raise ValueError(
                "coupling: renewed requires a likelihood with separate noise for each pixel, but "
                f"{type(self.likelihood).__name__} correlates pixels; choose kept."
            )
        self._coupling: Coupling = value

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and the brightness if parents act on it."""
        super().fit(value, parents)
        if self.brightness is not None:
            self.brightness.fit(self.in_plane(value), parents, self._mask)

    @abstractmethod
    def posterior(self, value: Tensor, parents: Variables) -> Posterior:
        """Return q(z | x, pa), batch dimensions broadcast over the image and its parents."""

    @abstractmethod
    def _decode_rows(self, latent: Tensor, context: Tensor) -> Tensor:
        """The output of the decoder for z ``(N, J)`` and a context of the parents ``(N, A)``."""

    def _observed_rows(
        self, value: Tensor, parents: Variables
    ) -> tuple[torch.Size, Tensor, Tensor, Tensor]:
        """The inputs of an encoder, as rows of the batch over which image and parents broadcast.

        Returns:
            The shape of the batch; images ``(N, *shape)``, scaled to [-1, 1], for which the initial
            weights are suitable; the context of the parents ``(N, A)``; and the same with the
            measured brightness behind it, if the likelihood has one.
        """
        context = self._network_context(parents).to(value)
        level = None
        if self.brightness is not None:
            value, level = self.brightness.remove(value, self.in_plane(value), parents)
        scaled = 2 * value / self.dequantisation.levels - 1
        batch = common_shape(self.domain.batch_shape(scaled), context.shape[:-1])
        scaled = scaled.expand(*batch, *self.shape).reshape(-1, *self.shape)
        context = observed = context.expand(*batch, -1).reshape(len(scaled), -1)
        if self.brightness is not None and level is not None:
            level = level.expand(*batch, 1).reshape(-1, 1)
            level = self.brightness.exposure.standardise(level, self._mask(context))
            observed = torch.cat([context, level], dim=-1)
        return batch, scaled, context, observed

    def _decoded_content(self, latent: Tensor, parents: Variables) -> Tensor:
        """The output of the decoder without brightness, ``(*batch, outputs, D·H, W)``."""
        context = self._network_context(parents).to(latent)
        batch = common_shape(latent.shape[:-1], context.shape[:-1])
        flat = latent.expand(*batch, -1).reshape(-1, self.latent)
        context = context.expand(*batch, -1).reshape(len(flat), -1)
        decoded = self._decode_rows(flat, context).to(latent)
        return decoded.reshape(*batch, self.outputs, *self.plane[1:])

    def decode(self, latent: Tensor, parents: Variables) -> Tensor:
        """Return g(z, pa), ``(*batch, outputs, H, W)``, or ``(*batch, outputs, D·H, W)``."""
        return self._scaled(self._decoded_content(latent, parents), latent, parents)

    def _scaled(self, content: Tensor, latent: Tensor, parents: Variables) -> Tensor:
        if self.brightness is None:
            return content
        context = self._network_context(parents).to(latent)
        batch = content.shape[:-3]
        flat = latent.expand(*batch, -1).reshape(-1, self.latent)
        mask = self._mask(context.expand(*batch, -1).reshape(len(flat), -1))
        factor = self.brightness.exposure(flat, mask).view(*batch, 1)
        if self.brightness.parents is not None:
            factor = self.brightness.parents(parents) * factor
        return self.likelihood.scaled(content, factor[..., None, None])

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x = h(g(z, pa), u), continuous grey levels.

        Noise of :meth:`coupled` also has the moments of each pixel's distribution before, and ε.
        """
        parts = [noise[name] for name in ("u", *_RENEWAL) if name in noise]
        return self._in_chunks(self._image_of, noise["z"], parts, parents)

    def _image_of(
        self, latent: Tensor, parents: Variables, noise: Tensor, *renewal: Tensor
    ) -> Tensor:
        content = self._decoded_content(latent, parents)
        noise = self.in_plane(noise)
        if renewal:
            new, location, scale = map(self.in_plane, renewal)
            # Without gradients, which are infinite where distributions are equal or far apart.
            share = _affinity((location, scale), self._pixel_moments(content)).detach()
            noise = share * noise + (1 - share.square()).sqrt() * new
        return self._image(self._scaled(content, latent, parents), noise)

    def _pixel_moments(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of each pixel's distribution, without brightness."""
        if self.brightness is not None:
            content = self.likelihood.scaled(content, content.new_ones(1, 1, 1))
        return self.likelihood.moments(content)

    def coupled(self, noise: Noise, parents: Variables) -> dict[str, Tensor]:
        """Add what is needed to renew the pixel noise of a factual image, if it is renewed.

        Args:
            noise: Noise of :meth:`abduct_recorded`.
            parents: The factual parents.
        """
        if self.coupling == "kept":
            return {name: part for name, part in noise.items() if name not in _RENEWAL}
        found = self._in_chunks(self._stacked_moments, noise["z"], [], parents)
        location, scale = (self.in_space(part) for part in found.unbind(-4))
        new = noise["new"] if "new" in noise else torch.randn_like(noise["u"])
        return {**noise, "new": new, "location": location, "scale": scale}

    def _stacked_moments(self, latent: Tensor, parents: Variables) -> Tensor:
        moments = self._pixel_moments(self._decoded_content(latent, parents))
        return torch.stack(torch.broadcast_tensors(*moments), dim=-4)

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw z ~ N(0, I) ``(*shape, latent)`` and u ~ N(0, τ² I), τ the temperature."""
        weight = next(self.parameters())
        return {
            "z": weight.new_empty(*shape, self.latent).normal_(),
            "u": self.in_space(self.likelihood.sample_noise(shape, weight)),
        }

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draw z from q(z | x, pa), and infer u exactly for each draw."""
        latent = self.posterior(value, parents).draw(sample_shape).latent
        noise = self._in_chunks(self._pixel_noise, latent, [value], parents)
        return {"z": latent, "u": noise}

    def abduct_recorded(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draw z from q(z | x, pa), and u given z and the grey levels, independently.

        The encoder runs once, because it cannot distinguish fractions of a grey level. u is drawn
        from its exact posterior if the likelihood is elementwise, and else inferred from the image
        with new dequantisation noise for each draw.
        """
        latent = self.posterior(self.dequantise(value), parents).draw(sample_shape).latent
        levels = in_double(value).expand(*sample_shape, *value.shape)
        image = self.dequantisation.sample(levels)
        noise = self._in_chunks(self._recorded_pixel_noise, latent, [image], parents)
        return {"z": latent, "u": noise}

    def likeliest(self, value: Tensor, parents: Variables) -> dict[str, Tensor]:
        """Infer z as the location of q(z | x, pa), and u of the middle of each grey level given z.

        Renewed pixel noise is at its mean, 0, so that :meth:`coupled` draws nothing.
        """
        image = self.middle(value)
        posterior = self.posterior(image, parents)
        latent = posterior.location
        noise = self._in_chunks(self._pixel_noise, latent, [image], parents)
        return {"z": latent, "u": noise, "new": torch.zeros_like(noise)}

    def _recorded_pixel_noise(self, latent: Tensor, parents: Variables, value: Tensor) -> Tensor:
        decoded, plane = self.decode(latent, parents), self.in_plane(value)
        return self.in_space(self.likelihood.abduct_recorded(decoded, plane, self.preprocessing))

    def resample(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...], candidates: int
    ) -> dict[str, Tensor]:
        """Resample K candidates z_k ~ q(z | x, pa) with weights p(x, z_k | pa) / q(z_k | x, pa).

        Sampling importance resampling (Rubin 1987): each row has its own K candidates. If the
        likelihood is elementwise, the weights are those of the recorded grey levels; otherwise each
        draw selects given its own dequantisation of the image. Draws repeat a latent if few
        candidates have large weights.
        """
        posterior = self.posterior(self.dequantise(value), parents)
        rows, draws = math.prod(posterior.batch_shape), math.prod(sample_shape)
        numbers = rows * (_COPIES_OF_LATENTS * self.latent + _COPIES_OF_WEIGHTS * draws)
        needed = candidates * (_TENSOR_BYTES + numbers * self.dtype.itemsize)
        require_memory("resample", needed, "ask for fewer candidates, or rows at once")
        latents, log_ratios, *_ = posterior.draw((candidates,))
        batch = latents.shape[1:-1]
        shape = (*sample_shape, *batch)
        levels = in_double(value).expand(*shape, *self.shape)
        if self.has_recorded_bound:
            image, log_prob = value, self._log_probability
            noise_of, seen = self._recorded_pixel_noise, self.dequantisation.sample(levels)
        else:
            image = seen = self.dequantise(value.expand(*shape, *self.shape))
            log_prob, noise_of = self._log_likelihood, self._pixel_noise
        weights = torch.stack(
            [
                self._in_chunks(log_prob, latent, [image], parents) + ratio
                for latent, ratio in zip(latents, log_ratios, strict=True)
            ],
            dim=-1,
        )
        chosen = torch.distributions.Categorical(logits=weights.expand(*shape, -1)).sample()
        flat = latents.flatten(1, -2) if batch else latents[:, None]
        picked = flat[chosen.reshape(-1, flat.shape[1]), torch.arange(flat.shape[1])]
        latent = picked.view(*shape, self.latent)
        return {"z": latent, "u": self._in_chunks(noise_of, latent, [seen], parents)}

    def _log_probability(self, latent: Tensor, parents: Variables, value: Tensor) -> Tensor:
        decoded, plane = self.decode(latent, parents), self.in_plane(value)
        return self.likelihood.log_prob_recorded(decoded, plane, self.preprocessing)

    def _log_likelihood(self, latent: Tensor, parents: Variables, value: Tensor) -> Tensor:
        return self._log_density(self.decode(latent, parents), value)

    def _pixel_noise(self, latent: Tensor, parents: Variables, value: Tensor) -> Tensor:
        # Single precision would lose grey levels where the decoder's output is large.
        processed = self.preprocessing(in_double(self.in_plane(value)))
        return self.in_space(self.likelihood.abduct(self.decode(latent, parents), processed))

    def _in_chunks(
        self,
        function: Callable[..., Tensor],
        latent: Tensor,
        images: Sequence[Tensor],
        parents: Variables,
    ) -> Tensor:
        """Apply ``function(latent, parents, *images)`` to a few images of a flat batch at a time.

        The memory for the output of the decoder then does not grow with particles and
        interventions. Gradients need all of it, so everything is then computed at once.
        """
        domains = {n: domain for n, domain in self.context.domains.items() if n in parents}
        batch = common_shape(
            latent.shape[:-1],
            *(self.domain.batch_shape(image) for image in images),
            *(domain.batch_shape(parents[n]) for n, domain in domains.items()),
        )
        rows = max(_DECODED_AT_A_TIME // (self.outputs * math.prod(self.plane[1:])), 1)
        if math.prod(batch) <= rows or torch.is_grad_enabled():
            return function(latent, parents, *images)
        latents = latent.expand(*batch, -1).reshape(-1, self.latent).split(rows)
        split = [
            image.expand(*batch, *self.shape).reshape(-1, *self.shape).split(rows)
            for image in images
        ]
        causes = {
            n: parents[n].expand(*batch, *domain.shape).reshape(-1, *domain.shape).split(rows)
            for n, domain in domains.items()
        }
        results = [
            function(
                each, {n: cause[k] for n, cause in causes.items()}, *(part[k] for part in split)
            )
            for k, each in enumerate(latents)
        ]
        joined = torch.cat(results)
        return joined.view(*batch, *joined.shape[1:])

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """Return E_q[log p(x | z, pa)] from draws, and KL(q ‖ N(0, I)) in closed form."""
        log_probs, latent = self._draw_evidence(value, parents, num_particles)
        return Evidence(log_probs.mean(dim=0), latent.divergences.sum(-1), latent)

    @property
    def has_recorded_bound(self) -> bool:
        """Whether the likelihood is elementwise."""
        return self.likelihood.elementwise

    def recorded_bound(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Tensor:
        """Return E_q[log P(x | z, pa)] − KL(q ‖ N(0, I)), P the probability of the grey levels."""
        log_probs, draws = self._draw_recorded(value, parents, num_particles)
        return log_probs.mean(dim=0) - draws.divergences.sum(-1)

    def recorded_log_weights(
        self, value: Tensor, parents: Variables, num_particles: int = 1
    ) -> Tensor:
        """Return log P(x | z_k, pa) + log p(z_k) − log q(z_k | x, pa), ``(P, *batch)``."""
        log_probs, draws = self._draw_recorded(value, parents, num_particles)
        return log_probs + draws.log_ratio

    def _draw_recorded(
        self, value: Tensor, parents: Variables, num_particles: int
    ) -> tuple[Tensor, LatentDraws]:
        """log P(x | z_k, pa) of the grey levels for draws z_k, and the draws."""
        # The encoder has learned from images with dequantisation noise.
        draws = self.posterior(self.dequantise(value), parents).draw((num_particles,))
        decoded, plane = self._decoded(draws, parents), self.in_plane(value)
        return self.likelihood.log_prob_recorded(decoded, plane, self.preprocessing), draws

    def log_weights(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Tensor:
        """Return log p(x | z_k, pa) + log p(z_k) − log q(z_k | x, pa), ``(P, *batch)``."""
        return self._draw_evidence(value, parents, num_particles)[1].log_weights

    def _draw_evidence(
        self, value: Tensor, parents: Variables, num_particles: int
    ) -> tuple[Tensor, LatentEvidence]:
        """log p(x | z_k, pa) of draws z_k, and the evidence of the latent, all in nats."""
        draws = self.posterior(value, parents).draw((num_particles,))
        log_probs = self._log_density(self._decoded(draws, parents), value)
        weights = log_probs + draws.log_ratio
        return log_probs, LatentEvidence(draws.divergences, weights, self.scales)

    def _decoded(self, draws: LatentDraws, parents: Variables) -> Tensor:
        if draws.content is None:
            return self.decode(draws.latent, parents)
        return self._scaled(draws.content, draws.latent, parents)

    def reconstruct(self, value: Tensor, parents: Variables) -> Tensor:
        """Return the recorded image at the posterior mean of z, without pixel noise (u = 0)."""
        # Use the middle of the cell of each grey level.
        continuous = value.to(next(self.parameters())) + 0.5
        latent = self.posterior(continuous, parents).location
        noise_free = self.likelihood.noise_free(self.decode(latent, parents))
        return self.in_space(self.quantise(self.preprocessing.inv(noise_free)))

    def image_distribution(self, latent: Tensor, parents: Variables) -> ImageDistribution:
        """Return p(x | z, pa) of the continuous image."""
        decoded = self.decode(latent, parents)
        return ImageDistribution(decoded, 3, self.shape, self._draw_images, self._log_density)

    def _draw_images(self, decoded: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self._image(decoded, self.likelihood.sample_noise(shape, decoded))

    def _image(self, decoded: Tensor, noise: Tensor) -> Tensor:
        image = self.preprocessing.inv(self.likelihood(decoded, noise))
        return self.in_space(self.in_own_precision(image))

    def _log_density(self, decoded: Tensor, value: Tensor) -> Tensor:
        plane = self.in_plane(value)
        processed = self.preprocessing(plane)
        jacobian = self.preprocessing.log_abs_det_jacobian(plane, processed)
        return self.likelihood.log_prob(decoded, processed) + jacobian.flatten(-3).sum(-1)

    def model(self, name: str, parents: Variables) -> Tensor:
        """Sample the sites ``name.z`` and ``name``, the continuous image."""
        weight = next(self.parameters())
        prior = Normal(weight.new_zeros(self.latent), 1.0).to_event(1)
        latent = pyro.sample(f"{name}.z", prior)
        value: Tensor = pyro.sample(name, self.image_distribution(latent, parents))
        return value

    def guide(self, name: str, value: Tensor, parents: Variables) -> None:
        """Sample the site ``name.z`` from q(z | x, pa)."""
        pyro.sample(f"{name}.z", self.posterior(value, parents).distribution())

    @property
    def _network_context(self) -> Context:
        """The context of the parents on which the networks depend."""
        return self.context if self.brightness is None else self.brightness.others

    def _mask(self, context: Tensor) -> Tensor:
        """Set to zero the features on which the drawing of the decoder does not depend."""
        return context


def couple_pixel_noise(model: nn.Module, coupling: Coupling | None) -> None:
    """Set the coupling of pixel noise in every mechanism with a latent; None changes nothing.

    Raises:
        ValueError: If there is none, or its likelihood does not permit the coupling.
    """
    if coupling is None:
        return
    found = [module for module in model.modules() if isinstance(module, LatentImageMechanism)]
    if not found:
        raise ValueError(
            "coupling: expected a model with a ConditionalVAE, whose pixel noise can be renewed; "
            "leave it out."
        )
    for module in found:
        module.coupling = coupling


def _affinity(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """ρ of the coupling ``renewed`` for two normal distributions, 1 if they are nearly equal.

    It is a root of the Bhattacharyya coefficient,
    √(2·s·t / (s² + t²)) · exp(−(m − n)² / (4·(s² + t²))) for locations m, n and scales s, t.
    """
    (m, s), (n, t) = first, second
    total = s.square() + t.square()
    found = (2 * s * t / total).sqrt() * (-(m - n).square() / (4 * total)).exp()
    return found.masked_fill(found > 1 - _SAME, 1.0) ** _ROOT
