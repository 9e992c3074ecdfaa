"""Distributions without parents and without a latent: what a model has to be better than."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepscm_pl.mechanisms import Mechanism
from deepscm_pl.mechanisms.image import ImageMechanism
from deepscm_pl.mechanisms.latent import LatentImageMechanism
from deepscm_pl.variables import Domain

__all__ = ["constant_image_log_probs", "constant_scalar_log_probs"]

_STEPS = 100
_LEARNING_RATE = 0.1
_NUMBERS = 2**22
"""Pixels of the training images in a step, at most, unless eight images have more."""
_FEWEST_IMAGES, _MOST_IMAGES = 8, 256
_LARGEST_ATOM = 0.1
"""Share of one value in a column of numbers beyond which it has no density."""


def constant_scalar_log_probs(domain: Domain, training: Tensor, asked: Tensor) -> Tensor | None:
    """Return the log-probability of the best distribution without parents, in nats.

    Classes, whole numbers and multiples of a step have their frequencies in the training split,
    each counted once more, so that none is 0; others a normal distribution.

    Args:
        domain: The domain of the variable.
        training: Values of the training split, ``(n, 1)``.
        asked: Values of other rows, ``(N, 1)``.

    Returns:
        ``(N,)``; None for numbers of which one is in more than a tenth of the rows, such as zero
        doses, and for constants.

    Example:
        >>> pair, four = Domain(categories=2), torch.tensor([[0.0], [1.0], [1.0], [1.0]])
        >>> constant_scalar_log_probs(pair, four, torch.tensor([[1.0]])).exp()
        tensor([0.6667], dtype=torch.float64)
    """
    known, value = training.double().flatten(), asked.double().flatten()
    known = known[known.isfinite()]
    step = 1.0 if domain.whole or domain.categories is not None else domain.step
    if step is not None:
        return _frequencies(known / step, value / step, domain.categories)
    deviation = known.std(correction=0)
    _, counts = known.unique(return_counts=True)
    if not float(deviation) > 0 or int(counts.max()) > _LARGEST_ATOM * len(known):
        return None
    standardised = (value - known.mean()) / deviation
    return -0.5 * standardised.square() - deviation.log() - 0.5 * math.log(2 * math.pi)


def _frequencies(known: Tensor, value: Tensor, categories: int | None) -> Tensor:
    known, value = known.round().long(), value.round().long()
    low, count = int(known.min()), int(known.max() - known.min()) + 1
    if categories is not None:
        low, count = 0, categories
    inside = (value >= low) & (value < low + count)
    counts = (known - low).bincount(minlength=count)
    found = torch.where(inside, counts[(value - low).clamp(0, count - 1)], 0)
    return ((found + 1).double() / (len(known) + count)).log()


def constant_image_log_probs(
    mechanism: Mechanism, training: Tensor, asked: Tensor, seed: int = 0
) -> Tensor | None:
    """Return the log-density of the best image distribution without parents and without a latent.

    It has the likelihood of the mechanism, with the same output of the decoder for every image,
    which is found by gradient ascent. An image mechanism without a likelihood of pixels is compared
    with a normal distribution of each pixel.

    Args:
        mechanism: The mechanism of an image.
        training: Recorded images of the training split, ``(n, *shape)``; an even selection is used.
        asked: Recorded images, ``(N, *shape)``.
        seed: Seed of the fractions of grey levels; the state of torch's generators is restored.

    Returns:
        Nats per image, ``(N,)``, of the dequantised images; None if the mechanism is not one that
        dequantises images.
    """
    if not isinstance(mechanism, ImageMechanism):
        return None
    device = next(mechanism.parameters()).device
    rows = min(max(_NUMBERS // mechanism.domain.features, _FEWEST_IMAGES), _MOST_IMAGES)
    some = training[:: -(-len(training) // rows)].to(device)
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.inference_mode(False),
    ):
        torch.manual_seed(seed)
        known = mechanism.in_plane(mechanism.dequantise(some))
        value = mechanism.in_plane(mechanism.dequantise(asked.to(device)))
        if isinstance(mechanism, LatentImageMechanism):
            found = _constant_output(mechanism, known.clone(), value.clone())
        else:
            found = _independent_pixels(known.double(), value.double())
    return found.double().cpu()


def _constant_output(mechanism: LatentImageMechanism, known: Tensor, value: Tensor) -> Tensor:
    likelihood, transform = mechanism.likelihood, mechanism.preprocessing
    output = known.new_zeros(1, mechanism.outputs, *known.shape[-2:], requires_grad=True)
    optimizer = torch.optim.Adam([output], _LEARNING_RATE)
    processed = transform(known).detach()

    def log_prob(image: Tensor) -> Tensor:
        is_scaled = mechanism.brightness is not None
        decoded = likelihood.scaled(output, output.new_ones(1, 1, 1)) if is_scaled else output
        return likelihood.log_prob(decoded, image)

    with torch.enable_grad():
        for _ in range(_STEPS):
            # The gradient of the output alone; the weights of the model keep theirs.
            (output.grad,) = torch.autograd.grad(-log_prob(processed).mean(), [output])
            optimizer.step()
    with torch.no_grad():
        processed = transform(value)
        jacobian = transform.log_abs_det_jacobian(value, processed)
        return log_prob(processed) + jacobian.flatten(-3).sum(-1)


def _independent_pixels(known: Tensor, value: Tensor) -> Tensor:
    mean, variance = known.mean(dim=0), known.var(dim=0, correction=0).clamp(min=1 / 12)
    squares = (value - mean).square() / variance
    return (-0.5 * (squares + (2 * math.pi * variance).log())).flatten(-3).sum(-1)
