"""How fast digits and heads are rendered and measured, and how much faster than plainly.

Prints one JSON line per figure. Times are by the clock, per image, for drawn strokes. The naive
reference enlarges an image 16 times by cubic interpolation, transforms distances, dilates or erodes
by a disk, and reduces it. Heads are slices of the brain world, drawn all at once; the reference
draws and measures them one at a time. The last line is of a data set of heads, with its files.

    python benchmarks/generate.py --images 200
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from figures import Figures, add_promise_option
from measuring import compare, median_seconds, seconds
from numpy.typing import NDArray
from scipy import ndimage

from deepscm_pl.data import ThicknessIntensityWorld, generate_brain
from deepscm_pl.worlds import BrainWorld
from deepscm_pl.worlds.strokes import measure, set_intensity, set_thickness

_SCALE = 16


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="images rendered and measured")
    parser.add_argument("--naive", type=int, default=10, help="images rendered naively")
    parser.add_argument("--heads", type=int, default=50, help="heads rendered and measured")
    parser.add_argument("--size", type=int, default=64, help="rows and columns of a head")
    parser.add_argument("--files", type=int, default=500, help="heads of a data set")
    parser.add_argument(
        "--workers", type=int, help="processes that draw a data set (default: one per processor)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements")
    add_promise_option(parser)
    arguments = parser.parse_args()
    figures = Figures(arguments.at_least)
    _measure_digits(figures, arguments)
    _measure_heads(figures, arguments)
    _measure_files(figures, arguments)
    figures.check()


def _measure_digits(figures: Figures, arguments: argparse.Namespace) -> None:
    generator = np.random.default_rng(0)
    sample = ThicknessIntensityWorld().sample(arguments.images, generator)
    strokes = _draw_strokes(arguments.images, generator)
    thickness, intensity = sample["thickness"], sample["intensity"]
    few = slice(arguments.naive)

    def render_all() -> object:
        return set_intensity(set_thickness(strokes, thickness), intensity)

    def render_some(render: Callable[..., object]) -> object:
        return [render(*pair) for pair in zip(strokes[few], thickness[few], strict=True)]

    naive = _per_image(partial(render_some, _render_naively), arguments.naive)
    ways = {
        "render_batch": _per_image(render_all, arguments.images),
        "render_single": _per_image(partial(render_some, set_thickness), arguments.naive),
        "measure_batch": _per_image(lambda: measure(strokes), arguments.images),
    }
    for name, operation in ways.items():
        _compare(figures, name, operation, naive, "naive", arguments.rounds)


def _measure_heads(figures: Figures, arguments: argparse.Namespace) -> None:
    world, count = BrainWorld(arguments.size, arguments.size), arguments.heads
    generator = np.random.default_rng(0)
    attributes = world.sample(count, generator)
    originals = world.draw_originals(count, generator)
    images = world.render(originals, attributes)
    one_by_one = [slice(row, row + 1) for row in range(count)]

    def render_each() -> object:
        return [
            world.render(originals[row], {name: column[row] for name, column in attributes.items()})
            for row in one_by_one
        ]

    def measure_each() -> object:
        return [world.measure(images[row]) for row in one_by_one]

    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "render_heads": (lambda: world.render(originals, attributes), render_each),
        "measure_heads": (lambda: world.measure(images), measure_each),
    }
    for name, (at_once, each) in ways.items():
        pair = (_per_image(at_once, count), _per_image(each, count))
        _compare(figures, name, *pair, "one_by_one", arguments.rounds)


def _measure_files(figures: Figures, arguments: argparse.Namespace) -> None:
    """A whole data set of heads, with its table and PNG files."""

    def generate() -> float:
        with TemporaryDirectory() as folder:
            return seconds(
                lambda: generate_brain(
                    Path(folder) / "heads",
                    arguments.files,
                    (arguments.size, arguments.size),
                    workers=arguments.workers,
                    progress=False,
                )
            )

    taken = median_seconds(generate, arguments.rounds)
    figures.report("generate_heads_with_files", images_per_second=arguments.files / taken)


def _draw_strokes(count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Curves through random points, three pixels wide, ``(count, 28, 28)``."""
    time = np.linspace(0, 1, 100)
    points = generator.uniform(6, 22, (count, 4, 2))
    weights = np.stack(
        [(1 - time) ** 3, 3 * time * (1 - time) ** 2, 3 * time**2 * (1 - time), time**3]
    )
    curves = np.einsum("kt,nkc->ntc", weights, points)
    grid = np.stack(np.meshgrid(np.arange(28), np.arange(28), indexing="ij"), axis=-1)
    distances = [np.linalg.norm(grid[:, :, None] - curve, axis=-1).min(axis=-1) for curve in curves]
    return np.clip(255 * (2 - np.stack(distances)), 0, 255).astype(np.float32)


def _render_naively(image: NDArray[np.float32], thickness: float) -> NDArray[np.float64]:
    """Enlarge, measure roughly, dilate or erode by a disk, reduce."""
    enlarged = ndimage.gaussian_filter(ndimage.zoom(image, _SCALE, order=3), _SCALE / 3)
    mask = enlarged >= enlarged.max() / 2
    found = 4 * ndimage.distance_transform_edt(mask)[mask].mean() / _SCALE
    radius = int(_SCALE * abs(thickness - found) / 2)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    operation = ndimage.grey_dilation if thickness > found else ndimage.grey_erosion
    drawn = operation(mask.astype(np.uint8), footprint=x**2 + y**2 <= radius**2)
    smooth = ndimage.gaussian_filter(255.0 * drawn, _SCALE / 3)
    reduced: NDArray[np.float64] = ndimage.zoom(smooth, 1 / _SCALE, order=3)
    return reduced


def _per_image(operation: Callable[[], object], count: int) -> Callable[[], float]:
    """Times ``operation``, which does ``count`` images, in seconds for each."""
    return lambda: seconds(operation) / count


def _compare(
    figures: Figures,
    name: str,
    first: Callable[[], float],
    second: Callable[[], float],
    second_name: str,
    rounds: int,
) -> None:
    found = compare(first, second, rounds)
    figures.report(
        name,
        **{
            f"speed_over_{second_name}": found.ratio,
            "milliseconds_per_image": 1000 * found.first,
            f"milliseconds_per_image_{second_name}": 1000 * found.second,
        },
    )


if __name__ == "__main__":
    main()
