"""Columns with few distinct values are noticed and told."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl import (
    AffineFlow,
    DeepSCM,
    Interval,
    SteppedFlow,
    StructuralCausalModel,
    ZeroInflatedFlow,
)
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.data.tables import ColumnRules, Table, read_attribute
from deepscm_pl.training.repeated_values import describe_repeated_values, warn_of_repeated_values


class Scores(CausalDataModule):
    """Scores from 1 to 5, doses that are often zero, and ages."""

    def __init__(self) -> None:
        super().__init__(batch_size=50, validation_size=20)

    def load(self) -> SourceSplits:
        generator = torch.Generator().manual_seed(0)

        def rows(size):
            normal = torch.randn(size, 3, generator=generator)
            score = (3 + normal[:, :1]).round().clamp(1, 5)
            dose = torch.where(normal[:, 1:2] > 0.5, normal[:, 1:2].exp(), 0.0)
            return {"age": 50 + 10 * normal[:, 2:], "score": score, "dose": dose}

        return SourceSplits(train=rows(200), test=rows(20))


def warned(**mechanisms):
    model = DeepSCM(
        "age; score; dose",
        {"age": AffineFlow, "score": AffineFlow, "dose": AffineFlow, **mechanisms},
    )
    trainer = pl.Trainer(
        fast_dev_run=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, datamodule=Scores())
    texts = [str(each.message) for each in caught]
    return [text for text in texts if "continuous values" in text]


def test_a_flow_of_few_values_is_warned_about_by_column_count_and_remedy():
    score, dose = warned()
    assert score.startswith("score: there are only 5 different values in 180 training rows (1, 2,")
    assert "AffineFlow" in score
    for name in ("SteppedFlow", "Ordinal", "ZeroInflatedFlow"):
        assert f"deepscm_pl.{name}" in score
    assert dose.startswith("dose: ")
    assert "training rows have the same value, 0" in dose


def test_mechanisms_with_atoms_are_not():
    stepped = partial(
        SteppedFlow, flow=partial(AffineFlow, constraint=partial(Interval, low=1, high=6))
    )
    assert warned(score=stepped, dose=ZeroInflatedFlow) == []


@pytest.mark.parametrize(
    ("values", "repeats"),
    [
        (torch.arange(100.0), False),
        (torch.arange(20.0), False),  # a small data set
        (torch.arange(21.0).repeat(20), False),  # whole years
        (torch.arange(20.0).repeat(2), False),  # a small data set, too
        (torch.arange(20.0).repeat(3), True),
        (torch.cat([torch.zeros(11), torch.arange(1, 90.0)]), True),
        (torch.cat([torch.zeros(9), torch.arange(1, 50.0)]), False),
    ],
)
def test_the_limits(values, repeats):
    assert bool(describe_repeated_values(values[:, None])) == repeats


def test_the_summary_of_a_table_counts_few_values():
    texts = np.array([str(k % 4 + 1) for k in range(40)], dtype=object)
    table = Table(Path("subjects.csv"), {"id": np.arange(40).astype(object), "score": texts}, "id")
    found = read_attribute(table, ColumnRules("score", "score"), np.ones(40, dtype=bool))
    assert str(found) == (
        "score: count (inferred: whole numbers from 1 to 4, 4 of them), column score, from 1 to 4, "
        "4 different values"
    )
    many = np.array([str(k + 0.5) for k in range(40)], dtype=object)
    table = Table(Path("subjects.csv"), {"id": table["id"], "age": many}, "id")
    found = read_attribute(table, ColumnRules("age", "age"), np.ones(40, dtype=bool))
    assert "different values" not in str(found)


def test_slices_of_a_person_count_once():
    values = torch.arange(16.0).repeat_interleave(3)[:, None]
    scm = StructuralCausalModel("age", {"age": AffineFlow})
    persons = [f"person {k // 3}" for k in range(48)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_repeated_values(scm, {"age": values}, persons)
    with pytest.warns(UserWarning, match="only 16 different values in 48"):
        warn_of_repeated_values(scm, {"age": values})
