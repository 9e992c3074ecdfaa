"""Images as NIfTI files: where they lie, what their header says, and what is refused."""

from __future__ import annotations

import gzip
import struct
import time
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header

from deepscm_pl.data.images import default_placement, read_header, read_scan, write_nifti
from deepscm_pl.data.placement import Placement

OBLIQUE = np.array([[2.0, 0.25, 0, -31], [-0.5, 3.0, 0, 12.5], [0, 0, 1.5, -8], [0, 0, 0, 1]])


def scan_header(**fields):
    header = Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((7, 8, 9, 1))
    header.set_xyzt_units("mm", "sec")
    header.set_dim_info(0, 1, 2)
    header["db_name"] = b"cohort"
    header["descrip"] = b"T1, 3 tesla"
    header["cal_max"] = 1700
    header["slice_end"] = 8
    for name, value in fields.items():
        header[name] = value
    return header


def random_volume(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_volume_is_read_by_others_where_it_lies(tmp_path, name):
    volume, path = random_volume(4, 5, 6), tmp_path / name
    header = scan_header(qform_code=1, sform_code=4)
    write_nifti(path, volume, Placement(OBLIQUE, header), "counterfactual under do(age = 80)")
    found = nibabel.load(path)
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(found.dataobj), volume)
    np.testing.assert_array_equal(found.affine, OBLIQUE)
    # No rotation says an affine with shears, and a form that says another must not count.
    assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == (4, 0)
    assert found.header["descrip"].item() == b"counterfactual under do(age = 80)"
    assert found.header["db_name"].item() == b"cohort"
    assert found.header.get_xyzt_units() == ("mm", "sec")
    assert found.header.get_dim_info() == (None, None, None)
    assert (found.header["cal_max"], found.header["slice_end"]) == (255, 0)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    # The header of the scan is not changed.
    assert header["db_name"].item() == b"cohort"
    assert header.get_data_shape() == (7, 8, 9, 1)
    assert header["descrip"].item() == b"T1, 3 tesla"


@pytest.mark.parametrize(
    ("codes", "expected"), [((1, 0), (1, 1)), ((0, 4), (0, 4)), ((1, 2), (1, 2)), ((0, 0), (0, 2))]
)
def test_both_forms_say_the_same_with_the_codes_that_they_had(tmp_path, codes, expected):
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = 90, -126, -72
    header = scan_header(qform_code=codes[0], sform_code=codes[1])
    write_nifti(tmp_path / "a.nii", random_volume(3, 4, 5), Placement(affine, header))
    found = nibabel.load(tmp_path / "a.nii").header
    assert (int(found["qform_code"]), int(found["sform_code"])) == expected
    np.testing.assert_array_equal(found.get_sform(), affine)
    np.testing.assert_allclose(found.get_qform(), affine, atol=1e-4)
    assert found.get_zooms() == (2.0, 2.0, 3.0)


def test_values_are_not_scaled(tmp_path):
    """What a program other than nibabel reads: slope 1 or 0, both of which mean none."""
    header = scan_header(scl_slope=3.0, scl_inter=-1000)
    changes = random_volume(3, 4, 5).astype(np.float32) - 128
    for values in (random_volume(3, 4, 5), changes):
        write_nifti(tmp_path / "a.nii", values, Placement(np.eye(4), header))
        slope, intercept = struct.unpack("<ff", (tmp_path / "a.nii").read_bytes()[112:120])
        assert np.isnan(slope) or (slope, intercept) in ((1.0, 0.0), (0.0, 0.0))
        found = nibabel.load(tmp_path / "a.nii")
        assert found.get_data_dtype() == values.dtype
        np.testing.assert_array_equal(found.get_fdata(), values)
    assert found.header["cal_max"] == 0


def test_the_same_answer_is_the_same_file(tmp_path, monkeypatch):
    for name, now in (("a.nii.gz", 1e9), ("b.nii.gz", 2e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        write_nifti(tmp_path / name, random_volume(3, 4, 5), default_placement(3))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("length", [79, 80, 200])
def test_long_descriptions_are_cut(tmp_path, length):
    text = "x" * length
    write_nifti(tmp_path / "a.nii", random_volume(3, 4, 5), default_placement(3), text)
    found = nibabel.load(tmp_path / "a.nii").header["descrip"].item().decode()
    assert found == (text if length == 79 else "x" * 76 + "...")


def test_descriptions_are_plain(tmp_path):
    text = "do(a − 1, b × 2) in mm³ of Zoë"
    write_nifti(tmp_path / "a.nii", random_volume(3, 4, 5), default_placement(3), text)
    found = nibabel.load(tmp_path / "a.nii").header["descrip"].item()
    assert found == b"do(a - 1, b * 2) in mm3 of Zo?"


def read_back(path):
    """A slice or a volume, and its place."""
    scan = read_scan(path)
    array = scan.array[..., 0] if scan.flat else scan.array
    return array, Placement(scan.affine, read_header(scan.header))


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PIR", "SAL"])
def test_volumes_are_read_upright_from_any_orientation(tmp_path, codes):
    volume = random_volume(4, 5, 6)
    orientation = nibabel.orientations.axcodes2ornt(codes)
    original = nibabel.Nifti1Image(volume, np.diag([2.0, 3.0, 4.0, 1.0]))
    nibabel.save(original.as_reoriented(orientation), tmp_path / "a.nii.gz")
    image, placement = read_back(tmp_path / "a.nii.gz")
    turned = nibabel.load(tmp_path / "a.nii.gz")
    upright = nibabel.as_closest_canonical(turned)
    np.testing.assert_array_equal(image, upright.get_fdata())
    np.testing.assert_array_equal(placement.affine, upright.affine)
    # Written again, every element is where it was.
    write_nifti(tmp_path / "b.nii.gz", image.astype(np.uint8), placement)
    again = nibabel.load(tmp_path / "b.nii.gz")
    element = np.array([1, 2, 3, 1])
    back = np.linalg.inv(turned.affine) @ again.affine @ element
    i, j, k = back[:3].round().astype(int)
    assert again.dataobj[1, 2, 3] == turned.dataobj[i, j, k]


@pytest.mark.parametrize("flat", [0, 1, 2])
@pytest.mark.parametrize("codes", ["RAS", "LPI", "ASR"])
def test_slices_come_back_as_they_were_written(tmp_path, flat, codes):
    """Of every plane and from any orientation."""
    shape = [5, 6, 7]
    shape[flat] = 1
    original = nibabel.Nifti1Image(random_volume(*shape), np.diag([2.0, 3.0, 4.0, 1.0]))
    turned = original.as_reoriented(nibabel.orientations.axcodes2ornt(codes))
    nibabel.save(turned, tmp_path / "a.nii")
    image, placement = read_back(tmp_path / "a.nii")
    x, y, z = (original.get_fdata().take(0, axis=axis) for axis in range(3))
    upright = (x.T[::-1], y.T[::-1], z.T[::-1])[flat]
    np.testing.assert_array_equal(image, upright)
    write_nifti(tmp_path / "b.nii", image.astype(np.uint8), placement)
    assert nibabel.load(tmp_path / "b.nii").shape == (*image.shape, 1)
    again, place = read_back(tmp_path / "b.nii")
    np.testing.assert_array_equal(again, image)
    np.testing.assert_allclose(place.affine, placement.affine, atol=1e-5)


def test_slices_without_a_place_are_axial(tmp_path):
    image = random_volume(5, 6)
    write_nifti(tmp_path / "a.nii", image, default_placement(2))
    found, _ = read_back(tmp_path / "a.nii")
    np.testing.assert_array_equal(found, image)
    assert nibabel.aff2axcodes(nibabel.load(tmp_path / "a.nii").affine) == ("P", "R", "S")


def test_what_is_no_volume_is_refused(tmp_path):
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(random_volume(3, 4, 5, 2), np.eye(4)), path)
    with pytest.raises(ValueError, match=r"a\.nii: expected a volume .* \(3, 4, 5, 2\)"):
        read_back(path)
    nibabel.save(nibabel.Nifti1Image(random_volume(3, 4, 5, 1), np.eye(4)), path)
    assert read_back(path)[0].shape == (3, 4, 5)
    with pytest.raises(ValueError, match=r"path: expected a name ending in \.nii or \.nii\.gz"):
        write_nifti(tmp_path / "a.png", random_volume(3, 4, 5), default_placement(3))
    with pytest.raises(ValueError, match=r"image: expected a slice .* got shape \(3, 4, 5, 2\)"):
        write_nifti(path, random_volume(3, 4, 5, 2), default_placement(3))


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "half compressed"])
def test_broken_files_are_told(tmp_path, kind):
    path = tmp_path / ("a.nii.gz" if kind == "half compressed" else "a.nii")
    write_nifti(path, random_volume(30, 40, 50), default_placement(3))
    content = path.read_bytes()
    broken = {"text": b"no volume", "empty": b""}.get(kind, content[: len(content) // 2])
    path.write_bytes(broken)
    expected = "a.nii: it is empty; get it again" if kind == "empty" else "truncated or of another"
    with pytest.raises(ValueError, match=expected):
        read_back(path)


def test_large_headers_of_extensions_do_no_harm(tmp_path):
    header = scan_header(vox_offset=1024)
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"scanned on a Monday"))
    placement = replace(default_placement(3), header=header)
    write_nifti(tmp_path / "a.nii.gz", random_volume(3, 4, 5), placement)
    np.testing.assert_array_equal(read_back(tmp_path / "a.nii.gz")[0], random_volume(3, 4, 5))
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert content[:4] == struct.pack("<i", 348)
