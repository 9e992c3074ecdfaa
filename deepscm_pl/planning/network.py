"""The mechanism of images: a network whose size fits the pixels and the rows."""

from __future__ import annotations

import math
from typing import Any

from deepscm_pl.planning.pictures import ImageFingerprint

__all__ = ["image_mechanism", "image_shape", "preprocessing", "slicing"]

_NN, _LIKELIHOODS = "deepscm_pl.nn", "deepscm_pl.likelihoods"
_MANY_ROWS = 5000
_LARGEST_IMAGE, _LARGEST_VOLUME = 64, 40
_SMALLEST = 4
"""Size at which halving ends: the decoder starts there."""


def slicing(images: ImageFingerprint) -> dict[str, Any] | None:
    """The division of volumes into slices, if they are too large to be modelled whole."""
    if not images.is_volume or max(images.largest) <= _LARGEST_VOLUME:
        return None
    return {"axis": "axial", "slices": [0.5]}


def image_shape(images: ImageFingerprint) -> tuple[int, ...]:
    """Shape of the images of the model, (channels, *sizes)."""
    sizes = images.largest if images.is_volume else images.sizes
    if slicing(images) is not None:
        sizes = sizes[1::-1]  # rows from front to back, columns from left to right
    largest = _LARGEST_VOLUME if len(sizes) == 3 else _LARGEST_IMAGE
    scale = min(1.0, largest / max(sizes))
    if scale < 1:
        sizes = tuple(max(_SMALLEST, 4 * round(size * scale / 4)) for size in sizes)
    return (images.channels, *sizes)


def preprocessing(images: ImageFingerprint) -> tuple[dict[str, Any], dict[str, str]]:
    """The steps from the files to images of one shape, with reasons by setting."""
    steps: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if images.type != "uint8":
        found = f"{images.type} from {images.lowest:g} to {images.highest:g}"
        is_picture = images.type == "uint16" and not images.is_volume
        if is_picture and images.highest > 2**15:
            steps["normalisation"] = "depth"
            reasons["normalisation"] = f"{found}: one scale for all images"
        elif is_picture:
            steps |= {"normalisation": "window", "window": [0.0, images.highest]}
            reasons["normalisation"] = f"{found}, less than half of 16 bits: one scale for all"
            reasons["window"] = f"the highest of {images.inspected} images"
        else:
            steps["normalisation"] = "percentiles"
            reasons["normalisation"] = f"{found}: each from its 0.5th to its 99.5th percentile"
    if images.channels == 3:
        steps["colour"] = "rgb"
        reasons["colour"] = "at least one image is in colour"
    cut = slicing(images) is not None
    sizes_found = images.sizes[1::-1] if cut else images.sizes
    if images.is_volume and images.different_sizes > 1:
        # Heads keep their sizes, which may be what a cause changes.
        steps["field_of_view"] = list(images.largest[1::-1] if cut else images.largest)
        reasons["field_of_view"] = f"{images.different_sizes} different sizes are padded to one"
    _, *sizes = image_shape(images)
    if tuple(sizes) != sizes_found or (images.different_sizes > 1 and not images.is_volume):
        steps["shape"] = list(sizes)
        reasons["shape"] = (
            f"{images.different_sizes} different sizes become one"
            if images.different_sizes > 1
            else f"from {' × '.join(map(str, sizes_found))}: larger ones take hours on a CPU"
        )
    return steps, reasons


def image_mechanism(images: ImageFingerprint, rows: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Choose the mechanism of images.

    Args:
        images: The images.
        rows: Number of training rows.

    Returns:
        Class and arguments, and the reasons by dotted path within them.
    """
    shape = image_shape(images)
    _, *sizes = shape
    halvings = max(1, min(4, round(math.log2(min(sizes) / _SMALLEST))))
    latent = 16 if rows < 500 else 32 if rows < _MANY_ROWS else 64
    widest = 64 if rows < _MANY_ROWS else 128
    if len(sizes) == 3:
        widest //= 2
    channels = [max(8, widest >> (halvings - 1 - scale)) for scale in range(halvings)]
    where = "init_args"
    reasons = {
        "": f"{images.channels} × {' × '.join(map(str, sizes))} numbers in each image",
        f"{where}.shape": "channels and sizes, as the data module gives them",
        f"{where}.latent": f"{rows:,} training rows",
        f"{where}.encoder.init_args.channels": f"sizes are halved {halvings} times",
        f"{where}.decoder.init_args.channels": "the encoder's, in reverse",
    }
    reasons[f"{where}.coupling"] = "pixel noise is drawn anew where the picture changes"
    likelihood, reason = _likelihood(rows, len(sizes))
    reasons |= {f"{where}.likelihood.init_args.{key}": reason for key in likelihood["init_args"]}
    if len(sizes) == 3:
        encoder = {"channels": channels, "features": 64, "convolutions": 2}
        decoder = {"channels": channels[::-1], "convolutions": 2}
        networks = "Pyramid"
    else:
        features = 64 if rows < _MANY_ROWS else 128
        encoder = {"channels": channels, "features": features}
        decoder = {"hidden": 128 if rows < 1000 else 256, "channels": channels[::-1]}
        reasons[f"{where}.encoder.init_args.features"] = "a small layer: most weights are here"
        reasons[f"{where}.decoder.init_args.hidden"] = "a small layer, for the same reason"
        networks = "Residual"
    arguments = {
        "shape": list(shape),
        "latent": latent,
        "encoder": {"class_path": f"{_NN}.{networks}Encoder", "init_args": encoder},
        "decoder": {"class_path": f"{_NN}.{networks}Decoder", "init_args": decoder},
        "likelihood": likelihood,
        "coupling": "renewed",
    }
    return {"class_path": "deepscm_pl.mechanisms.ConditionalVAE", "init_args": arguments}, reasons


def _likelihood(rows: int, dimensions: int) -> tuple[dict[str, Any], str]:
    """The distribution of pixels given the output of the decoder, and the reason."""
    if rows < _MANY_ROWS:
        return {
            "class_path": f"{_LIKELIHOODS}.FixedVarianceGaussian",
            "init_args": {"log_variance": -5},
        }, (
            "fixed pixel noise: with few rows the decoder learns the effects of the causes early; "
            "a mixture learned none of those on 300 drawn shapes in the same time"
        )
    return {
        "class_path": f"{_LIKELIHOODS}.DiscretisedLogisticMixture",
        "init_args": {"num_components": 3 if dimensions == 2 else 1},
    }, "logistics for each pixel and channel, integrated over whole grey levels"
