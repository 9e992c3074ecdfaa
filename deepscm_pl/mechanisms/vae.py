"""The amortised, explicit mechanism of images: a conditional variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import pyro
import torch
from pyro.distributions import Normal
from torch import Tensor, nn

from deepscm_pl.checks import shown, whole_number
from deepscm_pl.likelihoods import FixedVarianceGaussian, Likelihood
from deepscm_pl.mechanisms.base import Context, Evidence, LatentEvidence
from deepscm_pl.mechanisms.brightness import Brightness
from deepscm_pl.mechanisms.image import ImageDistribution, ImageMechanism
from deepscm_pl.memory import require_memory
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.older import names_successors
from deepscm_pl.transforms.cells import in_double
from deepscm_pl.variables import Noise, Variables

__all__ = ["ConditionalVAE", "Coupling", "couple_pixel_noise"]

Coupling: TypeAlias = Literal["kept", "renewed"]
"""The coupling of the pixel noise of a factual image with that of a counterfactual one."""

_RENEWAL = ("new", "location", "scale")
"""Parts of the noise of a factual image beside z and u: ε, and the moments of each pixel."""
_ROOT = 0.2
_SAME = 1e-3  # difference from 1 of the affinity of distributions that count as equal
_LARGEST_LOG_SCALE = 2.0  # of q(z | x, pa), for images unlike any in training
_LARGEST_LATENT = 2**14  # the calibration of the noise computes all correlations
_TENSOR_BYTES = 1_000  # of one tensor in a list, besides its numbers
_COPIES_OF_LATENTS, _COPIES_OF_WEIGHTS = 4, 3  # of candidates, at least
_DECODED_AT_A_TIME = 2**22  # numbers that the decoder outputs at a time without gradients; 16 MB
_RENAMED = {
    "brightness.weight": "brightness.parents.weight",
    "brightness.bias": "brightness.parents.bias",
    "brightness.context.": "brightness.parents.context.",
    "content_context.": "brightness.others.",
    "exposure.": "brightness.exposure.",
}
"""Prefixes of the names of parameters and buffers in version 0.1, and their successors."""


class _Posterior(NamedTuple):
    """Mean and log standard deviation of q(z | x, pa), ``(*batch, latent)``."""

    location: Tensor
    log_scale: Tensor

    @property
    def divergences(self) -> Tensor:
        """KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² − 1 − log σ²) of each dimension."""
        location, log_scale = self
        return 0.5 * (location.square() + (2 * log_scale).exp() - 1 - 2 * log_scale)


@names_successors
class ConditionalVAE(ImageMechanism):
    r"""A conditional variational autoencoder: x := h(g(z, pa), u).

    A decoder g depends on a latent z and the parents, and the map h adds pixel noise u. Both z and
    u are exogenous: z ~ N(0, I) is inferred by an encoder, q(z | x, pa) = N(μ, σ²), and u is
    exact, given z (Pawlowski et al. 2020, section 3, "amortised, explicit likelihood", equation 4).
    h is the map of the likelihood, then the inverse of its preprocessing.

    The coupling is that of the decoder, which keeps z, and of the likelihood, which keeps u: pixel
    noise stays where it was, if elementwise with its quantile, if correlated in the raster order or
    along the factors. Another decoder, z rotated by parents, or another root of the same covariance
    has equal densities and other counterfactuals.

    Args:
        latent: Size of z.
        hidden: Width of the layer from the features of encoder and context to the parameters of q.
        encoder: Factory, called with ``shape`` and the number A of features of the parents: a
            network of ``(batch, *shape)`` and ``(batch, A)`` -> ``(batch, F)`` with the attribute
            ``out_features`` = F. A is a :class:`~deepscm_pl.nn.Features`, with the names of the
            parents. None for :class:`~deepscm_pl.nn.ConvolutionalEncoder`.
        decoder: Factory, called with ``latent``, A and the shape of the output: a network of
            ``(batch, latent)`` and ``(batch, A)`` -> ``(batch, *output)``. None for
            :class:`~deepscm_pl.nn.ConvolutionalDecoder`.
        likelihood: Factory, called with ``shape`` and ``levels``. None for
            :class:`~deepscm_pl.likelihoods.FixedVarianceGaussian`. The parents in its
            ``brightness`` act through :class:`~deepscm_pl.mechanisms.Brightness` alone: encoder and
            decoder do not depend on them, and the encoder receives the image divided by β.

        coupling: Coupling of the pixel noise of a factual and a counterfactual image, which no data
            identify. ``"kept"``: each pixel keeps its u. ``"renewed"``: u is kept as far as the
            distribution of the pixel stays the same,
            :math:`u' = ρ u + \sqrt{1 - ρ²}\, ε` with a new ε ~ N(0, 1), so that the residual of a
            shape that moves does not stay behind. ρ is the fifth root of the Bhattacharyya
            coefficient of the pixel's distributions before and after (of normal distributions with
            the same moments, before brightness). With this root, the spread of the particles was
            about the error of their mean on Morpho-MNIST. Both couplings agree on all samples and
            interventions, and a null intervention returns the image exactly. ``renewed`` requires
            an elementwise likelihood.

    Raises:
        ValueError: If decoder or likelihood name a parent that is unknown or unsuitable there, or
            the coupling does not fit the likelihood.

    Example:
        >>> vae = ConditionalVAE(Context(), shape=(1, 8, 8), latent=2)
        >>> image = vae.dequantise(torch.full((3, 1, 8, 8), 17.0))
        >>> torch.equal(vae.quantise(vae(vae.abduct(image, {}), {})), vae.quantise(image))
        True
    """

    def __init__(
        self,
        context: Context,
        shape: Sequence[int] = (1, 28, 28),
        latent: int = 16,
        hidden: int = 100,
        encoder: Callable[[Sequence[int], int], nn.Module] | None = None,
        decoder: Callable[[int, int, Sequence[int]], nn.Module] | None = None,
        likelihood: Callable[[Sequence[int], int], Likelihood] | None = None,
        alpha: float = 0.05,
        levels: int = 256,
        coupling: Coupling = "kept",
    ) -> None:
        super().__init__(context, shape, alpha, levels)
        self.latent = whole_number("latent", latent, least=1, most=_LARGEST_LATENT)
        hidden = whole_number("hidden", hidden, least=1)
        made = (likelihood or FixedVarianceGaussian)(self.plane, levels)
        if not isinstance(made, Likelihood):
            raise ValueError(f"likelihood: expected a Likelihood, but got {shown(made)}.")
        self.likelihood = made
        self.coupling = coupling
        names = self.likelihood.brightness
        self.brightness = Brightness(context, names, self.latent, levels) if names else None
        features = self._network_context.features
        self.encoder = (encoder or ConvolutionalEncoder)(self.shape, features)
        self.posterior_head = nn.Sequential(
            nn.Linear(_out_features(self.encoder) + features + bool(names), hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, 2 * latent),
        )
        self.outputs = self.shape[0] * self.likelihood.outputs_per_channel
        outputs = (self.outputs, *self.shape[1:])
        self.decoder = (decoder or ConvolutionalDecoder)(latent, features, outputs)
        self.preprocessing = self.likelihood.preprocessing(alpha)

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

    def posterior(self, value: Tensor, parents: Variables) -> _Posterior:
        """Return q(z | x, pa), batch dimensions broadcast over the image and its parents."""
        context = self._network_context(parents).to(value)
        if self.brightness is not None:
            value = self.brightness.remove(value, parents)
        # Grey levels are scaled to [-1, 1], for which the initial weights are suitable.
        scaled = 2 * value / self.dequantisation.levels - 1
        batch = torch.broadcast_shapes(self.domain.batch_shape(scaled), context.shape[:-1])
        scaled = scaled.expand(*batch, *self.shape).reshape(-1, *self.shape)
        context = context.expand(*batch, -1).reshape(len(scaled), -1)
        features = [self.encoder(scaled, context), context]
        if self.brightness is not None:
            plane = self.in_plane(value).expand(*batch, *self.plane).reshape(-1, *self.plane)
            features.append(self.brightness.measure(plane, self._mask(context)))
        joint = torch.cat(features, dim=-1).view(*batch, -1)
        # Networks may compute in low precision, but densities must not.
        location, log_scale = self.posterior_head(joint).to(value).chunk(2, dim=-1)
        return _Posterior(location, log_scale.clamp(max=_LARGEST_LOG_SCALE))

    def decode(self, latent: Tensor, parents: Variables) -> Tensor:
        """Return g(z, pa), ``(*batch, outputs, H, W)``, or ``(*batch, outputs, D·H, W)``."""
        return self._scaled(self._decoded_content(latent, parents), latent, parents)

    def _decoded_content(self, latent: Tensor, parents: Variables) -> Tensor:
        """The output of the decoder, without brightness."""
        context = self._network_context(parents).to(latent)
        batch = torch.broadcast_shapes(latent.shape[:-1], context.shape[:-1])
        flat = latent.expand(*batch, -1).reshape(-1, self.latent)
        context = context.expand(*batch, -1).reshape(len(flat), -1)
        decoded: Tensor = self.decoder(flat, context).to(latent)
        return decoded.reshape(*batch, self.outputs, *self.plane[1:])

    def _scaled(self, content: Tensor, latent: Tensor, parents: Variables) -> Tensor:
        if self.brightness is None:
            return content
        context = self._network_context(parents).to(latent)
        batch = content.shape[:-3]
        flat = latent.expand(*batch, -1).reshape(-1, self.latent)
        mask = self._mask(context.expand(*batch, -1).reshape(len(flat), -1))
        factor = self.brightness.exposure(flat, mask).view(*batch, 1)
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
            share = _affinity((location, scale), self._pixel_moments(content))
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
            return dict(noise)
        found = self._in_chunks(self._stacked_moments, noise["z"], [], parents)
        location, scale = (self.in_space(part) for part in found.unbind(-4))
        new = torch.randn_like(noise["u"])
        return {**noise, "new": new, "location": location, "scale": scale}

    def _stacked_moments(self, latent: Tensor, parents: Variables) -> Tensor:
        moments = self._pixel_moments(self._decoded_content(latent, parents))
        return torch.stack(torch.broadcast_tensors(*moments), dim=-4)

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw z ~ N(0, I) ``(*shape, latent)`` and u ~ N(0, τ² I), τ the temperature."""
        weight = next(self.posterior_head.parameters())
        return {
            "z": weight.new_empty(*shape, self.latent).normal_(),
            "u": self.in_space(self.likelihood.sample_noise(shape, weight)),
        }

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draw z from q(z | x, pa), and infer u exactly for each draw."""
        latent = self._draw(self.posterior(value, parents), sample_shape)
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
        latent = self._draw(self.posterior(self.dequantise(value), parents), sample_shape)
        levels = in_double(value).expand(*sample_shape, *value.shape)
        image = self.dequantisation.sample(levels)
        noise = self._in_chunks(self._recorded_pixel_noise, latent, [image], parents)
        return {"z": latent, "u": noise}

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
        rows, draws = posterior.location[..., 0].numel(), math.prod(sample_shape)
        numbers = rows * (_COPIES_OF_LATENTS * self.latent + _COPIES_OF_WEIGHTS * draws)
        needed = candidates * (_TENSOR_BYTES + numbers * posterior.location.itemsize)
        require_memory("resample", needed, "ask for fewer candidates, or rows at once")
        latents = self._draw(posterior, (candidates,))
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
                for latent, ratio in zip(latents, _log_ratio(latents, posterior), strict=True)
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
        batch = torch.broadcast_shapes(
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
        # The encoder has learned from images with dequantisation noise.
        posterior = self.posterior(self.dequantise(value), parents)
        decoded = self.decode(self._draw(posterior, (num_particles,)), parents)
        plane = self.in_plane(value)
        log_probs = self.likelihood.log_prob_recorded(decoded, plane, self.preprocessing)
        return log_probs.mean(dim=0) - posterior.divergences.sum(-1)

    def log_weights(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Tensor:
        """Return log p(x | z_k, pa) + log p(z_k) − log q(z_k | x, pa), ``(P, *batch)``."""
        return self._draw_evidence(value, parents, num_particles)[1].log_weights

    def _draw_evidence(
        self, value: Tensor, parents: Variables, num_particles: int
    ) -> tuple[Tensor, LatentEvidence]:
        """log p(x | z_k, pa) of draws z_k, and the evidence of the latent, all in nats."""
        posterior = self.posterior(value, parents)
        latent = self._draw(posterior, (num_particles,))
        log_probs = self.image_distribution(latent, parents).log_prob(value)
        return log_probs, LatentEvidence(
            posterior.divergences, log_probs + _log_ratio(latent, posterior)
        )

    def posterior_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the encoder and of the layers behind it."""
        yield from self.encoder.parameters()
        yield from self.posterior_head.parameters()

    def reconstruct(self, value: Tensor, parents: Variables) -> Tensor:
        """Return the recorded image at the posterior mean of z, without pixel noise (u = 0)."""
        # Use the middle of the cell of each grey level.
        continuous = value.to(next(self.posterior_head.parameters())) + 0.5
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
        weight = next(self.posterior_head.parameters())
        prior = Normal(weight.new_zeros(self.latent), 1.0).to_event(1)
        latent = pyro.sample(f"{name}.z", prior)
        value: Tensor = pyro.sample(name, self.image_distribution(latent, parents))
        return value

    def guide(self, name: str, value: Tensor, parents: Variables) -> None:
        """Sample the site ``name.z`` from q(z | x, pa)."""
        posterior = self.posterior(value, parents)
        pyro.sample(f"{name}.z", Normal(posterior.location, posterior.log_scale.exp()).to_event(1))

    @property
    def _network_context(self) -> Context:
        """The context of the parents on which the networks depend."""
        return self.context if self.brightness is None else self.brightness.others

    def _mask(self, context: Tensor) -> Tensor:
        """Set to zero the features on which the drawing of the decoder does not depend."""
        drawing: Tensor | None = getattr(self.decoder, "drawing", None)
        return context if drawing is None else context * drawing.to(context)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load weights; those of version 0.1 are renamed."""
        for old, new in _RENAMED.items():
            for key in [key for key in state_dict if key.startswith(prefix + old)]:
                name = key.removeprefix(prefix + old)
                state_dict[f"{prefix}{new}{name}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @staticmethod
    def _draw(posterior: _Posterior, sample_shape: tuple[int, ...]) -> Tensor:
        location = posterior.location.expand(*sample_shape, *posterior.location.shape)
        return location + posterior.log_scale.exp() * torch.randn_like(location)


def couple_pixel_noise(model: nn.Module, coupling: Coupling | None) -> None:
    """Set the coupling of the pixel noise of every VAE in a model; None changes nothing.

    Raises:
        ValueError: If there is no VAE, or its likelihood does not permit the coupling.
    """
    if coupling is None:
        return
    found = [module for module in model.modules() if isinstance(module, ConditionalVAE)]
    if not found:
        raise ValueError(
            "coupling: expected a model with a ConditionalVAE, whose pixel noise can be renewed; "
            "leave it out."
        )
    for module in found:
        module.coupling = coupling


def _log_ratio(latent: Tensor, posterior: _Posterior) -> Tensor:
    """log N(z; 0, I) − log N(z; μ, σ²) = Σ ½ ((z − μ)²/σ² − z²) + log σ, ``(P, *batch)``."""
    location, log_scale = posterior
    standardised = (latent - location) * (-log_scale).exp()
    return (0.5 * (standardised.square() - latent.square()) + log_scale).sum(-1)


def _affinity(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """ρ of the coupling ``renewed`` for two normal distributions, 1 if they are nearly equal.

    It is a root of the Bhattacharyya coefficient,
    √(2·s·t / (s² + t²)) · exp(−(m − n)² / (4·(s² + t²))) for locations m, n and scales s, t.
    """
    (m, s), (n, t) = first, second
    total = s.square() + t.square()
    found = (2 * s * t / total).sqrt() * (-(m - n).square() / (4 * total)).exp()
    return found.masked_fill(found > 1 - _SAME, 1.0) ** _ROOT


def _out_features(encoder: nn.Module) -> int:
    features = getattr(encoder, "out_features", None)
    if not isinstance(features, int):
        raise ValueError(
            f"encoder: expected {type(encoder).__name__} to have the attribute out_features, the "
            f"number of features that it returns, but it is {features!r}; set it."
        )
    return features
