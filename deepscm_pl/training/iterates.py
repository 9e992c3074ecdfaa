"""Members of an ensemble from one trained model, for a fraction of the cost of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.optim.lr_scheduler import LambdaLR

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.checks import real_number, seed_number, whole_number
from deepscm_pl.files import new_folder
from deepscm_pl.runs.repeatable import RepeatableRun
from deepscm_pl.runs.safetensors_file import SUFFIX, write_exported
from deepscm_pl.training.deep_scm import DeepSCM
from deepscm_pl.training.schedule import Optimisation

__all__ = ["keep_iterates"]

_SHARE = 0.5  # of the steps of the training
_BURN_IN = 0.2  # of the further steps
_TRAINER: Mapping[str, Any] = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}
"""Arguments of the trainer, by default."""


def keep_iterates(
    checkpoint: str | Path,
    out: str | Path,
    count: int = 10,
    steps: int | None = None,
    rate: float = 1.0,
    seed: int = 0,
    trust: Sequence[str] = (),
    data: pl.LightningDataModule | None = None,
    **trainer: Any,
) -> list[Path]:
    """Continue the training of a model at a constant learning rate, and keep models on its way.

    At a constant rate, stochastic gradient descent does not converge, but moves among parameters
    that fit the data about equally well (Mandt, Hoffman and Blei 2017, arXiv:1704.04289). The first
    fifth of the steps is left out; after that, ``count`` models are kept at equal intervals. As an
    :class:`~deepscm_pl.ensemble.Ensemble` they reveal a part of the error that particles of one
    model share. They are no draws from a posterior, and less independent than members of other
    seeds. If the training has a phase in which posteriors are refitted, so has each interval.

    Args:
        checkpoint: A checkpoint or an exported model.
        out: Folder to make, with an exported model for each member.
        count: Number of members.
        steps: Number of further steps; None for half of those of the training.
        rate: The learning rates as a fraction of those of the optimiser, the peak of a schedule.
        seed: Seed of the noise in the further training.
        trust: Packages whose classes the checkpoint may name, in addition to this package.
        data: The data; None for those of the checkpoint.
        trainer: Arguments of the trainer, which uses one device. By default it limits gradients
            (``gradient_clip_val``) as the training did.

    Returns:
        The files, from the first to the last step.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint or an argument is not valid, the folder is not empty, or the
            trainer stops early.
    """
    whole_number("count", count, least=2)
    if steps is not None:
        whole_number("steps", steps, least=count)
    real_number("rate", rate, above=0, most=1)
    seed_number("seed", seed)
    opened = Checkpoint.read(checkpoint, trust=trust)
    model = opened.build(DeepSCM)
    if steps is None:
        trained = opened.content.get("global_step")
        steps = max(int(_SHARE * whole_number("checkpoint: global_step", trained, least=1)), count)
    spacing = max(int((1 - _BURN_IN) * steps) // count, 1)
    first = steps - count * spacing
    _continue(model, rate, first, spacing)
    run = RepeatableRun()
    run.seed = seed
    out = Path(out)
    names = [f"member_{k}{SUFFIX}" for k in range(1, count + 1)]
    with new_folder(out) as folder:
        keeper = _Keeper(
            opened.content, {first + (k + 1) * spacing: folder / names[k] for k in range(count)}
        )
        settings = {"gradient_clip_val": _limit_of_gradients(opened), **_TRAINER}
        callbacks = [run, keeper, *trainer.pop("callbacks", ())]
        pl.Trainer(
            max_epochs=-1,
            max_steps=steps,
            limit_val_batches=0,
            callbacks=callbacks,
            **settings | trainer,
        ).fit(model.train(), datamodule=data or opened.data())
        if keeper.paths:
            raise ValueError(
                f"trainer: expected {steps} further steps, but it stopped after "
                f"{model.global_step}, before all members were kept; remove its other limits."
            )
    return [out / name for name in names]


def _limit_of_gradients(opened: Checkpoint) -> float | None:
    """The limit of the training."""
    limit = opened.content.get("gradient_clip_val")
    return None if limit is None else real_number("checkpoint: gradient_clip_val", limit, least=0)


def _continue(model: DeepSCM, rate: float, first: int, spacing: int) -> None:
    """Set a learning rate that is constant after half of ``first`` steps, and repeated phases."""

    def factor(step: int) -> float:
        return rate * min((step + 1) / max(first / 2, 1), 1.0)

    optimizer = model.optimisation.optimizer
    model.optimisation = Optimisation(optimizer, partial(LambdaLR, lr_lambda=factor))
    model.repeat_phases(first, spacing)


class _Keeper(pl.Callback):
    """Exports the model after given steps."""

    def __init__(self, content: dict[str, Any], paths: dict[int, Path]) -> None:
        self.content, self.paths = content, paths

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        path = self.paths.pop(trainer.global_step, None)
        if path is not None and trainer.is_global_zero:
            steps = (self.content.get("global_step") or 0) + trainer.global_step
            new = {"state_dict": pl_module.state_dict(), "refit_steps": pl_module.refit_steps}
            write_exported({**self.content, **new, "global_step": steps, "weights": "raw"}, path)
