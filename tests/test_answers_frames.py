"""Answers print, tabulate and draw themselves, and observations come as people have them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import deepscm_pl
from deepscm_pl.answers import Answer, as_decimals
from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.evaluation.intervals import Calibration, IntervalFactor
from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms import AffineFlow, Bernoulli, Categorical
from deepscm_pl.observed import read_observed
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms import Positive
from deepscm_pl.variables import Variable

from tiny import image_mechanism

GRAPH = "age -> volume; sex -> volume; volume, sex -> image"


def make(seed: int = 0, graph: str = GRAPH, **others) -> StructuralCausalModel:
    torch.manual_seed(seed)
    positive = partial(AffineFlow, constraint=Positive)
    mechanisms = {"age": positive, "sex": Bernoulli, "volume": positive, **others}
    if "image" in graph:
        mechanisms["image"] = image_mechanism()
    names = set(CausalGraph(graph))
    scm = StructuralCausalModel(graph, {n: m for n, m in mechanisms.items() if n in names})
    generator = torch.Generator().manual_seed(1)
    age = 40 + 45 * torch.rand(200, 1, generator=generator)
    sex = (torch.rand(200, 1, generator=generator) > 0.5).float()
    rows = {
        "age": age,
        "sex": sex,
        "volume": 1000 - 3 * age + 20 * sex,
        "smoker": torch.arange(200.0)[:, None] % 3,
        "image": torch.randint(0, 256, (200, 1, 8, 8), generator=generator).float(),
    }
    scm.fit({name: rows[name] for name in scm.graph})
    with torch.no_grad():  # effects that an untrained model would not have
        for parameter in scm["volume" if "volume" in names else "age"].parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    classes = {"sex": ("female", "male"), "smoker": ("never", "ex", "now")}
    units = {"age": "years", "volume": "ml"}
    scm.describe(
        {n: Variable(n, unit=units.get(n, ""), classes=classes.get(n, ())) for n in scm.graph}
    )
    return scm.eval()


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return TrainedModel.of(make())


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["P1", "P2", "P3"],
            "age": [62.3, 37.6, 50],
            "sex": ["male", "female", "male"],
            "volume": [812.5, 905.2, 880.0],
            "image": [np.full((8, 8), 10 * k, np.uint8) for k in range(3)],
            "note": ["a", None, "c"],
        },
        index=pd.Index(["A", "B", "C"], name="person"),
    )


def test_a_frame_gives_a_frame_with_its_index_and_columns(model, frame):
    answer = model.counterfactual(frame, "age=80, sex=male", seed=0)
    table = answer.to_frame()
    assert list(table.index) == ["A", "B", "C"]
    assert list(table.columns)[:5] == ["id", "age", "sex", "volume", "note"]
    assert list(table["id"]) == ["P1", "P2", "P3"]
    assert list(table["sex"]) == ["male"] * 3
    assert list(table["age_change"]) == [17.7, 42.4, 30.0]
    assert set(table["overlap"]) <= {"supported", "edge", "extrapolated"}
    images = answer.to_frame(images=True)["image"]
    assert images["A"].shape == (8, 8)
    again = model.counterfactual(answer.to_frame(images=True), "age+=0", seed=0).to_frame()
    assert np.allclose(again["volume"], table["volume"], rtol=1e-5)


def test_unaffected_numbers_are_exactly_those_of_the_frame(model, frame):
    table = model.counterfactual(frame, {}).to_frame()
    assert (table[["age", "volume"]].values == frame[["age", "volume"]].values).all()
    assert list(table["sex"]) == list(frame["sex"])


def test_all_forms_of_observations_give_the_same_answer(model, frame, tmp_path):
    expected = model.counterfactual(frame, "age=80", seed=0)
    paths = []
    for k, image in enumerate(frame["image"]):
        Image.fromarray(image).save(tmp_path / f"{k}.png")
        paths.append(tmp_path / f"{k}.png")
    array = np.stack(frame["image"])
    tensors = {
        "age": torch.tensor(frame["age"].to_numpy(), dtype=torch.float32)[:, None],
        "sex": torch.tensor([[1.0], [0.0], [1.0]]),
        "volume": torch.tensor(frame["volume"].to_numpy(), dtype=torch.float32)[:, None],
        "image": torch.from_numpy(array)[:, None],
    }
    forms = [
        frame.assign(image=paths),
        frame.assign(image=list(map(str, paths))),
        frame.assign(image=[Image.open(path) for path in paths], sex=pd.Categorical(frame["sex"])),
        frame.assign(image=[each[None] for each in array], age=frame["age"].astype(str)),
        {**frame.to_dict("list"), "image": array},
        {**frame.to_dict("list"), "image": array[:, None], "sex": np.array([1, 0, 1])},
        {**frame.to_dict("list"), "sex": [True, False, True]},
        frame.to_dict("records"),
        tensors,
        {**tensors, "age": tensors["age"][:, 0], "image": array[..., None]},
        frame.rename(columns=lambda name: f" {name} "),
    ]
    for form in forms:
        answer = model.counterfactual(form, "age=80", seed=0)
        for name in answer:
            assert torch.equal(answer[name], expected[name]), name


def test_one_observation_may_be_single_values(model, frame):
    row = frame.iloc[0].to_dict()
    answer = model.counterfactual(row, "age=80", num_particles=4, seed=0)
    assert answer["age"].shape == (4, 1, 1)
    assert "1 observation, 4 particles" in repr(answer)
    series = model.counterfactual(frame.iloc[0], "age=80", num_particles=4, seed=0)
    assert torch.equal(series["volume"], answer["volume"])
    shared = model.counterfactual({**frame.to_dict("list"), "sex": "male"}, "age=80")
    assert shared["sex"].shape == (1, 3, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="sex"), "but sex is missing; add a column"),
        (lambda f: f.rename(columns={"sex": "Sex"}), "sex is missing; rename 'Sex'"),
        (lambda f: f.assign(sex=["male", "femal", "male"]), "row 1 (B), sex: .*'femal'; did you"),
        (lambda f: f.assign(age=[1, "x", 3]), "row 1 (B), age: expected a number, but got 'x'"),
        (lambda f: f.assign(age=["1", "37,6", "3"]), "row 1 (B), age: .* decimal point"),
        (lambda f: f.assign(age=[62, -5, 3]), "row 1 (B), age: expected values in (0, inf)"),
        (lambda f: f.assign(age=pd.Timestamp("2020-01-01")), "row 0 (A), age: .*date 2020-01-01"),
        (lambda f: f.assign(image=[np.zeros((7, 8))] * 3), "row 0 (A), image: .*(7, 8)"),
        (lambda f: f.assign(image=[3] * 3), "row 0 (A), image: .*but got 3"),
        (lambda f: f.assign(image=[np.full((8, 8), 300)] * 3), "row 0 (A), image: .*300"),
        (lambda f: pd.concat([f, f[["age"]]], axis=1), "'age' twice"),
        (lambda f: f.iloc[:0], "at least one observation"),
        (lambda f: {**f.to_dict("list"), "age": [1, 2]}, "columns of one length, but got age 2"),
        (lambda f: {**f.to_dict("list"), "age": object()}, "row 0, age: expected a number"),
        (lambda f: None, "expected a data frame or a mapping"),
        (lambda f: 3, "expected a data frame or a mapping"),
        (lambda f: "table.csv", "expected a data frame or a mapping"),
        (lambda f: [1, 2], "expected a data frame or a mapping"),
    ],
)
def test_wrong_cells_are_named_by_row_and_column(model, frame, change, message):
    with pytest.raises(ValueError, match=r"observations: |variables: ") as caught:
        model.counterfactual(change(frame), "age=80")
    text = str(caught.value)
    position = 0
    for part in message.split(".*"):
        assert part in text[position:], text
        position = text.index(part, position)
    assert "\n" not in text


@pytest.mark.parametrize("column", [[62, None, 3], pd.array([62, None, 3], "Int64")])
def test_missing_values_are_inferred_or_named(model, frame, column):
    incomplete = frame.assign(age=column)
    answer = model.counterfactual(incomplete, "sex=male", num_particles=3, seed=0)
    assert {name: mask.tolist() for name, mask in answer.inferred.items()} == {
        "age": [False, True, False]
    }
    table = answer.to_frame()
    assert table["age"].notna().all()
    assert table["volume_change"].notna().all()
    assert "inferred: age of 1" in repr(answer)
    assert "none" not in repr(model.counterfactual(incomplete, "age=50", seed=0)).split("volume")[0]
    answer.plot()
    with pytest.raises(ValueError, match=r"row 1 \(B\), age: .*missing"):
        read_observed(incomplete, model.variables, torch.float32, lambda path, variable: None)


def test_missing_and_broken_images_are_named(model, frame, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"row 0 \(A\), image: there is no image none.png"):
        model.counterfactual(frame.assign(image="none.png"), "age=80")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"row 0 \(A\), image: .*broken.png"):
        model.counterfactual(frame.assign(image=tmp_path / "broken.png"), "age=80")


@pytest.mark.parametrize("do", [3, None, ["age=80", 3], [["age=80"]]])
def test_interventions_of_another_type_are_refused(model, frame, do):
    with pytest.raises(ValueError, match="do: expected a text"):
        model.counterfactual(frame, do)


def test_an_answer_is_a_mapping_without_gradients(model, frame):
    answer = model.counterfactual(frame, ["age=80", "sex=male"], num_particles=3, seed=0)
    assert list(answer) == list(model.variables)
    assert {**answer}.keys() == model.variables.keys()
    assert not any(value.requires_grad for value in answer.values())
    assert answer["volume"].shape == (3, 2, 3, 1)
    assert answer.images["image"].shape == (3, 2, 3, 8, 8)
    assert answer.images["image"].dtype == np.uint8
    attached = {n: v.clone().requires_grad_() for n, v in answer.factual.items()}
    assert not model.counterfactual(attached, {})["age"].requires_grad
    assert isinstance(answer, deepscm_pl.Answer)


def test_change_is_the_difference_and_zero_without_a_path(model, frame):
    answer = model.counterfactual(frame, ["age=80", "sex=male"], num_particles=3, seed=0)
    change = answer.change
    assert list(change) == ["age", "volume", "image"]
    factual = torch.tensor(frame["volume"].to_numpy(), dtype=torch.float32)[:, None]
    assert torch.equal(change["volume"], answer["volume"] - factual)
    assert bool((change["age"][:, 1] == 0).all())  # sex does not cause age
    averaged = change.mean()
    assert averaged["volume"].shape == (2, 3, 1)
    assert list(averaged.to_frame().columns) == ["intervention", "id", "age", "volume", "note"]
    with pytest.raises(ValueError, match="change: expected a counterfactual"):
        _ = model.sample(3).change


def test_means_and_intervals_are_those_of_the_particles(model, frame):
    answer = model.counterfactual(frame, "age=80", num_particles=21, seed=0)
    assert torch.allclose(answer.mean()["image"], answer["image"].mean(dim=0), atol=1e-3)
    low, high = answer.interval(0.9)
    levels = torch.tensor([0.05, 0.95])
    expected = answer["image"].quantile(levels, dim=0)
    assert torch.allclose(torch.stack([low["image"], high["image"]]), expected, atol=1e-3)
    assert "sex" not in low
    with pytest.raises(ValueError, match="at least 2 particles"):
        model.counterfactual(frame, "age=80").interval()
    with pytest.raises(ValueError, match="level"):
        answer.interval(1.5)


def test_draws_are_averaged_over_draws(model):
    answer = model.intervene(["age=80", "age=50"], 500, seed=0)
    assert answer["volume"].shape == (2, 500, 1)
    mean = answer.mean()
    assert torch.allclose(mean["volume"], answer["volume"].mean(dim=1), rtol=1e-5)
    assert mean["sex"].shape == (2, 1)
    share = float((answer["sex"][0] == 1).float().mean())
    assert float(mean["sex"][0]) == float(share > 0.5)
    low, high = answer.interval(0.5)
    inside = (answer["volume"] >= low["volume"][:, None]) & (
        answer["volume"] <= high["volume"][:, None]
    )
    assert float(inside.float().mean()) == pytest.approx(0.5, abs=0.02)
    table = answer.to_frame()
    assert len(table) == 1000
    assert table["intervention"].nunique() == 2
    assert len(model.sample(7).to_frame()) == 7


def test_calibrated_intervals_of_images(model, frame):
    factors = [
        IntervalFactor("do(age = 80 years)", ("age",), g, 2.0, 9)
        for g in ("equal", "kept", "changed")
    ]
    calibration = Calibration(0.9, 5, 1, factors, "10 rows")
    answer = model.counterfactual(frame, "age=80", num_particles=5, seed=0)
    calibrated = Answer(answer.tensors, replace(answer.question, calibration=calibration))
    _, high = calibrated.interval(0.9)
    spread = answer["image"].std(dim=0)
    width = 2 * (spread**2 + 1).sqrt()
    expected = (answer["image"].mean(dim=0) + width).clamp(0, 255)
    assert torch.allclose(high["image"], expected, atol=1e-2)
    assert not torch.allclose(calibrated.interval(0.8)[1]["image"], expected, atol=1e-2)


def test_text_names_what_changes_and_html_is_escaped(model, frame):
    text = repr(model.counterfactual(frame, "age=80, sex=male", seed=0))
    assert "Counterfactual: 3 observations" in text
    assert "do(age = 80 years, sex = male)" in text
    assert "+30 years (+60 %)" in text
    assert "33.3 % changed" in text
    scm = make(graph="smoker -> age", smoker=partial(Categorical, categories=3))
    scm.describe({"smoker": Variable("smoker", classes=("<b>", "\x1b[31m", "now"))})
    hostile = TrainedModel.of(scm)
    answer = hostile.counterfactual({"age": [50.0], "smoker": ["<b>"]}, {"smoker": 1.0})
    assert "\x1b" not in repr(answer)
    assert "<b></td>" not in answer._repr_html_()
    assert "&lt;b&gt;" in answer._repr_html_()
    assert "\x1b" not in answer._repr_html_()


def test_a_null_intervention_says_that_nothing_changes(model, frame):
    assert "do() changes nothing" in repr(model.counterfactual(frame, {}))


def test_members_have_a_column():
    model = TrainedModel.of(make(0), make(1))
    rows = {
        "age": [50.0, 60.0],
        "sex": "male",
        "volume": [850.0, 830.0],
        "image": torch.zeros(1, 8, 8),
    }
    table = model.counterfactual(rows, "age=80").to_frame()
    assert list(table["member"]) == [1, 1, 2, 2] * 2
    assert list(table["particle"]) == [0, 1, 2, 3] * 2
    assert list(table.index) == [0] * 4 + [1] * 4


def test_tensors_of_interventions_are_several_interventions(model, frame):
    do = {"age": torch.tensor([50.0, 60.0])[:, None, None]}
    answer = model.counterfactual(frame, do, num_particles=2, seed=0)
    table = answer.to_frame()
    assert answer["age"].shape == (2, 2, 3, 1)
    assert len(table) == 12
    assert set(table["intervention"]) == {"do(age = 50 years)", "do(age = 60 years)"}


@pytest.mark.parametrize("graph", [GRAPH, "age -> volume; sex -> volume"])
def test_every_answer_can_be_drawn(model, frame, graph):
    scm = make(graph=graph)
    asked = TrainedModel.of(scm)
    many = pd.concat([frame] * 10, ignore_index=True)
    answers = [
        asked.counterfactual(frame, ["age=80", "sex=male"], num_particles=3, seed=0),
        asked.counterfactual(many, "age=80", seed=0),
        asked.counterfactual(frame, "age=80").change,
        asked.counterfactual(frame, "age=80").mean(),
        asked.intervene("age=80", 30, seed=0),
        asked.sample(30, seed=0),
    ]
    for answer in answers:
        figure = answer.plot()
        figure.canvas.draw()
        assert figure.axes


def test_shortest_decimals_round_to_the_same_number():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).exp() * 1e3
    found = as_decimals(values.numpy())
    assert np.array_equal(found.astype(np.float32), values.numpy())
    assert as_decimals(np.array([37.6], np.float32))[0] == 37.6
