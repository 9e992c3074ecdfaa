"""Batches of a causal data module are the rows of its variables."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from deepscm_pl.data import CausalDataModule, InMemoryDataset, SourceSplits
from deepscm_pl.data.base import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def source(size: int, offset: int) -> dict[str, Tensor]:
    rows = torch.arange(size).unsqueeze(-1) + offset
    return {
        "thickness": rows.float() / 10,
        "image": (rows % 256).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 5).clone(),
        "label": rows % 10,
    }


class SmallDataModule(CausalDataModule):
    loads = 0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"batch_size": 16, "validation_size": 30, **arguments})

    def load(self) -> SourceSplits:
        self.loads += 1
        return SourceSplits(train=source(130, 0), test=source(40, 1000))


def gather(batches: Any) -> dict[str, Tensor]:
    batches = list(batches)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def loader(module: SmallDataModule, split: Split) -> Any:
    return {
        "train": module.train_dataloader,
        "validation": module.val_dataloader,
        "test": module.test_dataloader,
    }[split]()


def test_shapes_and_types_of_a_batch() -> None:
    batch = next(iter(SmallDataModule().train_dataloader()))
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "thickness": ((16, 1), torch.float32),
        "image": ((16, 1, 4, 5), torch.float32),
        "label": ((16, 1), torch.int64),
        "index": ((16, 1), torch.int64),
    }


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_the_rows_of_variables(split: Split, num_workers: int) -> None:
    module = SmallDataModule(num_workers=num_workers)
    variables = module.variables(split)
    assert variables["image"].dtype == torch.uint8
    found = gather(loader(module, split))
    order = found["index"].squeeze(-1).argsort()
    assert found.keys() == variables.keys()
    for name, values in variables.items():
        torch.testing.assert_close(found[name][order], values, check_dtype=name != "image")


def test_index_is_the_row_in_the_source() -> None:
    module = SmallDataModule()
    for split, offset in (("train", 0), ("validation", 0), ("test", 1000)):
        variables = module.variables(split)
        expected = (variables["index"] + offset).float() / 10
        torch.testing.assert_close(variables["thickness"], expected)


def test_splits_are_disjoint_and_complete() -> None:
    module = SmallDataModule()
    train, validation = (module.variables(s)["index"].squeeze(-1).tolist() for s in SPLITS[:2])
    assert len(validation) == 30
    assert sorted(train + validation) == list(range(130))
    assert train == sorted(train)
    assert validation == sorted(validation)


def test_the_division_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = SmallDataModule(split_seed=7).variables("validation")["index"]
    torch.manual_seed(2)
    second = SmallDataModule(split_seed=7, batch_size=3).variables("validation")["index"]
    other = SmallDataModule(split_seed=8).variables("validation")["index"]
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_dividing_does_not_draw_from_the_global_generator() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    SmallDataModule().setup()
    assert torch.equal(torch.rand(3), expected)


def test_test_rows_are_all_and_in_order_whatever_the_seed() -> None:
    for seed in (0, 1):
        module = SmallDataModule(split_seed=seed)
        for batches in (module.test_dataloader(), module.predict_dataloader()):
            assert gather(batches)["index"].squeeze(-1).tolist() == list(range(40))


def test_only_training_is_shuffled() -> None:
    module = SmallDataModule()
    train = module.train_dataloader()
    first, second = (gather(train)["index"] for _ in range(2))
    assert not torch.equal(first, second)
    for batches in (module.val_dataloader(), module.test_dataloader()):
        assert torch.equal(gather(batches)["index"], gather(batches)["index"])


def test_a_smaller_last_batch_is_left_out_of_training_alone() -> None:
    kept, dropped = SmallDataModule(), SmallDataModule(drop_last=True)
    assert len(list(kept.train_dataloader())) == 7
    assert len(list(dropped.train_dataloader())) == 6
    assert len(gather(dropped.val_dataloader())["index"]) == 30
    assert len(gather(dropped.test_dataloader())["index"]) == 40


def test_setup_loads_once() -> None:
    module = SmallDataModule()
    for stage in ("fit", "validate", "test", None):
        module.setup(stage)
    module.variables("train")
    assert module.loads == 1


def test_a_trainer_fits() -> None:
    class Mean(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
            return (batch["thickness"] - self.mean).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Mean()
    trainer.fit(model, SmallDataModule())
    assert model.mean.item() != 0


def test_a_row_of_the_dataset() -> None:
    dataset = InMemoryDataset(source(5, 0))
    row = dataset[3]
    assert len(dataset) == 5
    assert row["image"].shape == (1, 4, 5)
    assert row["image"].dtype == torch.float32
    assert row["label"].tolist() == [3]


@pytest.mark.parametrize("variables", [{}, {"a": torch.zeros(2, 1), "b": torch.zeros(3, 1)}])
def test_variables_of_different_lengths(variables: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="variables: expected tensors of one length"):
        InMemoryDataset(variables)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("batch_size", True),
        ("validation_size", 0),
        ("split_seed", -1),
        ("num_workers", -1),
    ],
)
def test_argument_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a whole number .*{str(value).lower()}"):
        SmallDataModule(**{name: value})


def test_nothing_left_to_train_on() -> None:
    with pytest.raises(ValueError, match="validation_size: expected less than 130"):
        SmallDataModule(validation_size=130).setup("fit")


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="split: expected one of train, validation, test"):
        SmallDataModule().variables("val")  # type: ignore[arg-type]
