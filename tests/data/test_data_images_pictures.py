"""Pictures and arrays of every depth and colour: their numbers are kept, or they are refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepscm_pl.data.images import is_in_colour, read_image, read_scan
from deepscm_pl.data.scans.preprocessing import Preprocessing

from scan_folders import make, picture, volume, write_folder

CASES = Path(__file__).parents[1] / "fixtures" / "cases"
GREY = picture()
COLOUR = np.stack([picture(0), picture(1), picture(2)], axis=-1)


def write_deep_png(path: Path, array: np.ndarray, filters=(0, 1, 2, 3, 4)) -> None:
    """Write 16-bit channels ``(rows, columns, C)``, which Pillow cannot, with filters in turn."""
    rows, columns, channels = array.shape
    kinds = {2: 4, 3: 2, 4: 6}
    header = struct.pack(">IIBBBBB", columns, rows, 16, kinds[channels], 0, 0, 0)
    pixels = array.astype(">u2").view(np.uint8).reshape(rows, columns, -1).astype(int)
    padded = np.pad(pixels, ((1, 0), (1, 0), (0, 0)))
    lines = b""
    for row in range(rows):
        kind = filters[row % len(filters)]
        left, above, corner = padded[row + 1, :-1], padded[row, 1:], padded[row, :-1]
        near = np.stack([left, above, corner])
        closest = np.abs(near - (left + above - corner)).argmin(axis=0)
        paeth = np.take_along_axis(near, closest[None], axis=0)[0]
        predicted = [0 * left, left, above, (left + above) // 2, paeth][kind]
        lines += bytes([kind]) + ((pixels[row] - predicted) % 256).astype(np.uint8).tobytes()
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["grey16", "greyalpha16", "rgb16"])
def test_all_levels_of_16_bits_are_kept_with_any_channels(name):
    folder = CASES / "png-16-bit-channels"
    scan = read_scan(folder / f"{name}.png")
    assert scan.array.dtype == np.uint16
    assert np.array_equal(scan.array, read_scan(folder / "grey16.png").array)
    assert len(np.unique(scan.array)) == 112
    assert (scan.array.min(), scan.array.max()) == (17, 677)


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4])
def test_16_bits_in_colour_are_kept(tmp_path, kind):
    deep = COLOUR.astype(np.uint16) * 250 + 3
    write_deep_png(tmp_path / "rgb.png", deep, [kind])
    opaque = np.full_like(deep[..., :1], 65535)
    write_deep_png(tmp_path / "rgba.png", np.concatenate([deep, opaque], -1), [4, kind])
    for name in ("rgb.png", "rgba.png"):
        assert np.array_equal(read_scan(tmp_path / name).array[:, :, 0], deep)


def test_a_broken_deep_png_is_named(tmp_path):
    path = tmp_path / "a.png"
    write_deep_png(path, COLOUR.astype(np.uint16))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"images: .*a.png cannot be read \(wrong checksum"):
        read_scan(path)


def saved(folder: Path, name: str, image: Image.Image, **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


LOSSLESS = [
    ("a.png", {}),
    ("a.tif", {}),
    ("a.tiff", {"compression": "tiff_lzw"}),
    ("a.webp", {"lossless": True}),
]


@pytest.mark.parametrize(("name", "options"), LOSSLESS)
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_every_format_holds_the_same_numbers(tmp_path, name, options, array):
    path = saved(tmp_path, name, Image.fromarray(array), **options)
    scan = read_scan(path)
    assert scan.is_coloured == is_in_colour(path) == (array.ndim == 3)
    assert scan.array.dtype == np.uint8
    assert np.array_equal(scan.array[:, :, 0], array)


@pytest.mark.parametrize(
    "array",
    [GREY.astype(np.uint16) * 200, GREY.astype(np.int32) * 70000, GREY.astype(np.float32) / 7],
    ids=["16 bits", "32 bits", "float"],
)
def test_tiff_keeps_deep_numbers(tmp_path, array):
    path = saved(tmp_path, "a.tif", Image.fromarray(array))
    scan = read_scan(path)
    assert np.array_equal(scan.array[:, :, 0], array)
    assert not is_in_colour(path)


def test_one_bit_is_black_and_white(tmp_path):
    bits = GREY > 100
    path = saved(tmp_path, "a.png", Image.fromarray(bits))
    assert np.array_equal(read_scan(path).array[:, :, 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("colours", [True, False])
def test_palettes_are_the_colours_they_stand_for(tmp_path, colours):
    indices = GREY // 64
    table = [0, 10, 20, 200, 100, 0, 30, 30, 30, 255, 255, 255]
    if not colours:
        table = [level for level in (0, 85, 170, 255) for _ in range(3)]
    image = Image.fromarray(indices)
    image = image.convert("P")
    image.putpalette(table)
    image.putdata(indices.ravel().tolist())
    path = saved(tmp_path, "a.png", image)
    expected = np.array(table).reshape(4, 3)[indices]
    found = read_scan(path)
    assert found.is_coloured == is_in_colour(path) == colours
    assert np.array_equal(found.array[:, :, 0], expected if colours else expected[..., 0])


def test_complete_opacity_is_left_out_and_other_shows_the_background(tmp_path):
    opacity = np.full_like(GREY, 255)
    full = saved(tmp_path, "full.png", Image.fromarray(np.dstack([COLOUR, opacity])))
    scan = read_scan(full)
    assert np.array_equal(scan.array[:, :, 0], COLOUR)
    assert scan.notes == ()
    opacity[:4] = 0
    part = saved(tmp_path, "part.png", Image.fromarray(np.dstack([COLOUR, opacity])))
    for background, level in (("black", 0), ("white", 255)):
        scan = read_scan(part, background=background)
        assert (scan.array[:4] == level).all()
        assert np.array_equal(scan.array[4:, :, 0], COLOUR[4:])
        assert scan.notes == (f"it is partly transparent, and lies on a {background} background",)
    with pytest.raises(ValueError, match=r"part.png: it is partly transparent; save it without"):
        read_scan(part, background="refuse")


def test_the_orientation_of_a_camera_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    path = saved(tmp_path, "a.png", Image.fromarray(GREY), exif=exif)
    assert np.array_equal(read_scan(path).array[:, :, 0], np.rot90(GREY, -1))


def write_refused(folder: Path, name: str) -> Path:
    path = folder / name
    if name == "cmyk.jpg":
        Image.fromarray(COLOUR).convert("CMYK").save(path)
    elif name == "lab.tif":
        Image.fromarray(COLOUR).convert("LAB").save(path)
    elif name == "two.tif":
        image = Image.fromarray(GREY)
        image.save(path, save_all=True, append_images=[image])
    elif name == "complex.npy":
        np.save(path, GREY * 1j)
    elif name == "text.npy":
        np.save(path, np.array([["12", "13"], ["14", "15"]]))
    elif name == "dates.npy":
        np.save(path, np.zeros((4, 5), "datetime64[s]"))
    elif name == "infinite.npy":
        np.save(path, np.full((4, 5), np.inf))
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cmyk.jpg", "its colours are CMYK; convert it to RGB"),
        ("lab.tif", "its colours are LAB; convert it to RGB"),
        ("two.tif", "expected one picture, but it has 2; save one"),
        ("complex.npy", "expected real numbers, but got complex128; store their magnitude"),
        ("text.npy", "expected numbers, but got <U2; store numbers"),
        ("dates.npy", "expected numbers, but got datetime64"),
        ("infinite.npy", "expected finite numbers, but got NaN or infinity"),
    ],
)
def test_what_would_be_changed_is_refused(tmp_path, name, message):
    path = write_refused(tmp_path, name)
    for read in (read_scan, lambda each: read_image(each, (1, 16, 18)), Preprocessing()):
        with pytest.raises(ValueError, match=rf"images: .*{name}: .*{message}"):
            read(path)


def test_deep_colours_of_tiff_are_refused(tmp_path):
    tags = {256: 4, 257: 2, 258: (16, 16, 16), 262: 2, 277: 3, 278: 2, 259: 1}
    pixels = np.arange(24, dtype="<u2").tobytes()
    bits = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags |= {273: bits + 6, 279: len(pixels)}
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    for tag, value in sorted(tags.items()):
        count = 3 if isinstance(value, tuple) else 1
        content += struct.pack("<HHII", tag, 3, count, bits if count == 3 else value)
    content += struct.pack("<I", 0) + struct.pack("<3H", 16, 16, 16) + pixels
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.tif: it has more than 8 bits for each channel"):
        read_scan(tmp_path / "a.tif")


@pytest.mark.parametrize("first", [True, False])
def test_arrays_have_channels_first_or_last(tmp_path, first):
    for name, array in (
        ("slice.npy", COLOUR),
        ("volume.npy", np.stack([volume(seed) for seed in range(3)], -1)),
    ):
        np.save(tmp_path / name, np.moveaxis(array, -1, 0) if first else array)
        scan = read_scan(tmp_path / name)
        assert scan.is_coloured
        assert scan.flat == (name == "slice.npy")
        assert np.array_equal(scan.array[:, :, 0] if scan.flat else scan.array, array)
        assert is_in_colour(tmp_path / name)


# Prepared for a model: with the channels and the depth of the data, or refused.


def test_data_in_colour_have_three_channels(tmp_path):
    write_folder(tmp_path)
    Image.fromarray(COLOUR).save(tmp_path / "0003.png")
    data = make(tmp_path)
    images = data.variables("train")["image"]
    assert images.shape == (6, 3, 16, 18)
    assert np.array_equal(images[3].numpy(), np.moveaxis(COLOUR, -1, 0))
    assert np.array_equal(images[2].numpy(), np.stack([picture(2)] * 3))
    (line,) = data._prepared["image"].summary()
    assert line.startswith("9 of 10 images (0000.png, 0001.png, 0002.png and 6 more): it is grey")
    with pytest.raises(ValueError, match=r"0003.png: expected grey levels, but it is in colour"):
        make(tmp_path, preprocessing={"colour": "grey"}).setup()


def test_grey_data_have_one_channel_unless_asked_otherwise(tmp_path):
    write_folder(tmp_path)
    assert make(tmp_path).variables("train")["image"].shape[1] == 1
    data = make(tmp_path, preprocessing={"colour": "rgb"})
    assert data.variables("train")["image"].shape[1] == 3


def test_colours_are_cropped_resized_and_scaled_as_grey_levels_are(tmp_path):
    deep = np.pad(COLOUR.astype(np.uint16) * 16, ((5, 3), (4, 6), (0, 0)))
    write_deep_png(tmp_path / "a.png", deep)
    for channel in range(3):
        Image.fromarray(deep[..., channel].copy()).save(tmp_path / f"{channel}.png")
    settings = {"normalisation": "window", "window": (0, 4080), "field_of_view": (20, 20)}
    prepare = Preprocessing(**settings, shape=(10, 12), crop_foreground=True)
    found = prepare(tmp_path / "a.png").images
    assert found.shape == (1, 3, 10, 12)
    for channel in range(3):
        alone = prepare(tmp_path / f"{channel}.png").images
        assert np.abs(found[0, channel].astype(int) - alone[0, 0]).max() <= 0


def test_the_range_of_the_type_becomes_grey_levels(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "8.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "16.png")
    np.save(tmp_path / "32.npy", GREY.astype(np.int32))
    depth = Preprocessing(normalisation="depth")
    for name in ("8.png", "16.png"):
        assert np.array_equal(depth(tmp_path / name).images[0, 0], GREY)
    with pytest.raises(ValueError, match=r"depth takes images of 8 or 16 bits, .* int32"):
        depth(tmp_path / "32.npy")


@pytest.mark.parametrize("name", ["u16_full", "u16_12bit", "colour"])
def test_observations_that_differ_from_8_bit_grey_are_refused_or_prepared(name):
    path = CASES / "observation-16-bit" / f"{name}.png"
    message = "in colour" if name == "colour" else "normalisation: none takes 8-bit images"
    with pytest.raises(ValueError, match=message):
        Preprocessing(colour="grey")(path)
    with pytest.raises(
        ValueError, match=r"in colour|expected grey levels of 8 bits, but got uint16"
    ):
        read_image(path, (1, 20, 20))
    settings = Preprocessing(normalisation="percentiles", percentiles=(0, 100))
    images = settings(path).images
    if name == "colour":
        assert images.shape == (1, 3, 20, 20)
        return
    array = read_scan(path).array[:, :, 0].astype(float)
    low, high = array[array > 0].min(), array.max()
    expected = np.clip(np.rint(255 * (array - low) / (high - low)), 0, 255)
    assert np.abs(images[0, 0] - expected).max() <= 1


def test_a_window_of_deep_images_refuses_8_bits(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="window: it reaches to 4095, but this image has 8 bits"):
        Preprocessing(normalisation="window", window=(0, 4095))(tmp_path / "a.png")


# Numbers below zero.


def z_scored(outside: float):
    """A head of normal numbers, and the number around it."""
    head = np.random.default_rng(0).standard_normal((12, 14, 10)).astype(np.float32)
    return np.pad(head, 4, constant_values=outside)


@pytest.mark.parametrize("outside", [0.0, -1.7])
def test_percentiles_of_numbers_below_zero_leave_the_head_visible(tmp_path, outside):
    np.save(tmp_path / "a.npy", z_scored(outside))
    prepared = Preprocessing(normalisation="percentiles")(tmp_path / "a.npy")
    head = prepared.images[0, 0, 4:-4, 4:-4, 4:-4]
    assert (head == 0).mean() < 0.02
    assert abs(np.median(head.astype(float)) - 127) < 12
    around = prepared.images[0, 0].copy()
    around[4:-4, 4:-4, 4:-4] = 0
    assert not around.any(), "the background is black"
    assert any("numbers below 0" in note for note in prepared.notes)


def test_without_a_background_everything_is_foreground(tmp_path):
    np.save(tmp_path / "a.npy", z_scored(0.0)[4:-4, 4:-4, 4:-4])
    prepared = Preprocessing(normalisation="percentiles")(tmp_path / "a.npy")
    assert (prepared.images == 0).mean() < 0.02


def test_numbers_that_a_threshold_blackens_are_noted(tmp_path):
    np.save(tmp_path / "a.npy", z_scored(0.0))
    prepared = Preprocessing(normalisation="percentiles", foreground_above=0.0)(tmp_path / "a.npy")
    assert any("below foreground_above, and become black" in note for note in prepared.notes)
    np.save(tmp_path / "b.npy", volume())
    settings = Preprocessing(normalisation="percentiles", foreground_above=0.0)
    assert settings(tmp_path / "b.npy").notes == ()
    one, other = (
        Preprocessing(normalisation="percentiles", foreground_above=above)(tmp_path / "b.npy")
        for above in (None, 0.0)
    )
    assert np.array_equal(one.images, other.images)
