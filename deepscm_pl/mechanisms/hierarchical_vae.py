"""An amortised, explicit mechanism of images with latents at several scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, TypeAlias, get_args

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from deepscm_pl.checks import shown, whole_number
from deepscm_pl.likelihoods import Likelihood
from deepscm_pl.likelihoods.base import standard_normal_log_prob
from deepscm_pl.mechanisms.base import Context
from deepscm_pl.mechanisms.latent import (
    LARGEST_LATENT,
    Coupling,
    LatentDraws,
    LatentImageMechanism,
    gaussian_divergences,
    gaussian_log_ratio,
)
from deepscm_pl.nn.ladder import Ladder, LadderShapes, Moments, Rung
from deepscm_pl.nn.layers import Features
from deepscm_pl.variables import Noise, Variables, common_shape

__all__ = ["HierarchicalVAE", "MediatedImages", "Prior"]

Prior: TypeAlias = Literal["exogenous", "conditional"]
"""Whether the latent z depends on the parents of the image."""

_NUMBERS_AT_A_TIME = 2**22  # in the features of images, without gradients


class HierarchicalVAE(LatentImageMechanism):
    r"""A variational autoencoder with latents at several scales: x := h(g(z, pa), u).

    A state passes from one vector to half the resolution of the image and receives a latent z_l at
    each scale l (:class:`~deepscm_pl.nn.Ladder`); the decoder g sees the parents at every scale,
    and the map h of the likelihood adds pixel noise u. The exogenous noise of z is
    ε ~ N(0, I), which is inferred from the coarsest scale to the finest,
    q(ε | x, pa) = Π_l N(ε_l; m_l(ε_<l, x, pa), s_l²), with KL(q ‖ N(0, I)) in closed form given the
    scales above. u is exact, given ε, so that the null intervention returns the image exactly. The
    noise is ``{"z": ε, "u": u}``, with ε of all scales in one vector, the coarsest first.

    With the prior ``exogenous``, z = ε does not depend on the parents. With ``conditional``, z is a
    mediator between the parents and the image, z_l = μ_l(z_<l, pa) + σ_l(z_<l, pa)·ε_l (De Sousa
    Ribeiro et al. 2023, arXiv:2306.15764, section 3). Counterfactuals keep its noise
    ε_l = (z_l − μ_l)/σ_l, and z* = μ_l(z*_<l, pa*) + σ_l(z*_<l, pa*)·ε_l follows the parents: this
    is the total effect, without a weight that mixes posterior and prior; :meth:`mediated` divides
    it into its direct and its indirect part. That q is a distribution
    of ε makes it a residual of the prior (Vahdat and Kautz 2020, arXiv:2007.03898, equation 4).

    The coupling is that of the decoder and of the prior, which keep ε, and of the likelihood, which
    keeps u, or renews it as in :class:`~deepscm_pl.mechanisms.ConditionalVAE`. Other moments of the
    prior with ε rotated by parents have equal densities and other counterfactuals. Latents of fine
    scales keep details at their place, also where a change of the parents would move them.

    Args:
        ladder: Factory, called with the :class:`~deepscm_pl.nn.LadderShapes` and with whether there
            is a conditional prior. None for :class:`~deepscm_pl.nn.Ladder`.
        likelihood: Factory, called with ``shape`` and ``levels``, as for
            :class:`~deepscm_pl.mechanisms.ConditionalVAE`.
        prior: Whether z depends on the parents.
        coupling: The coupling of pixel noise.

    Raises:
        ValueError: If the prior is unknown, or settings do not fit the likelihood or the image.

    Example:
        >>> from functools import partial
        >>> ladder = partial(Ladder, channels=(4, 4, 8), latents=(1, 1, 2), embedding=4)
        >>> vae = HierarchicalVAE(Context(), (1, 8, 8), ladder=ladder)
        >>> image = vae.dequantise(torch.full((3, 1, 8, 8), 17.0))
        >>> torch.equal(vae.quantise(vae(vae.abduct(image, {}), {})), vae.quantise(image))
        True
    """

    def __init__(
        self,
        context: Context,
        shape: Sequence[int] = (1, 28, 28),
        ladder: Callable[[LadderShapes, bool], nn.Module] | None = None,
        likelihood: Callable[[Sequence[int], int], Likelihood] | None = None,
        prior: Prior = "exogenous",
        alpha: float = 0.05,
        levels: int = 256,
        coupling: Coupling = "kept",
    ) -> None:
        super().__init__(context, shape, likelihood, alpha, levels, coupling)
        if prior not in get_args(Prior):
            expected = " or ".join(get_args(Prior))
            raise ValueError(f"prior: expected {expected}, but got {shown(prior)}.")
        self.prior: Prior = prior
        names = self.likelihood.brightness
        features = context.split("brightness", names)[1].features if names else context.features
        level = {"(level)": 1} if self.likelihood.exposure else {}
        observed = Features({**features.sizes, **level})
        outputs = (self.outputs, *self.shape[1:])
        shapes = LadderShapes(self.shape, outputs, observed, features)
        made = (ladder or Ladder)(shapes, prior == "conditional")
        if not isinstance(made, Ladder):
            raise ValueError(f"ladder: expected a Ladder, but got {shown(made)}.")
        self.ladder = made
        self.scales = tuple(count for count in made.counts if count)
        self._set_latent(whole_number("ladder: latents", made.latent, least=1, most=LARGEST_LATENT))

    def posterior(self, value: Tensor, parents: Variables) -> LadderPosterior:
        """Return q(ε | x, pa), batch dimensions broadcast over the image and its parents."""
        batch, image, context, observed = self._observed_rows(value, parents)
        features = self.ladder.encode(image, observed)
        return LadderPosterior(self.ladder, features, context, batch)

    def _decode_rows(self, latent: Tensor, context: Tensor) -> Tensor:
        noise = self.ladder.split(latent)

        def choose(position: int, rung: Rung, state: Tensor, embedded: Tensor) -> Tensor:
            return rung.latent_of(noise[position], state, embedded)

        decoded: Tensor = self.ladder(context, choose)
        return decoded

    def mediator(self, noise: Noise, parents: Variables) -> Tensor:
        """Return z of all scales under the parents, ``(*batch, J)``.

        Raises:
            ValueError: If the prior is exogenous, so that no latent is between parents and image.
        """
        self._require_mediator()
        return self._in_chunks(self._mediator_of, noise["z"], [], parents)

    def with_mediator(self, noise: Noise, latent: Tensor, parents: Variables) -> dict[str, Tensor]:
        """Return noise under which the mediator is z = ``latent`` ``(*batch, J)``, given parents.

        It is abducted exactly, ε_l = (z_l − μ_l(z_<l, pa))/σ_l(z_<l, pa); all other noise is kept.

        Raises:
            ValueError: If the prior is exogenous, so that no latent is between parents and image.
        """
        self._require_mediator()
        return {**noise, "z": self._in_chunks(self._noise_of_mediator, latent, [], parents)}

    def mediated(self, noise: Noise, parents: Variables, changed: Variables) -> MediatedImages:
        """Divide the change of an image under other parents by its path (Pearl 2001).

        Args:
            noise: Noise of :meth:`coupled`.
            parents: The factual parents.
            changed: The new parents.

        Raises:
            ValueError: If the prior is exogenous, so that no latent is between parents and image.
        """
        before, after = self.mediator(noise, parents), self.mediator(noise, changed)
        return MediatedImages(
            total=self(noise, changed),
            direct=self(self.with_mediator(noise, before, changed), changed),
            indirect=self(self.with_mediator(noise, after, parents), parents),
        )

    def _require_mediator(self) -> None:
        if self.prior != "conditional":
            raise ValueError(
                "prior: expected conditional, so that z is a mediator between the parents and the "
                f"image, but it is {self.prior}, with which every effect is direct; train a model "
                "with prior: conditional."
            )

    def _mediator_of(self, noise: Tensor, parents: Variables) -> Tensor:
        return self._translated(noise, parents, is_latent=False)

    def _noise_of_mediator(self, latent: Tensor, parents: Variables) -> Tensor:
        return self._translated(latent, parents, is_latent=True)

    def _translated(self, given: Tensor, parents: Variables, is_latent: bool) -> Tensor:
        """Return z for ε, or if ``is_latent`` ε for z, ``(*batch, J)``."""
        context = self._network_context(parents).to(given)
        batch = common_shape(given.shape[:-1], context.shape[:-1])
        flat = given.expand(*batch, -1).reshape(-1, self.latent)
        by_scale, found = self.ladder.split(flat), []

        def choose(position: int, rung: Rung, state: Tensor, embedded: Tensor) -> Tensor:
            part = by_scale[position]
            other = (rung.noise_of if is_latent else rung.latent_of)(part, state, embedded)
            found.append(other.flatten(1))
            return part if is_latent else other

        self.ladder(context.expand(*batch, -1).reshape(len(flat), -1), choose)
        return torch.cat(found, dim=-1).view(*batch, self.latent)

    def posterior_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the encoder and of the heads of q at each scale."""
        yield from self.ladder.posterior_parameters()


class MediatedImages(NamedTuple):
    """Images, in grey levels, of one individual under other parents, by the path of the change.

    Effects are differences from the factual image, for example ``direct - factual``.

    Attributes:
        total: x under the new parents, with the mediator that they cause.
        direct: x under the new parents, with the factual mediator (natural direct effect).
        indirect: x under the factual parents, with the mediator that the new ones cause (natural
            indirect effect).
    """

    total: Tensor
    direct: Tensor
    indirect: Tensor


class _Rows(NamedTuple):
    """Results of one pass down the ladder, ``(rows, J)`` of the latents."""

    content: Tensor
    noise: Tensor
    location: Tensor
    log_scale: Tensor


class LadderPosterior:
    """q(ε | x, pa) = Π_l q(ε_l | ε_<l, x, pa) of a batch of images.

    Args:
        ladder: The networks.
        features: Features of the N images at each scale, the coarsest first.
        context: The context of the parents of the N images, ``(N, A)``.
        batch_shape: The shape of the batch of N images.
    """

    def __init__(
        self, ladder: Ladder, features: list[Tensor], context: Tensor, batch_shape: torch.Size
    ) -> None:
        self.ladder, self.features, self.context = ladder, features, context
        self.batch_shape = batch_shape

    @cached_property
    def location(self) -> Tensor:
        """ε at which each scale has its mean given those above, ``(*batch, J)``."""
        rows = self._descend(None, lambda position, moments: moments.location)
        return rows.noise.view(*self.batch_shape, -1)

    def draw(self, sample_shape: tuple[int, ...]) -> LatentDraws:
        """Return reparametrised draws; ``divergences`` is the mean over them."""
        count = math.prod(sample_shape)
        new = torch.randn(
            count * len(self.context),
            self.ladder.latent,
            dtype=self.context.dtype,
            device=self.context.device,
        )
        rows = self._in_chunks(count, new, is_given=False)
        shape = (*sample_shape, *self.batch_shape)
        latent, location, log_scale = (each.view(*shape, -1) for each in rows[1:])
        divergences = gaussian_divergences(location, log_scale)
        if sample_shape:
            divergences = divergences.flatten(0, len(sample_shape) - 1).mean(dim=0)
        ratio = gaussian_log_ratio(latent, location, log_scale)
        return LatentDraws(latent, ratio, divergences, self._content(rows.content, shape))

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return log q(ε | x, pa) in nats of ε ``(*sample, *batch, J)``."""
        sample = latent.shape[: latent.dim() - 1 - len(self.batch_shape)]
        flat = latent.expand(*sample, *self.batch_shape, -1).reshape(-1, latent.shape[-1])
        rows = self._in_chunks(math.prod(sample), flat, is_given=True)
        ratio = gaussian_log_ratio(flat, rows.location, rows.log_scale)
        found = standard_normal_log_prob(flat).sum(-1) - ratio
        return found.view(*sample, *self.batch_shape)

    def distribution(self) -> TorchDistribution:
        """Return q as a distribution of Pyro."""
        return LadderDistribution(self)

    def _content(self, content: Tensor, shape: tuple[int, ...]) -> Tensor:
        outputs, *sizes, width = content.shape[1:]
        return content.reshape(*shape, outputs, math.prod(sizes), width)

    def _in_chunks(self, count: int, given: Tensor, is_given: bool) -> _Rows:
        """Pass down with ``count`` draws of each image, a few rows at a time without gradients.

        ``given`` ``(count · N, J)`` are standard normal draws, or ε itself if ``is_given``.
        """
        number = len(self.context)
        numbers = sum(each[0].numel() for each in self.features) if number else 1
        size = max(_NUMBERS_AT_A_TIME // numbers, 1)
        rows = torch.arange(number, device=given.device).repeat(count)
        if torch.is_grad_enabled() or len(rows) <= size:
            return self._chosen(None if count == 1 else rows, given, is_given)
        parts = zip(rows.split(size), given.split(size), strict=True)
        found = [self._chosen(*part, is_given) for part in parts]
        return _Rows(*(torch.cat(each) for each in zip(*found, strict=True)))

    def _chosen(self, rows: Tensor | None, given: Tensor, is_given: bool) -> _Rows:
        by_scale = self.ladder.split(given)

        def noise_of(position: int, moments: Moments) -> Tensor:
            new = by_scale[position]
            if is_given:
                return new
            return torch.addcmul(moments.location, moments.log_scale.exp(), new)

        return self._descend(rows, noise_of)

    def _descend(self, rows: Tensor | None, noise_of: Callable[[int, Moments], Tensor]) -> _Rows:
        context = self.context if rows is None else self.context[rows]
        found: list[tuple[Tensor, Tensor, Tensor]] = []

        def choose(position: int, rung: Rung, state: Tensor, embedded: Tensor) -> Tensor:
            features = self.features[position]
            features = features if rows is None else features[rows]
            moments = rung.posterior_moments(state, features, context.dtype)
            noise = noise_of(position, moments)
            found.append((noise, *moments))
            return rung.latent_of(noise, state, embedded)

        content: Tensor = self.ladder(context, choose)
        joined = (
            torch.cat([e.flatten(1) for e in each], dim=-1) for each in zip(*found, strict=True)
        )
        return _Rows(content.to(context), *joined)


class LadderDistribution(TorchDistribution):
    """q(ε | x, pa) as a distribution of Pyro.

    Args:
        posterior: The posterior of a batch of images.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, posterior: LadderPosterior) -> None:
        self.posterior = posterior
        event = torch.Size([posterior.ladder.latent])
        super().__init__(posterior.batch_shape, event, validate_args=False)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw ε, ``(*sample_shape, *batch, J)``."""
        return self.posterior.draw(tuple(sample_shape)).latent

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q in nats, ``(*sample, *batch)``."""
        return self.posterior.log_prob(value)
