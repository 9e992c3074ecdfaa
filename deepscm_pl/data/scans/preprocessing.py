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
from deepscm_pl.data.images import Background, Scan, read_scan
from deepscm_pl.data.scans.slices import PLANES, Axis, slice_coordinate

__all__ = ["Colour", "Normalisation", "PreparedScan", "Preprocessing", "Slicing"]

Normalisation = Literal["none", "depth", "percentiles", "window"]
"""The mapping of numbers to grey levels; see :class:`Preprocessing`."""

Colour = Literal["auto", "grey", "rgb"]
"""The channels of images; see :class:`Preprocessing`."""


@dataclass(frozen=True)
class PreparedScan:
    """The images of one file.

    Attributes:
        images: ``(K, C, *sizes)``, grey levels, C of 1 or 3.
        affines: ``(K, 4, 4)``; NaN if unknown, in the last column if only the place is.
        header: The NIfTI header of the file; None for other files.
        notes: What had to be decided about the file, in sentences.
    """

    images: NDArray[np.uint8]
    affines: NDArray[np.float64]
    header: bytes | None
    notes: tuple[str, ...] = ()


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
        normalisation: ``"none"`` for 8-bit images as they are. ``"depth"`` maps the range of the
            type, of 8 or 16 bits, to grey levels; ``"percentiles"`` the first of two percentiles of
            the foreground to black and the second to white; ``"window"`` two given numbers. The
            numbers of all channels are mapped alike.
        percentiles: For ``"percentiles"``, from 0 to 100.
        window: For ``"window"``, in the numbers of the file.
        foreground_above: Voxels above it are foreground, in the numbers of the file. None for 0 in
            files without negative numbers; in others, such as z-scored scans, what differs from the
            background is foreground, which is the number of most voxels at the border, if there is
            one, and becomes black by ``"percentiles"``.
        crop_foreground: Whether to crop the scan to its foreground.
        margin: Voxels around the foreground that are kept.
        field_of_view: Sizes to which images are cropped and padded around their centre, in voxels
            of the file.
        voxel_size: Voxel size to which images are resampled, in mm, for each axis.
        shape: Sizes to which images are resized; with ``voxel_size``, they are cropped and padded
            instead.
        colour: ``"grey"`` refuses images in colour; ``"rgb"`` gives all images three channels,
            which are equal if a file is grey; ``"auto"`` is ``"rgb"`` for data with an image in
            colour.
        unknown_orientation: Directions of the axes of NIfTI files whose headers do not state them,
            such as ``RAS``; None refuses such files.
        background: What transparent pixels show: black, white, or nothing, so that they are
            refused.

    Raises:
        ValueError: If an argument is out of range, or two do not fit together.
    """

    normalisation: Normalisation = "none"
    percentiles: Sequence[float] = (0.5, 99.5)
    window: Sequence[float] | None = None
    foreground_above: float | None = None
    crop_foreground: bool = False
    margin: int = 0
    field_of_view: Sequence[int] | None = None
    voxel_size: Sequence[float] | None = None
    shape: Sequence[int] | None = None
    colour: Colour = "auto"
    unknown_orientation: str | None = None
    background: Background = "black"

    def __post_init__(self) -> None:
        for name in ("percentiles", "window", "field_of_view", "voxel_size", "shape"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, tuple(values))
        self._check_grey_levels()
        whole_number("margin", self.margin, least=0)
        _check_choice("colour", self.colour, get_args(Colour))
        _check_choice("background", self.background, get_args(Background))
        _check_directions(self.unknown_orientation)
        self._check_sizes()

    def _check_grey_levels(self) -> None:
        if self.foreground_above is not None:
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
        scan = read_scan(path, self.unknown_orientation, self.background)
        try:
            scan = self._with_channels(scan)
            foreground = self._foreground(scan.array)
            levels = self._levels(scan, foreground)
            if self.normalisation == "percentiles":
                scan = replace(scan, array=foreground.blackened(scan.array, levels[0]))
            cropped = self._crop(scan, foreground.mask, slicing)
            images = [self._image(each, levels) for each in _cut(cropped, slicing)]
            pictures = np.stack([_grey_levels(each) for each in images])
        except ValueError as error:
            raise ValueError(f"images: {path}: {error}") from None
        return PreparedScan(
            images=pictures,
            affines=np.stack([_stored_affine(each) for each in images]),
            header=scan.header,
            notes=(*scan.notes, *foreground.notes),
        )

    def _with_channels(self, scan: Scan) -> Scan:
        """The scan with the channels that :attr:`colour` asks for."""
        if self.colour == "grey" and scan.is_coloured:
            raise ValueError(
                "expected grey levels, but it is in colour; convert it, or set "
                "preprocessing.colour to rgb."
            )
        if self.colour == "rgb" and not scan.is_coloured:
            array = np.repeat(scan.array[..., None], 3, axis=3)
            return replace(scan, array=array, notes=(*scan.notes, _EQUAL_CHANNELS))
        return scan

    def _foreground(self, array: NDArray[Any]) -> _Foreground:
        """The foreground of an array with or without channels."""
        notes: tuple[str, ...] = ()
        brightest = array if array.ndim == 3 else array.max(axis=3)
        if self.foreground_above is None and array.min() < 0:
            black = _background(array)
            mask = np.ones(brightest.shape, bool) if black is None else _differs(array, black)
            return _Foreground(
                mask, black, (_SIGNED,) if self.normalisation == "percentiles" else ()
            )
        above = self.foreground_above or 0.0
        if self.normalisation == "percentiles" and (array < above).mean() > _LOST:
            notes = (_BLACKENED,)
        return _Foreground(brightest > above, None, notes)

    def _levels(self, scan: Scan, foreground: _Foreground) -> tuple[float, float]:
        """The numbers that become black and white."""
        array = scan.array
        if array.min() == array.max():
            raise ValueError(f"every voxel is {array.min()}; get it again, or remove its row.")
        if self.normalisation in ("none", "depth"):
            return self._range_of_type(array)
        inside = array[foreground.mask]
        if self.window is not None:
            low, high = _pair("window", self.window)
            _check_window(array, inside, high)
            return low, high
        low, high = np.percentile(inside, list(self.percentiles)) if inside.size else (0.0, 0.0)
        if low >= high:
            raise ValueError(
                f"percentiles: those of the voxels above {self._threshold} are {low:g} and "
                f"{high:g}; choose a lower foreground_above or other percentiles."
            )
        return float(low), float(high)

    def _range_of_type(self, array: NDArray[Any]) -> tuple[float, float]:
        """0 and the largest number of the type, if it is one of pictures."""
        found = f"{array.dtype} from {array.min():g} to {array.max():g}"
        if self.normalisation == "none" and array.dtype != np.uint8:
            raise ValueError(
                f"normalisation: none takes 8-bit images as they are, but this one holds {found}; "
                "choose depth, percentiles or window."
            )
        if array.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"normalisation: depth takes images of 8 or 16 bits, but this one holds {found}; "
                "choose percentiles or window."
            )
        return 0.0, float(np.iinfo(array.dtype).max)

    @property
    def _threshold(self) -> str:
        return f"{self.foreground_above or 0:g}"

    def _crop(self, scan: Scan, foreground: NDArray[np.bool_], slicing: Slicing) -> Scan:
        """Crop the scan to its foreground, except across slices."""
        if not self.crop_foreground:
            return scan
        from monai.transforms import CropForeground, SpatialCrop

        finder = CropForeground(margin=self.margin, allow_smaller=True)
        start, end = finder.compute_bounding_box(foreground[None])
        if not (end > start).all():
            raise ValueError(
                f"crop_foreground: no voxel is above {self._threshold}; choose a lower "
                "foreground_above."
            )
        kept = PLANES[slicing.axis].normal if slicing.axis else 2 if scan.flat else None
        if kept is not None:  # so that the index of a slice is that of the whole scan
            start[kept], end[kept] = 0, scan.array.shape[kept]
        return _transformed(scan, SpatialCrop(roi_start=start, roi_end=end))

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


_EQUAL_CHANNELS = "it is grey, and has three equal channels"
_SIGNED = (
    "it has numbers below 0: what differs from the background at its border is foreground, and the "
    "background is black"
)
_BLACKENED = (
    "more than 1 % of its numbers lie below foreground_above, and become black; leave "
    "foreground_above out for scans with negative numbers"
)
_LOST = 0.01
"""Share of numbers below the threshold of the foreground from which this is noted."""


@dataclass(frozen=True)
class _Foreground:
    """The foreground of a scan.

    Attributes:
        mask: Whether a voxel belongs to it, ``(X, Y, Z)``.
        black: The number of the background, if it is not the smallest one; None if there is none.
        notes: As in :class:`PreparedScan`.
    """

    mask: NDArray[np.bool_]
    black: float | None
    notes: tuple[str, ...]

    def blackened(self, array: NDArray[Any], low: float) -> NDArray[Any]:
        """The array with ``low`` in its background."""
        if self.black is None:
            return array
        mask = self.mask if array.ndim == 3 else self.mask[..., None]
        return np.where(mask, array, np.float32(low))


def _background(array: NDArray[Any]) -> float | None:
    """The number of more than half of the voxels at the border; None if there is none.

    Example:
        >>> _background(np.pad(np.full((3, 3, 3), 2.0), 1, constant_values=-1.5))
        -1.5
    """
    inside = np.zeros(array.shape[:3], dtype=bool)
    middle: Any = tuple(slice(1, -1) if size > 2 else slice(None) for size in array.shape[:3])
    inside[middle] = True
    border: NDArray[Any] = array[~inside]
    numbers, counts = np.unique(border, return_counts=True)
    if not counts.size or counts.max() <= counts.sum() / 2:
        return None
    return float(numbers[counts.argmax()])


def _differs(array: NDArray[Any], number: float) -> NDArray[np.bool_]:
    different = array != number
    found: NDArray[np.bool_] = different if array.ndim == 3 else different.any(axis=3)
    return found


def _stored_affine(scan: Scan) -> NDArray[np.float64]:
    """The affine of a scan, with NaN for what is unknown."""
    if scan.affine is None:
        return np.full((4, 4), np.nan)
    affine = scan.affine.copy()
    if not scan.is_placed:
        affine[:3, 3] = np.nan
    return affine


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
    old = np.asarray(scan.array.shape[:3])
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
    if scan.array.shape[:3] == target:
        return scan
    smooth = _smoothed(scan, np.divide(scan.array.shape[:3], target))
    return _transformed(smooth, Resize(target, mode="trilinear"))


def _smoothed(scan: Scan, factors: NDArray[np.float64]) -> Scan:
    """Remove details that are too fine for voxels larger by ``factors``."""
    # MONAI's own smoothing pads with zeros.
    sigma = [*np.maximum(0.0, (factors - 1) / 2), *[0.0] * scan.is_coloured]
    array = gaussian_filter(scan.array.astype(np.float32), sigma, mode="nearest")
    return replace(scan, array=array)


def _transformed(scan: Scan, transform: Callable[[Any], Any]) -> Scan:
    """Apply a transform of MONAI to a scan and its affine."""
    import torch
    from monai.data import MetaTensor

    affine = np.eye(4) if scan.affine is None else scan.affine
    channels = np.ascontiguousarray(_channels_first(scan.array), dtype=np.float32)
    found = transform(MetaTensor(torch.from_numpy(channels), affine=torch.from_numpy(affine)))
    place = None if scan.affine is None else found.affine.numpy().astype(np.float64)
    image = found.numpy()
    array = np.moveaxis(image, 0, -1) if scan.is_coloured else image[0]
    return replace(scan, array=array, affine=place)


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """The array of a scan as ``(C, X, Y, Z)``."""
    return np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]


def _grey_levels(scan: Scan) -> NDArray[np.uint8]:
    """Whole grey levels ``(C, *sizes)``, without the third axis of a slice."""
    levels = np.clip(np.rint(_channels_first(scan.array)), 0, 255).astype(np.uint8)
    levels = levels[..., 0] if scan.flat else levels
    if levels.min() == levels.max():
        raise ValueError(
            f"it is {levels.min()} everywhere once prepared; choose other slices or another "
            "normalisation, or remove its row."
        )
    return levels


def _check_window(array: NDArray[Any], foreground: NDArray[Any], high: float) -> None:
    """Refuse a window that does not fit the numbers, such as one of 8 bits for 16 or vice versa."""
    if foreground.size and (foreground > high).mean() > 0.9:
        raise ValueError(
            f"window: nearly all of the foreground is above {high:g}, and would be white: its "
            f"numbers lie between {foreground.min():g} and {foreground.max():g}; choose another "
            "window."
        )
    if array.dtype == np.uint8 and high > 255:
        raise ValueError(
            f"window: it reaches to {high:g}, but this image has 8 bits and would be dark; give an "
            "image with the numbers of the others, or choose another window."
        )


def _check_directions(codes: str | None) -> None:
    """Check the directions of three axes, such as ``RAS``."""
    names = ["".join(sorted(pair)) for pair in ("RL", "AP", "SI")]
    found = sorted(next((n for n in names if c in n), "") for c in codes or "RAS")
    if found != sorted(names):
        raise ValueError(
            "unknown_orientation: expected the directions of three axes, one of R and L, of A and "
            f"P, and of S and I, such as RAS, but got {codes!r}."
        )


def _pair(name: str, values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"{name}: expected two numbers, but got {list(values)}.")
    return real_number(name, values[0]), real_number(name, values[1])


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, but got {value!r}.")
