"""The evaluation reports how far counterfactuals move under other couplings."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl import AffineFlow, Bernoulli, Interval, Positive
from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.evaluation.sensitivity import evaluate_sensitivity
from deepscm_pl.reports import Report
from deepscm_pl.reports.tables import how_to_read
from deepscm_pl.scm import StructuralCausalModel

from oracle import make
from tiny import KnownTinyDataModule, TinyDataModule, image_mechanism

GRAPH = "thickness -> intensity; thickness, intensity -> image"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    mechanisms = {
        "thickness": partial(AffineFlow, constraint=Positive),
        "intensity": partial(AffineFlow, constraint=partial(Interval, low=64, high=255)),
        "image": image_mechanism(),
    }
    data = TinyDataModule()
    scm = StructuralCausalModel(GRAPH, mechanisms).eval()
    scm.fit(data.variables("train"))
    return ModelOnData.of(scm, data)


def test_every_effect_and_coupling_has_a_result(model):
    settings = EvaluationSettings(["thickness=3", "intensity=90"], workers=1, num_particles=1)
    found = evaluate(model, settings, progress=False)
    names = [(each.question.text, each.variable, each.coupling) for each in found.sensitivity]
    image = ["independent", "rotated latent", "new pixel noise"]
    assert names == [
        *(("thickness=3", "intensity", each) for each in ("independent", "reversed")),
        *(("thickness=3", "image", each) for each in image),
        *(("intensity=90", "image", each) for each in image),
    ]
    report = Report(model, found)
    table = report.tables["sensitivity"]
    assert len(table.rows) == len(names)
    row = dict(zip(table.columns, table.rows[2], strict=True))
    assert row["effect"] == "image"
    assert row["unit"] == "grey levels"
    assert row["rows"] == "16"
    assert "*Moves by*" in how_to_read("sensitivity", table)
    text = report.as_markdown()
    assert "## Sensitivity" in text
    assert "## Assumptions" in text
    assert "intervals of its particles are lower bounds. `docs/trust.md`" in text
    plain = report.as_plain_data()["sensitivity"]["thickness=3"]["intensity"]["reversed"]
    assert plain["distance"]["mean"] == found.sensitivity[1].distance.mean > 1
    assert plain["distance"]["rows"] == 16
    tag = "evaluation/sensitivity/thickness_3/intensity/reversed"
    assert report.scalars()[tag] == plain["distance"]["mean"]


@torch.no_grad()
def test_impossible_rows_are_ignored_and_the_distance_is_that_of_the_reversed_quantile():
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=16))
    question = Question("thickness+=3", model.scm.variables)
    found = evaluate_sensitivity(model, [question], 16, progress=False)
    thickness, intensity = (model.variables[n].double() for n in ("thickness", "intensity"))
    possible = (thickness + 3 <= 8).squeeze(-1)
    assert 0 < possible.sum() < 16
    result = next(each for each in found if each.coupling == "reversed")
    assert result.variable == "intensity"
    assert result.distance.rows == result.change.rows == possible.sum()
    mechanism, parents = model.scm["intensity"], {"thickness": thickness + 3}
    noise = mechanism.abduct(intensity, {"thickness": thickness})["u"]
    both = (mechanism({"u": each}, parents) for each in (noise, -noise))
    expected = (next(both) - next(both)).abs()[possible].mean()
    assert result.distance.mean == pytest.approx(expected.item())


def test_classes_are_compared_by_the_share_that_differs():
    scm = StructuralCausalModel("a -> s", {"a": AffineFlow, "s": Bernoulli})
    torch.manual_seed(0)
    variables = {"a": torch.randn(40, 1), "s": (torch.randn(40, 1) > 0).float()}
    scm.fit(variables)
    model = ModelOnData(scm, variables, None, None)
    found = evaluate_sensitivity(model, [Question("a=1", scm.variables)], 40, progress=False)
    assert [each.coupling for each in found] == ["independent", "reversed"]
    for each in found:
        assert 0 < each.distance.mean <= 1
        assert each.distance.rows == 16
    # Untrained, the probability does not depend on a.
    assert found[0].change.mean == 0
