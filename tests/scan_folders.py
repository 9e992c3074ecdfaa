"""Small folders of scans: tables, pictures, and volumes with known positions."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from deepscm_pl.data import (
    BrainMRIDataModule,
    Cache,
    Division,
    Preprocessing,
    Slicing,
    Subjects,
)
from deepscm_pl.older import translated

AFFINE = np.array([[1.5, 0, 0, -20], [0, 2.0, 0, -30], [0, 0, 2.5, 10], [0, 0, 0, 1.0]])
"""Affine from voxels of :func:`volume` to mm."""


def volume(seed: int = 0, shape=(16, 18, 20)) -> np.ndarray:
    """A volume without any symmetry, black at the border."""
    inner = np.random.default_rng(seed).integers(1, 256, [size - 4 for size in shape])
    return np.pad(inner, 2).astype(np.uint8)


def picture(seed: int = 0, shape=(16, 18)) -> np.ndarray:
    return volume(seed, (*shape, 5))[..., 2]


def write_nifti(path: Path, array: np.ndarray, codes: str = "RAS", affine=AFFINE) -> None:
    """Save a volume (left to right, back to front, bottom to top) in another orientation."""
    target = nibabel.orientations.axcodes2ornt(tuple(codes))
    nibabel.save(nibabel.Nifti1Image(array, affine).as_reoriented(inverse_of(target)), path)


def inverse_of(target):
    start = nibabel.orientations.axcodes2ornt(("R", "A", "S"))
    return nibabel.orientations.ornt_transform(start, target)


def write_picture(path: Path, array: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def write_table(root: Path, rows: list[dict], name: str = "subjects.csv") -> None:
    separator = "\t" if name.endswith(".tsv") else ","
    lines = [separator.join(rows[0]), *(separator.join(map(str, r.values())) for r in rows)]
    (root / name).write_text("\n".join(lines) + "\n")


def subjects(size: int = 10) -> list[dict]:
    """Rows of subjects with leading zeros in their identifiers."""
    splits = ["train"] * (size - 4) + ["validation"] * 2 + ["test"] * 2
    return [
        {"eid": f"{n:04d}", "age": 40.5 + n, "sex": n % 2, "split": split}
        for n, split in enumerate(splits)
    ]


def write_folder(root: Path, size: int = 10, suffix: str = ".png", **images) -> list[dict]:
    """Write a table and an image for each subject."""
    rows = subjects(size)
    write_table(root, rows)
    for seed, row in enumerate(rows):
        path = root / f"{row['eid']}{suffix}"
        if suffix in (".png", ".npy"):
            write_picture(path, picture(seed, **images))
        else:
            write_nifti(path, volume(seed, **images))
    return rows


def make(root: Path, **more) -> BrainMRIDataModule:
    """A data module of such a folder, with its cache next to the folder."""
    settings = {
        "images": "{eid}.png",
        "split_column": "split",
        "batch_size": 4,
        "cache_dir": root / "cache",
        "progress": False,
        "workers": 1,
    }
    return scans(root, **{**settings, **more})


GROUPS = {
    "subjects": Subjects,
    "splits": Division,
    "slicing": Slicing,
    "preprocessing": Preprocessing,
    "cache": Cache,
}


def scans(root: Path, **flat) -> BrainMRIDataModule:
    """A data module whose settings are given without their groups."""
    settings = translated("BrainMRIDataModule", flat)
    groups = {name: kind(**settings.pop(name, {})) for name, kind in GROUPS.items()}
    return BrainMRIDataModule(root, **groups, **settings)
