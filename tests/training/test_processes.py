"""Trainings on two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from on_processes import (
    BATCH,
    measure_classifier,
    train_adversarial,
    train_attributes,
    train_refitted,
)
from started import start, wait_for

ROWS = 64
EPOCHS = 2
SAVED = "step=3.ckpt"
"""A step within the first epoch of four."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A training without noise in one process; two have batches that are half as large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "3")
        folder = tmp_path_factory.mktemp("alone")
        return {
            "folder": folder,
            "attributes": train_attributes(folder, BATCH),
            "resumed": train_attributes(folder / "resumed", BATCH // 2, folder / SAVED),
            "refitted": train_refitted(folder / "refitted", BATCH),
            "adversarial": train_adversarial(folder / "game", BATCH),
            "classifier": measure_classifier(folder),
        }


@pytest.fixture(scope="module")
def folder_of_two(alone, tmp_path_factory):
    """The folder with the records of the two processes of one run."""
    folder = tmp_path_factory.mktemp("processes")
    script = str(Path(__file__).with_name("on_processes.py"))
    code, printed = wait_for(start(script, str(folder), str(alone["folder"] / SAVED)))
    assert code == 0, printed
    return folder


@pytest.fixture(scope="module")
def found(folder_of_two):
    """The records of the two processes."""
    return [torch.load(folder_of_two / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def of_all_kinds(found, name):
    return [process["all kinds"][name] for process in found]


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_both_find_the_same_statistics_of_the_training_data(found):
    first, second = of_all_kinds(found, "after_fit")
    # What a flow of images is fitted with follows from its parameters, which are still different.
    drawn = {name for name in first if ".bijection." in name}
    assert any(not torch.equal(first[name], second[name]) for name in drawn)
    for name in first.keys() - drawn:
        assert torch.equal(first[name], second[name]), name


def test_both_end_with_the_same_parameters(found):
    assert_equal(*of_all_kinds(found, "parameters"))


def test_every_parameter_has_a_gradient(found):
    """Otherwise Lightning would need ``find_unused_parameters``."""
    assert of_all_kinds(found, "missing") == [[], []]


def test_each_has_rows_of_its_own(found):
    first, second = of_all_kinds(found, "rows")
    steps = ROWS // BATCH
    assert len(first) == len(second) == EPOCHS * steps
    for epoch in range(EPOCHS):
        part = slice(epoch * steps, (epoch + 1) * steps)
        rows = [row for batch in first[part] + second[part] for row in batch]
        assert len(rows) == len(set(rows)) == ROWS
    assert first[:steps] != first[steps:], "an order for each epoch"


def test_each_has_noise_of_its_own(found):
    seeds = [seed for process in of_all_kinds(found, "seeds") for seed in process]
    assert len(seeds) == len(set(seeds)) == 2 * EPOCHS * ROWS // BATCH
    validation = [seed for each in of_all_kinds(found, "validation seeds") for seed in each]
    assert len(validation) == len({*validation} - {*seeds}) == 2 * EPOCHS
    test = [seed for each in of_all_kinds(found, "test seeds") for seed in each]
    assert len(test) == len({*test} - {*seeds} - {*validation}) == 2


def test_all_noise_follows_from_the_seed_of_the_first(found):
    """A checkpoint keeps the seed of the first process; the second has drawn another."""
    first, second = of_all_kinds(found, "seed of the run")
    assert first == second == 0


def test_only_the_first_writes_files(found):
    first, second = (process["written"] for process in found)
    for name in (".ckpt", "association", ".png"):
        assert any(name in each for each in first), (name, first)
    assert second == []


def assert_trained_alike(found, expected, steps):
    assert found["steps"] == expected["steps"] == steps
    for name, value in expected["parameters"].items():
        torch.testing.assert_close(found["parameters"][name], value, rtol=0, atol=1e-5, msg=name)


def test_two_halves_of_a_batch_train_as_the_whole(found, alone):
    for process in found:
        steps = EPOCHS * ROWS // BATCH
        assert_trained_alike(process["attributes"], alone["attributes"], steps)


def test_two_processes_refit_the_posterior_as_one(found, alone):
    steps = ROWS // BATCH
    expected = alone["refitted"]
    for process in found:
        assert_trained_alike(process["refitted"], expected, steps)
        for name, before in process["refitted"]["before"].items():
            is_frozen = torch.equal(before, process["refitted"]["parameters"][name])
            assert is_frozen == ("encoder" not in name and "posterior_head" not in name), name


def test_two_processes_play_the_same_game_as_one(found, alone):
    """Of generator, encoder and critic, with accumulated and clipped gradients."""
    for process in found:
        steps = EPOCHS * ROWS // BATCH
        assert_trained_alike(process["adversarial"], alone["adversarial"], steps)
        assert process["adversarial"]["missing"] == []


def test_two_processes_tune_the_same_image(found):
    """With their own rows, one reference and one weight of the constraint."""
    first, second = (process["tuned"] for process in found)
    assert_equal(first["state"], second["state"])
    assert bool(first["state"]["objective.reference"].isfinite().all())
    for name, before in first["before"].items():
        assert torch.equal(before, first["state"][name]) == (".intensity." in name), name


STEPS_OF_HALF_A_BATCH = 3 + 2 + 8
"""Three whole batches, the rest of that epoch, and another epoch."""


def test_two_processes_resume_a_run_of_one(found, alone):
    for process in found:
        assert_trained_alike(process["resumed"], alone["resumed"], STEPS_OF_HALF_A_BATCH)


def test_one_process_resumes_a_run_of_two(folder_of_two, alone, tmp_path):
    again = train_attributes(tmp_path, BATCH // 2, folder_of_two / "two" / SAVED)
    assert_trained_alike(again, alone["resumed"], STEPS_OF_HALF_A_BATCH)


def assert_measured_alike(found, expected):
    for together, values in zip(found, expected, strict=True):
        assert values
        assert together == pytest.approx(values, rel=0, abs=1e-6)


def test_thirteen_rows_on_two_processes_are_measured_as_on_one(found, alone):
    for process in found:
        expected = alone["attributes"]["measured"]
        assert_measured_alike(process["attributes"]["measured"], expected)
        assert_measured_alike(process["classifier"], alone["classifier"])


def test_processors_refuse_statistics_of_the_batches_of_all(found):
    """They would normalise over a part of each batch."""
    for process in found:
        assert process["refusal"] == "SyncBatchNorm layers only work with GPU modules"
