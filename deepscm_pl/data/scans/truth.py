"""What makes heads themselves, in a folder of heads that were drawn in a known world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["ORIGINALS_FILE", "WORLD_FILE", "read_originals", "write_originals"]

WORLD_FILE = "world.json"
"""The file that describes the world of a data set."""

ORIGINALS_FILE = "originals.npz"
"""The file of what its images were drawn from."""


def write_originals(
    path: Path, identifiers: NDArray[np.str_], originals: NDArray[np.float32]
) -> None:
    """Writes what images were drawn from.

    Args:
        path: The file.
        identifiers: Of the subjects, ``(N,)``.
        originals: ``(N, ...)``.
    """
    np.savez(path, identifiers=identifiers, originals=originals)


def read_originals(path: Path, identifiers: NDArray[np.object_]) -> NDArray[np.float32]:
    """Reads the originals of some subjects.

    Args:
        path: What :func:`write_originals` wrote.
        identifiers: Of the subjects, ``(M,)``.

    Returns:
        ``(M, ...)``, in their order.

    Raises:
        ValueError: If the file is missing or broken, or a subject has none.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            known, originals = content["identifiers"].tolist(), content["originals"]
    except Exception as error:  # a broken file breaks its reader in many ways
        raise ValueError(
            f"{path}, from which images were drawn, is missing or cannot be read ({error}), and so "
            "there are no true counterfactuals; generate the data set with `deepscm data brain`."
        ) from None
    rows = {identifier: row for row, identifier in enumerate(known)}
    missing = [each for each in identifiers if each not in rows]
    if missing:
        raise ValueError(
            f"{path} has no original of {missing[0]}, and so no true counterfactuals; generate the "
            "data set again with `deepscm data brain`."
        )
    chosen: NDArray[np.float32] = originals[[rows[each] for each in identifiers]]
    return chosen
