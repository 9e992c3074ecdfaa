"""The orientation of NIfTI files: by a stated rule, and never by a silent guess."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from deepscm_pl.data.images import read_image, read_scan
from deepscm_pl.data.scans.preprocessing import Preprocessing

from scan_folders import AFFINE, make, volume, write_folder

CASES = Path(__file__).parents[1] / "fixtures" / "cases"
LAS = np.diag([-1.5, 2.0, 2.5, 1.0])


def write(path: Path, array=None, sform=None, qform=None, **fields) -> Path:
    """Write a file with given forms; fields of the header are set as they are."""
    image = nibabel.Nifti1Image(volume() if array is None else array, None)
    image.header["pixdim"][1:4] = 1.5, 2.0, 2.5
    if qform is not None:
        image.header.set_qform(qform, 1)
    if sform is not None:
        image.header["sform_code"] = 2
        for axis, row in zip("xyz", sform, strict=False):
            image.header[f"srow_{axis}"] = row
    content = image.to_bytes()
    header = nibabel.Nifti1Header(content[:348], check=False)
    for name in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z"):
        header[name] = image.header[name]
    for name, value in fields.items():
        if name == "sizes":
            header["pixdim"][1:4] = value
        else:
            header[name] = value
    path.write_bytes(header.binaryblock + content[348:])
    return path


def test_a_file_without_codes_is_refused_or_assumed():
    folder = CASES / "nifti-without-codes"
    path = folder / "no_codes.nii.gz"
    with pytest.raises(
        ValueError, match="neither a qform_code nor an sform_code; correct its"
    ) as e:
        read_scan(path)
    assert "preprocessing.unknown_orientation" in str(e.value)
    assert "truncated" not in str(e.value)
    stated = read_scan(folder / "with_sform.nii.gz")
    assert stated.notes == ()
    assumed = read_scan(path, "RAS")
    assert np.array_equal(assumed.array, stated.array)
    assert not assumed.is_placed
    assert len(assumed.notes) == 1
    assert "assumed to be RAS, and its place is not known" in assumed.notes[0]
    mirrored = read_scan(path, "LAS")
    assert np.array_equal(mirrored.array, stated.array[::-1])
    np.testing.assert_allclose(np.linalg.norm(assumed.affine[:3, :3], axis=0), [8, 7, 8])


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PIR", "SLA"])
def test_any_orientation_can_be_assumed(tmp_path, codes):
    turned = nibabel.Nifti1Image(volume(), AFFINE).as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt(tuple("RAS")),
            nibabel.orientations.axcodes2ornt(tuple(codes)),
        )
    )
    path = write(tmp_path / "a.nii", np.asarray(turned.dataobj), sizes=turned.header.get_zooms())
    scan = read_scan(path, codes)
    assert np.array_equal(scan.array, volume())
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [1.5, 2, 2.5])


@pytest.mark.parametrize("codes", ["RA", "RAX", "RLS", "RASL", "ras"])
def test_directions_that_are_none_are_refused(codes):
    with pytest.raises(ValueError, match=f"unknown_orientation: expected .* but got '{codes}'"):
        Preprocessing(unknown_orientation=codes)


def test_data_with_unknown_orientations_say_so_and_claim_no_place(tmp_path):
    write_folder(tmp_path, suffix=".nii")
    for number in (2, 3, 5):
        write(tmp_path / f"{number:04d}.nii", volume(number))
    with pytest.raises(ValueError, match=r"0002.nii: its orientation is not known.* 2 more files"):
        make(tmp_path, images="{eid}.nii").setup()
    settings = {"unknown_orientation": "RAS"}
    data = make(tmp_path, images="{eid}.nii", preprocessing=settings)
    images = data.variables("train")["image"]
    assert np.array_equal(images[3, 0], volume(3))
    (line,) = data._prepared["image"].summary()
    assert line.startswith("3 of 10 images (0002.nii, 0003.nii, 0005.nii): it has neither")
    assert data.placement("train", 3) is None
    np.testing.assert_allclose(data.placement("train", 4).affine, AFFINE)
    cut = make(
        tmp_path, images="{eid}.nii", preprocessing=settings, axis="axial", slices=[5], shape=[9, 8]
    )
    assert cut.placement("train", 3) is None
    assert cut.prepare_file(tmp_path / "0003.nii")[0][1] is None
    assert make(tmp_path, images="{eid}.nii", preprocessing=settings)._prepared[
        "image"
    ].summary() == [line]


def test_sizes_of_unplaced_voxels_are_compared(tmp_path):
    write_folder(tmp_path, suffix=".nii")
    write(tmp_path / "0003.nii", volume(3), sizes=(3.0, 2.0, 2.5))
    with pytest.raises(ValueError, match=r"voxel_size: voxels of .*0003.nii are 3 × 2 × 2.5 mm"):
        make(
            tmp_path, images="{eid}.nii", preprocessing={"unknown_orientation": "RAS"}
        ).prepare_data()


def test_a_broken_sform_yields_to_a_valid_qform():
    folder = CASES / "nifti-broken-sform"
    expected = nibabel.load(folder / "01_sform_zero_qform_ok.nii.gz").header.get_qform()
    scan = read_scan(folder / "01_sform_zero_qform_ok.nii.gz")
    assert scan.notes == ("its sform is broken (zeros); its qform is used",)
    upright = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.zeros((24, 28, 22)), expected))
    np.testing.assert_allclose(scan.affine, upright.affine)
    image, placement = read_image(folder / "01_sform_zero_qform_ok.nii.gz", (1, 24, 28, 22))
    np.testing.assert_allclose(placement.affine, upright.affine)
    assert image.shape == (1, 24, 28, 22)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("06_srow_nan", "NaN"),
        ("07_srow_inf", "infinite"),
        ("08_srow_singular", "singular"),
    ],
)
def test_a_broken_affine_is_named(name, problem):
    path = CASES / "nifti-broken-sform" / f"{name}.nii.gz"
    with pytest.raises(ValueError, match=rf"{name}.*its sform is broken \({problem}\)") as error:
        read_scan(path)
    assert "truncated" not in str(error.value)
    assert not read_scan(path, "RAS").is_placed


NAN = np.full((3, 4), np.nan)


@pytest.mark.parametrize(
    ("settings", "affine", "notes"),
    [
        ({"sform": AFFINE}, AFFINE, []),
        ({"qform": AFFINE}, AFFINE, []),
        ({"sform": AFFINE, "qform": AFFINE}, AFFINE, []),
        ({"sform": NAN, "qform": AFFINE}, AFFINE, ["its sform is broken (NaN); its qform is used"]),
        (
            {"sform": AFFINE, "qform": AFFINE, "quatern_b": np.nan},
            AFFINE,
            ["its qform is broken (NaN); its sform is used"],
        ),
        (
            {"sform": AFFINE, "qform": AFFINE, "quatern_b": 2.0},
            AFFINE,
            ["its qform is broken (NaN); its sform is used"],
        ),
        (
            {"sform": AFFINE, "qform": LAS},
            AFFINE,
            ["its sform and qform are mirror images of each other; its sform is used"],
        ),
        (
            {"sform": AFFINE, "sizes": (1, 1, 1)},
            AFFINE,
            ["its pixdim contradicts its sform; its sform is used"],
        ),
        (
            {"sform": AFFINE, "sizes": 0},
            AFFINE,
            ["its pixdim contradicts its sform; its sform is used"],
        ),
        (
            {"sform": AFFINE, "sizes": np.nan},
            AFFINE,
            ["its pixdim contradicts its sform; its sform is used"],
        ),
        (
            {"qform": AFFINE, "sizes": (-1.5, 2, 2.5)},
            AFFINE,
            ["its pixdim is negative; the sizes without sign are used"],
        ),
        (
            {"sform": AFFINE, "qform": AFFINE, "sizes": 0},
            AFFINE,
            [
                "its qform is broken (zeros); its sform is used",
                "its pixdim contradicts its sform; its sform is used",
            ],
        ),
    ],
)
def test_forms_are_chosen_by_the_rule(tmp_path, settings, affine, notes):
    settings = dict(settings)
    path = write(tmp_path / "a.nii", **settings)
    scan = read_scan(path)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-5)
    assert list(scan.notes) == notes
    assert np.array_equal(scan.array, volume())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "neither a qform_code nor an sform_code"),
        ({"sform": np.zeros((3, 4))}, r"its sform is broken \(zeros\)"),
        ({"qform": AFFINE, "sizes": 0}, r"its qform is broken \(zeros\)"),
        ({"qform": AFFINE, "sizes": np.nan}, r"its qform is broken \(NaN\)"),
        ({"sform": NAN, "qform": AFFINE, "sizes": 0}, r"sform is broken .*; its qform is broken"),
    ],
)
def test_without_a_valid_form_nothing_is_claimed(tmp_path, settings, reason):
    path = write(tmp_path / "a.nii", **settings)
    with pytest.raises(
        ValueError, match=f"a.nii: its orientation is not known, because .*{reason}"
    ):
        read_scan(path)
    assert not read_scan(path, "RAS").is_placed


def test_assumed_axes_without_sizes(tmp_path):
    scan = read_scan(write(tmp_path / "a.nii", sizes=0), "LAS")
    assert scan.affine is None
    assert np.array_equal(scan.array, volume()[::-1])
    assert scan.notes[-1] == "its pixdim has no voxel sizes"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("opacity", [False, True])
def test_colours(tmp_path, suffix, opacity):
    channels = np.stack([volume(0), volume(1), volume(2), np.full_like(volume(), 255)], -1)
    names = "RGBA" if opacity else "RGB"
    coloured = np.zeros(volume().shape, [(name, "u1") for name in names])
    for k, name in enumerate(names):
        coloured[name] = channels[..., k]
    path = tmp_path / f"a{suffix}"
    nibabel.save(nibabel.Nifti1Image(coloured[::-1], AFFINE @ np.diag([-1, 1, 1, 1.0])), path)
    assert np.array_equal(read_scan(path).array, channels[..., :3])
    found = Preprocessing()(path).images
    assert np.array_equal(found[0], np.moveaxis(channels[..., :3], -1, 0))


def test_complex_numbers_are_named(tmp_path):
    nibabel.save(nibabel.Nifti1Image(volume() * 1j, AFFINE), tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a.nii: expected real numbers, but got complex128"):
        read_scan(tmp_path / "a.nii")


def test_scaled_numbers_are_read_and_not_scaled_again(tmp_path):
    path = write(tmp_path / "a.nii", sform=AFFINE, scl_slope=0.5, scl_inter=-3)
    scan = read_scan(path)
    np.testing.assert_allclose(scan.array, volume() * 0.5 - 3)
    header = nibabel.Nifti1Header(scan.header)
    assert header.get_slope_inter() == (None, None)
