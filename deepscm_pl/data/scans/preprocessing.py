"""Preprocessing of image files to whole grey levels of one shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.data.images import Scan, read_scan
from deepscm_pl.data.scans.slices import PLANES, Axis, slice_coordinate

__all__ = ["Normalisation", "PreparedScan", "Preprocessing", "Slicing"]

Normalisation = Literal["none", "percentiles", "window"]
"""The mapping of numbers to grey levels; see :class:`Preprocessing`."""


@dataclass(frozen=True)
class PreparedScan:
    """The images of one file.

    Attributes:
        images: ``(K, 1, *sizes)``, grey levels.
        affines: ``(K, 4, 4)``; NaN if unknown.
        header: The NIfTI header of the file; None for other files.
    """

    images: NDArray[np.uint8]
    affines: NDArray[np.float64]
    header: bytes | None


@dataclass(frozen=True)
class Slicing:
    """The division of volumes into slices.

    Args:
        axis: Direction in which volumes are cut; None for whole volumes.
        slices: Indices, or fractions of the extent from 0.0 to 1.0, which are interpolated between
            slices. Each slice becomes a row, in the split of its subject.

    Raises:
        ValueError: If there is an axis without slices, or slices without an axis.
    """

    axis: Axis | None = None
    slices: Sequence[int | float] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        if self.axis is not None:
            _check_choice("axis", self.axis, tuple(PLANES))
        if (self.axis is None) != (not self.slices):
            raise ValueError(
                "slices: expected some with an axis and none without, but got "
                f"{list(self.slices)} with axis: {self.axis}."
            )


@dataclass(frozen=True)
class Preprocessing:
    """The steps from a file to an image, in the order of the arguments.

    Slices are cut after the crop to the foreground.

    Args:
        normalisation: ``"none"`` for 8-bit images as they are. ``"percentiles"`` maps the first of
            two percentiles of the foreground to black and the second to white, ``"window"`` two
            given numbers.
        percentiles: For ``"percentiles"``, from 0 to 100.
        window: For ``"window"``, in the numbers of the file.
        foreground_above: Voxels above it are foreground, in the numbers of the file.
        crop_foreground: Whether to crop the scan to its foreground.
        margin: Voxels around the foreground that are kept.
        field_of_view: Sizes to which images are cropped and padded around their centre, in voxels
            of the file.
        voxel_size: Voxel size to which images are resampled, in mm, for each axis.
        shape: Sizes to which images are resized; with ``voxel_size``, they are cropped and padded
            instead.

    Raises:
        ValueError: If an argument is out of range, or two do not fit together.
    """

    normalisation: Normalisation = "none"
    percentiles: Sequence[float] = (0.5, 99.5)
    window: Sequence[float] | None = None
    foreground_above: float = 0.0
    crop_foreground: bool = False
    margin: int = 0
    field_of_view: Sequence[int] | None = None
    voxel_size: Sequence[float] | None = None
    shape: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("percentiles", "window", "field_of_view", "voxel_size", "shape"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, tuple(values))
        self._check_grey_levels()
        whole_number("margin", self.margin, least=0)
        self._check_sizes()

    def _check_grey_levels(self) -> None:
        real_number("foreground_above", self.foreground_above)
        _check_choice("normalisation", self.normalisation, get_args(Normalisation))
        low, high = _pair("percentiles", self.percentiles)
        if not 0 <= low < high <= 100:
            raise ValueError(
                f"percentiles: expected two ascending ones of 0 to 100, but got {[low, high]}."
            )
        if (self.window is not None) != (self.normalisation == "window"):
            raise ValueError(
                "window: expected two numbers with normalisation: window and none without, but got "
                f"{self.window} with normalisation: {self.normalisation}."
            )
        if self.window is not None:
            low, high = _pair("window", self.window)
            if not low < high:
                raise ValueError(f"window: expected ascending numbers, but got {[low, high]}.")

    def _check_sizes(self) -> None:
        for name, sizes in self._sizes.items():
            if len(sizes) not in (2, 3) or not all(0 < size < math.inf for size in sizes):
                raise ValueError(
                    f"{name}: expected two (slices) or three (volumes) positive numbers, but got "
                    f"{list(sizes)}."
                )
            if name != "voxel_size" and any(size != int(size) for size in sizes):
                raise ValueError(f"{name}: expected whole numbers, but got {list(sizes)}.")

    @property
    def _sizes(self) -> dict[str, Sequence[float]]:
        sizes = {
            "field_of_view": self.field_of_view,
            "voxel_size": self.voxel_size,
            "shape": self.shape,
        }
        return {name: each for name, each in sizes.items() if each is not None}

    @property
    def is_identity(self) -> bool:
        """Whether images stay as they are."""
        changes = (self.crop_foreground, self._sizes)
        return self.normalisation == "none" and not any(changes)

    @property
    def makes_heads_one_size(self) -> bool:
        """Whether images are stretched from border to border of the foreground."""
        return self.crop_foreground and self.shape is not None and self.field_of_view is None

    def __call__(self, path: Path, slicing: Slicing = Slicing()) -> PreparedScan:
        """Read and preprocess a file.

        Returns:
            An image for each slice, or one volume.

        Raises:
            ValueError: If the file cannot be read, or does not fit the settings.
        """
        scan = read_scan(path)
        try:
            levels = self._levels(scan)
            images = [
                self._image(each, levels) for each in _cut(self._crop(scan, slicing), slicing)
            ]
            pictures = np.stack([_grey_levels(each)[None] for each in images])
        except ValueError as error:
            raise ValueError(f"images: {path}: {error}") from None
        unknown = np.full((4, 4), np.nan)
        return PreparedScan(
            images=pictures,
            affines=np.stack([unknown if s.affine is None else s.affine for s in images]),
            header=scan.header,
        )

    def _levels(self, scan: Scan) -> tuple[float, float]:
        """The numbers that become black and white."""
        array = scan.array
        if array.min() == array.max():
            raise ValueError(f"every voxel is {array.min()}; get it again, or remove its row.")
        if self.normalisation == "none":
            if array.dtype != np.uint8:
                raise ValueError(
                    "normalisation: none takes 8-bit images as they are, but this one holds "
                    f"{array.dtype} from {array.min():g} to {array.max():g}; choose percentiles or "
                    "window."
                )
            return 0.0, 255.0
        foreground = array[array > self.foreground_above]
        if self.window is not None:
            low, high = _pair("window", self.window)
            _check_window(foreground, high)
            return low, high
        low, high = (
            np.percentile(foreground, list(self.percentiles)) if foreground.size else (0.0, 0.0)
        )
        if low >= high:
            raise ValueError(
                f"percentiles: those of the voxels above {self.foreground_above:g} are {low:g} "
                f"and {high:g}; choose a lower foreground_above or other percentiles."
            )
        return float(low), float(high)

    def _crop(self, scan: Scan, slicing: Slicing) -> Scan:
        """Crop the scan to its foreground, except across slices."""
        if not self.crop_foreground:
            return scan
        from monai.transforms import CropForeground, SpatialCrop

        finder = CropForeground(self._is_foreground, margin=self.margin, allow_smaller=True)
        start, end = finder.compute_bounding_box(scan.array[None])
        if not (end > start).all():
            raise ValueError(
                f"crop_foreground: no voxel is above {self.foreground_above:g}; choose a lower "
                "foreground_above."
            )
        kept = PLANES[slicing.axis].normal if slicing.axis else 2 if scan.flat else None
        if kept is not None:  # so that the index of a slice is that of the whole scan
            start[kept], end[kept] = 0, scan.array.shape[kept]
        return _transformed(scan, SpatialCrop(roi_start=start, roi_end=end))

    def _is_foreground(self, array: Any) -> Any:
        return array > self.foreground_above

    def _image(self, scan: Scan, levels: tuple[float, float]) -> Scan:
        """An image in its final size, with grey levels in floating point."""
        low, high = levels
        scan = self._resample(scan, low)
        if self.normalisation == "none":
            return scan
        from monai.transforms import ScaleIntensityRange

        scale = ScaleIntensityRange(low, high, 0.0, 255.0, clip=True)
        return replace(scan, array=np.asarray(scale(scan.array.astype(np.float32))))

    def _resample(self, scan: Scan, black: float) -> Scan:
        """Resample to the final size, with black padding."""
        dimensions = 2 if scan.flat else 3
        for name, sizes in self._sizes.items():
            if len(sizes) != dimensions:
                raise ValueError(
                    f"{name}: expected {dimensions} numbers for an image of {dimensions} "
                    f"dimensions, but got {list(sizes)}."
                )
        if self.field_of_view is not None:
            scan = _to_field_of_view(scan, self.field_of_view, black)
        if self.voxel_size is not None:
            scan = _to_voxel_size(scan, self.voxel_size)
            return scan if self.shape is None else _to_field_of_view(scan, self.shape, black)
        return scan if self.shape is None else _to_shape(scan, self.shape)


def _cut(scan: Scan, slicing: Slicing) -> list[Scan]:
    """The slices of a volume, or the scan itself."""
    if slicing.axis is None:
        return [scan]
    if scan.flat:
        raise ValueError("axis: expected a volume to cut, but it is a slice; leave axis out.")
    plane = PLANES[slicing.axis]
    size = scan.array.shape[plane.normal]
    images = []
    for position in slicing.slices:
        image, affine = plane.cut(scan.array, scan.affine, slice_coordinate(position, size))
        images.append(replace(scan, array=image, affine=affine, flat=True))
    return images


def _to_voxel_size(scan: Scan, voxel_size: Sequence[float]) -> Scan:
    from monai.transforms import SpatialResample

    if scan.affine is None:
        raise ValueError(
            "voxel_size: the file does not contain its voxel size; use NIfTI, or shape "
            "instead of voxel_size."
        )
    sizes = np.linalg.norm(scan.affine[:3, :3], axis=0)
    wanted = (*voxel_size, sizes[2])[:3]
    factors = np.asarray(wanted) / sizes
    old = np.asarray(scan.array.shape)
    new = np.maximum(1, np.rint(old / factors)).astype(int)
    # Keep the centre; MONAI's own Spacing shifts the image by half a voxel.
    step = np.diag([*factors, 1.0])
    step[:3, 3] = (old - 1 - (new - 1) * factors) / 2
    resample = SpatialResample(mode="bilinear", padding_mode="border", align_corners=False)
    target = partial(resample, dst_affine=scan.affine @ step, spatial_size=new.tolist())
    return _transformed(_smoothed(scan, factors), target)


def _to_field_of_view(scan: Scan, shape: Sequence[int], black: float) -> Scan:
    """Crop or pad around the centre."""
    from monai.transforms import ResizeWithPadOrCrop

    transform = ResizeWithPadOrCrop((*shape, 1)[:3], constant_values=black)
    return _transformed(scan, transform)


def _to_shape(scan: Scan, shape: Sequence[int]) -> Scan:
    from monai.transforms import Resize

    target = (*shape, 1)[:3]
    if scan.array.shape == target:
        return scan
    smooth = _smoothed(scan, np.divide(scan.array.shape, target))
    return _transformed(smooth, Resize(target, mode="trilinear"))


def _smoothed(scan: Scan, factors: NDArray[np.float64]) -> Scan:
    """Remove details that are too fine for voxels larger by ``factors``."""
    # MONAI's own smoothing pads with zeros.
    sigma = np.maximum(0.0, (factors - 1) / 2)
    array = gaussian_filter(scan.array.astype(np.float32), sigma, mode="nearest")
    return replace(scan, array=array)


def _transformed(scan: Scan, transform: Callable[[Any], Any]) -> Scan:
    """Apply a transform of MONAI to a scan and its affine."""
    import torch
    from monai.data import MetaTensor

    affine = np.eye(4) if scan.affine is None else scan.affine
    array = np.ascontiguousarray(scan.array, dtype=np.float32)
    found = transform(MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine)))
    place = None if scan.affine is None else found.affine.numpy().astype(np.float64)
    return replace(scan, array=found[0].numpy(), affine=place)


def _grey_levels(scan: Scan) -> NDArray[np.uint8]:
    """Whole grey levels, without the third axis of a slice."""
    levels = np.clip(np.rint(scan.array), 0, 255).astype(np.uint8)
    levels = levels[..., 0] if scan.flat else levels
    if levels.min() == levels.max():
        raise ValueError(
            f"it is {levels.min()} everywhere once prepared; choose other slices or another "
            "normalisation, or remove its row."
        )
    return levels


def _check_window(foreground: NDArray[Any], high: float) -> None:
    """Refuse a window that does not fit the numbers, such as one of 8 bits for 16."""
    if foreground.size and (foreground > high).mean() > 0.9:
        raise ValueError(
            f"window: nearly all of the foreground is above {high:g}, and would be white: its "
            f"numbers lie between {foreground.min():g} and {foreground.max():g}; choose another "
            "window."
        )


def _pair(name: str, values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"{name}: expected two numbers, but got {list(values)}.")
    return real_number(name, values[0]), real_number(name, values[1])


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, but got {value!r}.")
