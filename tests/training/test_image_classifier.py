"""The classifier: its parts, training on a solvable task, and the commands that use it."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import yaml

from deepscm_pl.cli import main
from deepscm_pl.nn import ResidualClassifier
from deepscm_pl.training import DeepSCM, ImageClassifier, OneCycle
from deepscm_pl.training.image_classifier import shift_images

from tiny import WideOrNarrowDataModule

CONFIGURATION = {
    "seed_everything": 1,
    "model": {
        "class_path": "deepscm_pl.training.ImageClassifier",
        "init_args": {
            "shape": [1, 8, 8],
            "classes": 2,
            "shift": 1,
            "network": {
                "class_path": "deepscm_pl.nn.ResidualClassifier",
                "init_args": {"channels": [8, 16]},
            },
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
            "scheduler": {"class_path": "deepscm_pl.training.OneCycle"},
        },
    },
    "data": {"class_path": "tiny.WideOrNarrowDataModule", "init_args": {"batch_size": 16}},
    "trainer": {
        "max_epochs": 12,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    },
}
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


def write(folder, settings=CONFIGURATION):
    path = folder / "classifier.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("classifier")
    words = ["fit", "--config", write(root), "--trainer.default_root_dir", str(root)]
    assert main(words) == 0
    return root / "lightning_logs" / "version_0"


@pytest.fixture
def checkpoint(run):
    return next((run / "checkpoints").glob("epoch=*.ckpt"))


def test_training_distinguishes_wide_from_narrow(run, checkpoint, capsys):
    """A checkpoint can be tested by its path alone."""
    assert main(["test", "--ckpt_path", str(checkpoint), *QUIET]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "test/accuracy" in line)
    assert float(line.strip(" │").split()[-1]) >= 0.95
    assert not (run / "association.json").exists()


def test_predictions_are_written_for_every_image(run, checkpoint):
    assert main(["predict", "--ckpt_path", str(checkpoint), *QUIET]) == 0
    rows = (run / "quantities.csv").read_text().splitlines()
    assert rows[0] == "row,label,prediction,probability"
    assert len(rows) == 21


def test_checkpoint_keeps_the_epoch_of_the_best_accuracy(checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    states = [v for k, v in saved["callbacks"].items() if k.startswith("ModelCheckpoint")]
    assert states[0]["monitor"] == "validation/accuracy"


def test_a_checkpoint_loads_by_its_path_alone(checkpoint):
    model = ImageClassifier.load_from_checkpoint(checkpoint)
    again = ImageClassifier.load_from_checkpoint(checkpoint)
    image = torch.randint(0, 256, (3, 1, 8, 8)).float()
    assert not model.training
    assert model.shift == 1
    assert torch.equal(model(image), again(image))


def test_kinds_of_checkpoints_are_not_confused(checkpoint, capsys, tmp_path):
    with pytest.raises(ValueError, match=r"another kind of model.*no graph and no mechanisms"):
        DeepSCM.load_from_checkpoint(checkpoint)
    words = ["sample", "--ckpt_path", str(checkpoint), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "another kind of model" in capsys.readouterr().err


def test_a_hostile_class_is_refused(checkpoint, tmp_path, capsys):
    saved = torch.load(checkpoint, weights_only=True)
    for key, value in (
        ("model_class", "subprocess.Popen"),
        ("hyper_parameters", {**saved["hyper_parameters"], "optimizer": "torch.optim.Adam"}),
    ):
        path = tmp_path / f"{key}.ckpt"
        torch.save({**saved, key: value}, path)
        assert main(["test", "--ckpt_path", str(path), *QUIET]) == 1
        message = capsys.readouterr().err
        assert "refused" in message or "expected a class" in message


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("deepscm_pl.training.ImageClasifier", "cannot import"),
        ("torch.nn.Linear", "expected a class derived from LightningModule"),
    ],
)
def test_unknown_model_classes_are_named(tmp_path, capsys, class_path, message):
    settings = copy.deepcopy(CONFIGURATION)
    settings["model"]["class_path"] = class_path
    assert main(["fit", "--config", write(tmp_path, settings)]) == 1
    error = capsys.readouterr().err
    assert class_path in error
    assert message in error


def test_unknown_argument_is_named_with_the_nearest(tmp_path, capsys):
    settings = copy.deepcopy(CONFIGURATION)
    settings["model"]["init_args"]["shfit"] = 2
    with pytest.raises(SystemExit):
        main(["fit", "--config", write(tmp_path, settings)])
    assert "did you mean 'shift'" in capsys.readouterr().err


def test_rows_are_classified_independently():
    network = ResidualClassifier((1, 9, 10), 3, channels=(8, 16))
    image = torch.randn(5, 1, 9, 10)
    torch.testing.assert_close(network(image)[2:3], network(image[2:3]))
    network(image).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        ResidualClassifier((1, 8, 8), 3, channels=(12,))
    with pytest.raises(ValueError, match="classes: expected a whole number of at least 2"):
        ImageClassifier(classes=1)
    with pytest.raises(ValueError, match="shift: expected a whole number of at least 0"):
        ImageClassifier(shift=-1)


def test_shifts_move_whole_images():
    image = torch.zeros(400, 2, 6, 7)
    image[:, 0, 2, 3], image[:, 1, 3, 3] = 5.0, 7.0
    moved = shift_images(image, 2)
    assert moved.shape == image.shape
    places = moved[:, 0].flatten(1).argmax(1)
    rows, columns = places // 7, places % 7
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {
        (row, column) for row in range(5) for column in range(1, 6)
    }
    below = (rows + 1) * 7 + columns
    assert torch.equal(moved[:, 1].flatten(1).argmax(1), below)
    assert torch.equal(moved.sum((1, 2, 3)), torch.full((400,), 12.0))
    border = shift_images(torch.ones(50, 1, 4, 4), 1)
    assert border.min() == 0


def test_shift_is_for_training_only():
    model = ImageClassifier(
        (1, 8, 8), 2, partial(ResidualClassifier, channels=(8,)), scheduler=OneCycle, shift=2
    )
    model.log = lambda *_, **__: None
    seen = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.zeros(4, 1, 8, 8)
    image[:, :, 0, 0] = 255
    batch = {"image": image, "label": torch.zeros(4, 1)}
    torch.manual_seed(0)
    model.training_step(batch, 0)
    model.validation_step(batch, 0)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], 2 * image / 255 - 1)


def test_cross_entropy_is_a_mean_over_the_images_of_one_validation(tmp_path):
    data = WideOrNarrowDataModule()  # of 20 rows, in batches of 16
    model = ImageClassifier((1, 8, 8), 2, partial(ResidualClassifier, channels=(8,)))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(default_root_dir=tmp_path, accelerator="cpu", **quiet)
    rows = data.variables("validation")
    for _ in range(2):
        torch.nn.init.normal_(model.network.head.weight)
        (found,) = trainer.validate(model, data, verbose=False)
        labels = rows["label"].flatten()
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(model(rows["image"].float()), labels)
        assert found["validation/cross_entropy"] == pytest.approx(expected.item(), rel=1e-5)


def test_an_image_with_nan_stops_the_training(tmp_path, monkeypatch, capsys):
    def broken(self, indices):
        batch = gather(self, indices)
        batch["image"][3] = float("nan")
        return batch

    from deepscm_pl.data import InMemoryDataset

    gather = InMemoryDataset.__getitems__
    monkeypatch.setattr(InMemoryDataset, "__getitems__", broken)
    words = ["fit", "--config", write(tmp_path), "--trainer.default_root_dir", str(tmp_path)]
    assert main([*words, "--trainer.num_sanity_val_steps", "0"]) == 1
    message = capsys.readouterr().err
    assert "cross_entropy is not finite for 1 of 16 images in batch 0 of epoch 0 (rows" in message
