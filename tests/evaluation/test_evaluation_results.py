"""Typed results: named fields, and the keys of JSON and TensorBoard."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from deepscm_pl.evaluation.association import ImportanceWeightedResult
from deepscm_pl.evaluation.estimate import Estimate, by_key
from deepscm_pl.evaluation.noise import NoiseResult, NoiseStatistics
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.evaluation.results import (
    ChangeEstimates,
    CounterfactualResult,
    CoverageEstimates,
    EffectivenessEstimates,
    ErrorEstimates,
    IdentityEstimates,
    ImageErrors,
    MeasurementErrors,
)


def estimate(mean):
    return Estimate(float(mean), 0.1, 10)


def test_counterfactuals_have_the_keys_of_the_document():
    measured = MeasurementErrors(estimate(1), estimate(2), estimate(3))
    result = CounterfactualResult(
        Question("a=1"),
        10,
        0,
        ImageErrors(ErrorEstimates(particle=estimate(4), stranger=estimate(5))),
        ChangeEstimates(estimate(6), estimate(7), estimate(8)),
        {"b": estimate(9)},
        ImageErrors(ratio=ErrorEstimates(estimate(10))),
        CoverageEstimates({0.5: estimate(11)}, {0.5: estimate(12)}, estimate(13)),
        {"a": EffectivenessEstimates(measured, noise_floor=measured)},
        IdentityEstimates(estimate(14)),
        {1: estimate(15), 10: estimate(16)},
    )
    assert {key: value.mean for key, value in result.quantities.items()} == {
        "error/mean_absolute_error/particle": 4,
        "error/mean_absolute_error/stranger": 5,
        "minimality/counterfactual": 6,
        "minimality/truth": 7,
        "minimality/ratio": 8,
        "attribute_error/b": 9,
        "particles/ratio/particle_mean": 10,
        "coverage/all/0.5": 11,
        "coverage/varying/0.5": 12,
        "coverage/varying": 13,
        "effectiveness/a/intended/absolute_error": 1,
        "effectiveness/a/intended/bias": 2,
        "effectiveness/a/intended/unmeasurable": 3,
        "effectiveness/a/noise_floor/absolute_error": 1,
        "effectiveness/a/noise_floor/bias": 2,
        "effectiveness/a/noise_floor/unmeasurable": 3,
        "identity/kept": 14,
        "reversibility/mean_absolute_error/1": 15,
        "reversibility/mean_absolute_error/10": 16,
    }


def test_noise_has_the_keys_of_the_document():
    statistics = NoiseStatistics(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, {"age": 7.0})
    result = NoiseResult("a", "u", 10, 0, 1, statistics, torch.zeros(3))
    assert result.quantities == {
        "kolmogorov_smirnov": 1.0,
        "p_value": 2.0,
        "mean": 3.0,
        "standard_deviation": 4.0,
        "mean/largest": 5.0,
        "standard_deviation/furthest": 6.0,
        "correlation/age": 7.0,
    }


def test_importance_weighted_bounds_have_the_keys_of_the_document():
    of_image = {"image": estimate(2)}
    result = ImportanceWeightedResult({"a": estimate(1)}, estimate(3), of_image, of_image)
    assert list(result.quantities) == [
        "importance_weighted_bound/a",
        "importance_weighted_bound",
        "importance_weighted_gap/image",
        "importance_weighted_bits_per_dimension/image",
    ]


def test_unknown_quantities_have_no_key():
    result = CounterfactualResult(Question("a=1"), 0, 10)
    assert result.quantities == {}
    assert by_key(None, Estimate) == {}


@pytest.mark.parametrize(
    "result", [ErrorEstimates(), ImageErrors(), CoverageEstimates(), NoiseStatistics()]
)
def test_results_are_immutable(result):
    with pytest.raises(FrozenInstanceError):
        setattr(result, fields(result)[0].name, None)
