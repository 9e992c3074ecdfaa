"""The models of Morpho-MNIST in plain PyTorch, each with its loss, as one would write them.

A plain model has the weights of a :class:`~deepscm_pl.training.DeepSCM` and computes its loss
without it: attributes and the preparation of images are written by hand, and so is the loss of each
mechanism of the image. The networks of the image are copies of the mechanism's, which are modules
of PyTorch; those of :class:`PlainVAE` are written by hand as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.training import DeepSCM

__all__ = [
    "PlainAdversary",
    "PlainExposureVAE",
    "PlainFlowMatching",
    "PlainImage",
    "PlainImageFlow",
    "PlainLadderVAE",
    "PlainModel",
    "PlainVAE",
]

_LEVELS, _ALPHA, _LOG_VARIANCE, _BOUND, _BINS = 256, 0.05, -5.0, 4.0, 8
_MARGIN = 2.0**-20 * _LEVELS


class PlainModel(nn.Module):
    """A Morpho-MNIST model, written by hand in plain PyTorch.

    Args:
        model: Gives the weights and the statistics of the data.
        image: The kind of the image, called with the mechanism.
    """

    def __init__(self, model: DeepSCM, image: Callable[[Any], PlainImage]) -> None:
        super().__init__()
        thickness, intensity, mechanism = (
            model.scm[name] for name in ("thickness", "intensity", "image")
        )
        self.spline = _copy(next(thickness.parameters()))
        weight, bias = intensity.parameters()
        self.affine_weight, self.affine_bias = _copy(weight), _copy(bias)
        self.has_digit = "digit" in model.scm.graph.nodes
        if self.has_digit:
            digit = model.scm["digit"]
            self.digit = _copy(next(digit.parameters()))
            self.register_buffer("digit_start", digit.get_buffer("initial_logits").clone())
        self.image = image(mechanism)
        self.scales = [
            (float(each.constraint.location), float(each.constraint.scale))  # type: ignore
            for each in (thickness, intensity)
        ]
        context, names = mechanism.context, ("thickness", "intensity")
        for part in ("mean", "deviation"):
            found = [context.get_buffer(f"{name}_{part}") for name in names]  # type: ignore
            self.register_buffer(part, torch.cat(found))

    def groups(self) -> list[list[nn.Parameter]]:
        """The parameters of each variable, of the image last."""
        digit = [[self.digit]] if self.has_digit else []
        affine = [self.affine_weight, self.affine_bias]
        return [[self.spline], affine, *digit, [*self.image.parameters()]]

    def loss(self, batch: dict[str, Tensor], particles: int) -> Tensor:
        """The negative objective, averaged over the batch."""
        noise, margin = torch.rand_like(batch["image"]), self.image.margin
        image = batch["image"] + margin + (1 - 2 * margin) * noise
        thickness, intensity = batch["thickness"], batch["intensity"]
        context = (torch.cat([thickness, intensity], dim=1) - self.mean) / self.deviation
        log_prob = self._thickness(thickness) + self._intensity(intensity, context[:, :1])
        if self.has_digit:
            digit = batch["digit"].long().squeeze(1)
            log_prob = log_prob + (self.digit_start + self.digit).log_softmax(0)[digit]
            context = torch.cat([context, functional.one_hot(digit, 10)], dim=1)
        return -(log_prob + self.image(image, context, particles)).mean()

    def _thickness(self, value: Tensor) -> Tensor:
        """log p of x = exp(m + s·(μ + σ·S(u)))."""
        location, scale = self.scales[0]
        logarithm = value.log()
        shift, log_scale, widths, heights, slopes = self.spline.split([1, 1, _BINS, _BINS, 7])
        y = ((logarithm - location) / scale - shift) * (-log_scale).exp()
        u, log_slope = _inverse_spline(y, widths, heights, slopes)
        jacobian = log_slope + log_scale + math.log(scale) + logarithm
        return (_log_normal(u) - jacobian).squeeze(1)

    def _intensity(self, value: Tensor, context: Tensor) -> Tensor:
        """log p of x = 64 + 191·σ(m + s·(μ(pa) + σ(pa)·u))."""
        location, scale = self.scales[1]
        share = (value - 64) / 191
        raw = share.log() - (-share).log1p()
        with torch.autocast(context.device.type, enabled=False):
            parameters = functional.linear(context, self.affine_weight, self.affine_bias)
        shift, log_scale = parameters.chunk(2, dim=1)
        u = ((raw - location) / scale - shift) * (-log_scale).exp()
        jacobian = log_scale + math.log(191 * scale) + share.log() + (-share).log1p()
        return (_log_normal(u) - jacobian).squeeze(1)


class PlainImage(nn.Module):
    """A network of images with its objective.

    ``forward`` returns, of images in continuous grey levels ``(batch, C, H, W)``, of their parents
    ``(batch, A)`` and of a number of draws, the bound or the negative loss of each, ``(batch,)``.

    Attributes:
        margin: Distance between images with dequantisation noise and the next grey level.
    """

    margin = _MARGIN


class PlainVAE(PlainImage):
    """The variational autoencoder of the paper, with a Gaussian of fixed variance."""

    def __init__(self, mechanism: Any) -> None:
        super().__init__()
        self.networks = _make_networks()
        pairs = zip(self.networks.parameters(), mechanism.parameters(), strict=True)
        with torch.no_grad():
            for mine, given in pairs:
                mine.copy_(given)

    def forward(self, value: Tensor, context: Tensor, particles: int) -> Tensor:
        """E_q[log p(x | z, pa)] − KL(q ‖ p)."""
        features = self.networks["encoder"](2 * value / _LEVELS - 1)
        parameters = self.networks["head"](torch.cat([features, context], dim=1)).float()
        latent, divergence = _draw(parameters, particles)
        inputs = torch.cat([latent, context.expand(particles, -1, -1)], dim=2).flatten(0, 1)
        mean = self.networks["decoder"](inputs).float().view(particles, *value.shape)
        y, log_slope = _logit(value)
        u = (y - mean) * math.exp(-_LOG_VARIANCE / 2)
        log_prob = _log_normal(u) + log_slope - _LOG_VARIANCE / 2
        return log_prob.flatten(2).sum(2).mean(0) - divergence


class PlainExposureVAE(PlainImage):
    """Residual networks, one scale of grey levels for each image, and a mixture of logistics."""

    def __init__(self, mechanism: Any) -> None:
        super().__init__()
        self.encoder, self.head, self.decoder, self.exposure = (
            deepcopy(each)
            for each in (
                mechanism.encoder,
                mechanism.posterior_head,
                mechanism.decoder,
                mechanism.brightness.exposure,
            )
        )
        self.mixture = _Mixture(mechanism.likelihood)

    def forward(self, value: Tensor, context: Tensor, particles: int) -> Tensor:
        """E_q[log P(x | z, pa)] − KL(q ‖ p)."""
        image, seen = _without_exposure(self.exposure, value, context)
        parameters = self.head(torch.cat([self.encoder(image, context), context, seen], dim=1))
        latent, divergence = _draw(parameters.float(), particles)
        flat, contexts = latent.flatten(0, 1), context.repeat(particles, 1)
        decoded = self.decoder(flat, contexts).float()
        factor = self.exposure(flat, contexts)
        found = self.mixture(decoded, value.repeat(particles, 1, 1, 1), factor)
        return found.view(particles, -1).mean(0) - divergence


def _without_exposure(exposure: Any, value: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Images of one scale in [-1, 1], and the scale of each, standardised given its parents."""
    pixels = value.flatten(1)
    level = pixels.topk(math.ceil(0.005 * pixels.shape[1]), dim=1).values[:, -1:]
    share = (level / _LEVELS).clamp(min=1 / _LEVELS)
    image = 2 * (value / share[..., None, None]) / _LEVELS - 1
    return image, exposure.standardise(share.log(), context)


class _Mixture:
    """Log-probabilities of a mixture of logistics over grey levels, with their scale."""

    def __init__(self, likelihood: Any) -> None:
        self.count, self.floor = likelihood.num_components, likelihood.log_scale
        self.share = likelihood.uniform_weight
        self.middles = (torch.arange(self.count) + 0.5) / self.count

    def __call__(self, decoded: Tensor, value: Tensor, factor: Tensor | None = None) -> Tensor:
        logits, offset, raw = decoded.unflatten(1, (3, self.count, -1)).unbind(1)
        middles = self.middles.to(decoded).view(-1, 1, 1, 1)
        location = middles + offset / 2
        if factor is not None:
            factor = factor[..., None, None, None]
            location = factor * (offset + middles.logit()).sigmoid()
            raw = raw + factor.log()
        scale = self.floor(raw).exp()
        level = value.floor().clamp(0, _LEVELS - 1).unsqueeze(1)
        low = (level - _LEVELS * location) / scale
        high = (low + 1 / scale).masked_fill(level == _LEVELS - 1, math.inf)
        low = low.masked_fill(level == 0, -math.inf)
        mass = high.sigmoid() * (-low).sigmoid() * -torch.expm1(low - high)
        probability = (1 - self.share) * (logits.softmax(1) * mass).sum(1) + self.share / _LEVELS
        return probability.log().flatten(1).sum(1)


class PlainLadderVAE(PlainImage):
    """A ladder of latents, one scale of grey levels for each image, and a mixture of logistics."""

    def __init__(self, mechanism: Any) -> None:
        super().__init__()
        self.ladder = deepcopy(mechanism.ladder)
        self.exposure = deepcopy(mechanism.brightness.exposure)
        self.mixture = _Mixture(mechanism.likelihood)

    def forward(self, value: Tensor, context: Tensor, particles: int) -> Tensor:
        """E_q[log P(x | z, pa)] − KL(q ‖ p), of one draw."""
        image, seen = _without_exposure(self.exposure, value, context)
        features = self.ladder.encode(image, torch.cat([context, seen], dim=1))
        new = self.ladder.split(torch.randn(len(value), self.ladder.latent, device=value.device))
        divergences, latent = [], []

        def choose(position: int, rung: Any, state: Tensor, _: Tensor) -> Tensor:
            location, log_scale = rung.posterior_moments(state, features[position], value.dtype)
            divergences.append(_divergence(location, log_scale).flatten(1).sum(1))
            draw: Tensor = location + log_scale.exp() * new[position]
            latent.append(draw.flatten(1))
            return draw

        decoded = self.ladder(context, choose).float()
        factor = self.exposure(torch.cat(latent, dim=1), context)
        return self.mixture(decoded, value, factor) - torch.stack(divergences).sum(0)


class PlainFlowMatching(PlainImage):
    """The squared error of a velocity, with noise assigned to images by optimal transport."""

    margin = 2e-3

    def __init__(self, mechanism: Any) -> None:
        super().__init__()
        self.network, self.comparable = deepcopy(mechanism.network), mechanism.comparable
        self.register_buffer("edges", mechanism.cells.edges.clone())

    def forward(self, value: Tensor, context: Tensor, particles: int) -> Tensor:
        """The negative mean squared error of each image."""
        level = value.floor().clamp(0, _LEVELS - 1).long()
        width = self.edges[level + 1] - self.edges[level]
        image = self.edges[level] + (value - level) * width
        noise = self._assigned(image, torch.randn_like(image), context)
        time = torch.rand(len(image), 1, device=image.device)
        angles = time * math.pi * torch.arange(1, 9, device=image.device)
        condition = torch.cat([context, time, angles.sin(), angles.cos()], dim=1)
        s = time[..., None, None]
        state, variance = (1 - s) * noise + s * image, s.square() + (1 - s).square()
        rest = self.network(state / variance.sqrt(), condition).float()
        velocity = (2 * s - 1) / variance * state + rest / variance.sqrt()
        return -(velocity - (image - noise)).square().flatten(1).mean(1)

    @torch.no_grad()
    def _assigned(self, image: Tensor, noise: Tensor, context: Tensor) -> Tensor:
        products = -2 * image.flatten(1) @ noise.flatten(1).T
        distance = torch.cdist(context, context).square()
        cost = products / products.std() + self.comparable * distance
        _, chosen = linear_sum_assignment(cost.float().cpu().numpy())
        return noise[torch.as_tensor(chosen, device=noise.device)]


class PlainImageFlow(PlainImage):
    """A multi-scale flow, whose bijection is a network with a log-determinant."""

    def __init__(self, mechanism: Any) -> None:
        super().__init__()
        self.bijection = deepcopy(mechanism.bijection)

    def forward(self, value: Tensor, context: Tensor, particles: int) -> Tensor:
        """The log-density of each image."""
        y, log_slope = _logit(value)
        with torch.autocast(value.device.type, enabled=False):
            u, log_determinant = self.bijection(y, context)
        return (_log_normal(u) + log_slope).flatten(1).sum(1) + log_determinant


class PlainAdversary(PlainImage):
    """Encoder and generator against a critic, all of whose losses are added up."""

    def __init__(self, mechanism: Any) -> None:
        super().__init__()
        names = ("encoder", "generator", "critic", "encoder_head", "critic_head")
        self.networks = nn.ModuleDict({n: deepcopy(getattr(mechanism, n)) for n in names})
        self.weights = mechanism.loss

    def forward(self, value: Tensor, context: Tensor, particles: int) -> Tensor:
        """The negative sum of the losses of each image."""
        image = 2 * value / _LEVELS - 1
        noise = self._infer(image, context)
        observed = (image, noise, context)
        generated, excess = self._generated(noise, context)
        critics = [self.networks["critic"], self.networks["critic_head"]]
        for each in critics:
            each.requires_grad_(False)
        total = excess + functional.softplus(self._score(*observed))
        total = total + functional.softplus(-self._score(*generated))
        for each in critics:
            each.requires_grad_(True)
        total = total + functional.softplus(-self._score(*(e.detach() for e in observed)))
        total = total + functional.softplus(self._score(*(e.detach() for e in generated)))
        rows = slice(-(-len(image) // 4))
        penalty = self._penalty(*(each[rows].detach() for each in observed))
        again = (self._generate(noise, context) - image).square().flatten(1).mean(1)
        found = self._infer(generated[0], generated[2])
        total = total + self.weights.penalty / 2 * penalty
        total = total + self.weights.reconstruction * again
        total = total + self.weights.moments * self._moments(noise)
        errors = (found - generated[1].detach()).square().mean(1)
        return -(total + self.weights.noise_reconstruction * errors)

    def _moments(self, noise: Tensor) -> Tensor:
        """The squared distance of the first two moments from those of N(0, I), by halves."""
        even, odd = noise[::2], noise[1::2]
        unit = torch.eye(noise.shape[1], device=noise.device)
        covariances = [each.T @ each / len(each) - unit for each in (even, odd)]
        distance = (even.mean(0) * odd.mean(0)).sum() + (covariances[0] * covariances[1]).sum()
        return distance / noise.shape[1]

    def _generated(
        self, noise: Tensor, context: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Images of the parents of other rows, and by how much pixels were outside."""
        context = context[torch.randperm(len(context), device=context.device)]
        is_own = torch.rand_like(noise[:, :1]) < self.weights.abducted
        noise = torch.where(is_own, noise, torch.randn_like(noise))
        image = self._generate(noise, context)
        shown = image.clamp(-1, 1)
        excess = (image - shown).abs().flatten(1).mean(1)
        recorded = ((image.detach() + 1) * _LEVELS / 2).floor().clamp(0, _LEVELS - 1)
        recorded = recorded + _MARGIN + (1 - 2 * _MARGIN) * torch.rand_like(recorded)
        image = shown + (2 * recorded / _LEVELS - 1 - shown).detach()
        return (image, noise, context), excess

    def _infer(self, image: Tensor, context: Tensor) -> Tensor:
        features = torch.cat([self.networks["encoder"](image, context), context], dim=1)
        found: Tensor = self.networks["encoder_head"](features).float()
        return found

    def _generate(self, noise: Tensor, context: Tensor) -> Tensor:
        found: Tensor = self.networks["generator"](noise, context).float()
        return found

    def _score(self, image: Tensor, noise: Tensor, context: Tensor) -> Tensor:
        joint = torch.cat([noise, context], dim=1)
        features = torch.cat([self.networks["critic"](image, joint), joint], dim=1)
        found: Tensor = self.networks["critic_head"](features).float().squeeze(1)
        return found

    def _penalty(self, image: Tensor, noise: Tensor, context: Tensor) -> Tensor:
        """The squared gradient of the critic, averaged over the rows."""
        inputs = (image.requires_grad_(), noise.requires_grad_())
        score = self._score(image, noise, context).sum()
        gradients = torch.autograd.grad(score, inputs, create_graph=True)
        return torch.stack([each.square().sum() for each in gradients]).sum() / len(image)


def _draw(parameters: Tensor, particles: int) -> tuple[Tensor, Tensor]:
    """Draws of a Gaussian latent ``(particles, batch, J)``, and its divergence ``(batch,)``."""
    location, log_scale = parameters.chunk(2, dim=1)
    log_scale = log_scale.clamp(max=20.0)
    noise = torch.randn(particles, *location.shape, device=location.device)
    return location + log_scale.exp() * noise, _divergence(location, log_scale).sum(1)


def _divergence(location: Tensor, log_scale: Tensor) -> Tensor:
    return 0.5 * (location.square() + (2 * log_scale).exp() - 1 - 2 * log_scale)


def _logit(value: Tensor) -> tuple[Tensor, Tensor]:
    """logit(α + (1 − α)·x/L) and the log of its slope."""
    log_p = torch.log(_ALPHA + (1 - _ALPHA) / _LEVELS * value)
    log_q = torch.log((1 - _ALPHA) / _LEVELS * (_LEVELS - value))
    return log_p - log_q, math.log((1 - _ALPHA) / _LEVELS) - log_p - log_q


def _copy(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone())


def _make_networks() -> nn.ModuleDict:
    """Encoder, posterior head and decoder."""
    encoder = [nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(64, 128, 4, 2, 1)]
    head = [nn.Linear(102, 100), nn.LeakyReLU(0.1), nn.Linear(100, 32)]
    decoder = [nn.Linear(18, 1024), nn.LeakyReLU(0.1), nn.Linear(1024, 6272), nn.LeakyReLU(0.1)]
    doubling = [nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.LeakyReLU(0.1)]
    features = [nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(6272, 100), nn.LeakyReLU(0.1)]
    last = nn.ConvTranspose2d(64, 1, 4, 2, 1)
    return nn.ModuleDict(
        {
            "encoder": nn.Sequential(*encoder, *features),
            "head": nn.Sequential(*head),
            "decoder": nn.Sequential(*decoder, nn.Unflatten(1, (128, 7, 7)), *doubling, last),
        }
    )


def _log_normal(u: Tensor) -> Tensor:
    return -0.5 * u.square() - 0.5 * math.log(2 * math.pi)


def _inverse_spline(
    y: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """The input of a rational-quadratic spline with output ``y``, and the log of its slope."""
    knots_x, knots_y = _knots(widths), _knots(heights)
    derivatives = functional.softplus(slopes + math.log(math.e - 1))
    derivatives = functional.pad(1e-3 + (1 - 1e-3) * derivatives, (1, 1), value=1.0)
    index = (y.detach() >= knots_y[1:-1].detach()).sum(dim=1, keepdim=True)
    x_0, y_0, d_0 = knots_x[index], knots_y[index], derivatives[index]
    width, height = knots_x[index + 1] - x_0, knots_y[index + 1] - y_0
    d_1, s = derivatives[index + 1], height / width
    rise = (y - y_0).clamp(min=0).minimum(height)
    curvature = d_1 + d_0 - 2 * s
    a, b = height * (s - d_0) + rise * curvature, height * d_0 - rise * curvature
    root = (b.square() + 4 * a * s * rise).clamp(min=0).sqrt()
    xi = 2 * s * rise / (b + root)
    cross = xi * (1 - xi)
    top = d_1 * xi.square() + 2 * s * cross + d_0 * (1 - xi).square()
    log_slope = 2 * s.log() + top.log() - 2 * (s + curvature * cross).log()
    inside = y.abs() < _BOUND
    return (
        torch.where(inside, x_0 + xi * width, y),
        torch.where(inside, log_slope, torch.zeros_like(y)),
    )


def _knots(logits: Tensor) -> Tensor:
    sizes = 1e-3 + (1 - 1e-3 * _BINS) * logits.softmax(dim=0)
    inner = 2 * _BOUND * sizes.cumsum(dim=0)[:-1] - _BOUND
    return functional.pad(functional.pad(inner, (1, 0), value=-_BOUND), (0, 1), value=_BOUND)
