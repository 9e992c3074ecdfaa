"""Images of answers as files: pictures to look at, or NIfTI for viewers of scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

__all__ = ["FORMATS", "ImageFiles", "ImageFormat", "choose_formats"]

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
        placements: For each image variable where the image of each observation lies, or None where
            that is not known. Variables that are missing have no place.
    """

    folder: Path
    formats: Mapping[str, ImageFormat]
    placements: Mapping[str, Sequence[Placement | None]] = field(default_factory=dict)

    def write(self, name: str, observation: int, label: str, image: Tensor, about: str) -> str:
        """Write an image ``(C, *sizes)`` in whole grey levels.

        Args:
            name: The variable.
            observation: Its number.
            label: What tells the file from others of this observation.
            image: Grey levels.
            about: What it is, in a few words.

        Returns:
            The path of the file, relative to the folder.
        """
        pixels = image.round().clamp(0, 255).byte().cpu()
        stem = f"images/{for_file_name(name)}-{observation}-{label}"
        if self.formats[name] == "nifti":
            return self._write_nifti(stem, name, observation, pixels[0].numpy(), about)
        picture = as_pictures(pixels, pixels.dim()).numpy()
        colours = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
        Image.fromarray(colours).save(self.folder / f"{stem}.png")
        return f"{stem}.png"

    def write_difference(
        self, name: str, observation: int, label: str, difference: Tensor, about: str
    ) -> str:
        """Write signed differences of grey levels ``(1, *sizes)`` as NIfTI.

        See :meth:`write` for the arguments.
        """
        stem = f"images/{for_file_name(name)}-{observation}-{label}-difference"
        values = difference[0].cpu().numpy().astype(np.float32)
        return self._write_nifti(stem, name, observation, values, about)

    def _write_nifti(
        self, stem: str, name: str, observation: int, values: NDArray[Any], about: str
    ) -> str:
        known = self.placements.get(name, ())
        placement = known[observation] if known else None
        path = f"{stem}.nii.gz"
        write_nifti(self.folder / path, values, placement or default_placement(values.ndim), about)
        return path
