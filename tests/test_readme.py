"""The examples, links and experiments of the README and of the experiments page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningModule

from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.data import BrainWorld, known_world
from deepscm_pl.evaluation import ModelOnData, check_density_values, check_questions
from deepscm_pl.training import DeepSCM

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/*.yaml"))


def block(name: str) -> str:
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```\n<!-- end -->", README, re.DOTALL)
    assert match, name
    return match[1]


def test_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example = block("example")
    assert len(example.strip().splitlines()) <= 15
    quick = "max_epochs=1, limit_train_batches=2, accelerator='cpu', enable_progress_bar=False"
    exec(compile(example.replace("max_epochs=40", quick), "README.md", "exec"), {})
    assert "torch.Size([16, 8, 1, 28, 28])" in capsys.readouterr().out


def test_links_have_targets():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def settings_of(path: Path) -> dict[str, Any]:
    """The settings of an experiment and of its bases."""
    return Configuration.read([str(path)]).settings


def run_folders() -> dict[str, str]:
    """Output folder of each experiment."""
    return {
        str(path.relative_to(ROOT / "experiments").with_suffix("")): settings_of(path)["trainer"][
            "default_root_dir"
        ]
        for path in EXPERIMENTS
    }


def test_experiments_have_separate_output_folders():
    folders = run_folders()
    assert len(set(folders.values())) == len(folders)
    assert folders.pop("digits/full") == "runs/digits"
    assert folders == {name: f"runs/{name}" for name in folders}


def test_run_folders_in_the_texts_are_those_of_experiments():
    """Except for those of transcripts, which plan their experiments."""
    paths = [ROOT / "README.md", ROOT / "experiments/README.md", *(ROOT / "docs").glob("*.md")]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    named = {
        folder
        for text in texts
        if "made by `python docs/transcripts.py" not in text
        for folder in re.findall(r"(runs/\S+?)/lightning_logs", text)
    }
    assert named
    assert named <= set(run_folders().values())


def model_of(settings: dict[str, Any]) -> LightningModule:
    """Model of a configuration."""
    parser = ArgumentParser(exit_on_error=False)
    if "class_path" in settings["model"]:
        parser.add_subclass_arguments(LightningModule, "model")
    else:
        parser.add_class_arguments(DeepSCM, "model")
    return parser.instantiate_classes(parser.parse_object({"model": settings["model"]})).model


def is_causal(path: Path) -> bool:
    return "graph" in settings_of(path)["model"]


MORPHOMNIST = [path for path in EXPERIMENTS if path.parent.name == "morphomnist"]


@pytest.mark.parametrize("path", [*filter(is_causal, MORPHOMNIST)], ids=str)
def test_questions_of_experiments_fit_their_model_and_world(path):
    """Interventions on each attribute, on both, and shifts; densities of each attribute."""
    settings = settings_of(path)
    name = Path(settings["data"]["init_args"]["root"]).name
    world = known_world("thickness-intensity" if name == "morphomnist" else name)
    model = ModelOnData(model_of(settings).scm, {}, world, None)
    asked = settings["evaluation"]
    dos = [question.do for question in check_questions(model, asked["interventions"])]
    changed = [each for each in world.attributes if each not in world.fixed_attributes]
    for attribute in changed:
        assert sum(list(do) == [attribute] for do in dos) > 1
    assert sum(set(do) == set(changed) for do in dos) > 1
    assert any(callable(value) for do in dos for value in do.values())
    check_density_values(model, asked["density_values"])
    assert {n for n, values in asked["density_values"].items() if values} == set(changed)


BRAIN = [path for path in EXPERIMENTS if path.parent.name == "brain"]


@pytest.mark.parametrize("path", BRAIN, ids=str)
def test_questions_of_brain_experiments_fit_their_model_and_world(path):
    """Interventions on each attribute, on several, and a shift; densities of each attribute."""
    settings = settings_of(path)
    model = model_of(settings)
    world = BrainWorld(*model.scm["image"].domain.shape[1:])
    asked = settings["evaluation"]
    model = ModelOnData(model.scm, {}, world, None)
    dos = [question.do for question in check_questions(model, asked["interventions"])]
    for attribute in world.attributes:
        assert sum(list(do) == [attribute] for do in dos) > 1
    assert any(len(do) > 1 for do in dos)
    assert any(callable(value) for do in dos for value in do.values())
    check_density_values(model, asked["density_values"])
    assert set(asked["density_values"]) == set(world.attributes)
    if settings["data"]["class_path"].endswith("SyntheticBrainDataModule"):
        drawn = settings["data"]["init_args"].get("shape", [64, 64])
        assert list(model.scm["image"].domain.shape) == [1, *drawn]
