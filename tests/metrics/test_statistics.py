"""Metrics over images."""

from __future__ import annotations

import math

import pytest
import torch

from deepscm_pl.metrics import PerImageStatistics
from deepscm_pl.metrics.functional import bits_per_dimension, mean_absolute_error


def test_statistics_are_those_of_all_images_however_batched():
    values = 1e4 + torch.randn(103)
    found = []
    for size in (103, 32, 1):
        statistics = PerImageStatistics(["a", "b"])
        for part in values.split(size):
            statistics.update({"a": part, "b": -part, "more": part})
        found.append(statistics.compute())
    for each in found:
        assert each["a"].mean == pytest.approx(values.double().mean().item(), rel=1e-12)
        error = values.double().std().item() / math.sqrt(103)
        assert each["a"].standard_error == pytest.approx(error, rel=1e-6)
        assert each["b"].mean == -each["a"].mean


def test_statistics_of_two_processes_add_up():
    """The sums of torchmetrics over processes give the statistics of all images."""
    parts = [PerImageStatistics(["a"]), PerImageStatistics(["a"])]
    parts[0].update({"a": torch.tensor([1.0, 2.0, 3.0])})
    parts[1].update({"a": torch.tensor([10.0])})
    parts[0].merge_state(parts[1])
    found = parts[0].compute()["a"]
    assert found.mean == 4
    assert found.standard_error == pytest.approx(math.sqrt((9 + 4 + 1 + 36) / 3 / 4))


def test_statistics_refuse_wrong_shapes():
    statistics = PerImageStatistics(["a"])
    with pytest.raises(ValueError, match="a is missing"):
        statistics.update({})
    with pytest.raises(ValueError, match=r"shape \(batch,\) for a, but got \(3, 1\)"):
        statistics.update({"a": torch.zeros(3, 1)})


def test_error_is_per_image_and_never_broadcast():
    image, target = torch.zeros(2, 1, 2, 2), torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    error = mean_absolute_error(image, target.expand(2, 1, 2, 2))
    assert error.tolist() == [1, 3]
    with pytest.raises(ValueError, match="expected the shape of target"):
        mean_absolute_error(image, target)


def test_uniform_images_need_eight_bits():
    log_prob = torch.tensor([-28 * 28 * math.log(256)])
    assert bits_per_dimension(log_prob, 28 * 28).item() == pytest.approx(8)
    with pytest.raises(ValueError, match="dimensions"):
        bits_per_dimension(log_prob, 0)


def test_statistics_of_several_precisions_keep_each():
    """In half precision, which the two would share, the larger number is infinite."""
    statistics = PerImageStatistics(["a", "b"])
    whole = torch.tensor([2**24 + 1, 2**24 + 3])
    statistics.update({"a": torch.ones(2).half(), "b": whole})
    found = statistics.compute()
    assert found["a"].mean == 1
    assert found["b"].mean == 2**24 + 2


@pytest.mark.parametrize("names", [["a", "a"], []])
def test_statistics_refuse_missing_and_duplicate_names(names):
    with pytest.raises(ValueError, match="names: expected at least one, all different"):
        PerImageStatistics(names)
