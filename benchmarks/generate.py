"""How fast digits and heads are rendered and measured, and how much faster than plainly.

Prints one JSON line per figure. Times are processor time per image, for drawn strokes. The naive
reference enlarges an image 16 times by cubic interpolation, transforms distances, dilates or erodes
by a disk, and reduces it. Heads are slices of the brain world, drawn all at once; the reference
draws and measures them one at a time.

    python benchmarks/generate.py --images 200
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from time import process_time

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepscm_pl.data import ThicknessIntensityWorld
from deepscm_pl.data.worlds import BrainWorld
from deepscm_pl.morphology import measure, set_intensity, set_thickness

_SCALE = 16


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="images rendered and measured")
    parser.add_argument("--naive", type=int, default=10, help="images rendered naively")
    parser.add_argument("--heads", type=int, default=50, help="heads rendered and measured")
    parser.add_argument("--size", type=int, default=64, help="rows and columns of a head")
    arguments = parser.parse_args()
    _measure_digits(arguments)
    _measure_heads(arguments)


def _measure_digits(arguments: argparse.Namespace) -> None:
    generator = np.random.default_rng(0)
    sample = ThicknessIntensityWorld().sample(arguments.images, generator)
    strokes = _draw_strokes(arguments.images, generator)
    thickness, intensity = sample["thickness"], sample["intensity"]
    few = slice(arguments.naive)
    rendering = _milliseconds(
        lambda: set_intensity(set_thickness(strokes, thickness), intensity), len(strokes)
    )
    measuring = _milliseconds(lambda: measure(strokes), len(strokes))
    single = _milliseconds(
        lambda: [set_thickness(*pair) for pair in zip(strokes[few], thickness[few], strict=True)],
        arguments.naive,
    )
    naive = _milliseconds(
        lambda: [_render_naively(*pair) for pair in zip(strokes[few], thickness[few], strict=True)],
        arguments.naive,
    )
    _report("render_batch", rendering, naive)
    _report("render_single", single, naive)
    _report("measure_batch", measuring, naive)
    _report("render_naive", naive, naive)


def _measure_heads(arguments: argparse.Namespace) -> None:
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

    rendering = _milliseconds(lambda: world.render(originals, attributes), count)
    measuring = _milliseconds(lambda: world.measure(images), count)
    _report("render_heads", rendering, _milliseconds(render_each, count), "one_by_one")
    single = _milliseconds(lambda: [world.measure(images[row]) for row in one_by_one], count)
    _report("measure_heads", measuring, single, "one_by_one")


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


def _milliseconds(operation: Callable[[], object], count: int) -> float:
    """The least time of three runs, per image."""
    times = []
    for _ in range(3):
        start = process_time()
        operation()
        times.append(process_time() - start)
    return 1000 * min(times) / count


def _report(name: str, milliseconds: float, naive: float, other: str = "naive") -> None:
    figure = {
        "figure": name,
        "milliseconds_per_image": round(milliseconds, 3),
        f"speed_over_{other}": round(naive / milliseconds, 2),
    }
    print(json.dumps(figure))


if __name__ == "__main__":
    main()
