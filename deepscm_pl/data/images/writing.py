"""Image files of answers: NIfTI files in the space of the original scan."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.images.scan import NIFTI_SUFFIXES, WRITER
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import for_terminal
from deepscm_pl.files import new_file

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

__all__ = ["ImageFormat", "colours", "default_placement", "write_nifti", "write_picture"]

ImageFormat = Literal["png", "nifti"]
"""Formats of image files."""

_COLOUR = np.dtype([(name, np.uint8) for name in "RGB"])
_DESCRIPTION_BYTES = 79
_ASCII = str.maketrans("−×³²", "-*32")
"""Replacements of characters that interventions use and a header cannot hold."""
_ALIGNED = 2
"""The NIfTI code of coordinates that are not known to be those of a scanner."""


def default_placement(dimensions: int) -> Placement:
    """The placement of images without one: voxels of 1 mm, the first at the origin.

    Slices are axial, with the first row in front and the first column on the left.

    Args:
        dimensions: 2 for slices, 3 for volumes.

    Example:
        >>> default_placement(2).affine[:3, :3]
        array([[ 0.,  1.,  0.],
               [-1.,  0.,  0.],
               [ 0.,  0.,  1.]])
    """
    affine = np.eye(4)
    if dimensions == 2:
        affine[:2, :2] = [[0.0, 1.0], [-1.0, 0.0]]
    return Placement(affine)


def write_nifti(
    path: Path, image: NDArray[Any], placement: Placement, description: str = ""
) -> None:
    """Write an image so that a viewer shows it in the space of the original scan.

    The header is that of the scan, without the acquisition order of its slices.

    Args:
        path: The file, ``.nii`` or ``.nii.gz``; it appears when it is complete.
        image: Volume ``(X, Y, Z)`` or slice ``(rows, columns)``, in the type of the file; or of
            :func:`colours`, of which bytes become colours and other numbers vectors.
        placement: Position of the voxels.
        description: For the header, up to 79 characters.

    Raises:
        ValueError: If the name has another ending, or the image other dimensions.
    """
    from nibabel import Nifti1Image

    if not path.name.endswith(NIFTI_SUFFIXES):
        raise ValueError(
            f"path: expected a name ending in {' or '.join(NIFTI_SUFFIXES)}, but got {path}."
        )
    if image.ndim not in (2, 3):
        raise ValueError(
            f"image: expected a slice (rows, columns) or a volume (X, Y, Z), but got shape "
            f"{image.shape}; write channels as colours."
        )
    volume = image if image.ndim == 3 else image[..., None]
    header = _header(volume, placement, description)
    if volume.dtype.names and volume.dtype != _COLOUR:
        volume = np.stack([volume[name] for name in volume.dtype.names], axis=-1)[:, :, :, None]
        header.set_data_dtype(volume.dtype)
        header.set_intent("vector", name=WRITER)
    content = Nifti1Image(volume, header.get_best_affine(), header).to_bytes()
    with new_file(path) as temporary:
        # Without a timestamp, equal answers give equal files.
        compressed = gzip.compress(content, mtime=0) if path.suffix == ".gz" else content
        temporary.write_bytes(compressed)


def colours(image: NDArray[Any]) -> NDArray[Any]:
    """Channels ``(3, *sizes)`` as an array ``(*sizes,)`` with the fields R, G and B.

    Example:
        >>> colours(np.zeros((3, 4, 5), np.uint8)).shape
        (4, 5)
    """
    found: NDArray[Any] = np.zeros(image.shape[1:], [(name, image.dtype) for name in "RGB"])
    for name, channel in zip("RGB", image, strict=True):
        found[name] = channel
    return found


def write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    """Write grey levels ``(1, rows, columns)``, or colours ``(3, rows, columns)``, as PNG.

    Raises:
        ValueError: If there are other channels.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if image.ndim != 3 or len(image) not in (1, 3):
        raise ValueError(
            f"image: expected one or three channels (C, rows, columns), but got {image.shape}."
        )
    marks = PngInfo()
    marks.add_text("Software", WRITER)
    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, "PNG", pnginfo=marks)


def _header(volume: NDArray[Any], placement: Placement, description: str) -> Nifti1Header:
    from nibabel.nifti1 import Nifti1Header

    header = Nifti1Header() if placement.header is None else placement.header.copy()
    header.set_data_dtype(_COLOUR if volume.dtype.names else volume.dtype)
    header.set_data_shape(volume.shape)
    header.set_intent("none", name=WRITER)
    header.set_dim_info(None, None, None)
    for name in ("slice_start", "slice_end", "slice_code", "slice_duration"):
        header[name] = 0
    # The range that viewers show: grey levels 0 to 255; 0 to 0 leaves it to the viewer.
    header["cal_min"], header["cal_max"] = 0, 255 if volume.dtype == np.uint8 else 0
    if header.get_xyzt_units()[0] == "unknown":
        header.set_xyzt_units("mm", header.get_xyzt_units()[1])
    header["descrip"] = _header_text(description)
    _place(header, placement.affine)
    return header


def _place(header: Nifti1Header, affine: NDArray[np.float64]) -> None:
    """Write the affine as sform and qform, with the codes of the scan."""
    rotation, general = int(header["qform_code"]), int(header["sform_code"])
    header.set_qform(affine, rotation)
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        header["qform_code"] = 0  # not representable by a rotation
    # The sform keeps the full precision, which a quaternion loses.
    header.set_sform(affine, general or rotation or _ALIGNED)


def _header_text(description: str) -> bytes:
    text = for_terminal(description).translate(_ASCII).encode("ascii", "replace")
    if len(text) <= _DESCRIPTION_BYTES:
        return text
    return text[: _DESCRIPTION_BYTES - 3] + b"..."
