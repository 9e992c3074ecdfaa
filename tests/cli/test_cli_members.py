"""Members of an ensemble: trainings that differ in their seeds, by one command."""

from __future__ import annotations

import copy
import shlex
import signal

import pytest
import pytorch_lightning as pl
import torch
import yaml
from started import run_for_a_while
from test_cli_interruptions import assert_equal, last

from deepscm_pl.cli import main

from tiny import CONFIGURATION, TinyDataModule


class InterruptSecond(pl.Callback):
    """Presses Ctrl-C before step 6 of the second member."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 6 and trainer.default_root_dir.endswith("member_2"):
            raise KeyboardInterrupt


def words(folder, *callbacks, **trainer):
    settings = copy.deepcopy(CONFIGURATION)
    made = [{"class_path": name} for name in callbacks]
    settings["trainer"] |= {"default_root_dir": str(folder), "callbacks": made, **trainer}
    settings["evaluation"] = {"enabled": False}
    path = folder / f"{len(callbacks)}.yaml"
    folder.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return ["fit", "--config", str(path)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums over several threads have other last digits."""
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, handler)  # Lightning leaves Ctrl-C without effect


@pytest.fixture
def loads(monkeypatch):
    found = []
    load = TinyDataModule.load
    monkeypatch.setattr(TinyDataModule, "load", lambda self: found.append(1) or load(self))
    return found


@pytest.fixture(scope="module")
def alone(one_thread, tmp_path_factory):
    """The last checkpoint of a training with seed 4."""
    folder = tmp_path_factory.mktemp("alone")
    assert main([*words(folder), "--seed_everything", "4"]) == 0
    return last(folder)


def test_members_are_trainings_of_consecutive_seeds_on_data_that_are_read_once(
    alone, tmp_path, capsys, loads
):
    assert main([*words(tmp_path), "--members", "2"]) == 0
    assert len(loads) == 1
    members = [last(tmp_path / f"member_{k}") for k in (1, 2)]
    assert_equal(members[1]["state_dict"], alone["state_dict"])
    first, second = (member["state_dict"] for member in members)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    printed = capsys.readouterr()
    for number in (1, 2):
        place = tmp_path / f"member_{number}"
        assert f"Member {number} of 2, seed {number + 2}, in {place}" in printed.out
        assert (place / "lightning_logs" / "version_0" / "association.json").exists()
    asked = shlex.split(printed.out.rpartition("Ask all members:")[2])
    assert asked[:3] == ["deepscm", "counterfactual", "--ckpt_path"]
    assert [str(tmp_path / f"member_{k}") in asked[2 + k] for k in (1, 2)] == [True, True]


def test_an_interrupted_member_is_resumed_and_earlier_ones_are_kept(alone, tmp_path, capsys):
    typed = [*words(tmp_path, "test_cli_members.InterruptSecond"), "--members", "2"]
    with pytest.raises(SystemExit):
        main(typed)
    error = capsys.readouterr().err
    command = shlex.split(error.rpartition("resume with: ")[2].splitlines()[0])
    assert command == ["deepscm", *typed, "--ckpt_path", "last"]
    kept = tmp_path / "member_1" / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    written = kept.stat().st_mtime_ns
    resumed = [*words(tmp_path), "--members", "2", "--ckpt_path", "last"]
    assert main(resumed) == 0
    printed = capsys.readouterr()
    assert "Member 1 is trained: " in printed.out
    assert "Ask all members:" in printed.out
    assert kept.stat().st_mtime_ns == written
    assert_equal(last(tmp_path / "member_2")["state_dict"], alone["state_dict"])
    # A longer training of all members.
    assert main([*resumed, "--trainer.max_epochs", "3"]) == 0
    assert [last(tmp_path / f"member_{k}")["global_step"] for k in (1, 2)] == [12, 12]


def test_a_member_whose_test_was_interrupted_is_tested(tmp_path, capsys):
    folder = tmp_path / "member_1"
    assert main([*words(tmp_path), "--members", "1"]) == 0
    (folder / "trained.json").write_text("{}")
    table = folder / "lightning_logs" / "version_0" / "association.json"
    table.unlink()
    assert main([*words(tmp_path), "--members", "1", "--ckpt_path", "last"]) == 0
    assert table.exists()
    assert last(folder)["global_step"] == 8
    assert "Ask all members:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--members", "0"], "members: expected a whole number of at least 1, but got '0'"),
        (["--members", "-1"], "members: expected a whole number of at least 1, but got '-1'"),
        (["--members=two"], "members: expected a whole number of at least 1, but got 'two'"),
        (["--members"], "members: expected a whole number of at least 1"),
        (["--members", "2", "--ckpt_path", "a.ckpt"], "ckpt_path: expected last or none"),
        (["--members", "2", "--checkpoint.dirpath", "x"], "checkpoint.dirpath: expected none"),
        (["--members", "2", "--seed_everything", "false"], "seed_everything: expected a seed"),
        (["--members", "2", "--seed_everything", "4294967295"], "seed_everything: expected"),
    ],
)
def test_refused(tmp_path, capsys, options, message):
    assert main([*words(tmp_path), *options]) == 1
    assert message in capsys.readouterr().err


def test_members_need_a_configuration(checkpoint, capsys):
    assert main(["fit", "--ckpt_path", str(checkpoint), "--members", "2"]) == 1
    assert "members: expected the configuration" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path", str(checkpoint), "--members", "2"])


def test_each_member_is_trained_on_all_devices(tmp_path):
    typed = words(tmp_path, devices=2, strategy="ddp", max_epochs=1)
    code, printed = run_for_a_while([*typed, "--members", "2"])
    assert code == 0, printed
    assert printed.count("Member 2 of 2") == 1
    assert printed.count("Ask all members:") == 1
    # 60 rows in batches of 16 of each of two processes.
    assert [last(tmp_path / f"member_{k}")["global_step"] for k in (1, 2)] == [2, 2]
