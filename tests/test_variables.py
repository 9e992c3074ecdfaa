"""A variable has its unit and class names wherever it goes: files, texts, pictures, copies."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from matplotlib.text import Text

from deepscm_pl import DeepSCM, StructuralCausalModel
from deepscm_pl.callbacks import AttributeDensities, CounterfactualGrid
from deepscm_pl.checkpoints import Checkpoint
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.figures import captions
from deepscm_pl.interventions import Increase, Multiply, format_do, parse_do
from deepscm_pl.mechanisms import AffineFlow, Categorical
from deepscm_pl.training import export_model
from deepscm_pl.variables import Domain, Variable

SEX = Variable("sex", Domain(categories=2), classes=("female", "male"))
SITE = Variable("site", Domain(categories=3), classes=("2", "10", "1"))
CODE = Variable("code", Domain(categories=3))
AGE = Variable("age", Domain(lower=0.0, open=True), unit="years")
SCORE = Variable("score")
VARIABLES = {each.name: each for each in (SEX, SITE, CODE, AGE, SCORE)}


class People(CausalDataModule):
    """Sites whose classes are numbers, and ages."""

    def __init__(self, batch_size: int = 32, validation_size: int = 16) -> None:
        super().__init__(batch_size=batch_size, validation_size=validation_size)

    @property
    def descriptions(self) -> dict[str, Variable]:
        return {"site": Variable("site", classes=SITE.classes), "age": Variable("age", unit="a")}

    def load(self) -> SourceSplits:
        def rows(size: int) -> dict[str, torch.Tensor]:
            site = (torch.arange(size) % 3).float()[:, None]
            return {"site": site, "age": 40 + 3 * site + torch.linspace(-1, 1, size)[:, None]}

        return SourceSplits(train=rows(96), test=rows(30))


class OlderPeople(People):
    """The two properties that were overridden in version 0.1."""

    descriptions = CausalDataModule.descriptions

    @property
    def units(self) -> dict[str, str]:
        return {**super().units, "age": "a"}

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        return {"site": SITE.classes}


def make(site: object = None) -> DeepSCM:
    site = site or partial(Categorical, categories=3)
    return DeepSCM("site -> age", {"site": site, "age": AffineFlow})


def train(model: DeepSCM, data: CausalDataModule, root: object) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
    )
    trainer.fit(model, datamodule=data)
    return trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that has seen its data, and its checkpoint."""
    root = tmp_path_factory.mktemp("people")
    model = make()
    train(model, People(), root).save_checkpoint(root / "people.ckpt")
    return model.eval(), root / "people.ckpt"


def describes(scm: StructuralCausalModel) -> None:
    assert scm.variables["site"] == SITE
    assert scm.variables["age"] == Variable("age", scm["age"].domain, unit="a")


def test_a_model_takes_over_the_variables_of_its_data(trained):
    describes(trained[0].scm)
    assert make().scm.variables["site"] == Variable("site", Domain(categories=3))


def test_files_keep_variables(trained, tmp_path):
    exported = export_model(trained[1], tmp_path / "people.safetensors")
    again = export_model(exported, tmp_path / "again.safetensors")
    for path in (trained[1], exported, again):
        describes(DeepSCM.load_from_checkpoint(path).scm)
        assert Checkpoint.read(path).variables()["site"].classes == SITE.classes


def test_a_resumed_training_keeps_variables_without_the_data_module(trained, tmp_path):
    model = make()
    train(model, People(), tmp_path)
    loader = People().train_dataloader()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    resumed = DeepSCM.load_from_checkpoint(trained[1])
    resumed.scm._described = {}
    trainer.fit(resumed, loader, ckpt_path=trained[1])
    describes(resumed.scm)


def test_parts_copies_and_interventions_keep_variables(trained):
    scm = trained[0].scm
    describes(copy.deepcopy(scm))
    describes(scm.act({"site": 1.0, "age": lambda age: age + 1}))
    assert scm.restrict(["site"]).variables == {"site": SITE}


def test_data_without_names_do_not_erase_those_of_the_model(trained):
    scm = copy.deepcopy(trained[0].scm)
    scm.describe({"site": Variable("site"), "age": Variable("age", unit="years")})
    assert scm.variables["site"] == SITE
    assert scm.variables["age"].unit == "years"


@pytest.mark.parametrize("site", [AffineFlow, partial(Categorical, categories=2)])
def test_classes_need_a_mechanism_of_as_many(site, tmp_path):
    with pytest.raises(ValueError, match=r"site is one of 3 classes \(2, 10, 1\), but "):
        train(make(site), People(), tmp_path)


def test_the_two_properties_of_version_0_1_may_still_be_overridden(tmp_path):
    with pytest.warns(DeprecationWarning, match=r"OlderPeople: override descriptions"):
        found = OlderPeople().descriptions
    assert found == People().descriptions
    assert People().units == OlderPeople().units == {"age": "a"}
    assert People().class_names == OlderPeople().class_names == {"site": SITE.classes}


@pytest.mark.parametrize(
    ("text", "do", "title"),
    [
        ("sex=male", {"sex": 1.0}, "do(sex = male)"),
        ("sex=0", {"sex": 0.0}, "do(sex = female)"),
        ("site=1", {"site": 2.0}, "do(site = 1)"),
        ("site=10.0", {"site": 1.0}, "do(site = 10)"),
        ("code=2", {"code": 2.0}, "do(code = 2)"),
        ("age=61.5", {"age": 61.5}, "do(age = 61.5 years)"),
        ("age+=2", {"age": Increase(2.0)}, "do(age + 2 years)"),
        ("age*=2", {"age": Multiply(2.0)}, "do(age × 2)"),
        ("score=-3,sex=1", {"score": -3.0, "sex": 1.0}, "do(score = -3, sex = male)"),
    ],
)
def test_interventions_are_read_and_written_by_their_variables(text, do, title):
    assert parse_do(text, VARIABLES) == do
    assert format_do(do, VARIABLES) == title


@pytest.mark.parametrize("variable", VARIABLES.values(), ids=lambda each: each.name)
def test_a_value_comes_back_from_its_text(variable):
    plain = {name: Variable(name, classes=each.classes) for name, each in VARIABLES.items()}
    for value in (0.0, 1.0, 2.0, 0.125, 123456.0):
        if (variable.domain.categories and value >= variable.domain.categories) or value == 0.125:
            continue
        title = format_do({variable.name: value}, plain)
        text = title.removeprefix("do(").removesuffix(")").replace(",", "")
        assert parse_do(text, VARIABLES) == {variable.name: value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "scre=1",
            r"unknown variable 'scre' \(did you mean 'score'\?\); expected one of sex, site",
        ),
        ("height=1", r"unknown variable 'height'; expected one of"),
        ("sex=mail", r"do\(sex\): expected one of female, male, but got 'mail'"),
        ("site=0", r"do\(site\): expected one of 2, 10, 1, but got '0'"),
        ("code=first", r"do\(code\): expected a number, because it has no named classes"),
        ("age=old", r"do\(age\): expected a number"),
    ],
)
def test_other_variables_and_classes_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_do(text, VARIABLES)


def test_values_are_shown_with_their_names_and_units():
    assert [SITE.format(float(k)) for k in range(3)] == ["2", "10", "1"]
    assert SEX.format(0.5) == "0.5"  # a mean over particles
    assert AGE.format(math.pi) == "3.14 years"
    assert CODE.format(2.0) == "2"


def texts_of(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_titles_and_captions_have_units_and_class_names(trained):
    model, _ = trained
    rows = {name: value.float() for name, value in People().variables("test").items()}
    assert captions(model.scm, {name: rows[name][:2] for name in ("site", "age")}) == [
        "site 2\nage 39 a",
        "site 10\nage 42.1 a",
    ]
    drawn = AttributeDensities(["site=10", "age+=2"], variables=["age"], num_observations=30)
    with torch.no_grad():
        (_, figure), *_ = drawn.draw(model.scm, rows, "test")
    shown = texts_of(figure)
    assert "do(site = 10)" in shown
    assert "do(age + 2 a)" in shown
    assert "age (a)" in shown


def test_callbacks_know_the_names_of_the_data_before_the_training():
    grid = CounterfactualGrid(["site=10"])
    model = make()
    trainer = type("Trainer", (), {"datamodule": People()})()
    grid.setup(trainer, model, "fit")
    assert grid.interventions(model.scm) == [{"site": 1.0}]


def test_images_scaled_to_one_are_told_from_other_values_outside():
    levels = Domain((1, 2, 2), lower=0.0, upper=255.0, whole=True)
    scaled = torch.tensor([[[[0.0, 0.25], [1.0, 0.5]]]])
    with pytest.raises(ValueError, match=r"but got 0.25; multiply images in \[0, 1\] by 255 and"):
        levels.check("image", scaled)
    for value in (300.0, -1.0, 7.5):
        with pytest.raises(ValueError, match=f"image: expected whole .* got {value:g}; give a"):
            levels.check("image", scaled.round() * value)
