"""Trained models of checkpoints and exported files."""

from __future__ import annotations

import pytest
import torch

import deepscm_pl
from deepscm_pl import DeepSCM, TrainedModel, export_model, load

from tiny import TinyDataModule


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    return export_model(checkpoint, tmp_path_factory.mktemp("exported") / "model.safetensors")


@pytest.fixture(params=["checkpoint", "exported"])
def model(request) -> TrainedModel:
    return load(request.getfixturevalue(request.param))


def test_it_answers_as_the_module_does(model, checkpoint):
    module = DeepSCM.load_from_checkpoint(checkpoint)
    assert model.scm.state_dict().keys() == module.scm.state_dict().keys()
    torch.manual_seed(3)
    with torch.no_grad():
        expected = module.scm.sample(4)
    found = model.sample(4, seed=3)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not model.scm.training
    assert not found["image"].requires_grad


def test_an_intervention_is_a_text_or_a_mapping(model):
    texts, values = model.intervene("thickness=2", 3, seed=1), {"thickness": 2.0}
    mappings = model.intervene(values, 3, seed=1)
    assert all(torch.equal(texts[name], mappings[name]) for name in texts)
    assert texts["thickness"].flatten().tolist() == [2.0] * 3
    with pytest.raises(ValueError, match="nonsense"):
        model.intervene("nonsense=2", 3)


def test_counterfactuals_of_its_own_data(model):
    factual = {name: each[:5] for name, each in model.data().variables("test").items()}
    factual = {name: factual[name] for name in model.variables}
    one = model.counterfactual(factual, "thickness=2", num_particles=2, seed=1)
    several = model.counterfactual(factual, ["thickness=2", {}], num_particles=2, seed=1)
    assert one["image"].shape == (2, *factual["image"].shape)
    assert several["image"].shape == (2, 2, *factual["image"].shape)
    assert torch.equal(several["image"][:, 0], one["image"])
    assert torch.equal(several["thickness"][0, 1], factual["thickness"])


def test_a_seed_leaves_the_generator_of_torch_as_it_was(model):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model.sample(2, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_its_data_are_those_of_the_run(model, tmp_path):
    expected = TinyDataModule(batch_size=16).variables("test")["thickness"]
    assert torch.equal(model.data().variables("test")["thickness"], expected)
    assert list(model.variables) == list(model.scm.graph.nodes)


def test_weights_are_not_kept_twice(model):
    assert "state_dict" not in model.checkpoint.content
    assert "optimizer_states" not in model.checkpoint.content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model_class="other.Model"), "another kind of model"),
        (lambda c: c["hyper_parameters"].pop("graph"), "another kind of model"),
        (lambda c: c["state_dict"].update({"extra": torch.zeros(1)}), "unexpected"),
        (lambda c: c["state_dict"].pop("scm.fitted"), "missing: fitted"),
        (lambda c: c["state_dict"]["scm.fitted"].fill_(False), "never fitted"),
        (lambda c: c.update(state_dict=[1]), "expected tensors by name"),
    ],
    ids=["class", "settings", "unexpected", "missing", "not fitted", "no mapping"],
)
def test_settings_that_do_not_fit_are_refused_with_one_line(change, message, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match=message) as refused:
        deepscm_pl.load(tmp_path / "odd.ckpt")
    assert "\n" not in str(refused.value)
    assert "odd.ckpt" in str(refused.value)
