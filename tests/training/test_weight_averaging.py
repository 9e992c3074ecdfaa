"""Lightning's averaging of weights, from YAML, with statistics, checkpoints and the test."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import EMAWeightAveraging

from deepscm_pl.cli import main
from deepscm_pl.training import DeepSCM, export_model, read_checkpoint

from tiny import CONFIGURATION

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


def write(folder, **settings):
    configuration = json.loads(json.dumps(CONFIGURATION))
    configuration["trainer"]["callbacks"] = [
        {
            "class_path": "pytorch_lightning.callbacks.EMAWeightAveraging",
            "init_args": {"decay": 0.8, **settings},
        }
    ]
    configuration["evaluation"] = {"enabled": False}
    path = folder / "averaged.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return ["fit", "--config", str(path), "--trainer.default_root_dir", str(folder)]


@pytest.fixture(scope="module", params=[False, True])
def averaged(request, tmp_path_factory):
    """The folder of a run, the weights after each step, and those of each evaluation."""
    root = tmp_path_factory.mktemp("averaged")
    stepped, tested = [], []
    with pytest.MonkeyPatch.context() as patch:
        step = EMAWeightAveraging.on_train_batch_end

        def watch_step(self, trainer, pl_module, *rest):
            stepped.append(_weights(pl_module))
            step(self, trainer, pl_module, *rest)

        test = DeepSCM.on_test_epoch_end
        patch.setattr(EMAWeightAveraging, "on_train_batch_end", watch_step)
        patch.setattr(
            DeepSCM, "on_test_epoch_end", lambda self: (tested.append(_weights(self)), test(self))
        )
        assert main(write(root, use_buffers=request.param)) == 0
    return root / "lightning_logs" / "version_0", stepped, tested


def _weights(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def test_checkpoint_holds_the_average_of_the_steps(averaged):
    run, stepped, _ = averaged
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    names = dict(DeepSCM.load_from_checkpoint(run / "checkpoints" / "last.ckpt").named_parameters())
    for name in names:
        average = stepped[0][name]
        for weights in stepped[1:]:
            average = 0.8 * average + 0.2 * weights[name]
        torch.testing.assert_close(saved["state_dict"][name], average)
        torch.testing.assert_close(saved["current_model_state"][name], stepped[-1][name])
    assert any(not torch.equal(saved["state_dict"][name], stepped[-1][name]) for name in names)


def test_an_export_records_that_its_weights_are_averaged(averaged, tmp_path):
    path = averaged[0] / "checkpoints" / "last.ckpt"
    found = read_checkpoint(export_model(path, tmp_path / "model.safetensors"))
    assert found["weights"] == "averaged"
    for name, value in torch.load(path, weights_only=True)["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value)


def test_statistics_survive(averaged):
    run, stepped, _ = averaged
    model = DeepSCM.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert bool(model.scm.fitted)
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, stepped[-1][name], atol=0, rtol=1e-5)
    assert model.scm["thickness"].constraint.scale != 1


def test_the_tested_weights_are_the_averaged_ones(averaged, capsys):
    """In the test after a training, and in a test of its checkpoint."""
    run, _, tested = averaged
    best = next((run / "checkpoints").glob("epoch=*.ckpt"))
    saved = torch.load(best, weights_only=True)["state_dict"]
    assert len(tested) == 1
    for name, value in saved.items():
        torch.testing.assert_close(tested[0][name], value, atol=0, rtol=0)
    assert main(["test", "--ckpt_path", str(best), *QUIET]) == 0
    assert "Evaluated: 20 rows" in capsys.readouterr().out


def test_a_training_resumes_from_the_weights_of_the_optimiser(averaged, tmp_path, monkeypatch):
    run, stepped, _ = averaged
    last = run / "checkpoints" / "last.ckpt"
    started = []
    start = DeepSCM.on_train_start
    monkeypatch.setattr(
        DeepSCM, "on_train_start", lambda self: (started.append(_weights(self)), start(self))
    )
    words = write(tmp_path, use_buffers=False)
    assert main([*words, "--ckpt_path", str(last), "--trainer.max_epochs", "3"]) == 0
    for name, value in stepped[-1].items():
        if "statistics" not in name:
            torch.testing.assert_close(started[0][name], value, rtol=1e-5, atol=0)
