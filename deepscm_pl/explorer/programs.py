"""A question of the explorer as a command and as a program in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepscm_pl.escaping import for_shell

__all__ = ["OBSERVATION_FILE", "Programs"]

OBSERVATION_FILE = "observation.csv"
"""The file of an observation that is not of the test split, as it is exported."""


@dataclass(frozen=True)
class Programs:
    """How a model was opened, for commands and programs that ask it the same question.

    Attributes:
        files: The files of the model.
        root: Folder of the data as in commands; None for that of the run.
        trust: Packages that commands trust.
        weights: Weights of several models, as on the command line.
        seed: Seed of the noise.

    Example:
        >>> programs = Programs([Path("last.ckpt")])
        >>> print(programs.command("age=80", 3))
        deepscm counterfactual --ckpt_path last.ckpt --do age=80 --index 3 --out answers
    """

    files: Sequence[Path] = ()
    root: Path | None = None
    trust: Sequence[str] = ()
    weights: Sequence[str] = ()
    seed: int = 0

    @property
    def command_parts(self) -> dict[str, str]:
        """The words of a command before, between and after its intervention and its row."""
        root = [] if self.root is None else ["--data.root", str(self.root)]
        weights = ["--weights", *self.weights] if self.weights else []
        trust = ["--trust", *self.trust] if self.trust else []
        seed = ["--seed", str(self.seed)] if self.seed else []
        before = ["deepscm", "counterfactual", "--ckpt_path", *map(str, self.files)]
        return {
            "before": for_shell(*before, *weights, *trust, *root, *seed, "--do"),
            "between": "--index",
            "after": "--out answers",
        }

    @property
    def python_parts(self) -> dict[str, str]:
        """A program before, between and after its row and its intervention."""
        root = "" if self.root is None else f", root={str(self.root)!r}"
        return {
            "before": f"{self._load}factual = model.observations([",
            "between": f"]{root})\nanswer = model.counterfactual(factual, ",
            "after": f", seed={self.seed})\nprint(answer)\n",
        }

    def command(self, do: str, row: int | None) -> str:
        """The command that asks about a row of the test split, or else :data:`OBSERVATION_FILE`."""
        parts = self.command_parts
        rows = f"--observations {OBSERVATION_FILE}" if row is None else f"--index {row}"
        return f"{parts['before']} {for_shell(do)} {rows} {parts['after']}"

    def python(self, do: str, row: int | None) -> str:
        """The program that asks about a row of the test split, or :data:`OBSERVATION_FILE`."""
        parts = self.python_parts
        if row is not None:
            return f"{parts['before']}{row}{parts['between']}{do!r}{parts['after']}"
        return (
            f"import pandas\n\n{self._load}factual = pandas.read_csv({OBSERVATION_FILE!r})\n"
            f"answer = model.counterfactual(factual, {do!r}{parts['after']}"
        )

    @property
    def _load(self) -> str:
        files = [str(path) for path in self.files]
        given = files[0] if len(files) == 1 else files
        options = f", trust={list(self.trust)!r}" if self.trust else ""
        is_stacked = list(self.weights) == ["validation"]
        numbers = [] if is_stacked else list(map(float, self.weights))
        options += f", weights={numbers!r}" if numbers else ""
        root = "" if self.root is None else repr(str(self.root))
        stacked = f".stacked({root})" if is_stacked else ""
        return f"from deepscm_pl import load\n\nmodel = load({given!r}{options}){stacked}\n"
