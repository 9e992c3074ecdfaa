"""Images that are prepared already, read in the shape of a variable."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepscm_pl.data.images import default_placement, read_image, write_nifti

LEVELS = np.arange(20, dtype=np.uint8).reshape(4, 5)


def test_grey_levels_become_equal_channels_of_a_variable_in_colour(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(LEVELS).save(path)
    grey, placement = read_image(path, (1, 4, 5))
    colour, _ = read_image(path, (3, 4, 5))
    assert placement is None
    assert torch.equal(grey, torch.from_numpy(LEVELS)[None])
    assert torch.equal(colour, grey.expand(3, 4, 5))


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5)])
def test_an_array_may_lack_the_channel(tmp_path, shape):
    path = tmp_path / "image.npy"
    np.save(path, LEVELS.reshape(shape))
    image, placement = read_image(path, (1, 4, 5))
    assert placement is None
    assert torch.equal(image, torch.from_numpy(LEVELS)[None].double())


def test_a_scan_keeps_its_placement(tmp_path):
    path = tmp_path / "image.nii.gz"
    volume = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_nifti(path, volume, default_placement(3))
    image, placement = read_image(path, (1, 2, 3, 4))
    assert torch.equal(image, torch.from_numpy(volume)[None].double())
    assert placement is not None
    np.testing.assert_allclose(placement.affine, np.eye(4))


def test_dimensions_of_another_kind_are_refused(tmp_path):
    scan, picture = tmp_path / "image.nii", tmp_path / "image.png"
    write_nifti(scan, np.zeros((2, 3, 4), dtype=np.uint8), default_placement(3))
    Image.fromarray(LEVELS).save(picture)
    with pytest.raises(ValueError, match=r"expected a single slice, but it is a volume of shape"):
        read_image(scan, (1, 4, 5))
    with pytest.raises(ValueError, match="expected a volume, but it is a single slice"):
        read_image(picture, (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("name", "message"), [("a.png", "cannot be read"), ("a.npy", "cannot be read")]
)
def test_broken_files_are_named(tmp_path, name, message):
    path = tmp_path / name
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"{name} {message}"):
        read_image(path, (1, 4, 5))
