"""Images of every format, orientation and size are read alike, and their place is kept."""

from __future__ import annotations

from functools import partial

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from deepscm_pl.data.images import read_header, read_scan
from deepscm_pl.data.scans.preprocessing import Preprocessing, Slicing
from deepscm_pl.worlds.heads import TRAITS, HeadGrid, draw_heads

from scan_folders import (
    AFFINE,
    make,
    picture,
    volume,
    write_folder,
    write_nifti,
    write_picture,
    write_table,
)


def preparing(axis=None, slices=(), **settings):
    """From a file to its images."""
    return partial(Preprocessing(**settings), slicing=Slicing(axis, slices))


ORIENTATIONS = ["RAS", "LAS", "PIR", "ASL", "SPL", "IRP"]


def looked_at(array, axis, index):
    """A slice, element by element, as the documentation says."""
    x, y, z = array.shape
    if axis == "axial":
        rows = [[array[c, y - 1 - r, index] for c in range(x)] for r in range(y)]
    elif axis == "coronal":
        rows = [[array[c, index, z - 1 - r] for c in range(x)] for r in range(z)]
    else:
        rows = [[array[index, c, z - 1 - r] for c in range(y)] for r in range(z)]
    return np.array(rows)


def ramp(shape=(24, 26, 28), affine=AFFINE):
    """A volume whose grey levels are a linear function of the place in mm."""
    index = np.stack([*np.indices(shape).reshape(3, -1), np.ones(np.prod(shape))])
    return value_at(affine @ index).reshape(shape).astype(np.float32)


def value_at(place):
    return 100 + 1.5 * place[0] - 1.0 * place[1] + 0.7 * place[2]


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_slice_is_the_same_in_every_orientation(tmp_path, axis, codes):
    array = volume()
    write_nifti(tmp_path / "a.nii.gz", array, codes)
    prepared = preparing(axis=axis, slices=(7, 0.5))(tmp_path / "a.nii.gz")
    assert np.array_equal(prepared.images[0, 0], looked_at(array, axis, 7))
    before = {"axial": 9, "coronal": 8, "sagittal": 7}[axis]
    two = [looked_at(array, axis, index).astype(float) for index in (before, before + 1)]
    assert np.array_equal(prepared.images[1, 0], np.rint(np.mean(two, axis=0)))


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_pictures_of_slices_and_volumes_say_the_same(tmp_path, axis):
    array = volume()
    write_nifti(tmp_path / "a.nii", array, "LPI")
    write_picture(tmp_path / "a.png", looked_at(array, axis, 7))
    write_picture(tmp_path / "a.npy", looked_at(array, axis, 7))
    expected = preparing(axis=axis, slices=(7,))(tmp_path / "a.nii").images
    for name in ("a.png", "a.npy"):
        assert np.array_equal(preparing()(tmp_path / name).images, expected)


def test_a_subject_is_the_same_through_pictures_and_through_volumes_of_any_kind(tmp_path):
    """Volumes in different orientations, every other one with voxels half as large."""
    traits = np.random.default_rng(0).standard_normal((10, TRAITS))
    grid = HeadGrid((48, 60, 48))
    drawn = draw_heads(traits, np.full(10, 1.16e6), np.full(10, 4e4), grid)
    write_folder(tmp_path)
    for number, head in enumerate(drawn):
        before, after = (looked_at(head, "axial", k).astype(float) for k in (23, 24))
        write_picture(
            tmp_path / f"{number:04d}.png", np.rint((before + after) / 2).astype(np.uint8)
        )
        times = 1 + number % 2
        finer = head.repeat(times, axis=0).repeat(times, axis=2)
        affine = np.diag([4.0 / times, 4.0, 4.0 / times, 1.0])
        affine[[0, 2], 3] = (1 - times) * 1.0  # both begin at the same place
        codes = ORIENTATIONS[number % len(ORIENTATIONS)]
        write_nifti(tmp_path / f"{number:04d}.nii", finer, codes, affine)
    flat = make(tmp_path)
    cut = make(tmp_path, images="{eid}.nii", axis="axial", slices=[0.5], voxel_size=[4.0, 4.0])
    for split in ("train", "validation", "test"):
        assert cut.identifiers(split) == flat.identifiers(split)
        one, other = (data.variables(split)["image"].int() for data in (flat, cut))
        assert one.shape == other.shape
        off = (one - other).abs()
        assert off[::2].max() <= 1
        assert off[1::2].float().mean() < 3, "finer voxels are averaged"
        apart = (one - other.flip(-1)).abs()
        assert apart.float().mean() > 5, "left is not right"
        places = [cut.placement(split, row).affine[:, [0, 1, 3]] for row in range(len(one))]
        for place in places:
            np.testing.assert_allclose(place, places[0], atol=1e-4)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_volumes_are_turned(tmp_path, codes):
    array = volume()
    write_nifti(tmp_path / "a.nii", array, codes)
    prepared = preparing()(tmp_path / "a.nii")
    assert np.array_equal(prepared.images, array[None, None])
    np.testing.assert_allclose(prepared.affines, AFFINE[None])


def test_oblique_volumes_are_turned_and_keep_their_place(tmp_path):
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    write_nifti(tmp_path / "a.nii", ramp(affine=turn @ AFFINE), "PIR", turn @ AFFINE)
    settings = preparing(normalisation="window", window=(0.0, 255.0))
    prepared = settings(tmp_path / "a.nii")
    np.testing.assert_allclose(prepared.affines[0], turn @ AFFINE, atol=1e-5)
    check_places(prepared)


def check_places(prepared, border=0):
    """Each element has the grey level of the place where it is said to lie."""
    for image, affine in zip(prepared.images, prepared.affines, strict=True):
        sizes = (*image.shape[1:], 1)[:3]
        index = np.indices(sizes).reshape(3, -1)
        expected = np.clip(value_at(affine @ np.stack([*index, np.ones(index.shape[1])])), 0, 255)
        inside = np.ones(sizes, dtype=bool)
        if border:
            inside[:] = False
            inside[tuple(slice(border, -border) if s > 1 else slice(None) for s in sizes)] = True
        error = np.abs(image.reshape(-1) - expected)[inside.ravel()]
        assert error.max() <= 0.51


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, (24, 26, 28)),
        ({"axis": "axial", "slices": (3, 20)}, (26, 24)),
        ({"axis": "coronal", "slices": (3,)}, (28, 24)),
        ({"axis": "sagittal", "slices": (0.25,)}, (28, 26)),
        ({"shape": (12, 13, 10)}, (12, 13, 10)),
        ({"shape": (30, 30, 30)}, (30, 30, 30)),
        ({"axis": "axial", "slices": (9,), "shape": (17, 33)}, (17, 33)),
        ({"voxel_size": (3.0, 3.0, 3.0)}, (12, 17, 23)),
        ({"voxel_size": (1.0, 1.0, 1.0)}, (36, 52, 70)),
        ({"axis": "coronal", "slices": (5,), "voxel_size": (4.0, 2.0)}, (18, 18)),
        ({"voxel_size": (3.0, 3.0, 3.0), "shape": (8, 10, 30)}, (8, 10, 30)),
        ({"field_of_view": (20, 18, 22), "shape": (10, 18, 11)}, (10, 18, 11)),
        ({"crop_foreground": True, "foreground_above": 190.0, "margin": 1}, None),
        ({"crop_foreground": True, "foreground_above": 150, "axis": "axial", "slices": (9,)}, None),
    ],
)
def test_every_element_lies_where_the_affine_says(tmp_path, settings, sizes):
    write_nifti(tmp_path / "a.nii", ramp(), "LIP")
    settings = {"normalisation": "window", "window": (0.0, 255.0), **settings}
    prepared = preparing(**settings)(tmp_path / "a.nii")
    if sizes is None:
        assert prepared.images[0, 0].size < 24 * 26 * 28
    else:
        assert prepared.images.shape[2:] == sizes
    padded = "voxel_size" in settings and "shape" in settings
    if padded:
        prepared = type(prepared)(prepared.images[..., 5:25], shifted(prepared.affines, 5), None)
    check_places(prepared, border=2)


def shifted(affines, by):
    step = np.eye(4)
    step[2, 3] = by
    return affines @ step


def test_resampling_keeps_the_physical_extent(tmp_path):
    write_nifti(tmp_path / "a.nii", volume())
    prepared = preparing(voxel_size=(2.0, 2.0, 2.0))(tmp_path / "a.nii")
    sizes = np.array(prepared.images.shape[2:])
    spacing = np.linalg.norm(prepared.affines[0][:3, :3], axis=0)
    np.testing.assert_allclose(spacing, 2)
    before = np.array([16, 18, 20]) * [1.5, 2, 2.5]
    np.testing.assert_allclose(sizes * spacing, before, atol=1)
    corners = [prepared.affines[0] @ [*c, 1] for c in ([-0.5] * 3, sizes - 0.5)]
    expected = [AFFINE @ [-0.5, -0.5, -0.5, 1], AFFINE @ [15.5, 17.5, 19.5, 1]]
    np.testing.assert_allclose(corners, expected, atol=1)
    resized = preparing(shape=(8, 9, 5))(tmp_path / "a.nii")
    corners = [resized.affines[0] @ [*c, 1] for c in ([-0.5] * 3, (7.5, 8.5, 4.5))]
    np.testing.assert_allclose(corners, expected, atol=1e-6)


def test_shrinking_averages_instead_of_skipping(tmp_path):
    stripes = np.zeros((32, 32), dtype=np.uint8)
    stripes[::2] = 200
    stripes[:, :4] = 100
    write_picture(tmp_path / "a.png", stripes)
    image = preparing(shape=(8, 8))(tmp_path / "a.png").images[0, 0]
    assert np.abs(image[1:-1, 2:].astype(float) - 100).max() < 25


def test_the_field_of_view_is_cut_before_what_is_left_is_shrunk(tmp_path):
    """As the paper's authors do: 192 × 192 of 193 × 229, of which every 3 × 3 become one."""
    picture = np.zeros((193, 229), dtype=np.uint8)
    picture[1:4, 18:21] = 240  # at the corner of the middle 192 × 192, a pixel once it is shrunk
    picture[:, :18] = picture[:, 210:] = 255  # outside, where nothing may show
    write_picture(tmp_path / "a.png", picture)
    whole = preparing(field_of_view=(192, 192))(tmp_path / "a.png").images[0, 0]
    assert whole.shape == (192, 192)
    assert np.argwhere(whole == 240)[0].tolist() == [1, 0]
    assert whole.max() == 240
    small = preparing(field_of_view=(192, 192), shape=(64, 64))(tmp_path / "a.png").images[0, 0]
    assert small.shape == (64, 64)
    assert small[0, 0] == small.max() > 100
    assert small[6:, 6:].max() == 0


def test_the_field_of_view_pads_and_keeps_the_place(tmp_path):
    write_nifti(tmp_path / "a.nii", ramp())
    settings = {"normalisation": "window", "window": (0, 255), "field_of_view": (28, 20, 28)}
    padded = preparing(**settings)(tmp_path / "a.nii").images[0, 0]
    assert (padded[[0, 1, -2, -1]] == padded.min()).all()
    assert (padded[2:-2] > padded.min()).any(axis=(1, 2)).all()
    affine = preparing(**settings, shape=(14, 10, 14))(tmp_path / "a.nii").affines[0]
    middle = affine @ [6.5, 4.5, 6.5, 1]
    np.testing.assert_allclose(middle, AFFINE @ [11.5, 12.5, 13.5, 1], atol=1e-4)
    np.testing.assert_allclose(affine[:3, :3], 2 * AFFINE[:3, :3], atol=1e-6)


def test_place_is_that_of_the_source(tmp_path):
    """By interpolation of the source at the place of each element."""
    smooth = np.clip(ramp() + 20 * np.sin(np.indices((24, 26, 28)).sum(0) / 6), 0, 255)
    write_nifti(tmp_path / "a.nii", smooth.astype(np.float32), "PSL")
    window = {"normalisation": "window", "window": (0.0, 255.0)}
    prepared = preparing(axis="sagittal", slices=(11,), voxel_size=(2, 2), **window)
    found = prepared(tmp_path / "a.nii")
    image, affine = found.images[0, 0], found.affines[0]
    index = np.stack([*np.indices((*image.shape, 1)).reshape(3, -1), np.ones(image.size)])
    source = (np.linalg.inv(AFFINE) @ affine @ index)[:3]
    expected = map_coordinates(smooth, source, order=1, mode="nearest").reshape(image.shape)
    assert np.abs(image - expected)[2:-2, 2:-2].max() < 2


def test_headers_are_those_of_the_source(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", volume(), "LAS")
    source = nibabel.load(tmp_path / "a.nii.gz").header
    kept = preparing(shape=(8, 8, 8))(tmp_path / "a.nii.gz").header
    assert read_header(kept) == source
    write_picture(tmp_path / "a.png", picture())
    prepared = preparing()(tmp_path / "a.png")
    assert prepared.header is None
    assert np.isnan(prepared.affines).all()


def test_flat_volumes_are_slices(tmp_path):
    array = volume()[:, :, 7:8]
    for name, stored in (("a.nii", array), ("b.nii", array[..., 0])):
        nibabel.save(nibabel.Nifti1Image(stored, AFFINE), tmp_path / name)
        prepared = preparing()(tmp_path / name)
        assert np.array_equal(prepared.images[0, 0], looked_at(array, "axial", 0))
        np.testing.assert_allclose(prepared.affines[0] @ [17, 0, 0, 1], AFFINE[:, 3])


@pytest.mark.parametrize("channel", [False, True])
def test_arrays_may_have_a_channel(tmp_path, channel):
    for name, array in (("a.npy", picture()), ("b.npy", volume())):
        np.save(tmp_path / name, array[None] if channel else array)
        assert np.array_equal(preparing()(tmp_path / name).images[0, 0], array)


def test_grey_pictures_of_other_modes(tmp_path):
    array = picture()
    Image.fromarray(np.stack([array] * 3, axis=-1)).save(tmp_path / "grey.png")
    assert np.array_equal(preparing()(tmp_path / "grey.png").images[0, 0], array)
    grey = Image.fromarray(np.stack([array] * 3, axis=-1))
    levels = Image.new("P", (1, 1))
    levels.putpalette([255 - number // 3 for number in range(768)])
    grey.quantize(palette=levels, dither=Image.Dither.NONE).save(tmp_path / "p.png")
    found = preparing()(tmp_path / "p.png").images[0, 0]
    assert np.abs(found.astype(float) - array).max() <= 4
    Image.fromarray(array).save(tmp_path / "a.jpg", quality=100)
    found = preparing()(tmp_path / "a.jpg").images[0, 0]
    assert np.abs(found.astype(float) - array).max() < 10


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_sixteen_bits_become_grey_levels(tmp_path, suffix):
    deep = picture().astype(np.uint16) * 100
    write_picture(tmp_path / f"a{suffix}", deep)
    with pytest.raises(ValueError, match=r"a\.\w+: normalisation: none takes 8-bit .* uint16 from"):
        preparing()(tmp_path / f"a{suffix}")
    window = preparing(normalisation="window", window=(0.0, 25500.0))
    assert np.array_equal(window(tmp_path / f"a{suffix}").images[0, 0], picture())


def test_percentiles_are_those_of_the_foreground_of_the_whole_scan(tmp_path):
    array = volume().astype(np.int16) * 7
    write_nifti(tmp_path / "a.nii", array)
    low, high = np.percentile(array[array > 0], [5, 90])
    settings = {"normalisation": "percentiles", "percentiles": (5, 90)}
    expected = np.rint(np.clip(255 * (array - low) / (high - low), 0, 255))
    whole = preparing(**settings)(tmp_path / "a.nii").images[0, 0]
    assert np.abs(whole - expected).max() <= 1
    cut = preparing(**settings, axis="axial", slices=(4,))(tmp_path / "a.nii").images[0, 0]
    assert np.array_equal(cut, looked_at(whole, "axial", 4))


def test_cropping_leaves_the_foreground(tmp_path):
    array = np.pad(volume(), 3)
    write_nifti(tmp_path / "a.nii", array, "LPS")
    crop = preparing(crop_foreground=True)(tmp_path / "a.nii").images[0, 0]
    assert np.array_equal(crop, volume()[2:-2, 2:-2, 2:-2])
    wider = preparing(crop_foreground=True, margin=2)(tmp_path / "a.nii").images[0, 0]
    assert np.array_equal(wider, volume())
    # The index of a slice stays that of the whole scan.
    cut = preparing(crop_foreground=True, axis="axial", slices=(9,))(tmp_path / "a.nii")
    assert np.array_equal(cut.images[0, 0], looked_at(volume()[2:-2, 2:-2], "axial", 6))
    write_picture(tmp_path / "a.png", np.pad(picture(), 3))
    flat = preparing(crop_foreground=True)(tmp_path / "a.png").images[0, 0]
    assert np.array_equal(flat, picture()[2:-2, 2:-2])


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.nii", "a.nii.gz"])
def test_truncated_files_are_named(tmp_path, name):
    path = tmp_path / name
    write_nifti(path, volume()) if ".nii" in name else write_picture(path, picture())
    truncate(path)
    with pytest.raises(ValueError, match=rf"images: .*{name} cannot be read .* truncated or of an"):
        read_scan(path)
    path.write_bytes(b"nothing")
    reason = ": it is not compressed" if name.endswith(".gz") else " cannot be read"
    with pytest.raises(ValueError, match=rf"images: .*{name}{reason}"):
        read_scan(path)


@pytest.mark.parametrize("name", ["a.nii.gz", "A.NII.GZ"])
def test_a_wrong_checksum_is_noticed(tmp_path, name):
    path = tmp_path / "written.nii.gz"
    write_nifti(path, volume())
    path = path.rename(tmp_path / name)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # of the checksum, behind all that is needed of the image
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"images: .*{name} cannot be read \(CRC check failed"):
        read_scan(path)


def test_masks_are_no_mistake_of_a_window(tmp_path):
    mask = (volume() > 100).astype(np.uint8)
    write_nifti(tmp_path / "a.nii", mask)
    prepared = preparing(normalisation="window", window=(0.0, 1.0))(tmp_path / "a.nii")
    assert np.array_equal(prepared.images[0, 0], 255 * mask)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_both_versions_of_nifti(tmp_path, kind, suffix):
    path = tmp_path / f"a{suffix}"
    nibabel.save(kind(volume(), AFFINE), path)
    scan = read_scan(path)
    assert np.array_equal(scan.array, volume())
    np.testing.assert_allclose(scan.affine, AFFINE)


@pytest.mark.parametrize(("unit", "millimetres"), [("meter", 1000), ("mm", 1), ("micron", 0.001)])
def test_lengths_are_in_millimetres(tmp_path, unit, millimetres):
    image = nibabel.Nifti1Image(volume(), np.diag([0.5, 1.0, 2.0, 1.0]))
    image.header.set_xyzt_units(unit, "sec")
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    sizes = np.linalg.norm(scan.affine[:3, :3], axis=0)
    np.testing.assert_allclose(sizes, np.array([0.5, 1, 2]) * millimetres)
    header = read_header(scan.header)
    assert header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(header.get_zooms(), np.array([0.5, 1, 2]) * millimetres)
    np.testing.assert_allclose(header.get_sform(), scan.affine)


@pytest.mark.parametrize("code", [0, 4, 0x42])
def test_codes_of_no_unit_mean_millimetres(tmp_path, code):
    image = nibabel.Nifti1Image(volume(), AFFINE)
    image.header["xyzt_units"] = code
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "a.nii").affine, AFFINE)


def test_files_that_are_not_what_is_expected(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.stack([volume()] * 2, -1), AFFINE), tmp_path / "four.nii")
    nibabel.save(nibabel.Nifti1Image(volume()[..., None], AFFINE), tmp_path / "one.nii")
    np.save(tmp_path / "one.npy", np.arange(5))
    np.save(tmp_path / "nan.npy", np.full((4, 5), np.nan))
    (tmp_path / "a.bmp").touch()
    for name, message in [
        ("four.nii", r"three dimensions, but got shape \(16, 18, 20, 2\); store one volume"),
        ("one.npy", r"expected two or three dimensions, but got shape \(5,\)"),
        ("nan.npy", r"expected finite numbers"),
        ("a.bmp", r"expected one of .png, .jpg, .jpeg, .tif, .tiff, .webp, .npy, .nii, .nii.gz"),
    ]:
        with pytest.raises(ValueError, match=rf"images: .*{name}: .*{message}"):
            read_scan(tmp_path / name)
    assert read_scan(tmp_path / "one.nii").array.shape == volume().shape


@pytest.mark.parametrize(
    ("array", "settings", "message"),
    [
        (np.zeros((8, 9), np.uint8), {}, "every voxel is 0"),
        (np.full((8, 9), 7, np.uint8), {}, "every voxel is 7"),
        (volume(), {"axis": "axial", "slices": (20,)}, "slices: .* from 0 to 19 .* but got 20"),
        (volume(), {"axis": "axial", "slices": (-1,)}, "slices: .* from 0 to 19 .* but got -1"),
        (volume(), {"axis": "sagittal", "slices": (1.5,)}, "slices: .* from 0 to 15 .* 1.5"),
        (
            volume(),
            {"axis": "axial", "slices": (0,)},
            "it is 0 everywhere once prepared; choose other",
        ),
        (volume(), {"axis": "axial", "slices": (-0.01,)}, "slices: .* 0.0 to 1.0, but got -0.01"),
        (volume(), {"axis": "axial", "slices": (np.nan,)}, "slices: .* 0.0 to 1.0, but got nan"),
        (
            picture().astype(np.uint16) * 16,
            {"normalisation": "window", "window": (0.0, 255.0)},
            "window: nearly all .* above 255, .* between 16 and 4080; choose another",
        ),
        (picture(), {"axis": "axial", "slices": (0,)}, "axis: expected a volume to cut"),
        (
            picture(),
            {"voxel_size": (1.0, 1.0)},
            "voxel_size: the file does not contain its voxel size",
        ),
        (picture(), {"shape": (8, 8, 8)}, "shape: expected 2 numbers for an image of 2"),
        (volume(), {"shape": (8, 8)}, "shape: expected 3 numbers for an image of 3"),
        (picture() / 1.0, {}, "normalisation: none takes 8-bit images .* float64 from 0 to 255"),
        (
            picture(),
            {"crop_foreground": True, "foreground_above": 255},
            "crop_foreground: no voxel is above 255",
        ),
        (
            picture(),
            {"normalisation": "percentiles", "foreground_above": 255},
            "percentiles: those of the voxels above 255",
        ),
    ],
)
def test_images_that_do_not_fit_the_settings(tmp_path, array, settings, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=rf"images: .*a.npy: {message}"):
        preparing(**settings)(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalisation": "zscore"}, "normalisation: expected one of none, depth, "),
        ({"percentiles": [99, 1]}, "percentiles: expected two ascending ones"),
        ({"percentiles": [1]}, "percentiles: expected two numbers"),
        ({"normalisation": "window"}, "window: expected two numbers with"),
        ({"window": [0, 1]}, "window: expected two numbers with"),
        ({"normalisation": "window", "window": [2, 1]}, "window: expected ascending"),
        ({"margin": -1}, "margin: expected a whole number of at least 0"),
        ({"field_of_view": (8.5, 8)}, "field_of_view: expected whole numbers"),
        ({"field_of_view": (8,)}, "field_of_view: expected two"),
        ({"axis": "frontal", "slices": [1]}, "axis: expected one of axial, coronal, sagittal"),
        ({"axis": "axial"}, "slices: expected some with an axis"),
        ({"slices": [1]}, "slices: expected some with an axis and none without"),
        ({"shape": [64]}, "shape: expected two .* or three"),
        ({"shape": [64, 32.5]}, r"shape: expected whole numbers, but got \[64, 32.5\]"),
        ({"shape": [64, float("nan")]}, "shape: expected two .* or three .* positive"),
        ({"voxel_size": [1, 0, 1]}, "voxel_size: expected two .* or three .* positive"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **settings)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.8])
def test_slices_of_mixed_thickness_show_the_same_place(tmp_path, fraction):
    """Whether slices are 1 mm apart or 4 mm."""
    window = {"normalisation": "window", "window": (0.0, 255.0)}
    prepare = preparing(axis="axial", slices=(fraction,), voxel_size=(2, 2), **window)
    found = []
    for name, thickness, slices in (("thin", 1.0, 48), ("thick", 4.0, 12)):
        affine = np.diag([2.0, 2.0, thickness, 1.0])
        affine[2, 3] = thickness / 2  # both begin at the same place
        write_nifti(tmp_path / f"{name}.nii", ramp((24, 26, slices), affine), affine=affine)
        found.append(prepare(tmp_path / f"{name}.nii"))
    thin, thick = found
    np.testing.assert_allclose(thin.affines[0, :, 3], thick.affines[0, :, 3])
    assert np.abs(thin.images.astype(int) - thick.images).max() <= 1


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, ("1.5 × 2.4 × 2.5", "1.5 × 2 × 2.5")),
        ({"axis": "axial", "slices": [7]}, ("2.4 × 1.5", "2 × 1.5")),
        ({"shape": [16, 16, 16]}, ("1.5 × 2.7 × 3.125", "1.5 × 2.25 × 3.125")),
        (
            {"shape": [8, 8, 8], "crop_foreground": True, "field_of_view": [16, 16, 16]},
            ("3 × 4.8 × 5", "3 × 4 × 5"),
        ),
    ],
)
def test_elements_of_mixed_sizes_are_refused(tmp_path, settings, sizes):
    odd, usual = sizes
    match = f"voxel_size: voxels of .*0003.nii are {odd} mm, those of .*0000.nii are {usual} mm"
    with pytest.raises(ValueError, match=match):
        of_mixed_sizes(tmp_path, **settings).prepare_data()


@pytest.mark.parametrize(
    "settings",
    [
        {"voxel_size": [2.0, 2.0, 2.0], "shape": [16, 16, 16]},
        {"shape": [16, 16, 16], "crop_foreground": True},
        {"axis": "coronal", "slices": [7]},
    ],
)
def test_elements_of_one_size_are_made_of_mixed_ones(tmp_path, settings):
    data = of_mixed_sizes(tmp_path, **settings)
    data.prepare_data()
    assert len(data.variables("train")["image"]) == 6


def of_mixed_sizes(folder, **settings):
    write_folder(folder, suffix=".nii")
    write_nifti(folder / "0003.nii", volume(3), affine=AFFINE @ np.diag([1, 1.2, 1, 1]))
    window = {"normalisation": "window", "window": [0.0, 255.0]}
    return make(folder, images="{eid}.nii", **window, **settings)


def test_mixed_shapes_need_a_target(tmp_path):
    rows = write_folder(tmp_path)
    write_picture(tmp_path / "0003.png", picture(3, (20, 18)))
    with pytest.raises(
        ValueError, match=r"shape: .* \(20, 18\) from .*0003.png and \(16, 18\) from"
    ):
        make(tmp_path).setup()
    data = make(tmp_path, shape=[16, 16])
    assert data.variables("train")["image"].shape == (6, 1, 16, 16)
    write_table(tmp_path, rows)


def test_slices_of_a_subject_are_rows_of_its_split(tmp_path):
    write_folder(tmp_path, suffix=".nii.gz")
    data = make(tmp_path, images="{eid}.nii.gz", axis="axial", slices=[5, 9])
    variables = data.variables("test")
    assert data.identifiers("test") == ["0008", "0008", "0009", "0009"]
    assert data.row_names("test")[1:3] == ["0008, axial 9", "0009, axial 5"]
    assert variables["age"].flatten().tolist() == [48.5, 48.5, 49.5, 49.5]
    assert variables["index"].flatten().tolist() == [0, 1, 2, 3]
    expected = [looked_at(volume(seed), "axial", index) for seed in (8, 9) for index in (5, 9)]
    assert torch.equal(variables["image"][:, 0], torch.from_numpy(np.stack(expected)))
    assert len(data.variables("train")["image"]) == 12


def test_placements_follow_rows(tmp_path):
    write_folder(tmp_path, suffix=".nii.gz")
    for seed in range(10):
        moved = AFFINE.copy()
        moved[0, 3] += seed
        write_nifti(tmp_path / f"{seed:04d}.nii.gz", volume(seed), "LAS", moved)
    data = make(tmp_path, images="{eid}.nii.gz", axis="axial", slices=[5, 9], random_crop=[10, 13])
    placement = data.placement("validation", 3)  # the second slice of the subject 7
    moved = AFFINE.copy()
    moved[0, 3] += 7
    # The middle of (18, 16) begins at row 4 and column 1; rows go from front to back.
    np.testing.assert_allclose(placement.affine @ [0, 0, 0, 1], moved @ [1, 18 - 1 - 4, 9, 1])
    assert placement.header == nibabel.load(tmp_path / "0007.nii.gz").header
    write_folder(tmp_path)
    assert make(tmp_path).placement("test", 0) is None
