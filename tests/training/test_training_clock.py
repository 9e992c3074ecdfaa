"""Checkpoints have the seconds of their training, over interruptions."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from deepscm_pl.runs.clock import TrainingClock, training_seconds


def test_seconds_are_counted_over_interruptions():
    saved = {}
    for _ in range(2):
        clock = TrainingClock()
        clock.on_load_checkpoint(None, None, saved)
        clock.on_train_start(None, None)
        time.sleep(0.02)
        clock.on_save_checkpoint(None, None, saved)
    assert 0.04 <= saved["training_seconds"] < 5


def test_seconds_of_the_initial_model_are_included_once(checkpoint):
    before = training_seconds(torch.load(checkpoint, weights_only=True))
    tuned, saved = SimpleNamespace(initial=checkpoint), {}
    for _ in range(2):
        clock = TrainingClock()
        clock.on_load_checkpoint(None, tuned, saved)
        clock.on_train_start(None, tuned)
        clock.on_save_checkpoint(None, tuned, saved)
    assert before < saved["training_seconds"] < before + 5


@pytest.mark.parametrize("value", [None, "12", -1.0, float("nan"), float("inf"), True])
def test_other_values_are_unknown(value):
    assert training_seconds({"training_seconds": value}) is None


def test_a_checkpoint_has_the_seconds(checkpoint):
    assert 0 < training_seconds(torch.load(checkpoint, weights_only=True)) < 600
