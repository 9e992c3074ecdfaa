"""Output that goes to a file has a line per epoch, and about a hundred in a long training."""

from __future__ import annotations

import re

import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl.runs.output import EpochLines, spoken_time

LINE = re.compile(r"trained (\d+) %: epoch (\d+)( of \d+)?, step (\d+)(.*)")


class _Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_index):
        loss = (self.weight - 1).square()
        self.log("train/bound", -loss.detach())
        return loss

    def validation_step(self, batch, batch_index):
        self.log("validation/bound", -(self.weight - 1).square())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(capsys, batches=1, folder=None, path=None, **settings):
    """The lines of a training, as groups of :data:`LINE`."""
    rows = torch.utils.data.DataLoader(torch.zeros(batches))
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=folder is not None,
        callbacks=[EpochLines(), *settings.pop("callbacks", [])],
        enable_model_summary=False,
        **settings,
    )
    model = _Line()
    capsys.readouterr()
    trainer.fit(model, rows, rows, ckpt_path=path)
    printed = capsys.readouterr().out.splitlines()
    found = [LINE.fullmatch(line) for line in printed if line.startswith("trained ")]
    assert all(found)
    return trainer, [match.groups() for match in found]


def test_each_epoch_has_a_line_with_losses_and_the_remaining_time(capsys):
    trainer, lines = fit(capsys, max_epochs=12)
    assert [int(epoch) for _, epoch, *_ in lines] == [*range(1, 13)]
    assert [int(step) for *_, step, _ in lines] == [*range(1, 13)]
    assert {total for _, _, total, *_ in lines} == {" of 12"}
    assert [int(share) for share, *_ in lines] == [round(100 * k / 12) for k in range(1, 13)]
    *before, last = [rest for *_, rest in lines]
    for rest in before:
        assert re.fullmatch(
            r", train bound −[\d.]+, validation bound −[\d.]+, about \d+ s left", rest
        )
    assert "left" not in last
    expected = float(trainer.callback_metrics["validation/bound"])
    assert float(re.search(r"validation bound −([\d.]+)", last)[1]) == pytest.approx(
        -expected, rel=1e-3
    )


def test_a_long_training_has_about_a_hundred_lines_and_the_last(capsys):
    _, lines = fit(capsys, max_epochs=250, limit_val_batches=0)
    assert 80 <= len(lines) <= 101
    assert lines[-1][:2] == ("100", "250")
    epochs = [int(epoch) for _, epoch, *_ in lines]
    assert epochs == sorted({*epochs})


def test_epochs_that_are_long_have_a_line_for_each_tenth(capsys):
    _, lines = fit(capsys, batches=40, max_epochs=1)
    assert 9 <= len(lines) <= 11
    assert lines[-1][0] == "100"


def test_a_training_of_steps_ends_with_a_line(capsys):
    _, lines = fit(capsys, batches=4, max_steps=10, max_epochs=-1)
    assert lines[-1][3] == "10"
    assert lines[-1][2] is None
    assert len(lines) <= 11


def test_a_training_that_stops_early_ends_with_a_line(capsys):
    stopping = pl.callbacks.EarlyStopping("validation/bound", mode="max", min_delta=10.0)
    trainer, lines = fit(capsys, max_epochs=1000, callbacks=[stopping])
    assert trainer.current_epoch < 1000
    assert int(lines[-1][1]) == trainer.current_epoch


def test_a_resumed_training_counts_on(capsys, tmp_path):
    trainer, _ = fit(capsys, folder=tmp_path, max_epochs=11)
    _, more = fit(
        capsys, folder=tmp_path, path=trainer.checkpoint_callback.best_model_path, max_epochs=14
    )
    assert [int(epoch) for _, epoch, *_ in more] == [12, 13, 14]
    assert more[0][0] == str(round(100 * 12 / 14))


def test_no_other_process_prints(capsys):
    lines = EpochLines()
    lines.disable()
    rows = torch.utils.data.DataLoader(torch.zeros(1))
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, callbacks=[lines],
                         enable_checkpointing=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(_Line(), rows)
    assert "trained" not in capsys.readouterr().out


def test_durations_are_spoken():
    assert [spoken_time(s) for s in (0, 89, 91, 3600, 5400, 48 * 3600)] == [
        "1 s", "89 s", "2 min", "60 min", "1.5 h", "2.0 days"]  # fmt: skip
