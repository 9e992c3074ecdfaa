"""Densities given all root causes at once, such as p(brain volume | age, sex)."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from deepscm_pl.data import SyntheticBrainDataModule
from deepscm_pl.evaluation.densities import _queries, _Query, _Sampler, evaluate_densities
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms import AffineFlow, Bernoulli
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms import Positive

from tiny import image_mechanism

VALUES = {
    "age": [50.0, 70.0, 85.0],  # the last one does not occur, and may be set all the same
    "sex": [0.0, 1.0],
    "brain_volume": [1.1e6],
    "ventricle_volume": [3e4],
}


@pytest.fixture(scope="module")
def densities(tmp_path_factory):
    """Densities of an untrained model with the graph of the world."""
    torch.manual_seed(0)
    volume = partial(AffineFlow, constraint=Positive)
    image = image_mechanism(shape=(1, 32, 32))
    scm = StructuralCausalModel(
        "age, sex -> brain_volume; age, brain_volume -> ventricle_volume; "
        "brain_volume, ventricle_volume -> image",
        {
            "age": volume,
            "sex": Bernoulli,
            "brain_volume": volume,
            "ventricle_volume": volume,
            "image": image,
        },
    )
    data = SyntheticBrainDataModule(
        train_size=300, validation_size=10, test_size=10, shape=(32, 32),
        cache_dir=tmp_path_factory.mktemp("cache"),
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    scm.fit(data.variables("train"))
    model = ModelOnData.of(scm, data)
    found = evaluate_densities(model, VALUES, size=5000, progress=False)
    return {each.title: each for each in found}


def test_effects_are_given_all_root_causes(densities):
    joint = [title for title in densities if title.count("=") > 1]
    assert joint == [
        f"p({volume} | age = {age} years, sex = {sex})"
        for volume in ("brain_volume", "ventricle_volume")
        for age in (50, 70, 85)
        for sex in (0, 1)
    ]


@pytest.mark.parametrize(("age", "sex"), [(50, 0), (70, 1)])
def test_densities_of_the_world_follow_its_equation(densities, age, sex):
    sample = densities[f"p(brain_volume | age = {age} years, sex = {sex})"].world
    logs = sample.values.log()
    expected = math.log(1.16e6) - 0.0035 * (age - 60) + 0.105 * (sex - 0.5)
    assert (logs * sample.weights).sum().item() == pytest.approx(expected, abs=0.005)
    assert logs.std().item() == pytest.approx(0.075, rel=0.05)


def test_observing_a_root_cause_equals_setting_it(densities):
    """In an untrained model, volumes do not depend on their causes."""
    one, other = (
        densities[f"p(brain_volume | age = {age} years, sex = {sex})"].model
        for age, sex in ((50, 0), (70, 1))
    )
    assert (one.values * one.weights).sum().item() == pytest.approx(
        (other.values * other.weights).sum().item(), rel=0.01
    )
    assert one.weights.max().item() == pytest.approx(1 / 5000)


def test_joint_observations_multiply_their_weights():
    """Bayes' rule for a cause of two variables that are both observed."""
    torch.manual_seed(0)
    mechanisms = {"sex": Bernoulli, "age": AffineFlow, "height": AffineFlow}
    scm = StructuralCausalModel("sex -> age; sex -> height", mechanisms)
    rows = {name: torch.randn(100, 1) for name in mechanisms}
    rows["sex"] = (rows["sex"] > 0).float()
    scm.fit(rows)
    with torch.no_grad():
        for parameter in scm.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    given = {"age": 0.5, "height": -0.3}
    sample = _Sampler(scm, 20_000).draw(_Query("sex", given, done=False))
    sex = torch.tensor([[0.0], [1.0]])
    observed = {name: torch.full((2, 1), value) for name, value in given.items()}
    logs = scm.log_prob({"sex": sex, **observed})
    expected = logs.softmax(dim=0)[1].item()
    assert 0.05 < expected < 0.95
    assert (sample.values @ sample.weights).item() == pytest.approx(expected, abs=0.02)


def test_too_many_combinations_are_omitted():
    graph = CausalGraph("a, b, c -> d")
    for values, expected in (([1.0, 2.0], 8), ([1.0, 2.0, 3.0], 0)):
        chosen = dict.fromkeys("abcd", values)
        assert sum(len(each.given) == 3 for each in _queries(graph, chosen)) == expected
