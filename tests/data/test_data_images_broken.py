"""Files of images that are something else than their names say, or whose headers are broken."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest

from deepscm_pl.data.images import read_scan

NIFTI = nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4)).to_bytes()


def refusal(path: Path) -> str:
    """The message for a file that cannot be read: one line with its name."""
    with pytest.raises(ValueError, match=path.name) as error:
        read_scan(path, "RAS")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_arrays_of_objects_are_named_and_not_loaded(tmp_path: Path) -> None:
    """Loading them could run a program."""
    marker, file = tmp_path / "ran", tmp_path / "a.npy"

    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (marker,)  # type: ignore[return-value]

    np.save(file, np.array([[Harmful(), {"a": 1}]], dtype=object), allow_pickle=True)
    message = refusal(file)
    assert "it contains Python objects, no numbers; save one array of numbers with" in message
    file.write_bytes(pickle.dumps([Harmful()]))
    assert "it is a pickle file of Python objects, no array" in refusal(file)
    assert not marker.exists()


def test_arrays_in_archives_and_without_numbers_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.ones((3, 4)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    assert "it is an archive of arrays (npz)" in refusal(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.ones((0, 4)))
    assert "expected numbers, but its shape (0, 4) has none" in refusal(tmp_path / "b.npy")


def test_truncated_arrays_are_still_called_truncated(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    content = (tmp_path / "a.npy").read_bytes()
    for size in (0, 5, 20, len(content) - 8):
        (tmp_path / "a.npy").write_bytes(content[:size])
        assert "it is truncated" in refusal(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": [0] * 8}, "expected positive dimensions, but got dim [0, 0,"),
        ({"dim": [3, -5, 4, 4, 1, 1, 1, 1]}, "positive dimensions, but got dim [3, -5, 4"),
        ({"dim": [3, 3, 0, 4, 1, 1, 1, 1]}, "positive dimensions, but got dim [3, 3, 0"),
        ({"datatype": 999}, "the datatype 999 is unknown"),
    ],
)
def test_broken_headers_are_not_called_truncated(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    header = nibabel.Nifti1Header(NIFTI[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + NIFTI[348:])
    found = refusal(path)
    assert message in found
    assert "its header is broken" in found
    assert "truncated" not in found


def test_names_that_contradict_the_compression_say_how_to_rename(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(gzip.compress(NIFTI))
    assert "compressed with gzip; rename it to a.nii.gz." in refusal(tmp_path / "a.nii")
    for content in (NIFTI, b"<html>"):
        (tmp_path / "b.nii.gz").write_bytes(content)
        assert "rename it to b.nii if it is NIfTI, or get it" in refusal(tmp_path / "b.nii.gz")
