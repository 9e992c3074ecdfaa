"""Pictures show what they should, checked by their pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from deepscm_pl.figures import (
    GridCell,
    ImageColumn,
    ImageGrid,
    draw_graph,
    draw_grid,
    draw_grids,
    figure_to_array,
    save_figure,
)
from deepscm_pl.graph import CausalGraph


def colours(figure):
    pixels = figure_to_array(figure).reshape(-1, 3).astype(int)
    red = ((pixels[:, 0] - pixels[:, 2]) > 90).sum()
    blue = ((pixels[:, 2] - pixels[:, 0]) > 90).sum()
    return red, blue


def test_brighter_is_red_and_darker_is_blue():
    """In a column with the same image nothing is coloured but the colour bar."""
    middle, bright, dark = (torch.full((2, 1, 20, 20), g) for g in (128.0, 255.0, 0.0))
    same = colours(draw_grid([ImageColumn("a", middle), ImageColumn("b", middle)], ["x", "y"]))
    more = colours(draw_grid([ImageColumn("a", middle), ImageColumn("b", bright)], ["x", "y"]))
    less = colours(draw_grid([ImageColumn("a", middle), ImageColumn("b", dark)], ["x", "y"]))
    assert more[0] > same[0] + 1000
    assert more[1] == pytest.approx(same[1], rel=0.2)
    assert less[1] > same[1] + 1000


def test_titles_labels_and_units_are_written():
    column = ImageColumn("do(thickness = 3)", torch.zeros(1, 1, 8, 8), ["thickness 3"])
    figure = draw_grid([column, column], ["test 7"], title="Counterfactuals")
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["thickness 3"] * 2 + [column.title] * 2 + ["Counterfactuals"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["test 7"]
    assert figure.axes[1].get_ylabel().split() == ["change", "of", "grey", "level"]


def test_grid_refuses_columns_that_differ():
    columns = [ImageColumn("a", torch.zeros(1, 1, 8, 8)), ImageColumn("b", torch.zeros(2, 1, 8, 8))]
    with pytest.raises(ValueError, match="one shape"):
        draw_grid(columns, ["x"])
    with pytest.raises(ValueError, match="one shape"):
        draw_grid([], [])


def test_a_cell_without_images_is_hatched_and_the_last_row_may_be_shorter():
    cell = GridCell([torch.zeros(1, 8, 8)], caption="age 40")
    figure = draw_grids([ImageGrid([[cell, GridCell([])], [cell]])])
    (axes,) = figure.axes
    assert len(axes.images) == 2
    (patch,) = axes.patches
    assert patch.get_hatch()
    assert [text.get_text() for text in axes.texts] == ["age 40", "impossible", "age 40"]
    first, last = (image.get_extent() for image in axes.images)
    assert first[:2] == last[:2]
    assert patch.get_x() > first[1]


def test_images_of_a_cell_are_named_beside_the_first_column_that_has_several():
    image = torch.zeros(1, 1, 8, 8)
    pair = GridCell([image[0], image[0] + 9], difference=(image[0] + 9, image[0]))
    grid = ImageGrid([[GridCell([image[0]]), pair]], image_names=["before", "after", "change"])
    axes, bar = draw_grids([grid], difference_label="after − before").axes
    assert bar.get_ylabel() == "after − before"
    alone, before, after, change = (image.get_extent() for image in axes.images)
    names = {text.get_text(): text.get_position() for text in axes.texts}
    for name, extent in (("before", before), ("after", after), ("change", change)):
        assert alone[1] < names[name][0] < extent[0]
        assert extent[3] < names[name][1] < extent[2]


def test_axes_of_a_grid_have_labels_ticks_and_marks():
    row = [GridCell([torch.zeros(1, 8, 8)])] * 3
    grid = ImageGrid([row] * 2, "title", row_titles=["a", "b"], ticks=["1", "2", "3"],
                     x_label="age (years)", y_label="dimension", marks=[0.0, 1.5])  # fmt: skip
    first, second = draw_grids([grid, grid], panels_per_row=2).axes
    assert (first.get_xlabel(), first.get_ylabel()) == ("age (years)", "dimension")
    centres = first.get_xticks()
    marks = [line.get_xdata()[0] for line in first.lines]
    assert marks == pytest.approx([centres[0], (centres[1] + centres[2]) / 2])
    assert first.get_position().x1 < second.get_position().x0


def test_colour_images_stay_coloured():
    image = torch.zeros(1, 3, 20, 20)
    image[:, 0] = 255
    column = ImageColumn("a", image)
    assert colours(draw_grid([column], ["x"], differences=False))[0] > 1000


def test_graph_shows_every_variable_and_edge():
    graph = CausalGraph("age, sex -> brain; age, brain -> ventricle; brain, ventricle -> image")
    figure = draw_graph(graph)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert set(graph.nodes) <= texts
    assert len(figure.axes[0].patches) == len(graph.edges)


@pytest.mark.parametrize("effect", ["b", "an_effect_with_a_long_name"])
def test_an_arrow_ends_at_the_box_of_its_effect(effect):
    figure = draw_graph(CausalGraph(f"a -> {effect}"))
    figure.savefig(io.BytesIO())
    (arrow,) = figure.axes[0].patches
    (box, *_) = (each for each in figure.axes[0].texts if each.get_text() == effect)
    top = box.get_bbox_patch().get_window_extent().y1
    assert top - 8 < arrow.get_window_extent().y0 < top + 10


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_saved_figures_can_be_read(tmp_path, suffix):
    path = save_figure(draw_graph(CausalGraph("a -> b")), tmp_path / "new" / f"g.{suffix}")
    start = path.read_bytes()[:200]
    assert {"png": b"PNG", "svg": b"svg", "pdf": b"%PDF"}[suffix] in start
    if suffix == "png":
        assert np.asarray(Image.open(path)).std() > 0


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, suffix, monkeypatch):
    figure = draw_graph(CausalGraph("a -> b"))
    files = []
    for second in ("0", "86400"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", second)
        files.append(save_figure(figure, tmp_path / f"{second}{suffix}").read_bytes())
    assert files[0] == files[1]


def test_saving_refuses(tmp_path):
    figure = draw_graph(CausalGraph("a"))
    with pytest.raises(ValueError, match="ending in"):
        save_figure(figure, tmp_path / "g.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        save_figure(figure, tmp_path / "file" / "g.png")


def test_a_change_of_colour_of_equal_mean_is_visible():
    """Red that becomes green, of equal mean over channels."""
    red = torch.zeros(1, 3, 8, 8)
    red[:, 0, 2:6, 2:6] = 200
    green = red.roll(1, dims=1)
    figure = draw_grid([ImageColumn("a", red), ImageColumn("b", green)], ["x"])
    axes, key = figure.axes
    change = axes.images[-1].get_array()
    assert change.shape == (8, 8, 3)
    assert np.allclose(change[0, 0], 0.5)
    assert (change[4, 4] * 255 - 127.5).tolist() == pytest.approx([-100, 100, 0])
    assert key.get_ylim() == (-255, 255)
    assert [label.get_text() for label in key.get_xticklabels()] == ["R", "G", "B"]
