"""The amortised, implicit mechanism of images: a generator, an encoder and a critic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform
from torch.nn import functional

from deepscm_pl.checks import real_number, shown, whole_number
from deepscm_pl.mechanisms.base import Context, Evidence
from deepscm_pl.mechanisms.image import ImageDistribution, ImageMechanism
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.nn.layers import Features, out_features
from deepscm_pl.transforms.cells import in_double
from deepscm_pl.variables import Noise, Variables, common_shape

__all__ = ["AdversarialLoss", "AdversarialNetworks", "ImplicitMechanism", "Residual"]

Residual: TypeAlias = Literal["kept", "none"]
"""Whether the noise has the difference between an image and its reconstruction."""

_LARGEST_LATENT = 2**14
_IMAGES_FOR_BASELINE = 4096
_PENALISED = 4  # the penalty is computed for one of so many rows
_PIXELS_AT_A_TIME = 2**20
_LEAST_DIVERSITY = 0.1
_MOST_ERROR = 0.9
_DIVERSITY, _ERROR, _FOOLED = "diversity", "unexplained_variance", "critic_accuracy"


@dataclass(frozen=True)
class AdversarialLoss:
    """The weights of the loss of an :class:`ImplicitMechanism`, beside the adversarial game.

    Args:
        form: ``"logistic"``, the non-saturating loss of Goodfellow et al. (2014), or ``"hinge"``.
        reconstruction: Weight of the mean over pixels of (x − g(e(x, pa), pa))², where black is −1
            and white is 1. Not of the absolute difference, for which a black image is a local
            optimum of images that are mostly black.
        noise_reconstruction: Weight of the mean over dimensions of (z − e(g(z, pa), pa))², where
            the first z is a constant.
        moments: Weight of (|E z|² + |E zzᵀ − I|²)/J of inferred noise, J numbers each, which is 0
            if their first two moments are those of N(0, I), as they are where the critic is
            deceived. Its estimate from a batch is unbiased.
        penalty: γ of the penalty γ/2·|∇ D|² of the critic's gradient with respect to observed
            images and their noise (Mescheder et al. 2018, arXiv:1801.04406, equation 9).
        abducted: Fraction of the generated images that are counterfactuals: their noise is that of
            an observed image, and their parents are those of another.

    The plain game of Dumoulin et al. (2017) has 0 for both reconstructions, the moments and the
    penalty.

    Raises:
        ValueError: If the form is unknown, a weight is negative, or the fraction is not in [0, 1].
    """

    form: Literal["logistic", "hinge"] = "logistic"
    reconstruction: float = 50.0
    noise_reconstruction: float = 1.0
    moments: float = 1.0
    penalty: float = 1.0
    abducted: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.form not in ("logistic", "hinge"):
            raise ValueError(f"form: expected logistic or hinge, but got {shown(self.form)}.")
        for name in ("reconstruction", "noise_reconstruction", "moments", "penalty"):
            real_number(name, getattr(self, name), least=0)
        real_number("abducted", self.abducted, least=0, most=1)

    def of_critic(self, observed: Tensor, generated: Tensor) -> Tensor:
        """Return the critic's loss, from its scores of observed and of generated rows ``(N,)``."""
        if self.form == "hinge":
            return functional.relu(1 - observed) + functional.relu(1 + generated)
        return functional.softplus(-observed) + functional.softplus(generated)

    def of_networks(self, observed: Tensor, generated: Tensor) -> Tensor:
        """Return the loss of encoder and generator, which want the opposite."""
        if self.form == "hinge":
            return observed - generated
        return functional.softplus(observed) + functional.softplus(-generated)


@dataclass(frozen=True)
class AdversarialNetworks:
    """Factories of the networks of an :class:`ImplicitMechanism`; None for convolutional ones.

    Args:
        encoder: Called with the shape of an image and the number A of features of the parents: a
            network of ``(batch, *shape)`` and ``(batch, A)`` -> ``(batch, F)`` with the attribute
            ``out_features`` = F.
        generator: Called with the size J of the noise, A, and the shape of an image: a network of
            ``(batch, J)`` and ``(batch, A)`` -> ``(batch, *shape)``, in the modelled range.
        critic: Called as the encoder, with J + A features, which are those of the noise, then those
            of the parents.
    """

    encoder: Callable[[Sequence[int], int], nn.Module] | None = None
    generator: Callable[[int, int, Sequence[int]], nn.Module] | None = None
    critic: Callable[[Sequence[int], int], nn.Module] | None = None


class _Pair(NamedTuple):
    """Images scaled to [−1, 1] ``(N, *shape)``, noise ``(N, J)`` and parents ``(N, A)``."""

    image: Tensor
    noise: Tensor
    context: Tensor

    @property
    def constant(self) -> _Pair:
        """The same numbers without gradients."""
        return _Pair(self.image.detach(), self.noise.detach(), self.context.detach())


class ImplicitMechanism(ImageMechanism):
    r"""An amortised implicit mechanism: x := h(g(z, pa) + u), of any generator g.

    The noise z ~ N(0, I) is inferred by an encoder, z = e(x, pa). Both networks are trained against
    a critic D, which distinguishes observed (x, e(x, pa), pa) from generated (g(z, pa), z, pa)
    (Pawlowski et al. 2020, section 3, "amortised, implicit likelihood"; Dumoulin et al. 2017,
    arXiv:1606.00704; Donahue et al. 2017, arXiv:1605.09782). If the critic cannot, the joint
    distributions of image, noise and parents are equal: images are as observed, the inferred noise
    is standard normal and independent of the parents, and e inverts g. h is the inverse of
    x ↦ 2x/L − 1, and pixels outside of the grey levels are recorded as black or white.

    There is no likelihood: :meth:`log_prob` and :meth:`evidence` raise. Training, by
    :meth:`training_evidence`, takes one step of all players at once: in the loss of the critic the
    other networks are constants, and conversely, so that one backward pass gives each player the
    gradient of its own loss, with any precision, clipping, accumulation and number of processes.
    The last layer of the generator is not bounded. The critic sees images as recorded; gradients
    that would drive a pixel farther out of [−1, 1] are left out, and the loss has the mean distance
    of pixels from there.

    A generator with a small noise reconstructs an observed image only approximately. With
    ``residual="kept"``, the noise has the residual u = h⁻¹(x) − g(e(x, pa), pa) as well, so that a
    null intervention returns the image exactly. u is 0 in all samples: that a counterfactual has
    the residual of its factual image is an assumption of the coupling, and not learned.

    The coupling is that of the generator, which keeps z, and of the residual, which is kept where
    it was. The adversarial loss depends on distributions only, so other generators that are equal
    in all of them have other counterfactuals.

    Args:
        shape: (channels, height, width), in pixels, or (channels, depth, height, width), in voxels.
        latent: J, the size of z.
        hidden: Width of the layer between the features of the encoder or critic and its output.
        networks: Factories of the networks. Volumes need factories for all three.
        loss: Weights of the loss.
        residual: ``"kept"``, or ``"none"`` for images of the generator only.

    Example:
        >>> mechanism = ImplicitMechanism(Context(), shape=(1, 8, 8), latent=2)
        >>> image = mechanism.dequantise(torch.full((3, 1, 8, 8), 17.0))
        >>> again = mechanism(mechanism.abduct(image, {}), {})
        >>> torch.equal(mechanism.quantise(again), mechanism.quantise(image))
        True
    """

    baseline: Tensor

    def __init__(
        self,
        context: Context,
        shape: Sequence[int] = (1, 28, 28),
        latent: int = 32,
        hidden: int = 256,
        networks: AdversarialNetworks | None = None,
        loss: AdversarialLoss | None = None,
        residual: Residual = "kept",
        levels: int = 256,
    ) -> None:
        super().__init__(context, shape, levels=levels)
        # No sigmoid, in whose ends a generator that has become black would stay.
        self.preprocessing = AffineTransform(-1.0, 2 / levels)
        self.latent = whole_number("latent", latent, least=1, most=_LARGEST_LATENT)
        hidden = whole_number("hidden", hidden, least=1)
        if residual not in get_args(Residual):
            expected = " or ".join(get_args(Residual))
            raise ValueError(f"residual: expected {expected}, but got {shown(residual)}.")
        self.residual: Residual = residual
        self.loss = loss or AdversarialLoss()
        made = networks or AdversarialNetworks()
        features = context.features
        self.encoder = (made.encoder or ConvolutionalEncoder)(self.shape, features)
        self.generator = (made.generator or ConvolutionalDecoder)(latent, features, self.shape)
        joint = Features({"z": latent, **features.sizes})
        self.critic = (made.critic or ConvolutionalEncoder)(self.shape, joint)
        self.encoder_head = _head(out_features(self.encoder) + features, hidden, latent)
        self.critic_head = _head(out_features(self.critic) + joint, hidden, 1)
        self.register_buffer("baseline", torch.tensor(torch.nan))

    # Laws of mechanisms

    @property
    def has_likelihood(self) -> bool:
        """False: the density of the generator's images is unknown."""
        return False

    @property
    def likelihood_note(self) -> str:
        """``no likelihood``."""
        return "no likelihood"

    @property
    def has_training_loss(self) -> bool:
        """True: see :meth:`training_evidence`."""
        return True

    @property
    def abduction_is_exact(self) -> bool:
        """Whether ``forward(abduct(x, pa), pa)`` is x, rather than a reconstruction."""
        return self.residual == "kept"

    def sample_noise(self, shape: torch.Size | tuple[int, ...]) -> dict[str, Tensor]:
        """Draw z ~ N(0, I), ``(*shape, J)``; the residual u is 0, ``(*shape, *event)``."""
        weight = next(self.parameters())
        noise = {"z": weight.new_empty(*shape, self.latent).normal_()}
        if self.residual == "kept":
            noise["u"] = weight.new_zeros(()).expand(*shape, *self.shape)
        return noise

    def infer(self, value: Tensor, parents: Variables) -> Tensor:
        """Return z = e(x, pa), ``(*batch, J)``, batch dimensions broadcast."""
        value = value.to(next(self.parameters()))
        image, context, batch = self._rows(value, self.shape, parents)
        found = self._in_chunks(self._infer_rows, self._scaled(image), context)
        return found.view(*batch, self.latent)

    def generate(self, noise: Tensor, parents: Variables) -> Tensor:
        """Return g(z, pa), ``(*batch, *event)``, black at −1 and white at 1."""
        flat, context, batch = self._rows(noise, (self.latent,), parents)
        return self._in_chunks(self._generate_rows, flat, context).view(*batch, *self.shape)

    def _in_chunks(
        self, network: Callable[[Tensor, Tensor], Tensor], rows: Tensor, context: Tensor
    ) -> Tensor:
        """Apply a network to a few rows at a time; to all at once if they need gradients."""
        size = max(_PIXELS_AT_A_TIME // self.domain.features, 1)
        if len(rows) <= size or torch.is_grad_enabled():
            return network(rows, context)
        parts = zip(rows.split(size), context.split(size), strict=True)
        return torch.cat([network(*each) for each in parts])

    def _rows(
        self, value: Tensor, event: Sequence[int], parents: Variables
    ) -> tuple[Tensor, Tensor, torch.Size]:
        """Broadcast values and contexts over the batch: rows ``(N, *event)``, ``(N, A)``."""
        context = self.context(parents).to(value)
        batch = common_shape(value.shape[: -len(event)], context.shape[:-1])
        flat = value.expand(*batch, *event).reshape(-1, *event)
        contexts = context.expand(*batch, context.shape[-1])
        return flat, contexts.reshape(len(flat), context.shape[-1]), batch

    def forward(self, noise: Noise, parents: Variables) -> Tensor:
        """Return x = h(g(z, pa) + u), continuous grey levels."""
        generated = self.generate(noise["z"], parents)
        if "u" in noise:
            generated = generated + noise["u"]
        return self.in_own_precision(self.preprocessing.inv(generated))

    def abduct(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Return z = e(x, pa), and the residual in double precision if it is kept."""
        latent = self.infer(value, parents)
        noise = {"z": latent.expand(*sample_shape, *latent.shape)}
        if self.residual == "kept":
            processed = self.preprocessing(in_double(value))
            found = processed - self.generate(latent, parents)
            noise["u"] = found.expand(*sample_shape, *found.shape)
        return noise

    def reconstruct(self, value: Tensor, parents: Variables) -> Tensor:
        """Return the recorded image of g(e(x, pa), pa), without the residual."""
        latent = self.infer(self.dequantise(value), parents)
        return self.quantise(self.preprocessing.inv(self.generate(latent, parents)))

    def distribution(self, parents: Variables) -> ImageDistribution:
        """Raise a NotImplementedError."""
        self._refuse()

    def evidence(self, value: Tensor, parents: Variables, num_particles: int = 1) -> Evidence:
        """Raise a NotImplementedError."""
        self._refuse()

    log_weights = log_prob = evidence  # type: ignore[assignment]

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} has no likelihood, nor a bound of it: its generator is trained "
            "by a critic; use MultiscaleFlow or ConditionalVAE for log-probabilities."
        )

    # Training

    def training_evidence(
        self, value: Tensor, parents: Variables, num_particles: int = 1
    ) -> Evidence:
        """Return the negative loss of each image, ``(*batch,)``.

        In training it is the sum of the losses of all players; in evaluation, the mean absolute
        error of the reconstruction, in grey levels.
        """
        image, context, batch = self._rows(value, self.shape, parents)
        losses = self._adversarial if self.training else self._reconstruction_error
        loss = losses(self._scaled(image), context).view(batch)
        return Evidence(-loss, torch.zeros_like(loss), is_loss=True)

    def _reconstruction_error(self, image: Tensor, context: Tensor) -> Tensor:
        again = self._shown(self._infer_rows(image, context), context)
        return (again - image).abs().flatten(1).mean(dim=1) * self.dequantisation.levels / 2

    def _adversarial(self, image: Tensor, context: Tensor) -> Tensor:
        """The sum of the losses of all players, ``(N,)``."""
        settings = self.loss
        observed = _Pair(image, self._infer_rows(image, context), context)
        generated, excess = self._generated(observed)
        with _constant(self.critic, self.critic_head):
            scores = self._score(observed), self._score(generated)
        total = settings.of_networks(*scores) + excess
        scores = self._score(observed.constant), self._score(generated.constant)
        total = total + settings.of_critic(*scores)
        if settings.penalty:
            total = total + 0.5 * settings.penalty * self._penalty(observed.constant)
        if settings.reconstruction:
            again = self._generate_rows(observed.noise, context)
            error = (again - image).square().flatten(1).mean(dim=1)
            total = total + settings.reconstruction * error
        if settings.moments:
            total = total + settings.moments * _distance_from_standard(observed.noise)
        if settings.noise_reconstruction:
            found = self._infer_rows(generated.image, generated.context)
            error = (found - generated.noise.detach()).square().mean(dim=1)
            total = total + settings.noise_reconstruction * error
        return total

    def _generated(self, observed: _Pair) -> tuple[_Pair, Tensor]:
        """Generated images of the parents of other rows, as recorded; what was cut off, ``(N,)``.

        The critic cannot see how far a pixel is outside of the grey levels, so that its gradient
        alone would drive pixels outwards without end.
        """
        order = torch.randperm(len(observed.context), device=observed.context.device)
        context = observed.context[order]
        drawn = torch.rand_like(observed.noise[:, :1])
        prior = torch.randn_like(observed.noise)
        noise = torch.where(drawn < self.loss.abducted, observed.noise, prior)
        image = self._generate_rows(noise, context)
        shown = _Inwards.apply(image)
        excess = (image - image.clamp(-1, 1)).abs().flatten(1).mean(dim=1)
        # The gradient is that of the image before its grey levels are whole.
        whole = self._scaled(self.dequantise(self.quantise(self.preprocessing.inv(image))))
        return _Pair(shown + (whole - shown).detach(), noise, context), excess

    def _score(self, pair: _Pair) -> Tensor:
        """D(x, z, pa), positive if it takes the row for an observed one, ``(N,)``."""
        joint = torch.cat([pair.noise, pair.context], dim=-1)
        features = torch.cat([self.critic(pair.image, joint), joint], dim=-1)
        score: Tensor = self.critic_head(features).to(pair.image).squeeze(-1)
        return score

    def _penalty(self, observed: _Pair) -> Tensor:
        """|∇ D|² with respect to image and noise, of some rows; 0 for all others, ``(N,)``."""
        count = len(observed.image)
        rows = slice(-(-count // _PENALISED))
        image, noise = observed.image[rows].clone(), observed.noise[rows].clone()
        inputs = (image.requires_grad_(), noise.requires_grad_())
        with torch.enable_grad():
            score = self._score(_Pair(image, noise, observed.context[rows])).sum()
            gradients = torch.autograd.grad(score, inputs, create_graph=torch.is_grad_enabled())
        squares = sum(each.flatten(1).square().sum(dim=1) for each in gradients)
        found = torch.as_tensor(squares).to(observed.image)
        # The mean over all rows is that over the penalised ones.
        return functional.pad(found * (count / len(found)), (0, count - len(found)))

    def _scaled(self, image: Tensor) -> Tensor:
        """Grey levels scaled to [−1, 1], for which the initial weights are suitable."""
        scaled: Tensor = self.preprocessing(image)
        return scaled

    def _infer_rows(self, image: Tensor, context: Tensor) -> Tensor:
        features = torch.cat([self.encoder(image, context), context], dim=-1)
        # Networks may compute in low precision.
        found: Tensor = self.encoder_head(features).to(image)
        return found

    def _generate_rows(self, noise: Tensor, context: Tensor) -> Tensor:
        generated: Tensor = self.generator(noise, context).to(noise)
        return generated

    def _shown(self, noise: Tensor, context: Tensor) -> Tensor:
        """Generated images, black and white at most."""
        return self._generate_rows(noise, context).clamp(-1, 1)

    # Collapse

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and the variance of pixels that the parents leave unexplained.

        It is that of the residuals of the least-squares regression of pixels on the parents, in at
        most 4,096 images, spread evenly over the split.
        """
        super().fit(value, parents)
        count = min(len(value), _IMAGES_FOR_BASELINE)
        rows = torch.linspace(0, len(value) - 1, count).long().to(value.device)
        image = value[rows].flatten(1).float()
        context = self.context({name: parent[rows] for name, parent in parents.items()}).float()
        context = context.expand(count, context.shape[-1]).to(image)
        design, _ = torch.linalg.qr(torch.cat([torch.ones_like(image[:, :1]), context], dim=1))
        residual = image - design @ (design.T @ image)
        self.baseline.copy_(residual.square().mean())

    @property
    def diagnostics(self) -> tuple[str, ...]:
        """Names of the quantities of :meth:`diagnose`."""
        return (_DIVERSITY, _ERROR, _FOOLED)

    def diagnose(self, value: Tensor, parents: Variables) -> dict[str, Tensor]:
        """Return quantities of recorded images that show a collapse, ``(N,)`` each.

        ``diversity`` is half the mean squared difference of two generated images of the same
        parents, as a fraction of the variance that the parents leave unexplained in the data: 0 if
        the generator ignores its noise, about 1 if it varies as the data do. The other one,
        ``unexplained_variance``, is the mean squared error of the reconstruction, as a fraction of
        the same: about 1 if the encoder ignores the image. ``critic_accuracy`` is the fraction of
        observed and generated images that the critic recognises: 0.5 if it is deceived.
        """
        image, context, _ = self._rows(self.dequantise(value), self.shape, parents)
        scaled = self._scaled(image)
        observed = _Pair(scaled, self._infer_rows(scaled, context), context)
        first, second = (self._shown(torch.randn_like(observed.noise), context) for _ in range(2))
        again = self._shown(observed.noise, context)
        unit = self.baseline * (2 / self.dequantisation.levels) ** 2
        scores = self._score(observed) > 0, self._score(self._generated(observed)[0]) < 0
        return {
            _DIVERSITY: (first - second).square().flatten(1).mean(dim=1) / (2 * unit),
            _ERROR: (again - scaled).square().flatten(1).mean(dim=1) / unit,
            _FOOLED: torch.stack(scores).float().mean(dim=0),
        }

    def failure(self, means: Mapping[str, float]) -> str | None:
        """Return the description of a collapse that the diagnostics show, if any."""
        diversity, error = means[_DIVERSITY], means[_ERROR]
        if diversity < _LEAST_DIVERSITY:
            return (
                "the generator has collapsed: expected images of the same parents to vary at "
                f"least {_LEAST_DIVERSITY:.0%} as much as the data, but got {diversity:.1%}; lower "
                "the learning rate, raise loss.noise_reconstruction or loss.penalty, or train "
                "longer."
            )
        if error > _MOST_ERROR:
            return (
                "the encoder has collapsed: expected reconstructions with at most "
                f"{_MOST_ERROR:.0%} of the error of a mean image, but got {error:.0%}; raise "
                "loss.reconstruction, or train longer."
            )
        return None


def _head(features: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, outputs))


def _distance_from_standard(noise: Tensor) -> Tensor:
    """(|E z|² + |E zzᵀ − I|²)/J, estimated without bias from noise ``(N, J)``; 0 for one row.

    The square of an expectation is the expectation of a product of independent estimates, here of
    the even and the odd rows.
    """
    count, size = len(noise) // 2, noise.shape[1]
    if count == 0:
        return noise.new_zeros(())
    halves = noise[: 2 * count : 2], noise[1 : 2 * count : 2]
    first, second = (each.mean(dim=0) for each in halves)
    unit = torch.eye(size, dtype=noise.dtype, device=noise.device)
    one, other = (each.T @ each / count - unit for each in halves)
    return (first @ second + (one * other).sum()) / size


class _Inwards(torch.autograd.Function):
    """Clamping to [−1, 1], with the gradients of pixels outside only if they point inside."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        ctx.save_for_backward(image)
        return image.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (image,) = ctx.saved_tensors
        outwards = ((image > 1) & (gradient < 0)) | ((image < -1) & (gradient > 0))
        return gradient.masked_fill(outwards, 0)


@contextmanager
def _constant(*modules: nn.Module) -> Iterator[None]:
    """Compute with the parameters of modules as constants, through which gradients pass."""
    trained = [each for module in modules for each in module.parameters() if each.requires_grad]
    for each in trained:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in trained:
            each.requires_grad_(True)
