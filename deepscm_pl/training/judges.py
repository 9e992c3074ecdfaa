"""Trained networks as judges of a protocol, and as feature networks of its distances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.configuration import restore_class
from deepscm_pl.digest import weights_digest
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.protocols.judging import Judge
from deepscm_pl.mechanisms import ConditionalVAE
from deepscm_pl.training.image_classifier import ImageClassifier
from deepscm_pl.training.image_regressor import ImageRegressor

__all__ = ["LatentEmbedding", "judges_from", "network_of"]

_AT_A_TIME = 256


def judges_from(
    files: Mapping[str, str | Path],
    model: ModelOnData,
    tuned_by: Collection[str] = (),
    trust: Sequence[str] = (),
) -> list[Judge]:
    """Load trained networks as judges of variables.

    Args:
        files: For each variable the checkpoint of an :class:`ImageClassifier` of a class, or of an
            :class:`ImageRegressor` of a number.
        model: The judged model and its data.
        tuned_by: Digests of the predictors by which the model was tuned
            (:func:`~deepscm_pl.digest.weights_digest`); a judge must be another one.
        trust: Packages whose classes a file may name.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a variable is no cause of the image, a network is of another kind, of images
            of another shape or of another variable, or the model was tuned by it.
    """
    (image,) = model.scm.image_variables
    known = [name for name in model.scm.graph.parents[image] if name in model.scalars]
    judges = []
    for name, path in files.items():
        if name not in known:
            raise ValueError(
                f"judge: expected a cause of the image, {', '.join(known)}, but got {name!r}; "
                "remove it."
            )
        network = network_of(path, trust)
        _require_fitting(network, path, name, model, image)
        digest = weights_digest(network)
        if digest in tuned_by:
            raise ValueError(
                f"judge: expected a network that the model has not seen, but got {path}, by which "
                "it was tuned; train another judge, with another seed."
            )
        device = model.scm.fitted.device
        read = partial(_read, network.to(device), name, model.scm[name].domain.categories)
        judges.append(Judge("network", (name,), read, digest))
    return judges


def network_of(path: str | Path, trust: Sequence[str] = ()) -> ImageClassifier | ImageRegressor:
    """Load an :class:`ImageClassifier` or an :class:`ImageRegressor`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is of another class.
    """
    opened = Checkpoint.read(path, trust=trust)
    kind = opened.content.get("model_class")
    found: type[Any] | None = None
    if isinstance(kind, str):
        found = restore_class(kind, (ImageClassifier, ImageRegressor), trust)
    if found is None:
        raise ValueError(
            f"judge: expected the checkpoint of an ImageClassifier or an ImageRegressor, but got "
            f"that of a causal model, {path}; train a judge, such as morphomnist/judge_digit."
        )
    network: ImageClassifier | ImageRegressor = opened.build(found)
    network.requires_grad_(False)
    return network


class LatentEmbedding(nn.Module):
    """Mean and log-scale of the latent of an autoencoder without parents, of images.

    Args:
        path: Checkpoint of a causal model whose image is a
            :class:`~deepscm_pl.mechanisms.ConditionalVAE` without parents, such as
            ``morphomnist/independent``.
        trust: Packages whose classes the file may name.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the image has parents, or is of another mechanism.
    """

    def __init__(self, path: str | Path, trust: Sequence[str] = ()) -> None:
        super().__init__()
        scm = Checkpoint.read(path, trust=trust).trained_model().scm
        mechanism = scm[scm.image_variables[0]] if len(scm.image_variables) == 1 else None
        if not isinstance(mechanism, ConditionalVAE) or scm.graph.parents[scm.image_variables[0]]:
            raise ValueError(
                f"embedding: expected a model of one image without parents by a ConditionalVAE, "
                f"but got {path}; train one, such as morphomnist/independent."
            )
        self.mechanism = mechanism.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-scale ``(B, D)`` of images in grey levels."""
        posterior = self.mechanism.posterior(images + 0.5, {})
        return posterior.location, posterior.log_scale


def _read(
    network: Callable[[Tensor], Tensor], name: str, categories: int | None, images: Tensor
) -> dict[str, Tensor]:
    parts = []
    with torch.no_grad():
        for some in images.split(_AT_A_TIME):
            output = network(some.float().to(next(network.parameters()).device))  # type: ignore[attr-defined]
            parts.append(output.flatten() if categories is None else output.argmax(dim=-1))
    return {name: torch.cat(parts).double().cpu()}


def _require_fitting(
    network: ImageClassifier | ImageRegressor,
    path: str | Path,
    name: str,
    model: ModelOnData,
    image: str,
) -> None:
    categories = model.scm[name].domain.categories
    wanted = ImageRegressor if categories is None else ImageClassifier
    if not isinstance(network, wanted):
        raise ValueError(
            f"judge: expected an {wanted.__name__} of {name}, but got the "
            f"{type(network).__name__} {path}; train another judge."
        )
    label = network.label
    if label != name and (label in model.scm.graph or isinstance(network, ImageRegressor)):
        raise ValueError(
            f"judge: expected a network that reads {name}, but got {path}, which reads {label}; "
            "give the judge of each variable."
        )
    expected = tuple(model.scm[image].domain.shape)
    found = tuple(network.hparams["shape"])
    if found != expected:
        raise ValueError(
            f"judge: expected a network of images of shape {expected}, but got {path}, of shape "
            f"{found}; train it on the data of the model."
        )
    classes = network.hparams.get("classes")
    if classes != categories:
        raise ValueError(
            f"judge: expected a network of the {categories} classes of {name}, but got {path}, of "
            f"{classes}; train it on the data of the model."
        )
