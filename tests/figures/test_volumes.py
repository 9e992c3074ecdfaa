"""Volumes in pictures: three planes upright, and texts that do not touch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from deepscm_pl.figures import (
    DensityPanel,
    ImageColumn,
    ImagePanel,
    JointPanel,
    MatrixAxis,
    as_pictures,
    draw_comparison,
    draw_grid,
    draw_image_matrix,
    draw_joint_densities,
    draw_marginal_densities,
    figure_to_array,
    kernel_density,
    middle_planes,
)
from deepscm_pl.figures.output import make_ticks_readable
from deepscm_pl.figures.pixels import difference_limit

X, Y, Z = 6, 8, 5
TEXT = "age 63.8 years\nsex 1\nvolume of the ventricle on the left 33,100 mm³"


def planes(volume):
    """The axial, coronal and sagittal plane, without their frames."""
    picture = middle_planes(volume)[0]
    above = (Y - Z) // 2
    rows = slice(above, above + Z)
    return (
        picture[:, :X],
        picture[rows, X + 1 : 2 * X + 1],
        picture[rows, 2 * X + 2 :],
    )


def test_every_element_of_the_middle_planes_is_where_it_should_be():
    volume = torch.rand(1, X, Y, Z)
    axial, coronal, sagittal = planes(volume)
    x, y, z = X // 2, Y // 2, Z // 2
    for row in range(Y):
        for column in range(X):
            assert axial[row, column] == volume[0, column, Y - 1 - row, z]
    for row in range(Z):
        for column in range(X):
            assert coronal[row, column] == volume[0, column, y, Z - 1 - row]
        for column in range(Y):
            assert sagittal[row, column] == volume[0, x, column, Z - 1 - row]


def test_front_and_top_are_on_top_and_left_is_left():
    right, front, top = (torch.zeros(1, X, Y, Z) for _ in range(3))
    right[:, -1], front[:, :, -1], top[..., -1] = 1, 1, 1
    axial, coronal, _ = planes(right)
    assert axial[:, -1].all()
    assert coronal[:, -1].all()
    assert axial.sum() == Y
    axial, _, sagittal = planes(front)
    assert axial[0].all()
    assert sagittal[:, -1].all()
    assert axial.sum() == X
    _, coronal, sagittal = planes(top)
    assert coronal[0].all()
    assert sagittal[0].all()
    assert coronal.sum() == X


def test_around_the_planes_it_is_black_and_the_volume_stays():
    volume = torch.full((2, 3, 1, X, Y, Z), 7.0)
    picture = middle_planes(volume)
    assert picture.shape == (2, 3, 1, Y, 2 * X + Y + 2)
    assert (picture == 7).sum() == 2 * 3 * (X * Y + X * Z + Y * Z)
    assert set(picture.unique().tolist()) == {0.0, 7.0}
    assert middle_planes(volume.byte()).dtype == torch.uint8
    assert torch.equal(as_pictures(volume, 4), picture)
    assert as_pictures(volume, 3) is volume


def test_what_is_no_volume_is_refused():
    with pytest.raises(ValueError, match=r"volumes: expected shape \(\*batch, C, X, Y, Z\)"):
        middle_planes(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="images: expected images of shape"):
        as_pictures(torch.zeros(1, 2), 2)


def boxes(figure, texts):
    renderer = figure.canvas.get_renderer()
    return [text.get_window_extent(renderer) for text in texts]


@pytest.mark.parametrize("event", [(64, 64), (16, 20, 16)])
def test_texts_of_a_grid_do_not_touch(event):
    images = torch.zeros(2, 1, *event)
    titles = ["factual", "do(age = 80)", "do(sex = 1, ventricle_volume = 40,000)"]
    columns = [ImageColumn(title, images, [TEXT, TEXT]) for title in titles]
    figure = draw_grid(columns, ["test 0", "test 1"])
    figure_to_array(figure)
    axes = figure.axes[0]
    # The captions of both rows, then the titles; names of planes and sides are the last.
    for texts in (axes.texts[:3], axes.texts[6:9]):
        for left, right in pairwise(boxes(figure, texts)):
            assert left.x1 < right.x0
    first, second = boxes(figure, axes.texts[:6:3])
    assert first.y0 > second.y1


def test_a_grid_of_volumes_shows_their_planes_and_signed_differences():
    black = torch.zeros(1, 1, X, Y, Z)
    brighter = black + 40
    figure = draw_grid([ImageColumn("a", black), ImageColumn("b", brighter)], ["x"])
    before, after, change = figure.axes[0].images
    assert before.get_array().shape == after.get_array().shape == (Y, 2 * X + Y + 2, 3)
    assert after.get_array()[:, :X].min() == after.get_array()[:, :X].max() == 40 / 255
    assert (change.get_array()[:, :X] == 40).all()
    assert (change.get_array()[:, X] == 0).all()  # nothing changes between the planes
    red, _, blue, _ = change.to_rgba(np.array([40.0]))[0]
    assert red > blue + 0.2
    assert figure.axes[1].get_ylim() == change.get_clim() == (-40, 40)


def test_small_changes_are_seen_and_large_ones_keep_the_whole_range():
    black = torch.zeros(1, 1, 8, 8)

    def limit(image, reference=black):
        columns = [ImageColumn("a", reference), ImageColumn("b", image)]
        return draw_grid(columns, ["x"]).axes[0].images[-1].get_clim()[1]

    assert limit(black - 3) == 16
    assert limit(black + 100) == 104
    assert limit(black + 130) == 255
    assert limit(black.byte(), (black + 20).byte()) == 24
    assert difference_limit(np.zeros(0)) == 16


def test_comparisons_and_matrices_of_volumes():
    observed = torch.zeros(3, 1, X, Y, Z)
    observed[..., 0] = 250  # outside of the planes of the middle but for two lines
    figure = draw_comparison(observed, observed * 0, ["a", "b", "c"])
    pictures = [image.get_array() for image in figure.axes[0].images]
    assert [picture.shape[:2] for picture in pictures] == [(Y, 2 * X + Y + 2)] * 9
    # The error is that of the volume, not of its planes.
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["50.0"] * 3
    panel = ImagePanel("noise 0", torch.zeros(2, 3, 1, X, Y, Z))
    axis = MatrixAxis("", ["1", "2", "3"]), MatrixAxis("", ["1", "2"])
    figure = draw_image_matrix([panel, panel], *axis)
    figure_to_array(figure)
    (first, second) = (axes.get_position() for axes in figure.axes)
    assert first.y0 > second.y0 + 0.2


def test_ticks_are_read_without_exponents():
    axes = Figure().add_subplot(xlim=(8e5, 1.6e6), ylim=(0, 4e-6), xlabel="brain volume (mm³)")
    make_ticks_readable(axes)
    texts = [text.get_text() for text in axes.get_xticklabels()]
    assert texts[1:4] == ["0.8", "1", "1.2"] or texts[:3] == ["0.8", "1", "1.2"]
    assert axes.get_xlabel() == "brain volume (million mm³)"
    figure_to_array(axes.figure)
    assert "10⁻⁶" in axes.yaxis.get_offset_text().get_text()
    everyday = Figure().add_subplot(xlim=(0, 300))
    before = everyday.xaxis.get_major_formatter()
    make_ticks_readable(everyday)
    assert everyday.xaxis.get_major_formatter() is before
    assert everyday.get_xlabel() == ""
    plain = Figure().add_subplot(xlim=(0, 3e6), xlabel="brain volume")
    make_ticks_readable(plain)
    assert plain.get_xlabel() == "brain volume (millions)"


def test_densities_of_volumes_are_labelled():
    values = 1.1e6 + 1e5 * torch.randn(200)
    figure = draw_marginal_densities(
        [DensityPanel("brain volume (mm³)", values, {"model": values})]
    )
    assert figure.axes[0].get_xlabel() == "brain volume (million mm³)"
    x, y = torch.linspace(8e5, 1.4e6, 20), torch.linspace(1e4, 6e4, 20)
    pairs = torch.stack([values, values / 30], dim=1)
    panel = JointPanel("brain volume (mm³)", "ventricles (mm³)", pairs, x, y, torch.rand(20, 20))
    axes = draw_joint_densities([panel]).axes[0]
    assert axes.get_xlabel() == "brain volume (million mm³)"
    assert "40,000" in [text.get_text() for text in axes.get_yticklabels()]


def test_a_kernel_estimate_of_two_variables_is_a_density():
    values = torch.randn(2, 400)
    line = torch.linspace(-6, 6, 61)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy")).flatten(1).double().numpy()
    density = kernel_density(values, points)
    assert density.shape == (61 * 61,)
    assert density.sum() * 0.2**2 == pytest.approx(1, abs=0.01)
    inside = kernel_density(values, points, upper=0)
    assert ((inside > 0) <= (points <= 0).all(axis=0)).all()
