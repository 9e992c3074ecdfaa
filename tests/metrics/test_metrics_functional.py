"""Metrics as pure functions, against known values and independent implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from deepscm_pl.metrics.functional import (
    kolmogorov_smirnov,
    kolmogorov_smirnov_statistic,
    mean_absolute_error,
    peak_signal_to_noise_ratio,
    pearson_correlation,
    rank_interval,
    structural_similarity,
    wasserstein_distance,
)

MEASURES = [mean_absolute_error, peak_signal_to_noise_ratio, structural_similarity]


def images(*shape: int) -> torch.Tensor:
    return (255 * torch.rand(*shape)).round()


@pytest.mark.parametrize("measure", MEASURES)
def test_image_measures_are_per_image_over_any_batch(measure):
    image, target = images(3, 4, 2, 28, 28), images(3, 4, 2, 28, 28)
    found = measure(image, target)
    assert found.shape == (3, 4)
    assert found[2, 1].item() == pytest.approx(measure(image[2, 1], target[2, 1]).item(), rel=1e-5)
    torch.testing.assert_close(found, measure(target, image))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64])
def test_image_measures_take_every_number_type(measure, dtype):
    """Bytes must not wrap, nor half precision overflow."""
    image, target = (images(4, 1, 28, 28) // 2 * 2 for _ in range(2))
    if dtype == torch.bfloat16:
        image, target = image // 8 * 8, target // 8 * 8
    found = measure(image.to(dtype), target.to(dtype))
    torch.testing.assert_close(found.float(), measure(image, target), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_image_measures_refuse_shapes_that_do_not_match(measure):
    with pytest.raises(ValueError, match=r"image: .* target, \(2, 1, 8, 8\), but got \(1, 8, 8\)"):
        measure(torch.zeros(1, 8, 8), torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"target: .* image, meta, but got cpu"):
        measure(torch.zeros(1, 8, 8, device="meta"), torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match=r"image: expected shape \(\*batch, C, H, W\)"):
        measure(torch.zeros(8, 8), torch.zeros(8, 8))


def test_peak_signal_to_noise_ratio_is_that_of_torchmetrics():
    image, target = images(5, 1, 28, 28), images(5, 1, 28, 28)
    expected = peak_signal_noise_ratio(
        image, target, data_range=255.0, reduction="none", dim=(1, 2, 3)
    )
    torch.testing.assert_close(peak_signal_to_noise_ratio(image, target), expected)


def test_identical_images_count_as_the_ceiling():
    image = images(2, 1, 8, 8)
    almost = image.clone()
    almost[1, 0, 0, 0] += 1
    ratio = peak_signal_to_noise_ratio(image, almost)
    assert ratio[0] == 100
    assert ratio[1].item() == pytest.approx(10 * math.log10(255**2 * 64), rel=1e-6)
    assert peak_signal_to_noise_ratio(image, image, ceiling=math.inf).isinf().all()
    with pytest.raises(ValueError, match="data_range"):
        peak_signal_to_noise_ratio(image, image, data_range=0)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (4, 3, 28, 32), (2, 1, 64, 48)])
def test_structural_similarity_is_that_of_torchmetrics(shape):
    image = images(*shape)
    target = (image + 40 * torch.randn(*shape)).clamp(0, 255)
    expected = structural_similarity_index_measure(
        image.double(), target.double(), data_range=255.0, reduction="none"
    )
    found = structural_similarity(image, target)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [1, 2, 8, 11])
def test_structural_similarity_of_small_images(side):
    image = images(3, 1, side, side)
    torch.testing.assert_close(structural_similarity(image, image), torch.ones(3))
    inverse = structural_similarity(image, 255 - image)
    assert (inverse < 1).all()
    assert inverse.isfinite().all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (50, 50), (7, 300)])
def test_wasserstein_distance_is_that_of_scipy(sizes, weighted):
    first, second = (torch.randn(size).mul(3).round() for size in sizes)
    weights = [torch.rand(size) for size in sizes] if weighted else []
    expected = scipy.stats.wasserstein_distance(
        first.numpy(), second.numpy(), *(weight.numpy() for weight in weights)
    )
    found = wasserstein_distance(first, second, *weights)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_wasserstein_distance_is_a_metric():
    x, y, z = torch.randn(100), torch.randn(80) * 2, torch.randn(60) + 1
    assert wasserstein_distance(x, x[torch.randperm(100)]) == 0
    assert wasserstein_distance(x, y) == wasserstein_distance(y, x)
    around = wasserstein_distance(x, z) + wasserstein_distance(z, y)
    assert wasserstein_distance(x, y) <= around
    shifted = wasserstein_distance(x.double(), x.double() + 5)
    assert shifted == pytest.approx(5)
    # A weight of two is the same as the value twice; weights have no scale.
    twice = wasserstein_distance(torch.cat([x, x[:1]]), y)
    weight = torch.ones(100)
    weight[0] = 2
    found = wasserstein_distance(x, y, 10 * weight)
    assert found == pytest.approx(twice, rel=1e-6)


def test_wasserstein_distance_refuses_invalid_weights_and_samples():
    x = torch.randn(3)
    with pytest.raises(ValueError, match=r"second: expected a sample of shape \(N,\)"):
        wasserstein_distance(x, x[None])
    with pytest.raises(ValueError, match="first: expected a sample"):
        wasserstein_distance(x[:0], x)
    with pytest.raises(ValueError, match="first: expected finite numbers, but 1 of 1 are NaN"):
        wasserstein_distance(torch.tensor([torch.nan]), x)
    with pytest.raises(ValueError, match=r"second_weight: expected the shape of second, \(3,\)"):
        wasserstein_distance(x, x, second_weight=torch.ones(2))
    for weight in (-torch.ones(3), torch.zeros(3)):
        with pytest.raises(ValueError, match="first_weight: expected weights of at least zero"):
            wasserstein_distance(x, x, weight)
    with pytest.raises(ValueError, match="second: expected the device of first, cpu, but got meta"):
        wasserstein_distance(x, x.to("meta"))


@pytest.mark.parametrize("size", [1, 5, 40, 3000])
@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_kolmogorov_smirnov_is_that_of_scipy(size, scale):
    sample = (scale * torch.randn(size)).double()
    expected = scipy.stats.kstest(sample.numpy(), "norm")
    found = kolmogorov_smirnov(sample)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    alone = kolmogorov_smirnov_statistic(sample)
    assert alone.item() == pytest.approx(expected.statistic, rel=1e-12)
    assert kolmogorov_smirnov_statistic(-sample).item() == pytest.approx(
        scipy.stats.kstest(-sample.numpy(), "norm").statistic, rel=1e-12
    )


def test_kolmogorov_smirnov_p_values_of_a_true_model_are_uniform():
    p_values = [kolmogorov_smirnov(torch.randn(200)).p_value for _ in range(300)]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("function", [kolmogorov_smirnov, kolmogorov_smirnov_statistic])
def test_kolmogorov_smirnov_refuses_other_shapes(function):
    for sample in (torch.empty(0), torch.zeros(2, 1)):
        with pytest.raises(ValueError, match=r"sample: expected a sample of shape \(N,\)"):
            function(sample)
    with pytest.raises(ValueError, match="sample: expected finite"):
        function(torch.tensor([torch.inf]))


def test_pearson_correlation_is_that_of_numpy():
    # Large means beside small spreads lose no precision.
    first, second = torch.randn(500, 3).double() + 1e6, torch.randn(500, 2).double()
    second[:, 0] += first[:, 1] - 1e6
    expected = np.corrcoef(first.T.numpy() - 1e6, second.T.numpy())[:3, 3:]
    np.testing.assert_allclose(pearson_correlation(first, second).numpy(), expected, atol=1e-9)


def test_the_correlation_of_a_constant_is_nan():
    values = torch.randn(10, 1)
    assert pearson_correlation(torch.full((10, 1), 0.1), values).isnan()


def test_correlations_refuse_shapes_that_do_not_match():
    x = torch.randn(5, 1)
    with pytest.raises(ValueError, match="first: expected as many rows as second, 4, but got 5"):
        pearson_correlation(x, x[:4])
    with pytest.raises(ValueError, match=r"second: expected shape \(N, features\)"):
        pearson_correlation(x, x[:, 0])
    with pytest.raises(ValueError, match="second: expected finite"):
        pearson_correlation(x, x / 0)
    with pytest.raises(ValueError, match="second: expected the device of first"):
        pearson_correlation(x, x.to("meta"))


def central_interval_coverage(particles, truth, level):
    return rank_interval(particles, truth).coverage(level)


def few_grey_levels(*shape: int) -> torch.Tensor:
    """Draws of a distribution in which most values tie."""
    return torch.poisson(torch.full(shape, 0.7)).clamp(max=255)


@pytest.mark.parametrize("draw", [torch.randn, few_grey_levels], ids=["continuous", "discrete"])
@pytest.mark.parametrize("particles", [1, 4, 20])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_an_exact_predictive_equals_the_level(draw, particles, level):
    size = 40_000
    covered = central_interval_coverage(draw(particles, size), draw(size), level)
    deviation = covered.std() / math.sqrt(size)
    assert abs(covered.mean() - level) < 4.5 * deviation + 1e-12
    assert deviation < 0.003


def test_coverage_tells_narrow_from_wide_predictives():
    truth = torch.randn(20_000)
    narrow = central_interval_coverage(0.5 * torch.randn(50, 20_000), truth, 0.8).mean()
    wide = central_interval_coverage(2 * torch.randn(50, 20_000), truth, 0.8).mean()
    assert narrow < 0.6
    assert wide > 0.95


def test_ranks_of_truths_within_and_outside_of_particles():
    particles = torch.tensor([1.0, 2.0, 2.0, 3.0])[:, None].expand(4, 4)
    lower, upper = rank_interval(particles, torch.tensor([0.0, 2.0, 2.5, 9.0]))
    assert lower.mul(5).tolist() == pytest.approx([0, 1, 3, 4])
    assert upper.mul(5).tolist() == pytest.approx([1, 4, 4, 5])


def test_coverage_of_a_pixel_that_never_changes_is_the_level():
    black = torch.zeros(8, 3)
    assert central_interval_coverage(black, black[0], 0.9).tolist() == pytest.approx([0.9] * 3)


def test_coverage_refuses_shapes_that_do_not_match():
    with pytest.raises(ValueError, match=r"particles: .* truth, \(P, 4\) .* got \(3, 5\)"):
        rank_interval(torch.zeros(3, 5), torch.zeros(4))
    with pytest.raises(ValueError, match="P of at least 1"):
        rank_interval(torch.zeros(0, 4), torch.zeros(4))
    with pytest.raises(ValueError, match="truth: expected finite"):
        rank_interval(torch.zeros(1, 1), torch.tensor([torch.nan]))
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, but got 1"):
        central_interval_coverage(torch.zeros(3, 4), torch.zeros(4), level=1)


def test_structural_similarity_keeps_its_precision_under_autocast():
    image, target = 255 * torch.rand(2, 4, 1, 16, 16)
    expected = structural_similarity(image, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(structural_similarity(image, target), expected)


def in_a_window_of_voxels(volume: np.ndarray) -> np.ndarray:
    """Gaussian averages over 11 × 11 × 11 voxels, weight by weight, reflected at the border."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.einsum("i,j,k->ijk", weights, weights, weights)
    return scipy.ndimage.correlate(volume, window / window.sum(), mode="mirror")


def test_structural_similarity_of_volumes_is_its_definition():
    x, y = images(2, 7, 12, 15).double(), images(2, 7, 12, 15).double()
    found = structural_similarity(x, y, spatial_dims=3)
    channels = []
    for one, other in zip(x.numpy(), y.numpy(), strict=True):
        mx, my = in_a_window_of_voxels(one), in_a_window_of_voxels(other)
        vx = in_a_window_of_voxels(one**2) - mx**2
        vy = in_a_window_of_voxels(other**2) - my**2
        both = in_a_window_of_voxels(one * other) - mx * my
        c1, c2 = 2.55**2, 7.65**2
        luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        channels.append(luminance * (2 * both + c2) / (vx + vy + c2))
    assert found.item() == pytest.approx(np.mean(channels), abs=1e-9)


@pytest.mark.parametrize("axis", [-3, -2, -1])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_volume_of_one_repeated_slice_is_measured_as_the_slice(measure, axis):
    image, target = images(4, 2, 14, 17), images(4, 2, 14, 17)
    volumes = [each.unsqueeze(axis).repeat_interleave(9, axis) for each in (image, target)]
    found = measure(*volumes, spatial_dims=3)
    torch.testing.assert_close(found, measure(image, target), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_of_volumes_do_not_depend_on_the_order_of_axes(measure):
    image, target = images(3, 1, 6, 9, 12), images(3, 1, 6, 9, 12)
    turned = [each.permute(0, 1, 4, 2, 3) for each in (image, target)]
    found = measure(image, target, spatial_dims=3)
    assert found.shape == (3,)
    torch.testing.assert_close(measure(*turned, spatial_dims=3), found)
    alone = measure(image[1], target[1], spatial_dims=3)
    assert alone.shape == ()
    assert found[1].item() == pytest.approx(alone.item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_images_passed_as_volumes_are_refused(measure):
    with pytest.raises(ValueError, match=r"image: expected shape \(\*batch, C, D, H, W\)"):
        measure(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), spatial_dims=3)
    with pytest.raises(ValueError, match="spatial_dims: expected 2 for images or 3 for volumes"):
        measure(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), spatial_dims=1)
