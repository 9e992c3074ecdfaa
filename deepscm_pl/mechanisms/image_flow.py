"""The invertible, explicit mechanism of images: a conditional multi-scale normalising flow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepscm_pl.likelihoods.base import standard_normal_log_prob
from deepscm_pl.mechanisms.base import Context
from deepscm_pl.mechanisms.image import ImageDistribution, ImageMechanism
from deepscm_pl.nn import ConvolutionalConditioner, call_in_precision
from deepscm_pl.nn.layers import image_sizes
from deepscm_pl.transforms import (
    ConditionerFactory,
    Inverse,
    Mapped,
    MultiscaleBijection,
    normalise_activations,
)
from deepscm_pl.transforms.cells import in_double
from deepscm_pl.variables import Noise, Variables

__all__ = ["MultiscaleFlow"]

_IMAGES_FOR_NORMALISATION = 512


class MultiscaleFlow(ImageMechanism):
    """x := h(T(u; pa)), u ~ N(0, I): an invertible network of the noise and the parents.

    Noise and density are exact (Pawlowski et al. 2020, section 3, "invertible, explicit
    likelihood"). T⁻¹ is a :class:`~deepscm_pl.transforms.MultiscaleBijection`; h is the inverse of
    the preprocessing x ↦ logit(α + (1 − α)·x/L).

    The coupling is that of the network, which transforms pixels and channels given others in the
    order of its steps; other networks with the same density have other counterfactuals.

    The noise of a recorded image is that of the image with uniform dequantisation noise: every draw
    returns the image, but it is a draw of the posterior only as far as the density is constant
    within grey levels, and the probability of the recorded image has a lower bound only.

    Args:
        shape: (channels, height, width), in pixels. Height and width can be halved for each scale.
        steps: Number of flow steps at each scale, the finest one first.
        conditioner: Factory of the networks of the couplings, a
            :data:`~deepscm_pl.transforms.ConditionerFactory`. None for
            :class:`~deepscm_pl.nn.ConvolutionalConditioner`.
        log_scale_bound: Bound of the log-scale of each coupling.

    Example:
        >>> flow = MultiscaleFlow(Context(), shape=(1, 8, 8), steps=(2, 2))
        >>> flow.log_prob(flow.dequantise(torch.full((3, 1, 8, 8), 17.0)), {}).shape
        torch.Size([3])
    """

    def __init__(
        self,
        context: Context,
        shape: Sequence[int] = (1, 28, 28),
        steps: Sequence[int] = (6, 8),
        conditioner: ConditionerFactory | None = None,
        log_scale_bound: float = 2.0,
        alpha: float = 0.05,
        levels: int = 256,
    ) -> None:
        image_sizes("shape", shape)
        super().__init__(context, shape, alpha, levels)
        conditioner = conditioner or ConvolutionalConditioner
        self.bijection = MultiscaleBijection(
            self.shape, steps, context.features, conditioner, log_scale_bound
        )

    def distribution(self, parents: Variables) -> ImageDistribution:
        """Return p(x | pa) of the continuous image."""
        context = self.context(parents).to(next(self.parameters()))
        return ImageDistribution(context, 1, self.shape, self._draw, self._log_density)

    def _draw(self, context: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.generate(self.sample_noise(shape)["u"], context)

    def _log_density(self, context: Tensor, value: Tensor) -> Tensor:
        noise, log_determinant = self.infer(value, context)
        return standard_normal_log_prob(noise).flatten(-3).sum(dim=-1) + log_determinant

    def generate(self, noise: Tensor, context: Tensor) -> Tensor:
        """Return h(T(u; c)), ``(*batch, C, H, W)``, batch dimensions broadcast.

        It is computed in the precision of the noise and returned in that of the parameters.
        """
        flat, contexts, batch = self.one_batch(noise, context)
        processed = call_in_precision(Inverse(self.bijection), noise.dtype, flat, contexts)
        image = self.in_own_precision(self.preprocessing.inv(processed))
        return image.view(*batch, *self.shape)

    def infer(self, value: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u ``(*batch, C, H, W)`` and log |du/dx| ``(*batch,)``, in the precision of x."""
        flat, contexts, batch = self.one_batch(value, context)
        processed = self.preprocessing(flat)
        pixels = self.preprocessing.log_abs_det_jacobian(flat, processed)
        mapped: Mapped = call_in_precision(self.bijection, value.dtype, processed, contexts)
        total = mapped.log_determinant + pixels.flatten(1).sum(dim=1)
        return mapped.value.view(*batch, *self.shape), total.view(batch)

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x = h(T(u; pa)), continuous grey levels."""
        return self.generate(noise["u"], self.context(parents))

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Return u = T⁻¹(h⁻¹(x); pa), in double precision if the device supports it.

        A small step in u can be one of hundreds of grey levels in x, so that single precision might
        not recover a grey level.
        """
        noise, _ = self.infer(in_double(value), self.context(parents))
        return {"u": noise.expand(*sample_shape, *noise.shape)}

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context and the activation normalisation to the training split.

        The normalisation uses at most 512 images, spread evenly over the split, with noise from a
        separate generator, so that it is the same in every process.
        """
        super().fit(value, parents)
        weight = next(self.parameters())
        count = min(len(value), _IMAGES_FOR_NORMALISATION)
        rows = torch.linspace(0, len(value) - 1, count).long().to(value.device)
        images = value[rows].to(weight)
        remainder = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
        continuous = images + remainder.to(weight)
        context = self.context(
            {name: parent[rows].to(weight.device) for name, parent in parents.items()}
        )
        flat, contexts, _ = self.one_batch(self.preprocessing(continuous), context)
        normalise_activations(self.bijection, flat, contexts)
