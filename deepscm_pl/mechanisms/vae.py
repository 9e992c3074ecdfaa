"""The amortised, explicit mechanism of images: a conditional variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepscm_pl.checks import whole_number
from deepscm_pl.likelihoods import Likelihood
from deepscm_pl.mechanisms.base import Context
from deepscm_pl.mechanisms.latent import (
    LARGEST_LATENT,
    LARGEST_LOG_SCALE,
    Coupling,
    GaussianPosterior,
    LatentImageMechanism,
    couple_pixel_noise,
)
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.nn.layers import out_features
from deepscm_pl.older import names_successors
from deepscm_pl.variables import Variables

__all__ = ["ConditionalVAE", "Coupling", "couple_pixel_noise"]

_RENAMED = {
    "brightness.weight": "brightness.parents.weight",
    "brightness.bias": "brightness.parents.bias",
    "brightness.context.": "brightness.parents.context.",
    "content_context.": "brightness.others.",
    "exposure.": "brightness.exposure.",
}
"""Prefixes of the names of parameters and buffers in version 0.1, and their successors."""


@names_successors
class ConditionalVAE(LatentImageMechanism):
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
        super().__init__(context, shape, likelihood, alpha, levels, coupling)
        latent = whole_number("latent", latent, least=1, most=LARGEST_LATENT)
        hidden = whole_number("hidden", hidden, least=1)
        self._set_latent(latent)
        features = self._network_context.features
        observed = features + (self.brightness is not None)
        self.encoder = (encoder or ConvolutionalEncoder)(self.shape, features)
        self.posterior_head = nn.Sequential(
            nn.Linear(out_features(self.encoder) + observed, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, 2 * latent),
        )
        outputs = (self.outputs, *self.shape[1:])
        self.decoder = (decoder or ConvolutionalDecoder)(latent, features, outputs)

    def posterior(self, value: Tensor, parents: Variables) -> GaussianPosterior:
        """Return q(z | x, pa), batch dimensions broadcast over the image and its parents."""
        batch, image, context, observed = self._observed_rows(value, parents)
        joint = torch.cat([self.encoder(image, context), observed], dim=-1).view(*batch, -1)
        # Networks may compute in low precision, but densities must not.
        location, log_scale = self.posterior_head(joint).to(value).chunk(2, dim=-1)
        return GaussianPosterior(location, log_scale.clamp(max=LARGEST_LOG_SCALE))

    def _decode_rows(self, latent: Tensor, context: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(latent, context)
        return decoded

    def posterior_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the encoder and of the layers behind it."""
        yield from self.encoder.parameters()
        yield from self.posterior_head.parameters()

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
