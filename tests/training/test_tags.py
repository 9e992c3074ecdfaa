"""Curves in TensorBoard: few, in groups, and monitors keep their names."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepscm_pl.runs.tags import GroupedLogger, TagGroups

STAGES = ("train", "validation", "test")


def quantities(scalars, images, losses=()):
    """Names as DeepSCM logs them, see ``training.bound.quantity_names``."""
    nodes = [*scalars, *images]
    return [
        *(f"log_prob/{name}" for name in nodes),
        *(f"kl/{name}" for name in images),
        *(f"bound/{name}" for name in nodes),
        *(f"loss/{name}" for name in losses),
        "bound",
        *(f"bits_per_dimension/{name}" for name in images),
    ]


def logged(groups, scalars, images, losses=()):
    """The tags of a whole run: steps, validations and a test."""
    tags = {}
    for stage in STAGES:
        names = [f"{stage}/{name}" for name in quantities(scalars, images, losses)]
        if stage == "train":
            names += ["train/objective", "train/kl_weight", "train/phase", "train/skipped_steps"]
        if stage == "test":
            names += [f"test/mean_absolute_error/{name}" for name in images]
        numbers = {name: float(k) for k, name in enumerate(names)}
        found = groups({**numbers, "epoch": -1.0})
        assert set(found.values()) <= {*numbers.values(), -1.0}
        assert len({*found.values()}) == len(found)
        tags |= found
    return tags


@pytest.mark.parametrize("count", [1, 3, 30])
@pytest.mark.parametrize("images", [[], ["image"], ["image", "segmentation"]])
def test_there_are_few_curves_whatever_the_number_of_variables(count, images):
    tags = logged(TagGroups(), [f"x{k}" for k in range(count)], images, ["critic"])
    evaluation = 10  # Report.main_figures
    assert len(tags) + evaluation <= 40
    groups = {tag.partition("/")[0] for tag in tags}
    assert groups >= {"1 objective", "2 variables", "4 training", "5 test"}
    assert all("1" <= group[0] <= "5" for group in groups)
    for tag in ("1 objective/bound train", "1 objective/bound validation", "5 test/bound"):
        assert tag in tags
    if images:
        assert {"2 variables/image validation", "3 image/kl image train"} <= tags.keys()


def test_values_stay_with_their_quantity():
    found = TagGroups()({"validation/kl/image": 3.0, "validation/bound/image": -7.0})
    assert found == {"3 image/kl image validation": 3.0, "2 variables/image validation": -7.0}


def test_the_log_probability_of_a_scalar_is_its_bound_and_has_one_curve():
    found = TagGroups()({"train/log_prob/age": -1.0, "train/bound/age": -1.0})
    assert found == {"2 variables/age train": -1.0}


def test_the_same_variables_have_curves_in_every_step():
    groups = TagGroups()
    first = groups({f"train/bound/x{k}": 0.0 for k in range(9)})
    second = groups({f"train/bound/x{k}": 0.0 for k in reversed(range(9))})
    assert set(first) == set(second)
    assert len(first) == 6


def test_other_names_stay_as_they_are():
    own = {"lr-Adam": 0.1, "my/own/curve": 1.0, "evaluation/bound": 2.0, "train": 3.0}
    assert TagGroups()(own) == own


def test_names_of_variables_are_made_valid():
    (tag,) = TagGroups()({"validation/bound/a <b>|$": 1.0})
    assert not set(tag) & set("<>|$")


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
        return torch.optim.SGD(self.parameters(), 0.1)


def test_monitors_keep_their_names(tmp_path):
    best = pl.callbacks.ModelCheckpoint(tmp_path, "best", monitor="validation/bound", mode="max")
    stopping = pl.callbacks.EarlyStopping("validation/bound", mode="max", min_delta=10.0)
    rows = torch.utils.data.DataLoader(torch.zeros(2))
    trainer = pl.Trainer(
        max_epochs=9,
        accelerator="cpu",
        logger=GroupedLogger(str(tmp_path), version="run"),
        callbacks=[best, stopping],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(_Line(), rows, rows)
    assert (tmp_path / "best.ckpt").is_file()
    assert trainer.current_epoch == 4  # three epochs without an improvement of 10
    assert "validation/bound" in trainer.callback_metrics
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    tags = ["1 objective/bound train", "1 objective/bound validation", "4 training/epoch"]
    assert sorted(events.Tags()["scalars"]) == tags
    last = events.Scalars("1 objective/bound validation")[-1].value
    assert last == pytest.approx(float(trainer.callback_metrics["validation/bound"]))
