"""The pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.evaluation.counterfactuals import COVERAGE_LEVELS, CounterfactualResult
from deepscm_pl.evaluation.densities import DensityResult, Sample
from deepscm_pl.evaluation.examples import Example
from deepscm_pl.evaluation.noise import NoiseResult

__all__ = ["draw_coverage", "draw_densities", "draw_errors", "draw_examples", "draw_noise"]

_COLOURS = ("#1b6ca8", "#d1603d", "#4f9d69", "#8d5a97", "#b8912f")
_PLACES = 200
_DIFFERENCES = "RdBu_r"


def draw_densities(results: Sequence[DensityResult]) -> Figure:
    """A panel for each kind of question; a colour for each value; the world dashed.

    Args:
        results: At least one.
    """
    panels = [list(group) for _, group in groupby(results, _panel)]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows), dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, results_of_panel in zip(axes, panels, strict=False):
        _draw_density_panel(panel, results_of_panel)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    return figure


def _panel(result: DensityResult) -> tuple[str, str, bool]:
    return result.variable, result.given, result.done


def _draw_density_panel(axes: Axes, results: Sequence[DensityResult]) -> None:
    first = results[0]
    places = _places([sample for result in results for sample in (result.model, result.world)])
    for k, result in enumerate(results):
        colour = _COLOURS[k % len(_COLOURS)]
        axes.plot(places, _density(result.model, places), color=colour)
        axes.plot(places, _density(result.world, places), color=colour, linestyle="--")
    lines = [Line2D([], [], color=_COLOURS[k % len(_COLOURS)]) for k in range(len(results))]
    lines += [Line2D([], [], color="grey"), Line2D([], [], color="grey", linestyle="--")]
    labels = [f"{first.given} = {result.value:.3g}" for result in results] + ["model", "world"]
    axes.legend(lines, labels, fontsize=7, framealpha=0.85, edgecolor="none")
    given = f"do({first.given})" if first.done else first.given
    axes.set_title(f"p({first.variable} | {given})", fontsize=10)
    unit = f" ({first.unit})" if first.unit else ""
    axes.set_xlabel(f"{first.variable}{unit}", fontsize=8)
    axes.set_ylabel("density", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)


def _places(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Where densities are drawn: over all but the outermost draws, and a little beyond."""
    ends = [_weighted_quantile(sample, share) for sample in samples for share in (0.001, 0.999)]
    margin = 0.05 * (max(ends) - min(ends)) or 1.0
    return np.linspace(min(ends) - margin, max(ends) + margin, _PLACES)


def _weighted_quantile(sample: Sample, share: float) -> float:
    values, order = sample.values.sort()
    cumulative = sample.weights[order].cumsum(dim=0)
    place = int(torch.searchsorted(cumulative, share * float(cumulative[-1])))
    return float(values[min(place, len(values) - 1)])


def _density(sample: Sample, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """A histogram on a fine grid, smoothed by a Gaussian of the width of Silverman's rule."""
    values, weights = sample.values.numpy(), sample.weights.numpy()
    mean = float(weights @ values)
    spread = max(float(weights @ (values - mean) ** 2), 0.0) ** 0.5
    step = float(places[1] - places[0])
    effective = 1 / float(weights @ weights)
    width = max(0.9 * spread * effective**-0.2, step)
    edges: NDArray[np.float64] = np.append(places - step / 2, places[-1] + step / 2)
    counts, _ = np.histogram(values, edges, weights=weights)
    kernel = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    smoothed: NDArray[np.float64] = kernel @ counts
    return smoothed


def draw_errors(results: Sequence[CounterfactualResult]) -> Figure:
    """The error of each intervention as a share of that of the unchanged factual image.

    Args:
        results: At least one, with truth.
    """
    figure = Figure(figsize=(7.5, 0.45 * len(results) + 1.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    heights = np.arange(len(results))[::-1]
    bars = (
        ("particles/ratio/particle_mean", "mean of particles", "#1b6ca8", 0.2),
        ("error/ratio/particle", "single draw", "#8fbfe0", -0.2),
    )
    for key, name, colour, shift in bars:
        found = [result.quantities.get(key) for result in results]
        means = [np.nan if each is None else each.mean for each in found]
        errors = [np.nan if each is None else 2 * each.standard_error for each in found]
        axes.barh(
            heights + shift, means, 0.38, xerr=errors, color=colour, label=name, ecolor="#333333"
        )
    strangers = [_stranger_ratio(result) for result in results]
    axes.plot(strangers, heights, "d", color="#d1603d", label="true image of another row")
    axes.axvline(1, color="#333333", linestyle="--", linewidth=1, label="factual unchanged")
    axes.set_yticks(heights, [result.question.text for result in results], fontsize=8)
    label = "error against the true counterfactual ÷ error of the unchanged factual"
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlim(left=0)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def _stranger_ratio(result: CounterfactualResult) -> float:
    stranger = result.quantities.get("error/mean_absolute_error/stranger")
    factual = result.quantities.get("error/mean_absolute_error/factual")
    if stranger is None or factual is None or not factual.mean > 0:
        return float("nan")
    return stranger.mean / factual.mean


def draw_coverage(results: Sequence[CounterfactualResult]) -> Figure:
    """How often the truth lies in intervals of each level, over pixels that vary.

    Args:
        results: At least one, with truth and particles.
    """
    figure = Figure(figsize=(5.6, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#333333", linestyle="--", linewidth=1, label="as it should")
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(results)))
    for result, colour in zip(results, colours, strict=True):
        found = [result.quantities.get(f"coverage/varying/{level:g}") for level in COVERAGE_LEVELS]
        shares = [np.nan if each is None else each.mean for each in found]
        axes.plot(COVERAGE_LEVELS, shares, "o-", color=colour, label=result.question.text)
    axes.lines[0].set_zorder(3)
    for line in axes.lines[1:]:
        line.set_markersize(3)
        line.set_linewidth(1)
    axes.set_xlabel("level of the interval", fontsize=8)
    axes.set_ylabel("share of varying pixels inside", fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def draw_noise(results: Sequence[NoiseResult]) -> Figure:
    """Histograms of abducted noise, and the prior N(0, 1).

    Args:
        results: At least one.
    """
    columns = min(4, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * rows), dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    places = np.linspace(-4.5, 4.5, 91)
    for panel, result in zip(axes, results, strict=False):
        panel.hist(result.sample.clamp(-4.5, 4.5).numpy(), places, density=True, color="#8fbfe0")
        panel.plot(places, np.exp(-(places**2) / 2) / np.sqrt(2 * np.pi), color="#333333")
        panel.set_title(f"{result.part} of {result.variable}", fontsize=9)
        panel.set_xlabel("noise; beyond ±4.5 at the ends", fontsize=7)
        panel.set_ylabel("density", fontsize=7)
        panel.tick_params(labelsize=7)
    for panel in axes[len(results) :]:
        panel.set_axis_off()
    return figure


def draw_examples(examples: Sequence[Example], labels: Sequence[str]) -> Figure:
    """Some rows under every intervention: counterfactual, truth, and their difference below.

    Args:
        examples: The factual first, then each intervention.
        labels: Of the rows.
    """
    count, (height, width) = len(labels), examples[0].images.shape[-2:]
    lines = 1 if examples[-1].truth is None else 3
    block, pitch = lines * (height + 1) + 3, width + 2
    canvas = np.ones((count * block - 3, len(examples) * pitch, 3))
    for k, example in enumerate(examples):
        for n in range(count):
            for line, picture in enumerate(_pictures(example, n)):
                top = n * block + line * (height + 1)
                canvas[top : top + height, k * pitch : k * pitch + width] = picture
    figure = Figure(
        figsize=(canvas.shape[1] * 0.032 + 1.4, canvas.shape[0] * 0.032 + 0.9),
        dpi=150,
        layout="constrained",
    )
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.xaxis.tick_top()
    axes.set_xticks(
        [k * pitch + width / 2 for k in range(len(examples))],
        [example.title.replace(", ", ",\n") for example in examples],
        fontsize=6,
    )
    ticks, texts = [], []
    for n, label in enumerate(labels):
        names = [label] if lines == 1 else [f"{label}\nmodel", "truth", "difference"]
        ticks += [n * block + line * (height + 1) + height / 2 for line in range(lines)]
        texts += names
    axes.set_yticks(ticks, texts, fontsize=6)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _pictures(example: Example, row: int) -> list[NDArray[np.float64]]:
    """The images of a row, ``(H, W, 3)`` from 0 to 1: the answer, the truth, the difference."""
    answer = _to_rgb(example.images[row])
    if example.truth is None:
        return [answer]
    change = (example.images[row].double() - example.truth[row].double()).mean(dim=0) / 255
    coloured = np.asarray(colormaps[_DIFFERENCES]((change.numpy() + 1) / 2))[..., :3]
    return [answer, _to_rgb(example.truth[row]), coloured]


def _to_rgb(image: Tensor) -> NDArray[np.float64]:
    array = image.double().numpy().transpose(1, 2, 0) / 255
    return np.clip(np.broadcast_to(array, (*array.shape[:2], 3)), 0, 1)
