"""Names are imported when they are used; earlier import paths work and warn."""

import importlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import deepscm_pl
from deepscm_pl.configuration import describe, restore_class

EARLIER = json.loads((Path(__file__).parent / "earlier_names.json").read_text())
PACKAGES = sorted(
    ".".join(path.parent.relative_to(Path(deepscm_pl.__file__).parents[1]).parts)
    for path in Path(deepscm_pl.__file__).parent.rglob("__init__.py")
)


def imported_by(code: str) -> set[str]:
    """Names of the modules that a program imports."""
    program = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_packages_import_nothing_before_a_name_is_used():
    found = imported_by("import importlib\n" + "\n".join(f"import {path}" for path in PACKAGES))
    assert not found & {"torch", "numpy", "pytorch_lightning", "monai", "matplotlib", "yaml"}
    assert set(PACKAGES) <= found


@pytest.mark.parametrize("path", PACKAGES)
def test_every_name_that_a_package_offers_exists(path):
    package = importlib.import_module(path)
    for name in getattr(package, "__all__", ()):
        assert getattr(package, name) is not None
        assert name in dir(package)
        assert not isinstance(getattr(package, name), type(sys))


TRAINING = {"pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision", "tensorboard"}
SLOW = {"jsonargparse", "nibabel", "gradio", "monai", "sklearn", "pandas", "joblib"}
COMPILERS = {"torch._dynamo", "torch._inductor", "sympy"}

QUESTION = """
import deepscm_pl, json, sys
model = deepscm_pl.load("digits")
answer = model.counterfactual(model.observations([0]), "thickness=4")
assert answer["image"].shape == (1, 1, 1, 28, 28)
by_model = sorted(sys.modules)
from deepscm_pl.cli import main
words = ["counterfactual", "--ckpt_path", "digits", "--do", "thickness=4", "--index", "0"]
assert main([*words, "--out", sys.argv[1]]) == 0
print(json.dumps([by_model, sorted(sys.modules)]))
"""


def test_an_exported_model_answers_without_what_trains_it(tmp_path):
    """Training needs Lightning, which takes several times as long to import as an answer takes."""
    result = subprocess.run(
        [sys.executable, "-c", QUESTION, str(tmp_path / "answers")],
        capture_output=True,
        text=True,
        check=True,
    )
    by_model, by_command = map(set, json.loads(result.stdout.splitlines()[-1]))
    assert not by_model & (TRAINING | SLOW | COMPILERS | {"matplotlib"})
    assert not by_command & (TRAINING | SLOW | COMPILERS)
    assert "torch" in by_model
    assert "matplotlib" in by_command  # it draws the answer


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Moon'"):
        _ = importlib.import_module("deepscm_pl.data").Moon
    with pytest.raises(ImportError):
        importlib.import_module("deepscm_pl.moon")
    with pytest.raises(ImportError):
        importlib.import_module("deepscm_pl.data.moon")


def test_the_version_is_a_text():
    assert deepscm_pl.__version__[0].isdigit()


@pytest.mark.parametrize("module", sorted(EARLIER))
def test_earlier_names_still_work(module):
    for name in EARLIER[module]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize(
    ("path", "successor"),
    [
        ("deepscm_pl.types.Domain", "deepscm_pl.variables"),
        ("deepscm_pl.morphology.measure.Morphometrics", "deepscm_pl.worlds.strokes"),
        ("deepscm_pl.data.worlds.BrainWorld", "deepscm_pl.worlds"),
        ("deepscm_pl.evaluation.Report", "deepscm_pl.reports.Report"),
        ("deepscm_pl.figures.matrix.MatrixAxis", "deepscm_pl.figures.grid"),
        ("deepscm_pl.reports.draw_noise", "deepscm_pl.reports.draw_noise_results"),
        ("deepscm_pl.reports.tables.Table", "deepscm_pl.reports.tables.TextTable"),
        ("deepscm_pl.training.checkpoint.load_data", "deepscm_pl.checkpoints.loading"),
        ("deepscm_pl.transforms.Composition", "deepscm_pl.transforms.ComposedBijection"),
        ("deepscm_pl.training.checkpoint.read_checkpoint", "deepscm_pl.runs.reading"),
    ],
)
def test_earlier_paths_name_their_successor(path, successor):
    module, _, name = path.rpartition(".")
    for known in [each for each in sys.modules if each.startswith(module)]:
        if not getattr(sys.modules[known], "__file__", None):
            del sys.modules[known]
    vars(importlib.import_module("deepscm_pl.evaluation")).pop("Report", None)
    namespace: dict[str, object] = {}
    program = compile(f"from {module} import {name}", __file__, "exec")
    with pytest.warns(DeprecationWarning, match=f"is now {successor}") as caught:
        exec(program, namespace)
    assert namespace[name].__module__.startswith("deepscm_pl.")
    assert {each.filename for each in caught if successor in str(each.message)} == {__file__}


def test_a_checkpoint_may_name_what_a_lazy_package_offers():
    for path in ("deepscm_pl.AffineFlow", "deepscm_pl.mechanisms.AffineFlow"):
        assert restore_class(path, (deepscm_pl.Mechanism,)) is deepscm_pl.AffineFlow
    assert describe(deepscm_pl.AffineFlow)["class_path"] == "deepscm_pl.mechanisms.AffineFlow"
    with pytest.raises(ValueError, match="no such class"):
        restore_class("deepscm_pl.moved.importlib.Nothing", (deepscm_pl.Mechanism,))
