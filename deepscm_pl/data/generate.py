"""The generator of synthetic Morpho-MNIST, from MNIST."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.checks import process_count, seed_number, whole_number, whole_numbers
from deepscm_pl.data.cohort import SPLITS, divide_subjects
from deepscm_pl.data.idx import read_idx, write_idx
from deepscm_pl.data.images import ImageFormat
from deepscm_pl.data.morphomnist import (
    read_attributes,
    split_files,
    write_attributes,
)
from deepscm_pl.data.parallel import stream_rows
from deepscm_pl.data.tables import Table, write_table
from deepscm_pl.data.truth import ORIGINALS_FILE, WORLD_FILE, render_truth, write_originals
from deepscm_pl.files import exit_on_termination, new_folder
from deepscm_pl.memory import require_disk, require_memory
from deepscm_pl.worlds import (
    BrainWorld,
    KnownWorld,
    Renderer,
    ThicknessIntensityWorld,
    write_world,
)

__all__ = ["generate_brain", "generate_morphomnist"]

_PREFIXES = ("train", "t10k")


@dataclass(frozen=True)
class _Split:
    """Digits to render: originals ``(N, 28, 28)``, labels ``(N,)`` and attributes ``(N,)``."""

    prefix: str
    originals: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    attributes: dict[str, NDArray[np.float32]]


def generate_morphomnist(
    mnist: str | Path,
    out: str | Path,
    attributes: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    download: bool = False,
    progress: bool = True,
    limit: int | None = None,
    world: KnownWorld | None = None,
) -> None:
    """Render MNIST with attributes of a known world.

    For ``train`` and ``t10k`` each, ``out`` contains ``*-images-idx3-ubyte.gz``,
    ``*-labels-idx1-ubyte.gz``, ``*-morpho.csv`` with the columns index and attributes, and
    ``*-originals-idx3-ubyte.gz``, the digits of MNIST in the same order; ``world.json`` describes
    the world. The folder appears when it is complete; failed and interrupted runs leave nothing.
    The result does not depend on the number of workers.

    Args:
        mnist: Folder of MNIST as torchvision stores it (with ``MNIST/raw``).
        out: New or empty folder.
        attributes: Folder with ``train-morpho.csv`` and ``t10k-morpho.csv``, whose values are
            imposed; None samples them from the world.
        seed: Seed of the samples.
        workers: Processes; None for one per processor.
        download: Whether to download MNIST if it is missing.
        progress: Whether to show a progress bar.
        limit: Render only the first digits of each split, so many; None for all.
        world: The world; None for :class:`ThicknessIntensityWorld`.

    Raises:
        FileNotFoundError: If MNIST or a table of attributes is missing.
        ValueError: If ``out`` cannot be created, a number is out of range, or the imposed
            attributes are invalid or not as many as the digits.
    """
    seed_number("seed", seed)
    if workers is not None:
        process_count("workers", workers)
    limit = sys.maxsize if limit is None else whole_number("limit", limit, least=1)
    world = world or ThicknessIntensityWorld()
    with exit_on_termination(), new_folder(Path(out).expanduser()) as folder:
        raw = _find_mnist(Path(mnist).expanduser(), download)
        splits = [_load_split(raw, prefix, world, attributes, seed, limit) for prefix in _PREFIXES]
        drawn = render_truth(
            world,
            np.concatenate([split.originals for split in splits]),
            {
                name: np.concatenate([split.attributes[name] for split in splits])
                for name in world.attributes
            },
            workers,
            progress,
        )
        write_world(folder / WORLD_FILE, world)
        for split in splits:
            _write_split(folder, split, drawn[: len(split.labels)], world)
            drawn = drawn[len(split.labels) :]


def _find_mnist(folder: Path, download: bool) -> Path:
    """The folder with the four files of MNIST."""
    if download:
        # Imported here, because a torchvision that does not match torch fails on import.
        from torchvision.datasets import MNIST

        try:
            MNIST(str(folder), download=True)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"mnist: MNIST could not be downloaded into {folder} ({error}); put its files into "
                f"{folder / 'MNIST' / 'raw'} yourself."
            ) from None
    for raw in (folder / "MNIST" / "raw", folder / "raw", folder):
        if all(_mnist_file(raw, prefix, kind) for prefix in _PREFIXES for kind in _KINDS):
            return raw
    raise FileNotFoundError(
        f"mnist: there is no MNIST/raw folder with the files of MNIST in {folder} or "
        f"{folder.parent}; name the folder that holds it, or allow the download."
    )


_KINDS = {"images-idx3-ubyte": 3, "labels-idx1-ubyte": 1}
"""The endings of the names of files of MNIST, and the dimensions of their arrays."""


def _mnist_file(raw: Path, prefix: str, kind: str) -> Path | None:
    """A file of MNIST, which may be compressed, whatever its name ends in; None if missing."""
    names = (f"{prefix}-{kind}", f"{prefix}-{kind}.gz")
    return next((raw / name for name in names if (raw / name).is_file()), None)


def _load_split(
    raw: Path,
    prefix: str,
    world: KnownWorld,
    attributes: str | Path | None,
    seed: int,
    limit: int,
) -> _Split:
    try:
        images, labels = (
            read_idx(_mnist_file(raw, prefix, kind) or raw / kind, dimensions)
            for kind, dimensions in _KINDS.items()
        )
    except ValueError as error:
        raise ValueError(f"mnist: {error}") from None
    if len(images) != len(labels):
        raise ValueError(
            f"mnist: expected one label for each {prefix} image in {raw}, but got {len(images)} "
            f"images and {len(labels)} labels; get the files again."
        )
    if attributes is None:
        table = _sample_attributes(world, labels, [seed, _PREFIXES.index(prefix)])
    else:
        table = _imposed_attributes(world, Path(attributes).expanduser(), prefix, len(labels))
    return _Split(
        prefix=prefix,
        originals=images[:limit],
        labels=labels[:limit],
        attributes={name: column[:limit] for name, column in table.items()},
    )


def _sample_attributes(
    world: KnownWorld, labels: NDArray[np.uint8], seed: list[int]
) -> dict[str, NDArray[np.float32]]:
    given = dict.fromkeys(world.fixed_attributes, labels)
    sample = world.sample(len(labels), np.random.default_rng(seed), given)
    return {name: column.astype(np.float32) for name, column in sample.items()}


def _imposed_attributes(
    world: KnownWorld, folder: Path, prefix: str, size: int
) -> dict[str, NDArray[np.float32]]:
    path = folder / f"{prefix}-morpho.csv"
    attributes = read_attributes(path, world)
    rows = len(attributes[world.attributes[0]])
    if rows != size:
        raise ValueError(
            f"{path} should have a row for each of the {size} digits of MNIST, but it has {rows}; "
            "name a folder with attributes of the whole data set."
        )
    return attributes


def _write_split(folder: Path, split: _Split, drawn: NDArray[np.uint8], world: KnownWorld) -> None:
    files = split_files(folder, split.prefix, world)
    write_idx(files.images, drawn)
    write_idx(files.labels, split.labels)
    write_idx(files.originals, split.originals)
    write_attributes(files.attributes, split.attributes)


_SUFFIXES: dict[str, str] = {"png": ".png", "nifti": ".nii.gz"}

_FIRST = 1000000
"""The first identifier."""

_HEAD, _DRAWING_BYTES = 600, 30
"""Bytes of memory per head, and per voxel of an image while it is rendered, at least."""
_LINE, _COMPRESSED = 200, 8
"""Bytes on disk per head, and the largest compression ratio of its image."""

_DRAWN_VOXELS = 2**18
"""Voxels of the images that are rendered at a time."""


def generate_brain(
    out: str | Path,
    size: int = 1000,
    shape: Sequence[int] = (64, 64),
    image_format: ImageFormat | None = None,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Render heads of the world of brains.

    ``out`` contains ``subjects.csv`` with the columns eid, age (years), sex (1 is male),
    ventricle_volume and brain_volume (mm³) and split; for each row an image
    ``{eid}_T1_unbiased_brain_rigid_to_mni.png`` or ``.nii.gz``; ``world.json``; and
    ``originals.npz``, from which true counterfactuals are rendered. The folder appears when it is
    complete; failed and interrupted runs leave nothing. The result does not depend on the number of
    workers.

    Args:
        out: New or empty folder.
        size: Number of heads.
        shape: (rows, columns) of axial slices, or (left to right, back to front, bottom to top) of
            volumes, in voxels.
        image_format: ``"png"`` for slices, or ``"nifti"``, with an affine; None for PNG if slices
            and NIfTI if volumes.
        seed: Seed of the heads and of their splits.
        fractions: Shares of training, validation and test.
        workers: Processes; None for one per processor.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If an argument is out of range, memory or disk are too small, or ``out`` cannot
            be created.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "heads"
        >>> generate_brain(folder, size=10, shape=(32, 32), workers=1, progress=False)
        >>> sorted(path.name for path in folder.iterdir())[0]
        '1000000_T1_unbiased_brain_rigid_to_mni.png'
    """
    whole_number("size", size, least=1)
    seed_number("seed", seed)
    shape = whole_numbers("shape", shape, least=1, lengths=(2, 3))
    world = BrainWorld(*shape)
    _require_room(Path(out).expanduser(), size, int(np.prod(shape, dtype=object)))
    suffix = _SUFFIXES[_checked_format(image_format, world)]
    identifiers = np.array([str(_FIRST + number) for number in range(size)])
    splits = _splits(identifiers, fractions, seed)
    generator = np.random.default_rng(seed)
    # Images are rendered with the recorded float32 values, so that these are their truth.
    attributes = {n: c.astype(np.float32) for n, c in world.sample(size, generator).items()}
    originals = world.draw_originals(size, generator)
    world.check_drawing(originals, attributes)
    with exit_on_termination(), new_folder(Path(out).expanduser()) as folder:
        write_world(folder / WORLD_FILE, world)
        write_originals(folder / ORIGINALS_FILE, identifiers, originals)
        names = ("age", "sex", "ventricle_volume", "brain_volume")
        columns = {"eid": identifiers, **{n: attributes[n] for n in names}, "split": splits}
        write_table(folder / "subjects.csv", columns)
        chunk = max(1, min(64, _DRAWN_VOXELS // int(np.prod(shape))))
        parts = [identifiers, originals, *attributes.values()]
        draw = _Draw(world.renderer, world.grid.affine, world.attributes, folder, suffix)
        for _ in stream_rows(draw, parts, workers, progress, "drawing", chunk):
            pass


def _require_room(out: Path, size: int, voxels: int) -> None:
    """Raise unless the heads and one image fit into memory and disk."""
    require_memory("shape", _DRAWING_BYTES * voxels, "choose a smaller one")
    require_memory("size", _HEAD * size, "draw fewer heads (--size)")
    needed = size * (_LINE + voxels // _COMPRESSED)
    require_disk("size", out, needed, size, "draw fewer heads (--size)")


@dataclass(frozen=True)
class _Draw:
    """Renders images of subjects and writes them."""

    renderer: Renderer
    affine: NDArray[np.float64]
    names: Sequence[str]
    folder: Path
    suffix: str

    def __call__(
        self, identifiers: NDArray[np.str_], originals: NDArray[Any], *columns: NDArray[Any]
    ) -> NDArray[np.str_]:
        values = [column.astype(np.float64) for column in columns]
        attributes = dict(zip(self.names, values, strict=True))
        images = self.renderer.render(originals, attributes)
        for identifier, image in zip(identifiers, images, strict=True):
            name = f"{identifier}_T1_unbiased_brain_rigid_to_mni{self.suffix}"
            self._write(self.folder / name, image)
        return identifiers

    def _write(self, path: Path, image: NDArray[np.uint8]) -> None:
        if self.suffix == ".png":
            from PIL import Image

            Image.fromarray(image).save(path)
        else:
            import nibabel

            volume = image.reshape((*image.shape, 1)[:3])
            scan = nibabel.Nifti1Image(volume, self.affine)
            scan.header.set_xyzt_units("mm")
            nibabel.save(scan, path)


def _checked_format(image_format: str | None, world: BrainWorld) -> str:
    flat = world.grid.dimensions == 2
    if image_format is None:
        return "png" if flat else "nifti"
    if image_format not in get_args(ImageFormat):
        raise ValueError(f"image_format: expected png or nifti, but got {image_format!r}.")
    if image_format == "png" and not flat:
        raise ValueError("image_format: png is for slices; choose nifti for volumes.")
    return image_format


def _splits(identifiers: NDArray[np.str_], fractions: Sequence[float], seed: int) -> list[str]:
    table = Table(Path("subjects.csv"), {"eid": identifiers.astype(object)}, "eid")
    return [SPLITS[number] for number in divide_subjects(table, fractions, seed)]
