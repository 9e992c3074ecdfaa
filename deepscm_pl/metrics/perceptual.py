"""Distances of images by a feature network: Fréchet, kernel and perceptual distance.

The network is an argument: one with weights that you have, such as an Inception network, or the
features of your own classifier (:class:`NetworkFeatures`). Figures by different networks cannot be
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from deepscm_pl.checks import whole_number
from deepscm_pl.metrics.functional.checks import require_same_shape
from deepscm_pl.metrics.functional.perceptual import (
    frechet_distance,
    kernel_distance,
    perceptual_distance,
)
from deepscm_pl.metrics.statistics import (
    PerImageMetric,
    merge_moments,
    moments_of,
    nothing_to_compute,
)

__all__ = [
    "FrechetDistance",
    "KernelDistance",
    "NetworkFeatures",
    "NetworkLayers",
    "PerceptualDistance",
]


class _TwoSets(Metric):
    """A distance of two sets of images in the features ``(B, D)`` of a network."""

    full_state_update = False

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        features = self.network(images)
        if features.dim() != 2 or len(features) != len(images):
            raise ValueError(
                f"network: expected features (batch, D) of {len(images)} images, but got shape "
                f"{tuple(features.shape)}; flatten or average its output."
            )
        return features.double()


class FrechetDistance(_TwoSets):
    """The Fréchet distance of features of real and of generated images, which FID is one of.

    Args:
        network: From images ``(B, C, H, W)`` in grey levels to features ``(B, D)``.
        features: D.

    Raises:
        ValueError: On ``compute``, if there are not more images than features on each side: the
            covariance is singular then, and the distance too small.

    Example:
        >>> metric = FrechetDistance(lambda images: images.flatten(1), features=4)
        >>> metric.update(torch.randn(50, 1, 2, 2), real=True)
        >>> metric.update(torch.randn(50, 1, 2, 2) + 9, real=False)
        >>> bool(metric.compute() > 300)
        True
    """

    real: Tensor
    generated: Tensor

    def __init__(self, network: Callable[[Tensor], Tensor], features: int | None = None) -> None:
        super().__init__(network)
        size = features or getattr(network, "features", None)
        self.size = whole_number("features", size, least=1)
        moments = moments_of(torch.empty(0, self.size))
        for name in ("real", "generated"):
            self.add_state(name, moments.clone(), dist_reduce_fx=merge_moments)

    def update(self, images: Tensor, real: bool) -> None:
        """Add images ``(B, C, H, W)``, real or generated ones."""
        features = self._features(images)
        if features.shape[1] != self.size:
            raise ValueError(
                f"network: expected {self.size} features, but got {features.shape[1]}; set "
                "features."
            )
        name = "real" if real else "generated"
        merged = merge_moments(torch.stack([getattr(self, name), moments_of(features)]))
        setattr(self, name, merged)

    def reset_generated(self) -> None:
        """Forget the generated images."""
        self.generated = torch.zeros_like(self.generated)

    def compute(self) -> Tensor:
        """Return the distance."""
        both = [self.real, self.generated]
        counts = [int(moments[0, 0]) for moments in both]
        self.require_images(*counts)
        first, second = (
            (moments[1], moments[2:] / (count - 1))
            for moments, count in zip(both, counts, strict=True)
        )
        return frechet_distance(first, second)

    def require_images(self, real: int, generated: int) -> None:
        """Raise ValueError unless there are more images of each kind than features."""
        for name, count in (("real", real), ("generated", generated)):
            if count <= self.size:
                raise ValueError(
                    f"images: expected more {name} images than the {self.size} features, but got "
                    f"{count}; take more rows, or a network of fewer features."
                )


class KernelDistance(_TwoSets):
    """The kernel distance of features of real and of generated images, which KID is one of.

    It is the mean over random subsets of both, and unbiased also for few images.

    Args:
        network: From images ``(B, C, H, W)`` in grey levels to features ``(B, D)``.
        subsets: Number of subsets.
        subset_size: Images of each side in a subset, at most.
        seed: Seed of the subsets.

    Example:
        >>> metric = KernelDistance(lambda images: images.flatten(1))
        >>> metric.update(torch.zeros(5, 1, 1, 2), real=True)
        >>> metric.update(torch.ones(5, 1, 1, 2), real=False)
        >>> metric.compute().item()
        7.0
    """

    real: list[Tensor]
    generated: list[Tensor]

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(network)
        self.subsets = whole_number("subsets", subsets, least=1)
        self.subset_size = whole_number("subset_size", subset_size, least=2)
        self.seed = seed
        for name in ("real", "generated"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, images: Tensor, real: bool) -> None:
        """Add images ``(B, C, H, W)``, real or generated ones."""
        (self.real if real else self.generated).append(self._features(images))

    def compute(self) -> Tensor:
        """Return the mean distance of the subsets."""
        both = [torch.cat(list(each)) for each in (self.real, self.generated) if len(each)]
        if len(both) < 2 or min(map(len, both)) < 2:
            raise nothing_to_compute(self)
        generator = torch.Generator().manual_seed(self.seed)
        size = min(self.subset_size, *map(len, both))
        count = 1 if size == max(map(len, both)) else self.subsets
        found = []
        for _ in range(count):
            first, second = (
                each[torch.randperm(len(each), generator=generator)[:size]] for each in both
            )
            found.append(kernel_distance(first, second))
        return torch.stack(found).mean()


class PerceptualDistance(PerImageMetric):
    """The distance of pairs of images in the layers of a network, as LPIPS is one.

    Args:
        network: From images ``(B, C, H, W)`` in grey levels to the features of each layer,
            ``(B, channels, height, width)``; or, if it has an attribute ``takes_pairs``, as
            :class:`~deepscm_pl.metrics.programs.PairProgram` has, from two batches of images to
            their distances ``(B,)``.

    Example:
        >>> metric = PerceptualDistance(lambda images: [images])
        >>> metric.update(torch.ones(2, 1, 4, 4), -torch.ones(2, 1, 4, 4))
        >>> metric.compute()["perceptual_distance"].mean
        4.0
    """

    def __init__(self, network: Callable[..., Tensor | Sequence[Tensor]]) -> None:
        super().__init__(["perceptual_distance"])
        self.network = network

    @torch.no_grad()
    def update(self, images: Tensor, others: Tensor) -> None:
        """Add pairs of images, ``(B, C, H, W)`` each."""
        require_same_shape(others=others, images=images)
        network: Callable[..., Any] = self.network
        if getattr(network, "takes_pairs", False):
            distance = network(images, others)
        else:
            distance = perceptual_distance(network(images), network(others))
        self._add({"perceptual_distance": distance})


class NetworkFeatures(nn.Module):
    """The features of a trained classifier or regressor of images, before its last layer.

    Args:
        network: A network whose submodule ``head`` is its last layer, such as
            :class:`~deepscm_pl.nn.ResidualClassifier`.
        levels: Number of grey levels of the images.

    Raises:
        ValueError: If the network has no ``head``.
    """

    def __init__(self, network: nn.Module, levels: int = 256) -> None:
        super().__init__()
        head = getattr(network, "head", None)
        if not isinstance(head, nn.Linear):
            raise ValueError(
                f"network: expected one with a linear layer head, but got "
                f"{type(network).__name__}; give a ResidualClassifier, or your own features."
            )
        self.network, self.levels, self.features = network, levels, head.in_features
        self._seen: list[Tensor] = []
        head.register_forward_pre_hook(lambda module, inputs: self._seen.append(inputs[0]))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, D)`` of images in grey levels."""
        self._seen.clear()
        self.network(2 * images / (self.levels - 1) - 1)
        return self._seen.pop()


class NetworkLayers(nn.Module):
    """The features of each block of a :class:`~deepscm_pl.nn.ResidualClassifier`.

    Args:
        network: A network with ``stem`` and ``blocks``.
        levels: Number of grey levels of the images.
    """

    def __init__(self, network: nn.Module, levels: int = 256) -> None:
        super().__init__()
        if not (hasattr(network, "stem") and hasattr(network, "blocks")):
            raise ValueError(
                f"network: expected a ResidualClassifier, but got {type(network).__name__}; give "
                "your own layers."
            )
        self.network, self.levels = network, levels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of each block for images in grey levels."""
        network: nn.Module = self.network
        value = network.stem(2 * images / (self.levels - 1) - 1)  # type: ignore[operator]
        layers = []
        for block in network.blocks:  # type: ignore[union-attr]
            value = block(value)
            layers.append(value)
        return layers
