"""Members of an ensemble, which ``deepscm fit --members`` trains one after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning.utilities import rank_zero_only

from deepscm_pl.checks import shown
from deepscm_pl.cli.words import option_value, take_options
from deepscm_pl.escaping import for_terminal
from deepscm_pl.files import new_file

__all__ = ["Member", "take_members", "train_members"]

_RECORD = "trained.json"


@dataclass
class Member:
    """One of several trainings that differ in their seeds.

    Attributes:
        number: Its number, from 1.
        count: Number of members.
        folder: Its folder, in ``trainer.default_root_dir``; set by :meth:`apply`.
        seed: Its seed; set by :meth:`apply`.
        limits: The length of its training; set by :meth:`apply`.
    """

    number: int
    count: int
    folder: Path = Path()
    seed: int = 0
    limits: tuple[Any, ...] = ()

    def apply(self, settings: Namespace) -> None:
        """Give the member a folder and a seed of its own.

        Raises:
            ValueError: If a setting would mix the members.
        """
        _check_resumption(settings.get("ckpt_path"))
        if settings.checkpoint.get("dirpath") is not None:
            raise ValueError(
                f"checkpoint.dirpath: expected none with --members, but got "
                f"{settings.checkpoint.dirpath}, which all members would share; set "
                "--trainer.default_root_dir instead."
            )
        seed = settings.get("seed_everything")
        if seed is False:
            raise ValueError(
                "seed_everything: expected a seed with --members, but got false: members differ "
                "in their seeds; give that of the first one."
            )
        # The seed of the environment is that of another member, or of another process.
        self.seed = (0 if seed in (True, None) else int(seed)) + self.number - 1
        settings.seed_everything = self.seed
        self.folder = Path(settings.trainer.default_root_dir or ".") / f"member_{self.number}"
        settings.trainer.default_root_dir = str(self.folder)
        self.limits = (settings.trainer.max_epochs, settings.trainer.max_steps)

    def trained(self) -> Path | None:
        """Return the checkpoint of a training of the same length that is complete, or None."""
        try:
            found = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
            path = Path(found["checkpoint"])
            is_same = (found["max_epochs"], found["max_steps"]) == self.limits
        except (OSError, ValueError, TypeError, LookupError):
            return None
        return path if is_same and path.is_file() else None

    def begin(self) -> None:
        """Announce the member, which is not trained any more."""
        (self.folder / _RECORD).unlink(missing_ok=True)
        folder = for_terminal(self.folder)
        text = f"\nMember {self.number} of {self.count}, seed {self.seed}, in {folder}"
        rank_zero_only(print)(text)

    def complete(self, checkpoint: str | Path) -> None:
        """Record the checkpoint of the complete training."""
        path = str(Path(checkpoint).resolve())
        limits = dict(zip(("max_epochs", "max_steps"), self.limits, strict=True))
        self.folder.mkdir(parents=True, exist_ok=True)
        with new_file(self.folder / _RECORD) as temporary:
            temporary.write_text(json.dumps({"checkpoint": path, **limits}), encoding="utf-8")


def take_members(words: Sequence[str]) -> tuple[int | None, list[str]]:
    """Split words into the value of ``--members``, None without one, and all other words.

    Raises:
        ValueError: If it is no number of at least 1, or the model is not that of a configuration.

    Example:
        >>> take_members(["fit", "--config", "a.yaml", "--members", "3"])
        (3, ['fit', '--config', 'a.yaml'])
    """
    taken, left = take_options(words, "--members".__eq__)
    if not taken and "--members" not in left:
        return None, left
    text = taken[-1][1] if taken else ""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"members: expected a whole number of at least 1, but got {shown(text)}.")
    if option_value(words, "--config", "-c") is None:
        raise ValueError(
            "members: expected the configuration of the model, but got no --config; members are "
            "trained from the beginning, and not from a checkpoint."
        )
    _check_resumption(option_value(words, "--ckpt_path"))
    return int(text), left


def _check_resumption(path: str | None) -> None:
    if path not in (None, "last"):
        raise ValueError(
            f"ckpt_path: expected last or none with --members, but got {path}: members have "
            "checkpoints of their own, and last resumes the one that is not trained."
        )


def train_members(count: int, train: Callable[[Member, Any], Any]) -> None:
    """Train members one after another, on data that are read once.

    Args:
        count: Number of members.
        train: Trains a member on the data module of the earlier ones (None for the first), and
            returns the :class:`~deepscm_pl.cli.training.TrainingCommand`.
    """
    checkpoints: list[str] = []
    command: Any = None
    data = None
    for number in range(1, count + 1):
        command = train(Member(number, count), data)
        data = command.datamodule
        if command.trainer.interrupted:
            return
        checkpoints += [command.tested] if command.tested else []
    is_asked = command.is_causal and command.trainer.is_global_zero
    if is_asked and len(checkpoints) == count > 1:
        print(f"\nAsk all members:     {command.question(checkpoints)}")
