"""A run survives what happens to long runs."""

from __future__ import annotations

import copy
import errno
import os
import re
import shlex
import time
from pathlib import Path

import pytest
import torch
import yaml
from started import Forked, run_for_a_while
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepscm_pl.cli import main

from tiny import CONFIGURATION

STEPS = 12
"""Three epochs of four."""


def words(folder, how=None, step=5, every=2):
    """A training with averaged weights, saved every two steps, that may be interrupted."""
    settings = copy.deepcopy(CONFIGURATION)
    settings["trainer"] |= {
        "max_epochs": 3,
        "default_root_dir": str(folder),
        "callbacks": [
            {
                "class_path": "pytorch_lightning.callbacks.EMAWeightAveraging",
                "init_args": {"decay": 0.8, "use_buffers": False},
            }
        ],
    }
    settings["checkpoint"] = {"every_n_train_steps": every, "monitor": None, "save_top_k": 1}
    settings["evaluation"] = {"enabled": how == "terminate_the_report"}
    if how is not None:
        interrupt = {
            "class_path": "interrupting.Interrupt",
            "init_args": {"how": how, "step": step},
        }
        settings["trainer"]["callbacks"].append(interrupt)
    folder.mkdir(exist_ok=True)
    path = folder / f"{how}.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return ["fit", "--config", str(path)]


def run_of(folder, number=0):
    return folder / "lightning_logs" / f"version_{number}"


def last(folder):
    return torch.load(run_of(folder) / "checkpoints" / "last.ckpt", weights_only=True)


def curves(folder):
    """Every scalar of a run but the epoch, which each write repeats: the steps and values."""
    events = EventAccumulator(str(run_of(folder)))
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if name.startswith(("1 ", "2 ", "3 ", "4 ")) and name != "4 training/epoch"
    }


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes that are started: sums over several threads have other last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(one_thread, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert main(words(folder)) == 0
    return folder


def assert_equal(found, expected, where=""):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict | list):
        pairs = expected.items() if isinstance(expected, dict) else enumerate(expected)
        for key, value in pairs:
            assert_equal(found[key], value, f"{where}/{key}")
    else:
        assert found == expected, where


@pytest.mark.parametrize(
    ("how", "step", "code", "saved"),
    [
        ("kill", 5, -9, 4),
        ("kill_while_saving", 5, -9, 4),
        ("terminate", 6, 143, 7),
        ("terminate", 7, 143, 8),  # the last of an epoch
        ("terminate_the_validation", 8, 143, 8),
    ],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    whole, tmp_path, how, step, code, saved, capfd
):
    found, printed = run_for_a_while(words(tmp_path, how, step))
    assert found == code, printed
    assert last(tmp_path)["global_step"] == saved
    if how.startswith("terminate"):
        assert f"ended by SIGTERM; saved up to step {saved} in" in printed
        assert (
            f"resume with: deepscm {shlex.join(words(tmp_path, how, step))} --ckpt_path last"
            in printed
        )
    time.sleep(1.1)  # TensorBoard reads files in the order of the seconds in their names
    assert main([*words(tmp_path), "--ckpt_path", "last"]) == 0
    resumed, expected = last(tmp_path), last(whole)
    assert resumed["global_step"] == STEPS
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        assert_equal(resumed[part], expected[part], part)
    assert os.listdir(tmp_path / "lightning_logs") == ["version_0"]
    folder = run_of(tmp_path) / "checkpoints"
    assert not [path for path in folder.iterdir() if path.suffix == ".partial"]
    shown, drawn = curves(tmp_path), curves(whole)
    assert shown.keys() == drawn.keys()
    for name, points in drawn.items():
        # The validation of an epoch that was saved right before it is drawn once or twice, alike.
        assert sorted(set(shown[name])) == points, name
        if name.endswith(" train"):
            assert shown[name] == points, name


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "fill_the_disk",
            r"could not be written .*File too large.* earlier checkpoints are in",
        ),
        ("remove_the_folder", r"could not be written .*has vanished"),
    ],
)
def test_a_folder_that_cannot_be_written_stops_the_run(tmp_path, how, message):
    code, printed = run_for_a_while(words(tmp_path, how))
    assert code == 1, printed
    assert re.search(message, printed, re.DOTALL), printed
    assert "Traceback" not in printed
    if how == "fill_the_disk":
        assert last(tmp_path)["global_step"] == 4


@pytest.mark.parametrize("closed", ["lightning_logs", "version_0"])
def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch, capsys, closed):
    """As on a file system that is mounted to be read; root may write any other."""
    mkdir = Path.mkdir

    def refuse(self, *arguments, **settings):
        if self.name == closed:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return mkdir(self, *arguments, **settings)

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(words(tmp_path)) == 1
    error = capsys.readouterr().err
    assert re.search(r"default_root_dir: .*_logs cannot be written \(Read-only", error), error
    assert "Traceback" not in error


def test_a_report_can_be_ended(tmp_path):
    code, printed = run_for_a_while(words(tmp_path, "terminate_the_report", step=-1))
    assert code == 143, printed
    assert last(tmp_path)["global_step"] == STEPS
    assert not (tmp_path / "survived").exists()


def test_nothing_to_go_on_from_starts_anew(tmp_path, capsys):
    assert main([*words(tmp_path), "--ckpt_path", "last", "--trainer.max_epochs", "1"]) == 0
    assert last(tmp_path)["global_step"] == 4


def test_the_newest_complete_checkpoint_is_found(whole, tmp_path, capsys):
    assert main([*words(tmp_path), "--trainer.max_epochs", "1"]) == 0
    folder = run_of(tmp_path) / "checkpoints"
    good = folder / "last.ckpt"
    broken = folder / "newer.ckpt"
    broken.write_bytes(good.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"resuming from .*last.ckpt; others, which may be"):
        assert main([*words(tmp_path), "--ckpt_path", "last"]) == 0
    assert last(tmp_path)["global_step"] == STEPS
    for path in folder.glob("*.ckpt"):
        path.write_bytes(b"no checkpoint")
    assert main([*words(tmp_path), "--ckpt_path", "last"]) == 1
    assert "no checkpoint can be read" in capsys.readouterr().err


def test_two_runs_in_one_place_have_a_folder_each(tmp_path):
    command = ["-m", "deepscm_pl", *words(tmp_path), "--trainer.max_epochs", "1"]
    ended = [run.wait() for run in [Forked(*command), Forked(*command)]]
    assert [code for code, _ in ended] == [0, 0], ended
    for number in (0, 1):
        saved = torch.load(run_of(tmp_path, number) / "checkpoints" / "last.ckpt")
        assert saved["global_step"] == 4


def test_one_run_is_continued_by_one_process(tmp_path, capsys):
    import fcntl

    assert main([*words(tmp_path), "--trainer.max_epochs", "1"]) == 0
    with (run_of(tmp_path) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main([*words(tmp_path), "--ckpt_path", "last"]) == 1
    assert f"another training is writing to {run_of(tmp_path)}" in capsys.readouterr().err
    assert last(tmp_path)["global_step"] == 4
    assert main([*words(tmp_path), "--ckpt_path", "last"]) == 0
    assert Path(run_of(tmp_path) / "config.yaml").is_file()
