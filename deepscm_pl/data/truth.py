"""True counterfactuals and measured attributes of many images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.data.idx import read_idx, write_idx
from deepscm_pl.data.parallel import map_rows
from deepscm_pl.worlds import KnownWorld, Renderer

__all__ = [
    "DRAWING_VERSION",
    "ORIGINALS_FILE",
    "WORLD_FILE",
    "measure_attributes",
    "read_originals",
    "render_truth",
    "write_originals",
]

DRAWING_VERSION = 2
"""Version of the rendering; cached shapes of other versions are not reused."""


def render_truth(
    world: KnownWorld,
    originals: ArrayLike,
    attributes: Mapping[str, ArrayLike],
    workers: int | None = None,
    progress: bool = True,
    cache_dir: str | Path | None = None,
) -> NDArray[np.uint8]:
    """Render true images in parallel, as :meth:`KnownWorld.render` does.

    The expensive part, :meth:`Renderer.shape`, is cached in ``cache_dir``, so that the same
    originals with another intensity, or in another run, cost no time.

    Args:
        world: The world.
        originals: Input of its renderer, N rows.
        attributes: ``(N,)`` each.
        workers: Processes; None for one per processor.
        progress: Whether to show a progress bar.
        cache_dir: Folder, created if necessary; None for no cache.

    Returns:
        Grey levels 0 to 255, ``(N, *image)``.

    Raises:
        ValueError: If an original or attribute has another shape or is outside its domain, or
            ``workers`` is below 1.

    Example:
        >>> from deepscm_pl.data import ThicknessIntensityWorld
        >>> world = ThicknessIntensityWorld()
        >>> bar = np.zeros((1, 28, 28), dtype=np.uint8)
        >>> bar[0, 4:24, 12:15] = 255
        >>> thicker = {"thickness": [5.0], "intensity": [250.0]}
        >>> image = render_truth(world, bar, thicker, workers=1, progress=False)
        >>> round(float(world.measure(image)["thickness"][0]))
        5
    """
    rows, values = world.check_drawing(originals, attributes)
    path = None if cache_dir is None else _shape_path(Path(cache_dir), world, rows, values)
    shapes = _cached_shapes(path, world.renderer.drawn_shape(rows))
    if shapes is None:
        shapes = _draw_shapes(world, rows, values, workers, progress)
        _keep_shapes(path, shapes)
    return world.renderer.shade(shapes, values)


def measure_attributes(
    world: KnownWorld, images: ArrayLike, workers: int | None = None, progress: bool = True
) -> dict[str, NDArray[np.float64]]:
    """Measure attributes in images ``(N, *image)`` in parallel, as :meth:`KnownWorld.measure` does.

    Grey levels are 0 to 255, whole or not.

    Returns:
        Each measurable cause of the image, ``(N,)``; NaN for a black image.

    Raises:
        ValueError: If the images have another shape or are not finite, or ``workers`` is below 1.
    """
    found = map_rows(_Measure(world.renderer), [np.asarray(images)], workers, progress, "measuring")
    return dict(zip(world.image_attributes, found.T, strict=True))


class _Measure:
    """Measures images ``(M, *image)`` as a table ``(M, K)`` of the K attributes of a renderer."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer

    def __call__(self, images: NDArray[np.generic]) -> NDArray[np.float64]:
        found = self.renderer.measure(images)
        return np.stack([found[name] for name in self.renderer.attributes], axis=-1)


class _Shape:
    """Renders shapes ``(M, *image)`` of originals and the columns of its attributes."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer

    def __call__(self, originals: NDArray[Any], *columns: NDArray[np.float64]) -> NDArray[np.uint8]:
        attributes = dict(zip(self.renderer.shape_attributes, columns, strict=True))
        return self.renderer.shape(originals, attributes)


def _draw_shapes(
    world: KnownWorld,
    originals: NDArray[Any],
    attributes: Mapping[str, NDArray[np.float64]],
    workers: int | None,
    progress: bool,
) -> NDArray[np.uint8]:
    values = [attributes[name] for name in world.renderer.shape_attributes]
    columns: list[NDArray[Any]] = [originals, *values]
    return map_rows(_Shape(world.renderer), columns, workers, progress, "rendering")


def _shape_path(
    folder: Path,
    world: KnownWorld,
    originals: NDArray[Any],
    attributes: Mapping[str, NDArray[np.float64]],
) -> Path:
    """The file of shapes, named by a hash of all that determines them."""
    names = world.renderer.shape_attributes
    described = [DRAWING_VERSION, world.name, world.parameters(), originals.shape, names]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(originals).tobytes())
    for name in names:
        digest.update(attributes[name].tobytes())
    dimensions = len(world.renderer.drawn_shape(originals))
    return folder.expanduser() / f"shapes-{digest.hexdigest()[:32]}-idx{dimensions}-ubyte.gz"


def _cached_shapes(path: Path | None, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The content of the file; None if it is missing or broken."""
    # The shapes are rendered again if the cache is broken.
    with suppress(OSError, ValueError):
        if path is not None and (shapes := read_idx(path, len(shape))).shape == shape:
            return shapes
    return None


def _keep_shapes(path: Path | None, shapes: NDArray[np.uint8]) -> None:
    # Without a writable cache, the shapes are rendered each time.
    with suppress(OSError):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_idx(path, shapes)


WORLD_FILE = "world.json"
"""The file that describes the world of a data set."""

ORIGINALS_FILE = "originals.npz"
"""The file of the originals from which images of a data set were rendered."""


def write_originals(
    path: Path, identifiers: NDArray[np.str_], originals: NDArray[np.float32]
) -> None:
    """Write the originals ``(N, ...)`` of subjects, ``identifiers`` ``(N,)``."""
    np.savez(path, identifiers=identifiers, originals=originals)


def read_originals(path: Path, identifiers: NDArray[np.object_]) -> NDArray[np.float32]:
    """Read the originals of subjects, ``(M, ...)`` in the order of ``identifiers``.

    Raises:
        ValueError: If the file is missing or broken, or does not contain a subject.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            known, originals = content["identifiers"].tolist(), content["originals"]
    except Exception as error:  # broken files cause many types of error
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
