"""Metrics of counterfactuals: known values, and models known to be correct or wrong."""

from __future__ import annotations

import math

import pytest
import torch

from deepscm_pl.metrics import (
    Composition,
    Effectiveness,
    GroundTruthError,
    IdentityPreservation,
    IntervalCoverage,
    Minimality,
    NoiseCalibration,
    PerImageStatistics,
    Reversibility,
)
from deepscm_pl.metrics.functional import structural_similarity


def images(*shape: int) -> torch.Tensor:
    return (255 * torch.rand(*shape)).round()


def test_a_small_spread_beside_a_large_mean_keeps_its_digits():
    """Squares of 10⁹ leave no digit for a spread of one; deviations from the mean do."""
    values = 1e9 + torch.randn(999, dtype=torch.float64)
    statistics = PerImageStatistics(["a"])
    for part in values.split(10):
        statistics.update({"a": part})
    error = (values - 1e9).std().item() / math.sqrt(999)
    assert statistics.compute()["a"].standard_error == pytest.approx(error, rel=1e-6)


def test_values_that_agree_have_exactly_their_mean_and_no_error():
    statistics = PerImageStatistics(["a"])
    for part in torch.full((100,), 0.1, dtype=torch.float64).split(7):
        statistics.update({"a": part})
    assert statistics.compute()["a"] == (0.1, 0.0)


def test_one_quantity_that_is_not_a_number_does_not_spread():
    statistics = PerImageStatistics(["a", "b"])
    statistics.update({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([torch.nan, 1.0])})
    statistics.update({"a": torch.tensor([2.0]), "b": torch.tensor([2.0])})
    found = statistics.compute()
    assert found["a"].mean == 2
    assert found["a"].standard_error == pytest.approx(math.sqrt(1 / 3))
    assert math.isnan(found["b"].mean)


def test_statistics_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="as many values of b as of a, 3, but got 2"):
        PerImageStatistics(["a", "b"]).update({"a": torch.zeros(3), "b": torch.zeros(2)})


def test_ground_truth_error_of_correct_and_useless_answers():
    truth, factual = images(6, 1, 8, 8), images(6, 1, 8, 8)
    right, useless = GroundTruthError(strangers=False), GroundTruthError(strangers=False)
    right.update(truth.expand(2, -1, -1, -1, -1), truth, factual)
    useless.update(factual.expand(2, -1, -1, -1, -1), truth, factual)
    found = right.compute()
    assert found["ratio/particle"].mean == found["ratio/particle_mean"].mean == 0
    assert found["structural_similarity/particle"].mean == pytest.approx(1)
    assert found["peak_signal_to_noise_ratio/particle"].mean == 100
    assert useless.compute()["ratio/particle"] == pytest.approx((1, 0), abs=1e-7)


def test_particles_that_err_to_both_sides_have_a_better_mean():
    truth = torch.full((4, 1, 8, 8), 100.0)
    metric = GroundTruthError()
    particles = torch.stack([truth + 15, truth - 5, truth - 10])
    metric.update(particles, truth, factual=truth + 50, stranger=truth + 20)
    found = {name: statistic.mean for name, statistic in metric.compute().items()}
    assert found["mean_absolute_error/particle_mean"] == 0
    assert found["mean_absolute_error/particle"] == 10
    assert found["mean_absolute_error/factual"] == 50
    assert found["mean_absolute_error/stranger"] == 20
    assert found["ratio/particle"] == pytest.approx(0.2)


def test_volumes_of_one_repeated_slice_score_as_the_slice():
    """Metrics distinguish images from volumes by their shapes, and count each volume once."""
    truth, factual, stranger = (images(5, 2, 12, 13) for _ in range(3))
    answers = images(3, 5, 2, 12, 13)
    found = []
    for repeat in (lambda image: image, lambda image: image.unsqueeze(-3).expand(
        *image.shape[:-2], 9, *image.shape[-2:]
    )):  # fmt: skip
        shown = [repeat(each) for each in (answers, truth, factual, stranger)]
        error, minimality, coverage = GroundTruthError(), Minimality(), IntervalCoverage([0.5])
        composition, reversibility = Composition([1]), Reversibility([2])
        error.update(*shown)
        minimality.update(shown[0], shown[2], shown[1])
        coverage.update(shown[0], shown[1])
        composition.update(shown[1], {1: shown[0]})
        reversibility.update(shown[1], {2: shown[0]})
        metrics = (error, minimality, coverage, composition, reversibility)
        found.append([each.compute() for each in metrics])
    for slices, volumes in zip(*found, strict=True):
        for name, statistic in slices.items():
            assert volumes[name] == pytest.approx(tuple(statistic), rel=1e-3), name


def test_similarity_of_volumes_uses_windows_of_voxels():
    truth, factual = images(4, 1, 9, 10, 11), images(4, 1, 9, 10, 11)
    metric = GroundTruthError(strangers=False)
    metric.update(factual[None], truth, factual)
    found = metric.compute()
    expected = structural_similarity(factual, truth, spatial_dims=3).mean().item()
    for answer in ("particle", "particle_mean", "factual"):
        assert found[f"structural_similarity/{answer}"].mean == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(5, 12, 13), (5, 1, 2, 3, 4, 5)])
def test_other_shapes_than_images_and_volumes_are_refused(shape):
    image = images(*shape)
    with pytest.raises(ValueError, match=r"truth: expected images \(B, C, H, W\) or volumes"):
        GroundTruthError(strangers=False).update(image[None], image, image)
    with pytest.raises(ValueError, match=r"factual: expected images"):
        Minimality().update(image[None], image, image)
    with pytest.raises(ValueError, match=r"image: expected images"):
        Composition([1]).update(image, {1: image[None]})


def test_the_standard_error_of_a_ratio_is_that_of_its_repetitions():
    generator = torch.Generator().manual_seed(3)
    ratios, errors = [], []
    black = torch.zeros(200, 1, 1, 1)
    for _ in range(400):
        needed = 10 + torch.rand(200, 1, 1, 1, generator=generator)
        done = needed * (1 + torch.rand(200, 1, 1, 1, generator=generator))
        metric = Minimality()
        metric.update(done[None], factual=black, truth=needed)
        ratio = metric.compute()["ratio"]
        ratios.append(ratio.mean)
        errors.append(ratio.standard_error)
    spread = torch.tensor(ratios).std().item()
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.15)
    assert sum(ratios) / len(ratios) == pytest.approx(1.5, abs=0.01)


def test_ratios_where_nothing_had_to_change():
    black = torch.zeros(2, 1, 8, 8)
    changed, unchanged = Minimality(), Minimality()
    changed.update(black[None] + 1, black, black)
    unchanged.update(black[None], black, black)
    assert changed.compute()["ratio"].mean == math.inf
    assert math.isnan(unchanged.compute()["ratio"].mean)


def test_a_missing_stranger_is_refused():
    image = images(2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"stranger: .* strangers=False"):
        GroundTruthError().update(image[None], image, image)


def test_effectiveness_counts_unmeasurable_images_separately():
    intended = torch.tensor([[1.0], [2.0], [3.0]])
    measured = torch.stack([intended + 1, intended - 2])
    measured[0, 1], measured[1, 2] = torch.nan, torch.inf
    metric = Effectiveness()
    metric.update(measured, intended)
    found = metric.compute()
    # Errors left are 1, 1, −2, −2.
    assert found["absolute_error"].mean == pytest.approx(1.5)
    assert found["bias"].mean == pytest.approx(-0.5)
    assert found["unmeasurable"].mean == pytest.approx(1 / 3)


def test_effectiveness_without_any_measurement_is_nan():
    metric = Effectiveness()
    metric.update(torch.full((1, 4, 1), torch.nan), torch.ones(4, 1))
    found = metric.compute()
    assert math.isnan(found["absolute_error"].mean)
    assert math.isnan(found["bias"].mean)
    assert found["unmeasurable"].mean == 1


def test_effectiveness_of_complete_measurements_is_plain_statistics():
    intended, error = torch.randn(50, 1).double(), torch.randn(50, 1).double()
    metric = Effectiveness()
    metric.update((intended + error)[None], intended)
    found = metric.compute()["bias"]
    assert found.mean == pytest.approx(error.mean().item())
    assert found.standard_error == pytest.approx(error.std().item() / math.sqrt(50))


@pytest.mark.parametrize(
    ("measured", "intended", "message"),
    [
        (torch.zeros(3, 1), torch.zeros(3, 1), r"measured: .* intended, \(P, 3, 1\) .* \(3, 1\)"),
        (torch.zeros(1, 3), torch.zeros(3), r"intended: expected shape \(batch, 1\)"),
        (torch.zeros(1, 1, 1), torch.tensor([[torch.nan]]), "intended: expected finite"),
    ],
)
def test_effectiveness_refuses_other_shapes_than_attributes(measured, intended, message):
    with pytest.raises(ValueError, match=message):
        Effectiveness().update(measured, intended)


@pytest.mark.parametrize("metric", [Composition, Reversibility])
def test_repeated_errors_are_averaged_over_particles(metric):
    image = images(3, 1, 8, 8)
    metric = metric(repetitions=[1, 4])
    metric.update(image, {1: torch.stack([image, image + 4]), 4: image[None] + 7, 9: image})
    found = metric.compute()
    assert found["mean_absolute_error/1"].mean == pytest.approx(2)
    assert found["mean_absolute_error/4"].mean == pytest.approx(7)
    with pytest.raises(ValueError, match="after 1, 4 repetitions, but 4 is missing"):
        metric.update(image, {1: image[None]})
    with pytest.raises(ValueError, match=r"after\[1\]: expected particles of the shape of image"):
        metric.update(image, {1: image, 4: image})


@pytest.mark.parametrize("repetitions", [[], [0], [2, 2]])
def test_invalid_repetitions_are_refused(repetitions):
    with pytest.raises(ValueError, match="repetitions: expected different whole numbers"):
        Composition(repetitions)


def test_scores_instead_of_classes_are_refused():
    classes = torch.zeros(4, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="counterfactual: expected class indices"):
        IdentityPreservation().update(torch.rand(1, 4, 1), classes, classes)


def grey_levels_of(rate: torch.Tensor) -> torch.Tensor:
    """Draws of a predictive distribution over whole grey levels, one for each image."""
    return torch.poisson(rate).clamp(max=255)


def test_coverage_of_an_exact_model_of_images_equals_the_level():
    """Most pixels are always black, some are mostly black, some vary: levels hold for all."""
    rate = torch.cat([torch.zeros(24), torch.full((20,), 0.4), torch.full((20,), 30.0)])
    rate = (rate.view(1, 8, 8) * (0.5 + torch.rand(3000, 1, 1, 1))).contiguous()
    metric = IntervalCoverage()
    particles = torch.stack([grey_levels_of(rate) for _ in range(6)])
    metric.update(particles, grey_levels_of(rate))
    found = metric.compute()
    for level in metric.levels:
        for kind in ("all", "varying"):
            mean, error = found[f"{kind}/{level:g}"]
            assert mean == pytest.approx(level, abs=4.5 * error)
            assert error < 0.003
    assert found["varying"].mean == pytest.approx(0.6, abs=0.07)


def test_overconfidence_shows_in_the_varying_pixels():
    truth = torch.zeros(500, 1, 8, 8)
    truth[:, :, 0] = 100 + 20 * torch.randn(500, 1, 8)
    particles = torch.zeros(20, 500, 1, 8, 8)
    particles[:, :, :, 0] = 100 + 5 * torch.randn(20, 500, 1, 8)
    metric = IntervalCoverage([0.9])
    metric.update(particles, truth)
    found = metric.compute()
    assert found["varying"].mean == pytest.approx(1 / 8)
    assert found["varying/0.9"].mean < 0.4
    assert found["all/0.9"].mean > 0.8


@pytest.mark.parametrize("levels", [[], [0.5, 0.5], [1.0], [0.0], [0.9999991, 0.9999992]])
def test_invalid_levels_are_refused(levels):
    with pytest.raises(ValueError, match="levels: expected"):
        IntervalCoverage(levels)


def test_noise_is_calibrated_in_a_correct_model_only():
    parent, noise = torch.rand(3000, 1), torch.randn(3000, 1)
    right, wrong = NoiseCalibration(["a"]), NoiseCalibration(["a"])
    right.update(noise, {"a": parent})
    wrong.update(0.7 * noise + 2 * parent, {"a": parent})
    good, bad = right.compute(), wrong.compute()
    assert good["p_value"] > 1e-3
    assert abs(good["correlation/a"]) < 0.08
    assert good["mean"] == pytest.approx(noise.mean().item(), rel=1e-5)
    assert good["standard_deviation"] == pytest.approx(noise.std().item(), rel=1e-5)
    assert bad["p_value"] < 1e-6
    assert bad["correlation/a"] == pytest.approx(0.636, abs=0.05)


def test_noise_of_many_entries_reports_the_worst():
    noise = torch.randn(800, 2, 3)
    parent = torch.randn(800, 1)
    noise[:, 1, 2] = -0.8 * parent[:, 0] + 0.6 * noise[:, 1, 2]
    noise[:, 0, 0] += 1
    noise[:, 0, 1] *= 0.1
    metric = NoiseCalibration(["a"])
    metric.update(noise, {"a": parent, "b": parent})
    found = metric.compute()
    assert found["correlation/a"] == pytest.approx(-0.8, abs=0.05)
    assert found["mean/largest"] == pytest.approx(1, abs=0.15)
    assert found["standard_deviation/furthest"] == pytest.approx(0.1, abs=0.02)
    assert found["kolmogorov_smirnov"] > 0.05


def test_noise_and_parents_that_do_not_match_are_refused():
    metric = NoiseCalibration(["a"])
    with pytest.raises(ValueError, match="parents: a is missing"):
        metric.update(torch.randn(4, 1), {})
    with pytest.raises(ValueError, match=r"a: expected shape \(4, 1\).*noise, \(4, 1\).*\(3, 1\)"):
        metric.update(torch.randn(4, 1), {"a": torch.randn(3, 1)})
    with pytest.raises(ValueError, match="noise: expected finite numbers, but 4 of 4"):
        metric.update(torch.full((4, 1), torch.nan), {"a": torch.randn(4, 1)})
    metric.update(torch.randn(1, 1), {"a": torch.randn(1, 1)})
    with pytest.raises(ValueError, match=r"noise: expected 1 numbers in each row.*but got 6"):
        metric.update(torch.randn(4, 1, 2, 3), {"a": torch.randn(4, 1)})
    with pytest.raises(RuntimeError, match="at least two observations"):
        metric.compute()
