"""Mechanisms of a trained model in another one: frozen, and saved with it."""

from __future__ import annotations

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import yaml

from deepscm_pl import load
from deepscm_pl.checkpoints import Pretrained
from deepscm_pl.cli import main
from deepscm_pl.configuration import describe
from deepscm_pl.mechanisms import AffineFlow, Context, SplineFlow
from deepscm_pl.training import DeepSCM, export_model
from deepscm_pl.transforms import Interval, Positive
from deepscm_pl.variables import Domain

from tiny import CONFIGURATION, TinyDataModule

GRAPH = "thickness -> intensity"
INTENSITY = partial(AffineFlow, constraint=partial(Interval, low=60, high=260), hidden=(4,))


def fitted(folder, mechanisms, name, epochs=1):
    torch.manual_seed(0)
    model = DeepSCM(GRAPH, mechanisms, optimizer=partial(torch.optim.Adam, lr=0.05))
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, datamodule=TinyDataModule())
    path = folder / name
    trainer.save_checkpoint(path)
    return model, path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    mechanisms = {"thickness": partial(AffineFlow, constraint=Positive), "intensity": INTENSITY}
    return fitted(folder, mechanisms, "first.ckpt", epochs=3)[1]


def mixed(path):
    frozen = partial(Pretrained, checkpoint=str(path), variable="intensity")
    return {"thickness": partial(SplineFlow, constraint=Positive), "intensity": frozen}


def test_a_pre_trained_mechanism_is_itself_and_stays(trained, tmp_path):
    model, path = fitted(tmp_path, mixed(trained), "second.ckpt")
    before = load(trained).scm["intensity"].state_dict()
    assert type(model.scm["intensity"]) is AffineFlow
    for found in (model.scm, load(path).scm):
        state = found["intensity"].state_dict()
        assert all(torch.equal(before[name], state[name]) for name in before)
        assert not any(each.requires_grad for each in found["intensity"].parameters())
        assert found["thickness"].constraint.scale != 1


def test_the_first_checkpoint_is_not_needed_again(trained, tmp_path):
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes(trained.read_bytes())
    model, path = fitted(tmp_path, mixed(moved), "second.ckpt")
    moved.unlink()
    exported = export_model(path, tmp_path / "second.safetensors")
    rows = {"thickness": torch.tensor([[2.0]]), "intensity": torch.tensor([[150.0]])}
    for each in (path, exported):
        again = load(each)
        assert torch.equal(again.scm.log_prob(rows), model.eval().scm.log_prob(rows))
        described = again.checkpoint.content["hyper_parameters"]["mechanisms"]["intensity"]
        assert described["init_args"]["source"] == str(moved)
        assert "checkpoint" not in described["init_args"]
    # And a mechanism of this model can be taken in turn.
    third, _ = fitted(tmp_path, mixed(path), "third.ckpt")
    assert torch.equal(third.scm.log_prob(rows) * 0, torch.zeros(1))
    assert isinstance(DeepSCM.load_from_checkpoint(path), DeepSCM)


def test_a_loaded_file_may_not_name_another(trained, tmp_path):
    _, path = fitted(tmp_path, mixed(trained), "second.ckpt")
    saved = torch.load(path, weights_only=True)
    arguments = saved["hyper_parameters"]["mechanisms"]["intensity"]["init_args"]
    arguments.clear()
    arguments.update(checkpoint=str(trained), variable="intensity")
    torch.save(saved, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match="checkpoint: expected null, because a file must not name"):
        load(tmp_path / "hostile.ckpt")


def test_a_configuration_names_it(trained, tmp_path):
    settings = yaml.safe_load(yaml.safe_dump(CONFIGURATION))
    mechanisms = settings["model"]["mechanisms"]
    del mechanisms["image"]
    mechanisms["intensity"] = {
        "class_path": "deepscm_pl.checkpoints.Pretrained",
        "init_args": {"checkpoint": str(trained), "variable": "intensity"},
    }
    settings["model"]["graph"] = GRAPH
    settings["trainer"] |= {"max_epochs": 1, "callbacks": [], "default_root_dir": str(tmp_path)}
    settings["evaluation"] = {"enabled": False}
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(tmp_path / "mixed.yaml")]) == 0
    path = next(tmp_path.glob("lightning_logs/version_0/checkpoints/epoch*.ckpt"))
    before = load(trained).scm["intensity"].state_dict()
    after = load(path).scm["intensity"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("settings", "domains", "message"),
    [
        ({}, {}, "checkpoint: expected the checkpoint of a trained model"),
        ({"checkpoint": "absent.ckpt"}, {}, "there is no file absent.ckpt"),
        ({"checkpoint": "", "variable": "colour"}, {}, "one of thickness, intensity, the var"),
        ({"checkpoint": "", "variable": "intensity"}, {}, r"parents thickness of 'intensity' in"),
        (
            {"checkpoint": "", "variable": "intensity"},
            {"thickness": Domain(categories=2)},
            r"got thickness \(thickness differs\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(trained, settings, domains, message):
    if settings.get("checkpoint") == "":
        settings = {**settings, "checkpoint": str(trained)}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Pretrained(Context(domains), **settings)


def test_the_description_has_the_mechanism_in_place_of_the_file(trained):
    described = describe(partial(Pretrained, checkpoint=str(trained), variable="intensity"))
    assert set(described["init_args"]) == {"variable", "mechanism", "source"}
    assert described["init_args"]["mechanism"] == describe(INTENSITY)
