"""DICOM files and series: their numbers and their place, or a reason."""

from __future__ import annotations

import builtins
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from deepscm_pl.data.images import is_in_colour, read_scan
from deepscm_pl.data.scans.preprocessing import Preprocessing, Slicing

from scan_folders import AFFINE, make, picture, subjects, volume, write_table

pydicom = pytest.importorskip("pydicom")

RIGHT_DOWN = {
    "axial": ([1, 0, 0], [0, 1, 0]),
    "coronal": ([1, 0, 0], [0, 0, -1]),
    "sagittal": ([0, 1, 0], [0, 0, -1]),
}
"""Directions of rows and columns in the axes of DICOM, to the left and posterior."""


def write_slice(path: Path, array: np.ndarray, **fields) -> None:
    """Write one slice ``(rows, columns)``, ``(rows, columns, 3)`` or frames of them."""
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    coloured = array.ndim == 3 and array.shape[-1] == 3
    header.SamplesPerPixel = 3 if coloured else 1
    header.PhotometricInterpretation = "RGB" if coloured else "MONOCHROME2"
    if coloured:
        header.PlanarConfiguration = 0
    header.Rows, header.Columns = array.shape[-3:-1] if coloured else array.shape[-2:]
    header.BitsAllocated = 8 * array.dtype.itemsize
    header.BitsStored, header.HighBit = header.BitsAllocated, header.BitsAllocated - 1
    header.PixelRepresentation = int(array.dtype.kind == "i")
    header.SeriesInstanceUID = "1.2.3"
    for name, value in fields.items():
        setattr(header, name, value)
    header.PixelData = array.tobytes()
    header.save_as(path, enforce_file_format=True)


def write_series(folder: Path, array: np.ndarray, plane="axial", affine=AFFINE, **fields) -> None:
    """Write a volume (left to right, back to front, bottom to top) as slices in a plane."""
    folder.mkdir(exist_ok=True)
    right, down = (np.array(each, float) for each in RIGHT_DOWN[plane])
    to_dicom = np.diag([-1.0, -1.0, 1.0])
    axes = [int(np.abs(direction).argmax()) for direction in (right, down)]
    normal = 3 - sum(axes)
    signs = [
        (to_dicom @ direction)[axis] for direction, axis in zip((right, down), axes, strict=True)
    ]
    turned = np.transpose(array, (normal, axes[1], axes[0]))
    turned = turned[:, :: int(signs[1]), :: int(signs[0])]
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    for k in np.random.default_rng(0).permutation(len(turned)):
        index = np.zeros(4)
        index[3], index[normal] = 1, k
        for axis, sign in zip(axes, signs, strict=True):
            index[axis] = 0 if sign > 0 else array.shape[axis] - 1
        write_slice(
            folder / f"IM{(7 * k) % 997:04d}",
            np.ascontiguousarray(turned[k]),
            ImageOrientationPatient=[*right, *down],
            ImagePositionPatient=(to_dicom @ (affine @ index)[:3]).tolist(),
            PixelSpacing=[sizes[axes[1]], sizes[axes[0]]],
            SliceThickness=sizes[normal],
            **fields,
        )


@pytest.mark.parametrize("plane", list(RIGHT_DOWN))
def test_a_series_is_the_volume_and_lies_where_it_lay(tmp_path, plane):
    deep = volume().astype(np.uint16) * 16
    write_series(tmp_path / "series", deep, plane)
    scan = read_scan(tmp_path / "series")
    assert scan.array.dtype == np.uint16
    assert np.array_equal(scan.array, deep)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-6)


def test_a_series_and_its_nifti_are_prepared_alike(tmp_path):
    write_series(tmp_path / "series", volume(), "sagittal")
    nibabel.save(nibabel.Nifti1Image(volume(), AFFINE), tmp_path / "a.nii")
    settings = Preprocessing(normalisation="percentiles", voxel_size=(2, 2), shape=(12, 14))
    one, other = (settings(tmp_path / n, Slicing("coronal", (0.4,))) for n in ("series", "a.nii"))
    assert np.array_equal(one.images, other.images)
    np.testing.assert_allclose(one.affines, other.affines, atol=1e-5)


def test_slope_and_intercept_give_the_numbers_of_the_modality(tmp_path):
    stored = picture().astype(np.uint16) * 4
    write_slice(tmp_path / "a.dcm", stored, RescaleSlope=2, RescaleIntercept=-1024)
    assert np.array_equal(read_scan(tmp_path / "a.dcm").array[:, :, 0], stored * 2.0 - 1024)
    write_slice(tmp_path / "b.dcm", stored, RescaleSlope=0.25, RescaleIntercept=0.125)
    assert np.allclose(read_scan(tmp_path / "b.dcm").array[:, :, 0], stored * 0.25 + 0.125)


def test_inverted_grey_levels_are_inverted_and_noted(tmp_path):
    write_slice(tmp_path / "a.dcm", 255 - picture(), PhotometricInterpretation="MONOCHROME1")
    scan = read_scan(tmp_path / "a.dcm")
    assert np.array_equal(scan.array[:, :, 0], picture())
    assert scan.array.dtype == np.uint8
    assert "MONOCHROME1" in scan.notes[0]
    deep = picture().astype(np.uint16)
    fields = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    write_slice(tmp_path / "b.dcm", 4095 - deep, **fields)
    assert np.array_equal(read_scan(tmp_path / "b.dcm").array[:, :, 0], deep)


def test_colours(tmp_path):
    colour = np.stack([picture(0), picture(1), picture(2)], axis=-1)
    write_slice(tmp_path / "a.dcm", colour)
    assert is_in_colour(tmp_path / "a.dcm")
    assert np.array_equal(read_scan(tmp_path / "a.dcm").array[:, :, 0], colour)


@pytest.mark.parametrize("name", ["a.dcm", "IM0001", "1.2.840.7"])
def test_files_are_found_by_their_content_or_ending(tmp_path, name):
    write_slice(tmp_path / name, picture())
    scan = read_scan(tmp_path / name)
    assert scan.affine is None
    assert np.array_equal(scan.array[:, :, 0], picture())


def test_one_placed_slice_is_in_viewing_orientation(tmp_path):
    write_series(tmp_path / "series", volume()[:, :, 5:6], affine=AFFINE)
    scan = read_scan(tmp_path / "series")
    assert scan.flat
    assert np.array_equal(scan.array[..., 0], volume()[:, :, 5].T[::-1])


def remove(folder, number):
    files = sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])
    files[number].unlink()


def change(folder, **fields):
    path = sorted(folder.iterdir())[3]
    header = pydicom.dcmread(path)
    for name, value in fields.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    header.save_as(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: remove(f, 9), "are 5 mm apart, others 2.5 mm; add the missing slices"),
        (lambda f: change(f, SeriesInstanceUID="1.9"), "expected one series, but .* are of two"),
        (
            lambda f: change(f, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]),
            "expected slices of one size and orientation",
        ),
        (lambda f: change(f, PixelSpacing=[7, 7]), "expected slices of one size and orientation"),
        (lambda f: change(f, ImagePositionPatient=None), "position of every slice, .* has none"),
        (
            lambda f: (f / "again.dcm").write_bytes((f / "IM0007").read_bytes()),
            "one slice at each position, but .* are at the same one",
        ),
        (lambda f: [each.unlink() for each in f.iterdir()], "expected a folder with the DICOM"),
        (lambda f: change(f, PixelSpacing=[0, float("nan")]), "broken|differ"),
    ],
)
def test_slices_that_do_not_belong_together_are_refused(tmp_path, damage, message):
    write_series(tmp_path / "series", volume())
    damage(tmp_path / "series")
    with pytest.raises(ValueError, match=rf"images: .*series: .*{message}"):
        read_scan(tmp_path / "series")


def test_frames_without_positions_are_refused(tmp_path):
    frames = np.stack([picture(), picture(1)])
    write_slice(tmp_path / "a.dcm", frames, NumberOfFrames=2)
    with pytest.raises(
        ValueError, match=r"expected the position of every slice, but a.dcm has none"
    ):
        read_scan(tmp_path / "a.dcm")


def test_frames_with_positions_are_a_volume(tmp_path):
    item = pydicom.Dataset
    shared, frames = item(), []
    measures, orientation = item(), item()
    measures.PixelSpacing, measures.SliceThickness = [2.0, 1.5], 2.5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    for k in range(20):
        position, frame = item(), item()
        position.ImagePositionPatient = [0, 0, 2.5 * k]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    array = np.ascontiguousarray(volume()[::-1, ::-1].T)
    write_slice(
        tmp_path / "a.dcm",
        array,
        NumberOfFrames=20,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )
    scan = read_scan(tmp_path / "a.dcm")
    assert np.array_equal(scan.array, volume())
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [1.5, 2, 2.5])


def test_truncated_files_are_named(tmp_path):
    write_slice(tmp_path / "a.dcm", picture())
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"images: .*a.dcm cannot be read"):
        read_scan(tmp_path / "a.dcm")


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    write_slice(tmp_path / "a.dcm", picture())
    load = builtins.__import__

    def without(name, *rest):
        if name.startswith("pydicom"):
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install deepscm_pl\[dicom\]"):
        read_scan(tmp_path / "a.dcm")


def test_series_are_images_of_rows(tmp_path):
    rows = subjects()
    write_table(tmp_path, rows)
    for seed, row in enumerate(rows):
        write_series(tmp_path / row["eid"], volume(seed))
        Image.fromarray(picture()).save(tmp_path / row["eid"] / "preview.png")
    data = make(tmp_path, images="{eid}", axis="axial", slices=[5])
    images = data.variables("train")["image"]
    assert np.array_equal(images[2, 0], volume(2)[:, ::-1, 5].T)
    np.testing.assert_allclose(data.placement("train", 2).affine[:3, 2], AFFINE[:3, 2])
    [(image, _)] = data.prepare_file(tmp_path / rows[2]["eid"])
    assert np.array_equal(image, images[2])
    write_series(tmp_path / rows[2]["eid"], volume(77))
    again = make(tmp_path, images="{eid}", axis="axial", slices=[5])
    assert not np.array_equal(again.variables("train")["image"][2], images[2])
