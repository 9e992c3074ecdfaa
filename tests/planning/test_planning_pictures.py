"""Images are described as the data module reads them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from deepscm_pl.data.images import is_in_colour
from deepscm_pl.planning.pictures import describe_images

from scan_folders import AFFINE, picture, volume, write_nifti

COLOUR = np.stack([picture(0), picture(1), picture(2)], axis=-1)


@pytest.mark.parametrize(
    ("name", "image", "channels", "kind"),
    [
        ("grey.png", Image.fromarray(picture()), 1, "uint8"),
        ("grey in colours.png", Image.fromarray(np.stack([picture()] * 3, -1)), 1, "uint8"),
        ("colour.png", Image.fromarray(COLOUR), 3, "uint8"),
        ("deep.png", Image.fromarray(picture().astype(np.uint16) * 99), 1, "uint16"),
        ("bits.png", Image.fromarray(picture() > 99), 1, "uint8"),
        ("colour.tif", Image.fromarray(COLOUR), 3, "uint8"),
    ],
)
def test_channels_and_depth(tmp_path, name, image, channels, kind):
    image.save(tmp_path / name)
    found = describe_images("{id}", [tmp_path / name])
    assert (found.channels, found.type, found.sizes) == (channels, kind, (16, 18))
    assert is_in_colour(tmp_path / name) == (channels == 3)


def test_volumes_have_the_sizes_of_their_orientation(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", volume(), "SPL", AFFINE)
    assert describe_images("{id}", [tmp_path / "a.nii.gz"]).sizes == volume().shape
