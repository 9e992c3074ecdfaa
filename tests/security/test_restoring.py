"""Descriptions are restored exactly, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.cli.described import apply_overrides, split_overrides
from deepscm_pl.cli.lightning_parser import FriendlyLightningParser
from deepscm_pl.configuration import count_values, describe, restore, restore_arguments
from deepscm_pl.runs.reading import load_weights
from deepscm_pl.training import DeepSCM

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def models():
    """Settings of the experiments with causal models that are small enough to be built."""
    for path in sorted(EXPERIMENTS.rglob("*.yaml")):
        model = Configuration.read([str(path)]).settings.get("model", {})
        if "graph" in model:
            yield pytest.param(model, id=f"{path.parent.name}/{path.stem}")


@pytest.mark.parametrize("settings", list(models()))
def test_the_model_of_each_experiment_is_restored_without_taking_memory(settings):
    parser = FriendlyLightningParser(exit_on_error=False)
    parser.add_lightning_class_args(DeepSCM, "model")
    parsed = parser.parse_object({"model": settings})
    with torch.device("meta"):
        model = parser.instantiate(parsed)["model"]
        described = dict(model.hparams)
        again = DeepSCM(**restore_arguments(DeepSCM, described))
    assert dict(again.hparams) == described
    load_weights(again, model.state_dict())


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (int, 3),
        (float, 3),
        (float, 0.5),
        (str, '{"class_path": "subprocess.Popen"}'),
        (bool, True),
        (int | None, None),
        (float | Sequence[float], [1.0, 2]),
        (Literal["a", "b"], "b"),
        (Mapping[str, Sequence[int]], {"x": [1]}),
        (Any, {"x": [1, "a", None]}),
    ],
)
def test_plain_data_are_unchanged(expected, value):
    assert restore(value, expected) == value


@pytest.mark.parametrize(
    ("expected", "value", "message"),
    [
        (int, True, "a whole number, but got True"),
        (int, 3.0, "a whole number, but got 3.0"),
        (int, None, "a whole number, but got null"),
        (int, 2**63, "a number of at most 64 bits"),
        (float, "3", "a number, but got '3'"),
        (bool, 1, "true or false, but got 1"),
        (str, 3, "a text, but got 3"),
        (str, "x" * 100_001, "a text of at most 100,000 characters"),
        (Sequence[str], "abc", "a list, but got 'abc'"),
        (Sequence[int], [1, "2"], r"\[1\]: expected a whole number, but got '2'"),
        (tuple[int, int], [1], "a list of 2"),
        (Literal["a", "b"], "c", "one of 'a', 'b', but got 'c'"),
        (Mapping[str, int], [1], "values by name"),
        (dict[str, int], {"x": "1"}, "x: expected a whole number"),
        (torch.Tensor, [1.0], "Tensor, which no file can contain"),
        (Any, torch.zeros(2), "plain data, but got a value of type Tensor"),
        (Callable[[int], torch.nn.Module], "torch.nn.Linear", "a class with its arguments"),
        (Callable[[], torch.nn.Module], {"class_path": "torch.optim.Adam"}, "derived from Module"),
        (Callable[[], torch.optim.Optimizer], {"class_path": "torch.nn.ReLU"}, "from Optimizer"),
        (Any, {"class_path": "torch.nn.Linear", "init_args": {"n": 1}}, "n: Linear has no such"),
        (Any, {"class_path": "torch.nn.Linear", "extra": 1}, "a class with its arguments"),
        (Any, {"class_path": "torchvision.models.ResNet"}, "--trust torchvision"),
    ],
)
def test_other_values_are_refused(expected, value, message):
    with pytest.raises(ValueError, match=message):
        restore(value, expected)


class Mine(torch.nn.Module):
    """A module of the user's program with an incomplete annotation."""

    def __init__(self, width: int = None, **settings: Any) -> None:  # noqa: RUF013
        super().__init__()


class MineToo(Mine):
    def __init__(self, depth: int = 1, **settings: Any) -> None:
        super().__init__(**settings)


def test_classes_of_the_users_program_are_restored():
    factory = partial(MineToo, depth=2, width=None)
    again = restore(describe(factory))
    assert (again.func, again.keywords) == (MineToo, {"depth": 2, "width": None})


def test_packages_are_imported_only_if_they_are_trusted(tmp_path, monkeypatch):
    (tmp_path / "strange_package.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self, size: int): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    described = {"class_path": "strange_package.Net", "init_args": {"size": 3}}
    with pytest.raises(ValueError, match=r"is refused: .* add --trust strange_package"):
        restore(described)
    assert restore(described, trust=["strange_package"]).keywords == {"size": 3}


def test_shared_parts_are_counted_each_time_up_to_a_limit():
    nest: list[Any] = [1]
    for _ in range(100):
        nest = [nest, nest]
    assert count_values(nest, most=1000) > 1000
    assert count_values({"a": [1, 2], "b": 3}, most=1000) == 5


def overridden(target, arguments, *words):
    overrides, left = split_overrides(words, "model")
    assert not left
    return apply_overrides(target, arguments, overrides)


def test_options_change_what_a_file_describes():
    optimizer = partial(torch.optim.Adam, lr=0.1, eps=1e-3)
    arguments = {"graph": "a", "optimizer": optimizer, "learning_rates": {"a": 1.0}}
    found = overridden(
        DeepSCM,
        arguments,
        "--model.num_particles=3",
        "--model.optimizer.init_args.lr",
        "0.5",
        "--model.learning_rates.a",
        "2",
    )
    assert found["num_particles"] == 3
    assert found["optimizer"].keywords == {"lr": 0.5, "eps": 1e-3}
    assert found["learning_rates"] == {"a": 2}
    assert arguments["optimizer"].keywords["lr"] == 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.num_particle", "3"], "no argument 'num_particle'; did you mean 'num_particles'"),
        (["--model.graph.x", "3"], "graph has no part 'x'"),
        (["--model.graph"], "expected a value after it"),
    ],
)
def test_options_that_change_nothing_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        overridden(DeepSCM, {"graph": "a"}, *words)
