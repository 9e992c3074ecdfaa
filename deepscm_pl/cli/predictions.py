"""What ``deepscm predict`` finds for every row, gathered from all processes and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import distributed

from deepscm_pl.escaping import TableWriter
from deepscm_pl.files import new_file

__all__ = ["Predictions", "write_quantities"]


class Predictions(BasePredictionWriter):
    """Keeps what is predicted, by the number of its row in the data set."""

    def __init__(self) -> None:
        super().__init__("epoch")
        self._of_rows: dict[int, dict[str, Any]] = {}

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Keep the predictions of this process.

        Raises:
            ValueError: If there are several processes and rows have no numbers.
        """
        values = [row for batch in predictions for row in _rows_of(batch)]
        rows = [row for batches in batch_indices for batch in batches for row in batch]
        if len(rows) < len(values) and trainer.world_size > 1:
            raise ValueError(
                "data: rows of several processes are put in order by their numbers, but the loader "
                "of predict_dataloader gives none, as those of iterable data sets; predict with "
                "--trainer.devices 1."
            )
        self._of_rows = dict(zip(rows or range(len(values)), values, strict=True))

    def of_all_processes(self, trainer: pl.Trainer) -> dict[int, dict[str, Any]]:
        """For each row the quantities by name, in the order of the data set, on the first process.

        Call it on every process; the others get nothing.
        """
        found = self._of_rows
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            distributed.gather_object(found, shares if trainer.is_global_zero else None)
            found = {row: values for share in shares if share for row, values in share.items()}
        return {row: found[row] for row in sorted(found)}


def _rows_of(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The quantities of each row of a batch."""
    columns = [values.tolist() for values in batch.values()]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch, values, strict=True))


def write_quantities(path: Path, rows: dict[int, dict[str, Any]]) -> None:
    """Write a table with a line per row, and make its folder.

    Args:
        path: The ``.csv`` file.
        rows: For each row the quantities by name.
    """
    names = list(next(iter(rows.values()), {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = TableWriter(file)
        writer.writerow(["row", *names])
        writer.writerows([row, *(found[name] for name in names)] for row, found in rows.items())
