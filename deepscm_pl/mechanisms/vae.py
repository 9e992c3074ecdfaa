"""The amortised, explicit mechanism of images: a conditional variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import pyro
import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from deepscm_pl.checks import shown, whole_number
from deepscm_pl.likelihoods import FixedVarianceGaussian, Likelihood
from deepscm_pl.mechanisms.base import Context, Evidence, LatentEvidence
from deepscm_pl.mechanisms.brightness import Brightness
from deepscm_pl.mechanisms.image import ImageMechanism
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.older import names_successors
from deepscm_pl.variables import Noise, Variables

__all__ = ["ConditionalVAE", "ImageDistribution"]


_LARGEST_LOG_SCALE = 2.0
"""Of q(z | x, pa). A posterior is hardly ever wider than its prior, of scale 1; an image unlike any
in training could make it infinite, and what is drawn from it no number."""


_LARGEST_LATENT = 2**14
"""The calibration of the noise correlates all its numbers: as many squared."""


_DECODED_AT_A_TIME = 2**22
"""Numbers that the decoder gives at a time where no gradient is asked for; 16 MB of them."""


_RENAMED = {
    "brightness.weight": "brightness.parents.weight",
    "brightness.bias": "brightness.parents.bias",
    "brightness.context.": "brightness.parents.context.",
    "content_context.": "brightness.others.",
    "exposure.": "brightness.exposure.",
}
"""Beginnings of the names of parameters and buffers in version 0.1, and today's."""


class _Posterior(NamedTuple):
    """Mean and log standard deviation of q(z | x, pa), ``(*batch, latent)``."""

    location: Tensor
    log_scale: Tensor


@names_successors
class ConditionalVAE(ImageMechanism):
    """x := h(g(z, pa), u): a decoder g of a latent z and the parents, then pixel noise u.

    Both are exogenous: z ~ N(0, I) is inferred by an encoder, q(z | x, pa) = N(μ, σ²), and u, given
    z, exactly (Pawlowski et al. 2020, section 3, "amortised, explicit likelihood", equation 4). h
    is the likelihood's own map of u, then the inverse of its preprocessing, which is
    x ↦ logit(α + (1 − α)·x/L) unless the likelihood lives on grey levels.

    Recorded images hold whole grey levels 0, …, L − 1; the methods of this class see them with
    uniform dequantisation noise, in [0, L). Densities are in those units.

    Args:
        context: What the mechanism sees of its parents.
        shape: Shape of one image, (channels, height, width), in pixels.
        latent: Size of z.
        hidden: Width of the layer between the encoder's features with the context, and q.
        encoder: Factory, called with ``shape`` and the number A of features of the parents: a
            network of ``(batch, *shape)`` and ``(batch, A)`` -> ``(batch, F)`` with the attribute
            ``out_features`` = F. A is a :class:`~deepscm_pl.nn.Features`, a number that knows
            which features belong to which parent. None for
            :class:`~deepscm_pl.nn.ConvolutionalEncoder`.
        decoder: Factory, called with ``latent``, A and the shape of the output: a network of
            ``(batch, latent)`` and ``(batch, A)`` -> ``(batch, *output)``. None for
            :class:`~deepscm_pl.nn.ConvolutionalDecoder`.
        likelihood: Factory, called with ``shape`` and ``levels``. None for
            :class:`~deepscm_pl.likelihoods.FixedVarianceGaussian`. If it names parents in
            ``brightness``, they act through :class:`~deepscm_pl.mechanisms.Brightness` alone:
            encoder and decoder do not see them, and the encoder sees the image divided by β.
        alpha: α of the logit preprocessing.
        levels: L, the number of grey levels.

    Raises:
        ValueError: If a size is not positive, or the decoder or the likelihood names a parent that
            it does not see, or that cannot act there.

    Example:
        >>> vae = ConditionalVAE(Context(), shape=(1, 8, 8), latent=2)
        >>> image = vae.dequantise(torch.full((3, 1, 8, 8), 17.0))
        >>> noise = vae.abduct(image, {})
        >>> torch.equal(vae.quantise(vae(noise, {})), torch.full((3, 1, 8, 8), 17.0))
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
    ) -> None:
        super().__init__(context, shape, alpha, levels)
        self.latent = whole_number("latent", latent, least=1, most=_LARGEST_LATENT)
        hidden = whole_number("hidden", hidden, least=1)
        made = (likelihood or FixedVarianceGaussian)(self.plane, levels)
        if not isinstance(made, Likelihood):
            raise ValueError(f"likelihood: expected a Likelihood, but got {shown(made)}.")
        self.likelihood = made
        names = self.likelihood.brightness
        self.brightness = Brightness(context, names, self.latent, levels) if names else None
        seen = self._seen.features
        self.encoder = (encoder or ConvolutionalEncoder)(self.shape, seen)
        self.posterior_head = nn.Sequential(
            nn.Linear(_out_features(self.encoder) + seen + bool(names), hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, 2 * latent),
        )
        self.outputs = self.shape[0] * self.likelihood.outputs_per_channel
        outputs = (self.outputs, *self.shape[1:])
        self.decoder = (decoder or ConvolutionalDecoder)(latent, seen, outputs)
        self.preprocessing = self.likelihood.preprocessing(alpha)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit what is known of the parents, and the brightness where parents act on it.

        Raises:
            ValueError: If no grey level is above 1.
        """
        super().fit(value, parents)
        if self.brightness is not None:
            self.brightness.fit(self.in_plane(value), parents, self._drawing)

    def posterior(self, value: Tensor, parents: Variables) -> _Posterior:
        """q(z | x, pa), batch dimensions broadcast over the image and its parents."""
        context = self._seen(parents).to(value)
        if self.brightness is not None:
            value = self.brightness.removed(value, parents)
        # Grey levels to [-1, 1], a range that the initial weights are made for.
        scaled = 2 * value / self.dequantisation.levels - 1
        batch = torch.broadcast_shapes(self.domain.batch_shape(scaled), context.shape[:-1])
        scaled = scaled.expand(*batch, *self.shape).reshape(-1, *self.shape)
        context = context.expand(*batch, -1).reshape(len(scaled), -1)
        features = [self.encoder(scaled, context), context]
        if self.brightness is not None:
            plane = self.in_plane(value).expand(*batch, *self.plane).reshape(-1, *self.plane)
            features.append(self.brightness.measured(plane, context, self._drawing))
        joint = torch.cat(features, dim=-1).view(*batch, -1)
        # Networks may run in low precision, densities do not.
        location, log_scale = self.posterior_head(joint).to(value).chunk(2, dim=-1)
        return _Posterior(location, log_scale.clamp(max=_LARGEST_LOG_SCALE))

    def decode(self, latent: Tensor, parents: Variables) -> Tensor:
        """g(z, pa): the decoder on one flat batch, ``(*batch, outputs, H, W)``.

        The slices of a volume lie below each other in a plane, ``(*batch, outputs, D·H, W)``.
        """
        context = self._seen(parents).to(latent)
        batch = torch.broadcast_shapes(latent.shape[:-1], context.shape[:-1])
        flat = latent.expand(*batch, -1).reshape(-1, self.latent)
        context = context.expand(*batch, -1).reshape(len(flat), -1)
        decoded: Tensor = self.decoder(flat, context).to(latent)
        decoded = decoded.reshape(*batch, self.outputs, *self.plane[1:])
        if self.brightness is None:
            return decoded
        factor = self.brightness.exposure_of(flat, context, self._drawing).view(*batch, 1)
        factor = self.brightness.parents(parents) * factor
        return self.likelihood.scaled(decoded, factor[..., None, None])

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """x = h(g(z, pa), u), continuous grey levels."""
        return self._in_chunks(self._image_of, noise["z"], noise["u"], parents)

    def _image_of(self, latent: Tensor, noise: Tensor, parents: Variables) -> Tensor:
        processed = self.likelihood(self.decode(latent, parents), self.in_plane(noise))
        return self.in_space(self.preprocessing.inv(processed))

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """z ~ N(0, I) ``(*shape, latent)`` and u ~ N(0, τ² I) ``(*shape, C, H, W)``.

        τ is the likelihood's temperature.
        """
        weight = next(self.posterior_head.parameters())
        return {
            "z": weight.new_empty(*shape, self.latent).normal_(),
            "u": self.in_space(self.likelihood.sample_noise(shape, weight)),
        }

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draws of z from q(z | x, pa), and u exactly given each; the encoder runs once."""
        latent = self._draw(self.posterior(value, parents), sample_shape)
        noise = self._in_chunks(self._pixel_noise, latent, value, parents)
        return {"z": latent, "u": noise}

    def abduct_recorded(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Draws of z from q(z | x, pa), and u of an x dequantised anew for each.

        The encoder sees one of them only: it cannot tell parts of a grey level.
        """
        latent = self._draw(self.posterior(self.dequantise(value), parents), sample_shape)
        image = self.dequantise(value.expand(*sample_shape, *value.shape))
        noise = self._in_chunks(self._pixel_noise, latent, image, parents)
        return {"z": latent, "u": noise}

    def _pixel_noise(self, latent: Tensor, value: Tensor, parents: Variables) -> Tensor:
        """u of an image, exactly, given z."""
        processed = self.preprocessing(self.in_plane(value))
        return self.in_space(self.likelihood.abduct(self.decode(latent, parents), processed))

    def _in_chunks(
        self,
        function: Callable[[Tensor, Tensor, Variables], Tensor],
        latent: Tensor,
        image: Tensor,
        parents: Variables,
    ) -> Tensor:
        """``function(latent, image, parents)``, computed for some images of a flat batch at a time.

        So the memory for what the decoder gives does not grow with particles and interventions.
        Gradients need all of it, and then all is computed at once.
        """
        domains = {n: domain for n, domain in self.context.domains.items() if n in parents}
        batch = torch.broadcast_shapes(
            latent.shape[:-1],
            self.domain.batch_shape(image),
            *(domain.batch_shape(parents[n]) for n, domain in domains.items()),
        )
        rows = max(_DECODED_AT_A_TIME // (self.outputs * math.prod(self.plane[1:])), 1)
        if math.prod(batch) <= rows or torch.is_grad_enabled():
            return function(latent, image, parents)
        latents = latent.expand(*batch, -1).reshape(-1, self.latent).split(rows)
        images = image.expand(*batch, *self.shape).reshape(-1, *self.shape).split(rows)
        causes = {
            n: parents[n].expand(*batch, *domain.shape).reshape(-1, *domain.shape).split(rows)
            for n, domain in domains.items()
        }
        found = [
            function(*each, {n: cause[k] for n, cause in causes.items()})
            for k, each in enumerate(zip(latents, images, strict=True))
        ]
        return torch.cat(found).view(*batch, *self.shape)

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """E_q[log p(x | z, pa)] by ``num_particles`` draws, and KL(q ‖ N(0, I)) in closed form."""
        posterior = self.posterior(value, parents)
        latent = self._draw(posterior, (num_particles,))
        log_probs = self.image_distribution(latent, parents).log_prob(value)
        divergences = _divergences_from_standard_normal(posterior)
        log_weights = log_probs + _log_prior_over_posterior(latent, posterior)
        found = LatentEvidence(divergences, log_weights)
        return Evidence(log_probs.mean(dim=0), divergences.sum(-1), found)

    def log_weights(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Tensor:
        """log p(x | z_k, pa) + log p(z_k) − log q(z_k | x, pa), ``(P, *batch)``."""
        posterior = self.posterior(value, parents)
        latent = self._draw(posterior, (num_particles,))
        log_probs = self.image_distribution(latent, parents).log_prob(value)
        return log_probs + _log_prior_over_posterior(latent, posterior)

    def reconstruct(self, value: Tensor, parents: Variables) -> Tensor:
        """The recorded image at the posterior mean of z, without pixel noise (u = 0)."""
        # The middle of each grey level's cell stands for the cell.
        continuous = value.to(next(self.posterior_head.parameters())) + 0.5
        latent = self.posterior(continuous, parents).location
        noise_free = self.likelihood.noise_free(self.decode(latent, parents))
        return self.in_space(self.quantise(self.preprocessing.inv(noise_free)))

    def image_distribution(self, latent: Tensor, parents: Variables) -> ImageDistribution:
        """p(x | z, pa) of the continuous image."""
        decoded = self.decode(latent, parents)
        return ImageDistribution(decoded, self.likelihood, self.preprocessing, self.shape)

    def model(self, name: str, parents: Variables) -> Tensor:
        """The sites ``name.z`` and ``name``, the continuous image."""
        weight = next(self.posterior_head.parameters())
        prior = Normal(weight.new_zeros(self.latent), 1.0).to_event(1)
        latent = pyro.sample(f"{name}.z", prior)
        value: Tensor = pyro.sample(name, self.image_distribution(latent, parents))
        return value

    def guide(self, name: str, value: Tensor, parents: Variables) -> None:
        """The site ``name.z`` from q(z | x, pa)."""
        posterior = self.posterior(value, parents)
        pyro.sample(f"{name}.z", Normal(posterior.location, posterior.log_scale.exp()).to_event(1))

    @property
    def _seen(self) -> Context:
        """The context of the parents that the networks see."""
        return self.context if self.brightness is None else self.brightness.others

    @property
    def _drawing(self) -> Tensor | None:
        """1 for each feature that what the decoder draws depends on, if it draws by some only."""
        drawing: Tensor | None = getattr(self.decoder, "drawing", None)
        return drawing

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load weights, those of version 0.1 under their new names."""
        for old, new in _RENAMED.items():
            for key in [key for key in state_dict if key.startswith(prefix + old)]:
                name = key.removeprefix(prefix + old)
                state_dict[f"{prefix}{new}{name}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @staticmethod
    def _draw(posterior: _Posterior, sample_shape: tuple[int, ...]) -> Tensor:
        location = posterior.location.expand(*sample_shape, *posterior.location.shape)
        return location + posterior.log_scale.exp() * torch.randn_like(location)


def _out_features(encoder: nn.Module) -> int:
    features = getattr(encoder, "out_features", None)
    if not isinstance(features, int):
        raise ValueError(
            f"encoder: expected {type(encoder).__name__} to have the attribute out_features, the "
            f"number of features that it returns, but it is {features!r}; set it."
        )
    return features


def _divergences_from_standard_normal(posterior: _Posterior) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² − 1 − log σ²) of each dimension, in nats."""
    location, log_scale = posterior
    return 0.5 * (location.square() + (2 * log_scale).exp() - 1 - 2 * log_scale)


def _log_prior_over_posterior(latent: Tensor, posterior: _Posterior) -> Tensor:
    """log N(z; 0, I) − log N(z; μ, σ²) = Σ ½ ((z − μ)²/σ² − z²) + log σ, in nats."""
    location, log_scale = posterior
    standardised = (latent - location) * (-log_scale).exp()
    return (0.5 * (standardised.square() - latent.square()) + log_scale).sum(-1)


class ImageDistribution(TorchDistribution):
    """p(x | decoder output) of a continuous image: a likelihood behind its preprocessing.

    The temperature of the likelihood scales the noise of draws, not the density.

    Args:
        decoded: The decoder's output, ``(*batch, outputs, H, W)``.
        likelihood: The noise of the preprocessed image, or of the slices of a volume in a plane.
        preprocessing: From grey levels to where the likelihood lives.
        shape: Of an image or volume, as it is drawn.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(
        self,
        decoded: Tensor,
        likelihood: Likelihood,
        preprocessing: Transform,
        shape: Sequence[int],
    ) -> None:
        self.decoded = decoded
        self.likelihood = likelihood
        self.preprocessing = preprocessing
        super().__init__(decoded.shape[:-3], torch.Size(shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The reals, element by element."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(
        self, batch_shape: torch.Size, _instance: ImageDistribution | None = None
    ) -> ImageDistribution:
        """The same distribution over broadcast batch dimensions."""
        decoded = self.decoded.expand(*batch_shape, *self.decoded.shape[-3:])
        return ImageDistribution(decoded, self.likelihood, self.preprocessing, self.event_shape)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draws of the continuous image, ``(*sample_shape, *batch, *shape)``."""
        noise = self.likelihood.sample_noise((*sample_shape, *self.batch_shape), self.decoded)
        image: Tensor = self.preprocessing.inv(self.likelihood(self.decoded, noise))
        return image.reshape(*image.shape[:-3], *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x | decoder output) in nats per image."""
        batch = value.shape[: value.dim() - len(self.event_shape)]
        plane = value.reshape(*batch, *self.likelihood.shape)
        processed = self.preprocessing(plane)
        jacobian = self.preprocessing.log_abs_det_jacobian(plane, processed)
        return self.likelihood.log_prob(self.decoded, processed) + jacobian.flatten(-3).sum(-1)
