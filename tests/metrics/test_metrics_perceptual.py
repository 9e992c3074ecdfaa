"""Fréchet, kernel and perceptual distances, latent divergence, and errors by region."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepscm_pl.metrics import FrechetDistance, KernelDistance, PerceptualDistance, RegionError
from deepscm_pl.metrics.functional import (
    frechet_distance,
    gaussian_divergence,
    kernel_distance,
    latent_divergence_score,
    perceptual_distance,
)
from deepscm_pl.metrics.perceptual import NetworkFeatures, NetworkLayers
from deepscm_pl.nn import ResidualClassifier


def features(images):
    return images.flatten(1)


def test_the_frechet_distance_of_normal_distributions():
    """Of commuting covariances it is the squared distance of means and of standard deviations."""
    first = torch.tensor([1.0, 2.0]), torch.diag(torch.tensor([4.0, 9.0]))
    second = torch.tensor([1.0, 5.0]), torch.diag(torch.tensor([1.0, 1.0]))
    assert frechet_distance(first, second).item() == pytest.approx(9 + 1 + 4)
    assert frechet_distance(first, first).item() == pytest.approx(0, abs=1e-9)


def test_distances_of_sets_do_not_depend_on_batches():
    images = torch.randn(60, 1, 1, 3)
    found = []
    for size in (60, 7):
        metric = FrechetDistance(features, features=3)
        for part in images.split(size):
            metric.update(part, real=True)
            metric.update(part + 2, real=False)
        found.append(metric.compute().item())
    assert found[0] == pytest.approx(found[1]) == pytest.approx(12, rel=1e-5)


def test_fewer_images_than_features_are_refused():
    metric = FrechetDistance(features, features=4)
    metric.update(torch.randn(9, 1, 2, 2), real=True)
    metric.update(torch.randn(4, 1, 2, 2), real=False)
    with pytest.raises(ValueError, match="more generated images than the 4 features, but got 4"):
        metric.compute()
    with pytest.raises(ValueError, match="network: expected 4 features, but got 9"):
        metric.update(torch.randn(9, 1, 3, 3), real=True)


def test_the_kernel_distance_is_unbiased():
    torch.manual_seed(1)
    draws = [kernel_distance(torch.randn(20, 3), torch.randn(20, 3)).item() for _ in range(300)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / math.sqrt(300)
    metric = KernelDistance(features, subsets=5, subset_size=10)
    metric.update(torch.randn(30, 1, 1, 3), real=True)
    with pytest.raises(RuntimeError, match="nothing to compute"):
        metric.compute()
    metric.update(torch.randn(30, 1, 1, 3) + 3, real=False)
    assert metric.compute() > 10
    assert metric.compute() == metric.compute()


def test_a_perceptual_distance_ignores_the_scale_of_features():
    layer = torch.rand(2, 4, 3, 3) + 0.1
    torch.testing.assert_close(perceptual_distance([layer], [7 * layer]), torch.zeros(2))
    network = ResidualClassifier((1, 8, 8), 2, channels=(2, 4), groups=1)
    metric = PerceptualDistance(NetworkLayers(network))
    image = 255 * torch.rand(3, 1, 8, 8)
    metric.update(image, image)
    assert metric.compute()["perceptual_distance"].mean == 0
    metric.update(image, 255 - image)
    assert metric.compute()["perceptual_distance"].mean > 0


def test_features_of_a_classifier_are_those_before_its_head():
    network = ResidualClassifier((1, 8, 8), 2, channels=(2, 4), groups=1)
    made, image = NetworkFeatures(network), 255 * torch.rand(3, 1, 8, 8)
    assert made.features == 4
    torch.testing.assert_close(network.head(made(image)), network(2 * image / 255 - 1))
    for kind in (NetworkFeatures, NetworkLayers):
        with pytest.raises(ValueError, match="network: expected"):
            kind(torch.nn.Identity())


def test_the_divergence_of_normal_distributions():
    first = torch.tensor([[0.3, -1.0]]), torch.tensor([[0.2, 0.5]])
    second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, -0.3]])
    p, q = (torch.distributions.Normal(mean, scale.exp()) for mean, scale in (first, second))
    expected = torch.distributions.kl_divergence(p, q).mean(dim=-1)
    torch.testing.assert_close(gaussian_divergence(first, second), expected)
    published = gaussian_divergence(first, second, published=True)
    torch.testing.assert_close(
        published, gaussian_divergence((first[0], first[0]), (second[0], second[0]))
    )


def test_the_latent_divergence_of_each_image_by_its_definition():
    torch.manual_seed(0)
    factual, changed = ((torch.randn(12, 3), 0.1 * torch.randn(12, 3)) for _ in range(2))
    bins = np.arange(12) % 3
    target = (bins + 1 + np.arange(12) % 2) % 3
    found = latent_divergence_score(factual, changed, bins, target)
    for row in range(12):
        own = tuple(each[row] for each in factual)
        distance = gaussian_divergence(tuple(each[row] for each in changed), own)
        others = gaussian_divergence(factual, own)
        near = float((others[target[row] == bins] <= distance).double().mean())
        far = float((others[bins[row] == bins] >= distance).double().mean())
        expected = math.log(0.8 * math.exp(near) + 0.2 * math.exp(far))
        assert found[row].item() == pytest.approx(expected)
    assert latent_divergence_score(factual, changed, bins, bins * 0 + 7).isnan().all()


def test_errors_by_region():
    factual, truth = torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 1, 4)
    truth[..., :2] = 100
    answer = truth.clone()
    answer[0, ..., 0] = 90
    answer[1, ..., 3] = 8
    metric = RegionError()
    metric.update(answer, truth, factual)
    found = {name: each.mean for name, each in metric.compute().items()}
    assert found["changed error"] == pytest.approx(10 / 4)
    assert found["untouched error"] == pytest.approx(8 / 4)
    assert found["changed error of doing nothing"] == pytest.approx(100)
    assert found["share of untouched"] == 0.5
    assert found["ratio"] == pytest.approx((18 / 8) / 50)
    with pytest.raises(ValueError, match="counterfactual"):
        metric.update(answer[:1], truth, factual)
