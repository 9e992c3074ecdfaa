"""Images of answers as files: pictures to look at, or NIfTI for viewers of scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deepscm_pl.data.nifti import default_placement, write_nifti
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import for_file_name
from deepscm_pl.figures import as_pictures
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["FORMATS", "ImageFiles", "ImageFormat", "choose_formats", "whole_levels"]

ImageFormat = Literal["png", "nifti"]

FORMATS: tuple[ImageFormat, ...] = ("png", "nifti")


def choose_formats(scm: StructuralCausalModel, asked: ImageFormat | None) -> dict[str, ImageFormat]:
    """The format of each image variable.

    Args:
        scm: The model.
        asked: The format of all; None takes NIfTI for volumes and PNG for images.

    Raises:
        ValueError: If NIfTI is asked for and there is no image, or one of several channels.
    """
    shapes = {name: scm[name].domain.shape for name in scm.image_variables}
    if asked == "nifti" and not shapes:
        raise ValueError("format: nifti is for images, but the model has none; leave it out.")
    formats: dict[str, ImageFormat] = {
        name: asked or ("nifti" if len(shape) == 4 and shape[0] == 1 else "png")
        for name, shape in shapes.items()
    }
    for name, each in formats.items():
        if each == "nifti" and shapes[name][0] != 1:
            raise ValueError(
                f"format: nifti needs images of one channel, but {name} has {shapes[name][0]}; "
                "choose png."
            )
    return formats


@dataclass(frozen=True)
class ImageFiles:
    """Where and how images of answers are written.

    Attributes:
        folder: Of the answers.
        formats: Of each image variable.
    """

    folder: Path
    formats: Mapping[str, ImageFormat]

    def write(
        self, name: str, label: str, pixels: Tensor, about: str, placement: Placement | None
    ) -> str:
        """Write an image.

        Args:
            name: The variable.
            label: What tells the file from others of this variable.
            pixels: Whole grey levels ``(C, *sizes)``, see :func:`whole_levels`.
            about: What it is, in a few words.
            placement: Where it lies, if that is known.

        Returns:
            The path of the file, relative to the folder.
        """
        stem = f"images/{for_file_name(name)}-{label}"
        if self.formats[name] == "nifti":
            return self._write_nifti(stem, pixels[0].numpy(), about, placement)
        picture = as_pictures(pixels, pixels.dim()).numpy()
        colours = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
        Image.fromarray(colours).save(self.folder / f"{stem}.png")
        return f"{stem}.png"

    def write_difference(
        self, name: str, label: str, difference: Tensor, about: str, placement: Placement | None
    ) -> str:
        """Write signed differences of grey levels ``(1, *sizes)`` as NIfTI.

        See :meth:`write` for the arguments.
        """
        stem = f"images/{for_file_name(name)}-{label}-difference"
        values = difference[0].cpu().numpy().astype(np.float32)
        return self._write_nifti(stem, values, about, placement)

    def _write_nifti(
        self, stem: str, values: NDArray[Any], about: str, placement: Placement | None
    ) -> str:
        path = f"{stem}.nii.gz"
        write_nifti(self.folder / path, values, placement or default_placement(values.ndim), about)
        return path


def whole_levels(images: Tensor) -> Tensor:
    """Images as bytes, in whole grey levels."""
    return images.round().clamp(0, 255).byte().cpu()
