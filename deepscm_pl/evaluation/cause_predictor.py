"""A predictor of the causes of an image from the image, for data without a known world."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from deepscm_pl.checks import whole_number
from deepscm_pl.data import CausalData
from deepscm_pl.files import new_file
from deepscm_pl.nn import ResidualClassifier
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["CausePredictor", "fingerprint"]

_CHANNELS = (16, 32, 48)
_LARGEST_SIDE = 64
_BATCH = 64
_MOST_PASSES = 30
_LEARNING_RATE = 4e-3
_READ_AT_A_TIME = 256
_HASHED_IMAGES = 64
_ENTRY = "deepscm_pl.cause_predictor"


class CausePredictor(nn.Module):
    """A residual network that predicts the scalar causes of an image from the image.

    Continuous causes are predicted by least squares, classes by cross-entropy. Images of more than
    64 pixels a side are averaged over blocks of pixels, and the slices of volumes are channels.

    Args:
        shape: (channels, height, width) or (channels, depth, height, width).
        classes: Number of classes of each cause; None for continuous ones.
        levels: Number of grey levels.

    Attributes:
        skill: For each cause, the share of the error of the best constant that the predictor
            removes on the validation split: R² for continuous causes, and for classes
            1 − (1 − accuracy) / (1 − share of the most frequent class).
    """

    def __init__(
        self, shape: tuple[int, ...], classes: Mapping[str, int | None], levels: int = 256
    ) -> None:
        super().__init__()
        self.shape, self.classes, self.levels = tuple(shape), dict(classes), levels
        self.block = math.ceil(max(shape[-2:]) / _LARGEST_SIDE)
        sides = [max(side // self.block, 1) for side in shape[-2:]]
        channels = math.prod(shape[:-2])
        self.sizes = [count or 1 for count in self.classes.values()]
        self.network = ResidualClassifier((channels, *sides), sum(self.sizes), _CHANNELS)
        for name in self.classes:
            self.register_buffer(f"{name}_mean", torch.zeros(()))
            self.register_buffer(f"{name}_deviation", torch.ones(()))
        self.skill: dict[str, float] = {}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return standardised causes ``(B,)``, or logits ``(B, K)``, of images ``(B, *shape)``."""
        plane = image.flatten(1, -3).float()
        if self.block > 1:
            plane = functional.avg_pool2d(plane, self.block)
        parts = self.network(2 * plane / (self.levels - 1) - 1).split(self.sizes, dim=-1)
        return {
            name: part if count else part[:, 0]
            for part, (name, count) in zip(parts, self.classes.items(), strict=True)
        }

    @torch.no_grad()
    def read(self, images: Tensor) -> dict[str, Tensor]:
        """Predict the causes ``(N,)`` of images ``(N, *shape)``, in their units or as classes."""
        device = next(self.parameters()).device
        found: dict[str, list[Tensor]] = {name: [] for name in self.classes}
        for some in images.split(_READ_AT_A_TIME):
            for name, output in self(some.to(device)).items():
                mean, deviation = (
                    self.get_buffer(f"{name}_{key}") for key in ("mean", "deviation")
                )
                is_class = self.classes[name] is not None
                value = output.argmax(dim=-1) if is_class else mean + deviation * output
                found[name].append(value.double())
        return {name: torch.cat(parts) for name, parts in found.items()}

    @classmethod
    def trained_on(
        cls,
        scm: StructuralCausalModel,
        data: CausalData,
        steps: int = 400,
        seed: int = 0,
        progress: bool = True,
    ) -> CausePredictor:
        """Train a predictor on the training images, and judge it on the validation images.

        The state of torch's generators is restored.

        Args:
            scm: A model with one image, which determines the causes.
            data: The data.
            steps: Training steps of 64 images, at most 30 passes over the training split.
            seed: Random seed.
            progress: Whether to show a progress bar.
        """
        whole_number("steps", steps, least=1)
        (image,) = scm.image_variables
        train, device = data.variables("train"), scm.fitted.device
        causes = _classes(scm, image)
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            torch.manual_seed(seed)
            domain = scm[image].domain
            levels = int(domain.upper) + 1 if math.isfinite(domain.upper) else 256
            predictor = cls(tuple(domain.shape), causes, levels).to(device)
            predictor._fit(train, image, steps, progress)
        predictor.eval()
        validation = data.variables("validation")
        read = predictor.read(validation[image])
        for name, count in causes.items():
            actual = validation[name].double().flatten()
            known = ~actual.isnan()
            predictor.skill[name] = _skill(read[name].cpu()[known], actual[known], count)
        return predictor

    def _fit(self, train: Mapping[str, Tensor], image: str, steps: int, progress: bool) -> None:
        device = next(self.parameters()).device
        targets = {name: train[name].flatten().to(device) for name in self.classes}
        for name, count in self.classes.items():
            if count is None:
                values = targets[name].double()
                values = values[~values.isnan()]
                self.get_buffer(f"{name}_mean").copy_(values.mean())
                deviation = values.std(correction=0)
                varies = (deviation > 0).double()
                self.get_buffer(f"{name}_deviation").copy_(deviation + 1 - varies)
        size = len(train[image])
        steps = min(steps, math.ceil(_MOST_PASSES * size / _BATCH))
        optimizer = torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps)
        bar = tqdm(
            range(steps), unit="step", desc="predictor of causes",
            disable=None if progress else True,
        )  # fmt: skip
        for _ in bar:
            rows = torch.randint(size, (min(_BATCH, size),)).sort().values
            outputs = self(train[image][rows].to(device))
            losses = [self._loss(name, outputs[name], targets[name][rows]) for name in outputs]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()

    def _loss(self, name: str, output: Tensor, target: Tensor) -> Tensor:
        known = ~target.isnan()  # missing values have no loss
        if not bool(known.all()):
            output, target = output[known], target[known]
            if not len(target):
                return output.sum()
        if self.classes[name] is not None:
            return functional.cross_entropy(output, target.long())
        mean, deviation = (self.get_buffer(f"{name}_{key}") for key in ("mean", "deviation"))
        return functional.mse_loss(output, ((target - mean) / deviation).to(output))

    def save(self, path: Path, key: str) -> None:
        """Write the predictor with the key of its data, see :func:`fingerprint`.

        Raises:
            OSError: If the file cannot be written.
        """
        described = {
            "key": key,
            "shape": self.shape,
            "classes": self.classes,
            "levels": self.levels,
            "skill": self.skill,
        }
        weights = {name: each.detach().cpu().clone() for name, each in self.state_dict().items()}
        with new_file(path) as temporary:
            save_file(weights, temporary, metadata={_ENTRY: json.dumps(described)})

    @classmethod
    def load(cls, path: Path, key: str, device: torch.device) -> CausePredictor | None:
        """Read a predictor; None if there is none with this key, or the file cannot be read."""
        try:
            with safe_open(path, framework="pt") as file:
                described: Any = json.loads((file.metadata() or {})[_ENTRY])
                if described["key"] != key:
                    return None
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            made = cls(tuple(described["shape"]), described["classes"], described["levels"])
            made.load_state_dict(weights)
            made.skill = {name: float(described["skill"][name]) for name in made.classes}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            return None
        return made.to(device).eval()


def fingerprint(scm: StructuralCausalModel, data: CausalData, steps: int, seed: int) -> str:
    """Return a hash of the causes, of some of the images of the training split, and of settings."""
    (image,) = scm.image_variables
    digest = hashlib.sha256()
    causes, shape = _classes(scm, image), list(scm[image].domain.shape)
    digest.update(json.dumps([steps, seed, _CHANNELS, _BATCH, causes, shape]).encode())
    for split in ("train", "validation"):
        variables = data.variables(split)
        size = len(variables[image])
        some = variables[image][:: -(-size // _HASHED_IMAGES)]
        for tensor in (*(variables[name] for name in causes), some):
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _classes(scm: StructuralCausalModel, image: str) -> dict[str, int | None]:
    """The number of classes of each scalar cause of an image; None for continuous causes."""
    causes = scm.graph.ancestors(image)
    return {name: scm[name].domain.categories for name in scm.scalar_variables if name in causes}


def _skill(read: Tensor, actual: Tensor, classes: int | None) -> float:
    if classes is None:
        error, constant = (read - actual).square().mean(), actual.var(correction=0)
    else:
        error = (read != actual).double().mean()
        constant = 1 - actual.long().bincount().max() / len(actual)
    return float(1 - error / constant) if float(constant) > 0 else 0.0
