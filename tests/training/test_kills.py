"""A training that is killed repeatedly ends exactly as one that was not.

The kills are exceptions after which the folder is put back as it was: see ``killing``. The subset
here covers each interval and each kind of training once; moments are drawn with fixed seeds.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from killing import Kill, Killed, Run, curves_of, restore_kept
from pytorch_lightning.utilities.exceptions import SIGTERMException
from test_resuming import assert_same
from torch.optim.lr_scheduler import ReduceLROnPlateau

from deepscm_pl.callbacks import SaveOnTermination
from deepscm_pl.runs.checkpoint_files import steps_of
from deepscm_pl.runs.progress import Progress

EPOCH = 4
MOMENTS = ("step", "step", "validation", "saving", "saved")
PARTS = (
    "global_step",
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
)


@pytest.fixture(scope="module", autouse=True)
def one_run_in_one_thread():
    patch = pytest.MonkeyPatch()
    patch.setenv("PL_GLOBAL_SEED", "5")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    patch.undo()


@pytest.fixture(scope="module")
def uninterrupted(one_run_in_one_thread, tmp_path_factory):
    """The last checkpoint and the curves of a kind of training, independent of when it saves."""
    known = {}

    def of(name, run):
        if name not in known:
            folder = tmp_path_factory.mktemp("whole")
            known[name] = run.fit(folder), curves_of(folder)
        return known[name]

    return of


def assert_as_uninterrupted(state, folder, expected):
    for part in PARTS:
        assert (part in state) == (part in expected[0])
        assert_same(state.get(part), expected[0].get(part), part)
    shown = curves_of(folder)
    # A validation whose end was not saved is repeated, with one value.
    assert sorted(set(shown)) == expected[1]
    trained = [point for point in shown if not point[1].startswith("validation")]
    assert len(trained) == len(set(trained))


def chain(seed, steps=3 * EPOCH):
    """Up to ten kills in order of their time."""
    draw = random.Random(seed)
    reached = sorted(draw.randint(0, steps - 1) for _ in range(draw.randint(2, 10)))
    return [Kill(draw.choice(MOMENTS), step) for step in reached]


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (2, (5, 7)),
        (4, (9, 13)),
        (4, (5, 9)),
        (2, (3, 5, 9)),
        (2, (5, 7, 9)),
        (2, (3, 3, 5, 7, 9)),
    ],
)
def test_resumptions_in_neighbouring_epochs(uninterrupted, tmp_path, every, steps):
    run = Run(checkpoint={"every_n_train_steps": every}, epochs=4)
    state, struck = run.survive(tmp_path / "run", [Kill("step", step) for step in steps])
    assert struck == len(steps)
    assert_as_uninterrupted(state, tmp_path / "run", uninterrupted("four epochs", run))


def test_eleven_random_kills_in_epochs_of_twenty_steps(uninterrupted, tmp_path):
    run = Run(checkpoint={"every_n_train_steps": 8}, epochs=8, batch_size=3)
    steps = sorted(random.Random(1).sample(range(1, 160), 11))
    state, struck = run.survive(tmp_path / "run", [Kill("step", step) for step in steps])
    assert struck == len(steps)
    assert state["global_step"] == 160
    assert_as_uninterrupted(state, tmp_path / "run", uninterrupted("twenty steps", run))


@pytest.mark.parametrize("step", range(3 * EPOCH))
def test_a_kill_at_every_step(uninterrupted, tmp_path, step):
    run = Run(checkpoint={"every_n_train_steps": 2})
    state, struck = run.survive(tmp_path / "run", [Kill("step", step)])
    assert struck == 1
    assert_as_uninterrupted(state, tmp_path / "run", uninterrupted("plain", run))


@pytest.mark.parametrize("moment", ["validation", "saving", "saved"])
@pytest.mark.parametrize("every", [{"every_n_train_steps": 4}, {"every_n_epochs": 1}])
def test_a_kill_in_validation_and_in_saving(uninterrupted, tmp_path, moment, every):
    run = Run(checkpoint=every, averaged=True)
    state, struck = run.survive(tmp_path / "run", [Kill(moment, 4), Kill(moment, 12)])
    assert struck == 2
    assert_as_uninterrupted(state, tmp_path / "run", uninterrupted("averaged", run))


@pytest.mark.parametrize("every", range(1, 3 * EPOCH + 3))
def test_chains_of_kills(uninterrupted, tmp_path, every):
    """Intervals up to the length of the training, and two that are longer, which save nothing."""
    averaged = every % 2 == 0
    run = Run(checkpoint={"every_n_train_steps": every}, averaged=averaged)
    state, _ = run.survive(tmp_path / "run", chain(every))
    expected = uninterrupted("averaged" if averaged else "plain", run)
    assert_as_uninterrupted(state, tmp_path / "run", expected)


PLATEAU = partial(ReduceLROnPlateau, patience=0, threshold=1e9)
"""Lowers the learning rate after each epoch but the first."""


@pytest.mark.parametrize(
    ("name", "settings", "saving"),
    [
        ("plain", {}, {"every_n_epochs": 2}),
        ("averaged", {"averaged": True}, {"every_n_epochs": 3}),
        ("accumulated", {"trainer": {"accumulate_grad_batches": 3}}, {"every_n_train_steps": 1}),
        ("often", {"trainer": {"val_check_interval": 2}}, {"every_n_train_steps": 2}),
        ("rare", {"trainer": {"check_val_every_n_epoch": 2}}, {"every_n_train_steps": 2}),
        ("unvalidated", {"trainer": {"limit_val_batches": 0}}, {"every_n_train_steps": 4}),
        ("limited", {"trainer": {"limit_train_batches": 3}}, {"every_n_train_steps": 3}),
        ("to a step", {"trainer": {"max_steps": 10}}, {"every_n_train_steps": 3}),
        ("plateau", {"scheduler": PLATEAU}, {"every_n_train_steps": 4}),
        ("plateau", {"scheduler": PLATEAU}, {"every_n_epochs": 1}),
        (
            "plateau",
            {"scheduler": PLATEAU},
            {"every_n_epochs": 1, "save_on_train_epoch_end": False},
        ),
    ],
)
def test_kinds_of_training(uninterrupted, tmp_path, name, settings, saving):
    run = Run(checkpoint=saving, **settings)
    expected = uninterrupted(name, run)
    total = expected[0]["global_step"]
    kills = [Kill("saved", total // 3), Kill("step", total // 2), Kill("step", total - 1)]
    if "every_n_epochs" in saving or total // 3 % saving["every_n_train_steps"]:
        kills[0] = Kill("saved", 4)
    state, struck = run.survive(tmp_path / "run", kills)
    assert struck == 3
    assert_as_uninterrupted(state, tmp_path / "run", expected)


class Terminated(pl.Callback):
    """Receives SIGTERM after a batch."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_end(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            trainer._signal_connector.received_sigterm = True


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_termination_between_accumulated_batches(uninterrupted, tmp_path, batch):
    run = Run(checkpoint={"every_n_epochs": 1}, trainer={"accumulate_grad_batches": 3})
    told = dataclasses.replace(run, callbacks=(SaveOnTermination(), Terminated(batch)))
    with pytest.raises(SIGTERMException):
        told.fit(tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert "gradients" in saved
    assert_as_uninterrupted(
        run.fit(tmp_path / "run"), tmp_path / "run", uninterrupted("accumulated", run)
    )


@pytest.mark.parametrize(
    ("part", "value"),
    [("loops", None), ("loops", {"fit_loop": {}}), ("metrics", {"a": 1}), ("gradients", [3])],
)
def test_progress_of_another_form_is_refused(tmp_path, part, value):
    run = Run()
    state = run.fit(tmp_path)
    with pytest.raises(ValueError, match="checkpoint: loops: expected the progress"):
        Progress.of({**state, part: value})
    state["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["rows"] = -1
    with pytest.raises(ValueError, match="expected a count, but got -1"):
        Progress.of(state)


def counts(ready, started, processed, completed):
    return {"ready": ready, "started": started, "processed": processed, "completed": completed}


@pytest.mark.parametrize(
    ("step", "epochs", "batches", "is_last"),
    [
        # As written by earlier versions in the last batch of an epoch, after two resumptions,
        (8, counts(2, 2, 1, 1), counts(2, 2, 2, 1), False),
        # in the last batch after one,
        (8, counts(1, 1, 1, 1), counts(4, 4, 4, 3), True),
        # and within an epoch after one.
        (6, counts(1, 1, 1, 1), counts(2, 2, 2, 1), False),
    ],
)
def test_progress_that_disagrees_with_itself(
    uninterrupted, tmp_path, step, epochs, batches, is_last
):
    run = Run(checkpoint={"every_n_train_steps": 2, "save_top_k": -1, "filename": "{step}"})
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        run.fit(folder, Kill("step", step + 1))
    restore_kept(folder)
    saved = folder / "checkpoints" / f"{step}.ckpt"
    assert steps_of(saved) == step
    for other in (folder / "checkpoints").glob("*.ckpt"):
        if other != saved:
            other.unlink()
    checkpoint = torch.load(saved, weights_only=True)
    _disagree(checkpoint, epochs, batches, is_last)
    torch.save(checkpoint, saved)
    assert_as_uninterrupted(run.fit(folder), folder, uninterrupted("plain", run))


def _disagree(checkpoint, epochs, batches, is_last):
    for name in ("metrics", "gradients"):  # which earlier versions did not write
        checkpoint.pop(name, None)
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_progress"] = {"total": copy.copy(epochs), "current": epochs}
    progress = loops["epoch_loop.batch_progress"]
    progress["current"], progress["is_last_batch"] = batches, is_last
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


@pytest.mark.parametrize(
    "saving",
    [
        {"every_n_train_steps": 5},
        {"every_n_train_steps": 1000},
        {"every_n_epochs": 2},
        {"every_n_train_steps": 5, "save_last": False},
        {"every_n_train_steps": 5, "save_last": "link"},
    ],
)
def test_the_last_steps_are_saved(tmp_path, saving):
    Run(checkpoint=saving).fit(tmp_path / "run", None)
    folder = tmp_path / "run" / "checkpoints"
    steps = {path.name: steps_of(path) for path in folder.glob("*.ckpt")}
    assert steps["epoch=2.ckpt"] == 12, "the one that is tested"
    assert steps.get("last.ckpt", 12) == 12
    assert ("last.ckpt" in steps) == (saving.get("save_last", True) is not False)


def test_each_epoch_is_saved_whatever_the_interval(tmp_path):
    run = Run(checkpoint={"every_n_train_steps": 1000})
    with pytest.raises(Killed):
        run.fit(tmp_path / "run", Kill("step", 9))
    restore_kept(tmp_path / "run")
    assert steps_of(tmp_path / "run" / "checkpoints" / "last.ckpt") == 8
