"""Suggested questions work for their model, and are quoted for a shell."""

from __future__ import annotations

import subprocess
from functools import partial

import pytest
import torch

from deepscm_pl.escaping import for_shell, for_terminal
from deepscm_pl.interventions import parse_do
from deepscm_pl.mechanisms import AffineFlow, Bernoulli, Categorical, SteppedFlow
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.suggestions import Asked, free_folder, suggest_do
from deepscm_pl.transforms import Interval, Positive
from deepscm_pl.variables import Variable

from tiny import image_mechanism


def make(x, column: torch.Tensor, classes: tuple[str, ...] = (), name: str = "x"):
    torch.manual_seed(0)
    scm = StructuralCausalModel(f"{name} -> y", {name: x, "y": AffineFlow})
    scm.fit({name: column, "y": torch.randn(len(column), 1)})
    scm.describe({name: Variable(name, classes=classes)})
    return scm


def column(low: float, high: float, rows: int = 300) -> torch.Tensor:
    return torch.linspace(low, high, rows)[torch.randperm(rows)][:, None]


MODELS = {
    "real": lambda: make(AffineFlow, column(-1e4, 3e4)),
    "small": lambda: make(AffineFlow, column(1e-4, 3e-4)),
    "positive": lambda: make(partial(AffineFlow, constraint=Positive), column(18, 90)),
    "bounded": lambda: make(
        partial(AffineFlow, constraint=partial(Interval, low=0.0, high=1.0)), column(0.2, 0.9)
    ),
    "count": lambda: make(
        partial(SteppedFlow, step=1.0), torch.arange(300.0)[:, None].remainder(7) + 2
    ),
    "binary": lambda: make(
        Bernoulli, torch.arange(300.0)[:, None].remainder(2), ("female", "male")
    ),
    "numbers as names": lambda: make(
        Bernoulli, torch.arange(300.0)[:, None].remainder(2), ("1", "2")
    ),
    "hard names": lambda: make(
        partial(Categorical, categories=3),
        torch.arange(300.0)[:, None].remainder(3),
        ("3xTG", "C57BL/6", ">89, frail"),
    ),
    "without names": lambda: make(
        partial(Categorical, categories=4), torch.arange(300.0)[:, None].remainder(4)
    ),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("shifts", [True, False])
def test_suggestions_are_valid_for_every_row_and_change_something(kind, shifts):
    scm = MODELS[kind]()
    quantiles = scm.training_distribution.get_buffer("x_quantiles").float()
    values = quantiles[scm["x"].domain.contains(quantiles)][::9, None]
    for row in [None, *values.split(1), values]:
        rows = None if row is None else {"x": row, "y": torch.zeros(len(row), 1)}
        text = suggest_do(scm, rows, shifts)
        assert text is not None
        do = parse_do(text, scm.variables)
        factual = rows or {"x": values, "y": torch.zeros(len(values), 1)}
        if row is None and callable(do["x"]) and scm["x"].domain.contains(do["x"](values)).all():
            continue
        answer = scm.counterfactual(factual, do)["x"][0]
        assert not torch.equal(answer, factual["x"]), text
        low, high = scm.training_distribution.limits("x")
        if row is not None:
            assert low <= float(answer.min()) <= float(answer.max()) <= high, text


def test_a_class_is_never_multiplied_and_the_most_effective_variable_is_changed():
    scm = StructuralCausalModel(
        "a; sex -> b; b -> c", {"a": AffineFlow, "sex": Bernoulli, "b": AffineFlow, "c": AffineFlow}
    )
    scm.fit(
        {
            n: torch.arange(90.0)[:, None].remainder(2) + 0.1 * (n != "sex") * torch.randn(90, 1)
            for n in scm.graph
        }
    )
    scm.describe({"sex": Variable("sex", classes=("female", "male"))})
    assert suggest_do(scm) == "sex=male"
    assert suggest_do(scm, {"sex": torch.tensor([[1.0]])}) == "sex=female"


def test_a_model_without_scalars_is_sampled():
    scm = StructuralCausalModel("image", {"image": image_mechanism()})
    scm.fit({"image": torch.randint(0, 255, (20, 1, 8, 8)).float()})
    assert suggest_do(scm) is None
    words = ["sample", "--ckpt_path", "a.ckpt"]
    assert Asked(scm, ["a.ckpt"]).counterfactual().startswith("deepscm " + " ".join(words))


def test_folders_of_suggestions_are_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_folder("answers") == "answers"
    (tmp_path / "answers").mkdir()
    assert free_folder("answers") == "answers"
    (tmp_path / "answers" / "a.csv").touch()
    (tmp_path / "answers_2").touch()
    assert free_folder("answers") == "answers_3"


@pytest.mark.parametrize(
    "word",
    ["a b", "a\nb", "it's", "é\x85x‮'y\\", "\x1b[31m", "`x`", "$HOME", "", "*", "-x", 'a"b', "😀"],
)
def test_quoted_words_are_visible_and_arrive_in_a_shell(word):
    quoted = for_shell(word)
    assert for_terminal(quoted) == quoted
    command = ["bash", "-c", f"printf '%s|' {quoted}"]
    printed = subprocess.run(command, capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True)
    assert printed.stdout.decode() == f"{word}|"
