"""Grids give the space to images, texts do not touch, and bars stand beside what they measure."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from deepscm_pl.figures import (
    GridCell,
    ImageColumn,
    ImageGrid,
    ImagePanel,
    MatrixAxis,
    draw_comparison,
    draw_grid,
    draw_grids,
    draw_image_matrix,
    draw_samples,
    figure_to_array,
    middle_planes,
    thumbnail_pixels,
)
from deepscm_pl.figures.output import figure_of_panels
from deepscm_pl.figures.pixels import PLANES, plane_boxes

CAPTION = "thickness 2.35 pixels\nintensity 165 grey levels"
LONG = "the cardiothoracic ratio measured on the film 0.512\nsex of the person male"
MORE = "\nextrapolated"


def counterfactuals(event=(28, 28), caption=CAPTION, count=5, channels=1):
    torch.manual_seed(0)
    images = 255 * torch.rand(count, channels, *event)
    titles = ["factual", "do(thickness = 1.5 pixels)", "do(thickness = 5 pixels)"]
    titles += ["do(intensity = 100 grey levels)", "do(the cardiothoracic ratio = 0.6, sex = male)"]
    columns = [
        ImageColumn(title, images * (1 - 0.1 * k), [caption + MORE * (k == 2)] * count)
        for k, title in enumerate(titles)
    ]
    return draw_grid(columns, [f"test {n}" for n in range(count)])


def comparison(event=(28, 28)):
    observed = 255 * torch.rand(8, 1, *event)
    return draw_comparison(observed, observed / 2, [f"train {12345 + n}" for n in range(8)])


def matrix(event=(28, 28)):
    panels = [ImagePanel(f"noise {k}", torch.zeros(4, 5, 1, *event)) for k in range(2)]
    columns = MatrixAxis("thickness (pixels)", ["1.34", "2", "3.1", "4.25", "5.9"])
    return draw_image_matrix(panels, columns, MatrixAxis("intensity", ["240", "200", "99", "7"]))


def samples(event=(28, 28), count=16):
    return draw_samples(torch.zeros(count, 1, *event), [CAPTION] * count)


def examples(event=(28, 28)):
    """As in reports: model, truth and difference beside the factual."""
    image = 255 * torch.rand(1, *event)
    pair = GridCell([image, image / 2], difference=(image, image / 2), caption="extrapolated")
    row = [GridCell([image]), pair, GridCell([])]
    titles = ["factual", "do(thickness = 5 pixels)", "do(intensity = 100)"]
    names = ["model", "truth", "difference"]
    grid = ImageGrid([row] * 2, "", titles, ["test 0\nage 63", "test 1\nage 7"], names)
    return draw_grids([grid], difference_label="difference: model − truth (grey levels)")


VOLUME = (16, 20, 16)
FIGURES = {
    "counterfactuals": counterfactuals,
    "counterfactuals of heads": lambda: counterfactuals((64, 64)),
    "counterfactuals of volumes": lambda: counterfactuals(VOLUME, count=2),
    "counterfactuals in colour": lambda: counterfactuals(channels=3),
    "long names": lambda: counterfactuals(caption=LONG),
    "comparison": comparison,
    "comparison of volumes": lambda: comparison(VOLUME),
    "matrix": matrix,
    "matrix of volumes": lambda: matrix(VOLUME),
    "samples": samples,
    "samples of volumes": lambda: samples(VOLUME),
    "examples": examples,
}


WITH_DIFFERENCES = [
    name
    for name in FIGURES
    if name.startswith(("counterfactuals", "long", "comparison", "examples"))
    and "colour" not in name
]


@pytest.fixture(scope="module")
def drawn():
    """All figures, each drawn once."""
    figures = {name: make() for name, make in FIGURES.items()}
    for figure in figures.values():
        figure_to_array(figure)
    return figures


def inches(box, figure):
    return box.transformed(figure.dpi_scale_trans.inverted())


def image_boxes(figure):
    """The boxes of the images of all grids, without those of colour bars."""
    grids = [axes for axes in figure.axes if not axes.spines["left"].get_visible()]
    return [image.get_window_extent() for axes in grids for image in axes.images]


def text_boxes(figure):
    renderer = figure.canvas.get_renderer()
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found]


def assert_apart(figure):
    for (one, first), (other, second) in combinations(text_boxes(figure), 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        down = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(across, down) < 1, (one, other)


@pytest.mark.parametrize("name", ["counterfactuals", "comparison", "matrix", "samples"])
def test_images_of_digits_take_most_of_the_area(drawn, name):
    figure = drawn[name]
    taken = sum(box.width * box.height for box in image_boxes(figure))
    assert taken / (figure.bbox.width * figure.bbox.height) > 0.6


@pytest.mark.parametrize("name", FIGURES)
def test_no_texts_touch_and_all_are_inside(drawn, name):
    figure = drawn[name]
    assert_apart(figure)
    for text, box in text_boxes(figure):
        assert -2 < box.x0 < box.x1 < figure.bbox.width + 2, text
        assert -2 < box.y0 < box.y1 < figure.bbox.height + 2, text


@pytest.mark.parametrize("name", FIGURES)
def test_captions_and_titles_do_not_cover_images(drawn, name):
    figure = drawn[name]
    inside = {*"LRAPSI", "impossible"}
    for text, box in text_boxes(figure):
        for image in image_boxes(figure):
            across = min(box.x1, image.x1) - max(box.x0, image.x0)
            down = min(box.y1, image.y1) - max(box.y0, image.y0)
            assert text in inside or min(across, down) < 1, text


@pytest.mark.parametrize("name", WITH_DIFFERENCES)
def test_a_bar_stands_beside_each_row_of_differences(drawn, name):
    figure = drawn[name]
    bars = [axes for axes in figure.axes if axes.spines["left"].get_visible()]
    differences = [
        image.get_window_extent() for image in figure.axes[0].images if image.get_array().ndim == 2
    ]
    assert differences
    assert len(bars) == len({round(box.y0) for box in differences})
    for bar in bars:
        box = inches(bar.get_window_extent(), figure)
        row = [
            each
            for each in (inches(each, figure) for each in differences)
            if each.y0 - 0.05 < box.y0 and box.y1 < each.y1 + 0.05
        ]
        apart = [max(each.x0 - box.x1, box.x0 - each.x1) for each in row]
        assert 0 < min(apart) < 0.4  # in inches; the names of images may stand between


@pytest.mark.parametrize("count", [1, 2, 5, 12, 16, 64, 100])
@pytest.mark.parametrize("event", [(28, 28), VOLUME])
def test_samples_wrap_into_a_square(count, event):
    figure = draw_samples(torch.zeros(count, 1, *event), ["age 40"] * count)
    images = figure.axes[0].images
    assert len(images) == count
    width, height = figure.get_size_inches()
    if count > 4:
        assert 0.6 < width / height < 1 / 0.6
    lefts = {round(image.get_extent()[0], 3) for image in images}
    tops = {round(image.get_extent()[3], 3) for image in images}
    assert (len(tops) - 1) * len(lefts) < count <= len(tops) * len(lefts)


def test_samples_are_refused_without_images_and_with_captions_that_do_not_fit():
    with pytest.raises(ValueError, match="at least one"):
        draw_samples(torch.zeros(0, 1, 8, 8))
    with pytest.raises(ValueError, match="a text for each of 3 images, but got 2"):
        draw_samples(torch.zeros(3, 1, 8, 8), ["a", "b"])


SIDES = {"L": (0, 0), "R": (0, -1), "P": (1, 0), "A": (1, -1), "I": (2, 0), "S": (2, -1)}
"""Axis and index of the outermost voxels of each side."""


@pytest.mark.parametrize("side", SIDES)
def test_letters_name_the_sides_of_planes(side):
    """The voxels on a side are bright where the letter is, and dark on the opposite side."""
    shape = (1, 8, 10, 6)
    axis, index = SIDES[side]
    volume = torch.zeros(shape)
    volume.select(axis + 1, index).fill_(255)
    picture = middle_planes(volume)[0].numpy()
    seen = 0
    for (left, right, top, bottom), letters in zip(
        plane_boxes(shape), PLANES.values(), strict=True
    ):
        plane = picture[top:bottom, left:right]
        edges = (plane[:, 0], plane[:, -1], plane[0], plane[-1])
        for letter, edge, opposite in zip(letters, edges, np.array([1, 0, 3, 2]), strict=True):
            if letter == side:
                seen += 1
                assert edge.min() == 255
                assert edges[opposite][1:-1].max() == 0
    assert seen == 2


def test_volumes_have_letters_and_names_and_images_have_none(drawn):
    texts = [text for text, _ in text_boxes(drawn["counterfactuals of volumes"])]
    for name in PLANES:
        assert texts.count(name) == 5  # above each column
    assert texts.count("L") == 2 * 2  # in two planes of each row
    assert not {*"LRAPSI"} & {text for text, _ in text_boxes(drawn["counterfactuals of heads"])}


def test_letters_are_drawn_at_the_ends_that_they_name():
    figure = draw_samples(torch.zeros(1, 1, *VOLUME))
    figure_to_array(figure)
    found = {}
    for text, box in text_boxes(figure):
        found.setdefault(text, []).append(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
    assert all(left[0] < right[0] for left, right in zip(found["L"], found["R"], strict=True))
    assert all(low[1] < high[1] for low, high in zip(found["I"], found["S"], strict=True))
    assert found["P"][0][1] < found["A"][0][1]  # axial
    assert found["P"][1][0] < found["A"][1][0]  # sagittal


@pytest.mark.parametrize("name", FIGURES)
def test_thumbnails_have_few_rows_and_large_letters(drawn, name):
    figure = drawn[name].thumbnail()
    figure_to_array(figure)
    width, height = figure.get_size_inches()
    assert height < 1.8 * width
    assert 1 <= len(figure.grids[0].rows) <= 3
    pixels_per_point = 320 / width / 72
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and text.get_text() not in {*"LRAPSI", *PLANES}:
            assert text.get_fontsize() * pixels_per_point > 8, text.get_text()
    assert_apart(figure)


def test_pixels_of_a_thumbnail_leave_the_figure_as_it_is():
    figure = counterfactuals()
    before = figure.get_size_inches().copy()
    pixels = thumbnail_pixels(figure)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert 280 < pixels.shape[1] < 360
    assert (figure.get_size_inches() == before).all()


def test_panels_of_a_thumbnail_are_below_each_other():
    figure, panels = figure_of_panels(3, width=3.5, height=2.7)
    for axes in panels:
        axes.plot([0, 1])
        axes.set_title("p(intensity | do(thickness)), of the test split")
    before = figure_to_array(figure)
    pixels = thumbnail_pixels(figure)
    assert pixels.shape[0] > 1.5 * pixels.shape[1]
    assert pixels.shape[1] < 360
    assert np.array_equal(figure_to_array(figure), before)
