"""Questions that suit a model, as commands that a shell can run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from deepscm_pl.escaping import for_shell
from deepscm_pl.interventions import parse_do
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do, Variable

__all__ = ["Asked", "free_folder", "suggest_do"]

_ROWS = 3
"""Rows of the test split in a suggested command, at most."""
_UPPER_QUARTILE, _BELOW, _ABOVE = 47, 30, 50
"""Positions of the quantiles Φ(0.7), Φ(−1) and Φ(1) in the training distribution."""


def suggest_do(
    scm: StructuralCausalModel, rows: Mapping[str, Tensor] | None = None, shifts: bool = True
) -> str | None:
    """Suggest an intervention as text: a change of the variable that affects most others.

    A class is set to another one. A number is shifted by about half a standard deviation of the
    training data, if this keeps the rows within the training data, or else set to a value of them.

    Args:
        scm: The model.
        rows: Observations ``(N, *event)`` that the question will be about; None if unknown.
        shifts: Whether numbers may be shifted.

    Returns:
        A text that :func:`~deepscm_pl.interventions.parse_do` reads; None if the model has no
        scalar variable whose values are known.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
        >>> scm.fit({"a": torch.linspace(0, 50, 99)[:, None], "b": torch.randn(99, 1)})
        >>> suggest_do(scm), suggest_do(scm, {"a": torch.tensor([[49.0]])})
        ('a+=10', 'a-=10')
    """
    graph, variables = scm.graph, scm.variables
    scalars = [name for name in graph if variables[name].domain.shape == (1,)]
    for name in sorted(scalars, key=lambda n: -len(graph.descendants(n))):
        own = None if rows is None or name not in rows else rows[name].double().flatten()
        if variables[name].domain.categories is not None:
            found = _class_texts(variables[name], own)
        else:
            found = _number_texts(scm, name, own, shifts)
        text = next((t for t, do in found if _reads_as(t, do, variables)), None)
        if text is not None:
            return text
    return None


def _reads_as(text: str, do: Do, variables: Mapping[str, Variable]) -> bool:
    """Whether a text is read as an intervention, or as any if that is a change."""
    try:
        found = parse_do(text, variables)
    except ValueError:
        return False
    return found.keys() == do.keys() and all(
        callable(value) or found[name] == value for name, value in do.items()
    )


def _names(name: str) -> tuple[str, str]:
    return name, f"`{name}`"


def _class_texts(variable: Variable, rows: Tensor | None) -> Iterator[tuple[str, Do]]:
    """Texts that set another class than that of the first row."""
    count = variable.domain.categories or 0
    observed = set() if rows is None else set(rows.tolist())
    others = [k for k in range(count) if k not in observed]
    first = 0.0 if rows is None or not len(rows) else float(rows[0])
    others += [k for k in range(count) if k not in others and k != first]
    for k in sorted(others, key=lambda k: (k in observed, k == 0)):
        label = variable.classes[k] if variable.classes else str(k)
        for value in (label, f"'{label}'", f'"{label}"', str(k)):
            for name in _names(variable.name):
                yield f"{name}={value}", {variable.name: float(k)}


def _number_texts(
    scm: StructuralCausalModel, name: str, rows: Tensor | None, shifts: bool
) -> Iterator[tuple[str, Do]]:
    """Texts that shift a number within the training data, or set it."""
    kept, domain = scm.training_distribution, scm.variables[name].domain
    if not kept.is_known or name not in kept.domains:
        return
    quantiles = kept.get_buffer(f"{name}_quantiles").cpu()
    low, high = kept.limits(name)
    step = _round_number(float(quantiles[_ABOVE] - quantiles[_BELOW]) / 4) or _round_number(
        (high - low) / 4
    )
    if domain.whole or domain.step is not None:
        unit = domain.step or 1.0
        step = max(round(step / unit), 1) * unit
    if not step:  # a constant
        return

    def is_inside(values: Tensor) -> bool:
        inside = bool(domain.contains(values.to(scm.dtype)[:, None]).all())
        return inside and float(values.min()) >= low and float(values.max()) <= high

    for sign, bound in ((1, domain.upper), (-1, -domain.lower)) if shifts else ():
        unknown = rows is None and math.isinf(bound)
        if unknown or (rows is not None and len(rows) and is_inside(rows + sign * step)):
            for text in _names(name):
                yield f"{text}{'+' if sign > 0 else '-'}={step:g}", {name: lambda value: value}
    for place in (_UPPER_QUARTILE, len(quantiles) - 1 - _UPPER_QUARTILE, len(quantiles) // 2):
        exact = float(quantiles[place])
        for value in (round(exact / step) * step, float(f"{exact:.3g}"), exact):
            one = torch.tensor([value], dtype=torch.float64)
            if is_inside(one) and (rows is None or bool((rows != value).any())):
                for text in _names(name):
                    yield f"{text}={value:.9g}", {name: float(f"{value:.9g}")}


def _round_number(value: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten; 0 stays."""
    if not (value > 0 and math.isfinite(value)):
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    factor = min((1, 2, 5, 10), key=lambda each: abs(math.log(each * power / value)))
    return float(f"{factor * power:.1g}")


def free_folder(name: str) -> str:
    """Return a name of a folder that does not exist or is empty: ``answers``, ``answers_2``, …."""
    number, found = 1, Path(name)
    while found.exists() and not (found.is_dir() and not any(found.iterdir())):
        number += 1
        found = Path(f"{name}_{number}")
    return str(found)


@dataclass(frozen=True)
class Asked:
    """A model to which a command asks a question.

    Attributes:
        scm: The model.
        checkpoints: Its files.
        trust: Packages that the command may import.
        rows: The first rows of the test split; None if they are not read.
        has_data: Whether the files describe the data, so that rows of the test split can be asked.
        new_folder: Changes the name of a folder, if there is such a folder already.
    """

    scm: StructuralCausalModel
    checkpoints: Sequence[str | Path]
    trust: Sequence[str] = ()
    rows: Mapping[str, Tensor] | None = None
    has_data: bool = True
    new_folder: Callable[[str], str] = free_folder

    def command(self, question: str, *words: str, out: str = "answers") -> str:
        """Return a command of this program, quoted for a shell.

        Args:
            question: The command, such as ``sample``.
            words: Further words, those of a kind of ``effect`` first.
            out: The folder to make, changed if it exists; empty for none.
        """
        trust = ["--trust", *self.trust] if self.trust else []
        folder = ["--out", self.new_folder(out)] if out else []
        paths = [str(path) for path in self.checkpoints]
        kind = [*words[:1]] if question == "effect" else []
        rest = words[len(kind) :]
        return for_shell("deepscm", question, *kind, "--ckpt_path", *paths, *trust, *rest, *folder)

    def counterfactual(self, do: str | None = None, *words: str) -> str:
        """Return a command that asks about rows of the test split, or one of :meth:`intervene`.

        Args:
            do: The intervention; None to suggest one.
            words: Further words.
        """
        some = None if self.rows is None else {n: v[:_ROWS] for n, v in self.rows.items()}
        text = do or suggest_do(self.scm, some)
        if text is None or not self.has_data:
            return self.intervene(do)
        count = 1 if some is None else min(map(len, some.values()))
        index = ["--index", *map(str, range(count))]
        return self.command("counterfactual", "--do", text, *index, *words)

    def effect(self, do: str) -> str | None:
        """Return a command that estimates the average effect of an intervention.

        Args:
            do: The intervention.

        Returns:
            None if it affects neither a number nor an image.
        """
        graph, variables = self.scm.graph, self.scm.variables
        done = parse_do(do, variables)
        outcomes = [n for n in graph.descendants(*done) if variables[n].domain.categories is None]
        # The last number of the order, or else an image.
        ordered = [n for n in graph if n in outcomes and n not in done]
        numbers = [n for n in ordered if variables[n].domain.shape == (1,)]
        if not ordered:
            return None
        outcome = (numbers or ordered)[-1]
        return self.command("effect", "average", "--do", do, "--outcome", outcome, out="effects")

    def check(self) -> str:
        """Return a command that checks the graph and the data of the first model."""
        one = replace(self, checkpoints=self.checkpoints[:1])
        return one.command("check", out="check")

    def intervene(self, do: str | None = None) -> str:
        """Return a command that draws under an intervention, or a sample if there is none."""
        text = do or suggest_do(self.scm, shifts=False)
        if text is None:
            return self.command("sample", out="samples")
        return self.command("intervene", "--do", text)
