"""Feature networks as programs that a user has: TorchScript and exported programs.

The forms are those of torchmetrics: features of Inception take whole grey levels of three channels,
and LPIPS takes pairs of images in [-1, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deepscm_pl.checks import reason_of
from deepscm_pl.escaping import one_line

__all__ = ["FeatureProgram", "PairProgram", "load_program"]

_EXPORTED = ".pt2"
_COLOURS = 3
_TRIAL = 3
"""Images of the trial: not one or two, which an exported program may have fixed."""


def load_program(path: str | Path, name: str = "features") -> Callable[..., Any]:
    """Load a program of ``torch.export.save`` (``.pt2``), or else of ``torch.jit.save``.

    A program runs code of its author: load only files that you trust.

    Args:
        path: The file.
        name: The name of the setting, for errors.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is no such program.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: {path} does not exist; name a file of a network.")
    try:
        if path.suffix == _EXPORTED:
            return torch.export.load(path).module()
        with warnings.catch_warnings():
            # PyTorch advises to export new programs; those that people have are read as they are.
            warnings.simplefilter("ignore", FutureWarning)
            program: Callable[..., Any] = torch.jit.load(path, map_location="cpu").eval()
    except Exception as error:  # a broken file breaks the readers in many ways
        raise ValueError(
            f"{name}: expected a program in TorchScript or, with the suffix {_EXPORTED}, an "
            f"exported one, but {path} cannot be read ({one_line(reason_of(error), 80)}); write it "
            "by torch.export.save."
        ) from None
    return program


class FeatureProgram(nn.Module):
    """Features of a program in the form of torchmetrics: ``(B, 3, H, W)`` bytes to ``(B, D)``.

    Images of one channel are repeated to three.

    Args:
        program: The program.
        shape: Shape of the images (C, H, W), with which it is tried.

    Raises:
        ValueError: If the program cannot take such images, or returns something else.

    Example:
        >>> features = FeatureProgram(lambda images: images.flatten(1).float(), (1, 2, 2))
        >>> features.features, features(torch.full((5, 1, 2, 2), 7.2)).unique()
        (12, tensor([7.]))
    """

    def __init__(self, program: Callable[[Tensor], Tensor], shape: Sequence[int]) -> None:
        super().__init__()
        self.program = program
        found = _tried("features", self.forward, torch.zeros(_TRIAL, *shape))
        if found.dim() != 2 or len(found) != _TRIAL:
            raise ValueError(
                f"features: expected a program that returns (images, features), but for {_TRIAL} "
                f"images it returns shape {tuple(found.shape)}; flatten or average its output."
            )
        self.features = found.shape[1]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images ``(B, C, H, W)`` in grey levels."""
        return self.program(_coloured(images).round().clamp(0, 255).byte())


class PairProgram(nn.Module):
    """Distances of a program in the form of LPIPS: two ``(B, 3, H, W)`` in [-1, 1] to B numbers.

    Args:
        program: The program.
        shape: Shape of the images (C, H, W), with which it is tried.

    Raises:
        ValueError: If the program cannot take such images, or returns something else.

    Example:
        >>> distance = PairProgram(lambda one, two: (one - two).abs().mean((1, 2, 3)), (1, 2, 2))
        >>> distance(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 255.0))
        tensor([2.])
    """

    takes_pairs: ClassVar[bool] = True

    def __init__(self, program: Callable[[Tensor, Tensor], Tensor], shape: Sequence[int]) -> None:
        super().__init__()
        self.program = program
        images = torch.zeros(_TRIAL, *shape)
        found = _tried("perceptual", self.forward, images, images)
        if found.shape != (_TRIAL,):
            raise ValueError(
                f"perceptual: expected a program that returns one distance for each pair of "
                f"images, but for {_TRIAL} pairs it returns {found.numel()} numbers; average over "
                "pixels."
            )

    @torch.no_grad()
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the distance ``(B,)`` of images ``(B, C, H, W)`` in grey levels."""
        scaled = (2 * _coloured(each) / 255 - 1 for each in (images, others))
        return self.program(*scaled).flatten()


def _coloured(images: Tensor) -> Tensor:
    return images.expand(-1, _COLOURS, -1, -1) if images.shape[1] == 1 else images


def _tried(name: str, program: Callable[..., Tensor], *images: Tensor) -> Tensor:
    try:
        found = program(*images)
    except Exception as error:  # a program may fail in any way
        shape = (_TRIAL, _COLOURS, *images[0].shape[2:])
        raise ValueError(
            f"{name}: expected a program for any number of images of three channels, but it fails "
            f"for {shape} ({one_line(reason_of(error), 80)}); write it for such images, with a "
            "dynamic batch."
        ) from None
    if not isinstance(found, Tensor):
        raise ValueError(f"{name}: expected a program that returns a tensor; wrap it in one.")
    return found
