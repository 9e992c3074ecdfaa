"""The live explorer without its page: answers from noise that is inferred once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.distributions import AffineTransform

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.explorer import Explorer
from deepscm_pl.explorer.abduction import Abduction
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.session import Session
from deepscm_pl.interventions import parse_do
from deepscm_pl.mechanisms import Known
from deepscm_pl.scm import StructuralCausalModel


class NumbersTable(CausalDataModule):
    """Three numbers, of which x causes m, and both cause y."""

    def __init__(self) -> None:
        super().__init__(validation_size=20)

    def load(self) -> SourceSplits:
        def rows(size, seed):
            noise = torch.randn(3, size, 1, generator=torch.Generator().manual_seed(seed))
            x, m = noise[0], 2 * noise[0] + noise[1]
            return {"x": x, "m": m, "y": x + 3 * m + noise[2]}

        return SourceSplits(train=rows(120, 1), test=rows(6, 2))


def session_of(explorer):
    return Session(explorer, Programs([Path("last.ckpt")]))


@pytest.fixture(scope="module")
def linear():
    """x -> m; x, m -> y with known coefficients: m = 2x + u, y = x + 3m + u."""

    def sums(**weights):
        def layers(parents):
            shift = sum((weights[n] * parents[n] for n in parents), torch.zeros(()))
            return [AffineTransform(shift, 1.0)]

        return partial(Known, layers=layers)

    mechanisms = {"x": sums(), "m": sums(x=2.0), "y": sums(x=1.0, m=3.0)}
    data = NumbersTable()
    data.setup()
    scm = StructuralCausalModel("x -> m; x, m -> y", mechanisms)
    scm.fit(data.variables("train"))
    return Explorer(TrainedModel.of(scm), data)


@pytest.mark.parametrize("particles", [None, 5])
@pytest.mark.parametrize("fixture", ["pictures", "two_models"])
def test_noise_that_is_kept_gives_the_counterfactual(fixture, particles, request):
    explorer = request.getfixturevalue(fixture)
    factual = explorer.rows_of([4, 2])
    count = explorer.model.particles(particles)
    abduction = Abduction.infer(explorer.model.ensemble, factual, count, seed=3)
    for do in ({"thickness": 2.5}, {"thickness": 3.0, "intensity": 100.0}):
        expected = explorer.model.counterfactual(factual, do, particles, seed=3)
        found = abduction.draws(do)
        assert found["thickness"].shape == (count or 1, 2, 1)
        torch.testing.assert_close(found["intensity"], expected["intensity"])
        # The noise of numbers is determined; particles of images differ in their draws.
        if particles is None and fixture == "pictures":
            torch.testing.assert_close(found["image"], expected["image"])


def test_missing_values_are_inferred_once(table):
    factual = table.rows_of([0, 1])
    assert factual["effect"].isnan().any()
    abduction = Abduction.infer(Ensemble([table.scm]), factual, 6, seed=1)
    first, second = (abduction.draws({"sick": float(k)})["effect"] for k in (0, 1))
    assert torch.equal(first, second)
    assert first.isfinite().all()
    assert len(first[:, 0].unique()) > 1
    assert len(first[:, 1].unique()) == 1


def test_several_variables_are_set_and_released(linear):
    visit = session_of(linear).visit("a")
    visit.choose(3)
    own = visit.ask().factual.values
    visit.set("x", 1.5)
    moved = visit.ask().scene.values["m"]
    assert moved == pytest.approx(own["m"] + 2 * (1.5 - own["x"]), abs=1e-5)
    visit.hold(["x", "m"])  # at the value that it has now
    assert visit.do == {"x": 1.5, "m": moved}
    visit.set("x", 0.5)
    assert visit.ask().scene.values["m"] == moved
    assert [*visit.do] == ["m", "x"]
    visit.hold(["m"])
    assert [*visit.do] == ["m"]
    visit.hold([])
    reply = visit.ask()
    assert reply.scene.values == own
    assert not reply.scene.verdict


def test_an_answer_is_judged_and_its_colour_scale_never_shrinks(pictures):
    visit = session_of(pictures).visit("a")
    low, high = visit.session.limits("thickness")
    visit.set("thickness", high)
    first = visit.ask()
    visit.set("thickness", float(visit.observation.values["thickness"]))
    second = visit.ask()
    assert first.scene.verdict == "extrapolated"
    assert second.scene.verdict != "extrapolated"
    assert second.limits == first.limits
    assert low >= 0  # inside of the domain


def test_details_of_a_picture(pictures):
    visit = session_of(pictures).visit("a")
    visit.set("thickness", 2.0)
    details = visit.details(visit.ask())
    assert details.factual.keys() == details.measured.keys() != set()
    assert details.deviations["image"].shape == (1, 8, 8)
    assert details.deviations["image"].max() > 0
    low, high = details.intervals["intensity"]
    assert low <= visit.reply.scene.values["intensity"] * 1.0001
    assert low <= high
    assert not details.disagreement
    assert [each.name for each in details.paths] == ["image"]
    assert details.curves.cause == "thickness"
    assert [each.name for each in details.curves.curves] == ["intensity"]
    assert [each.do for each in visit.history] == [{"thickness": 2.0}]


def test_models_disagree(two_models):
    visit = session_of(two_models).visit("a")
    visit.set("thickness", 2.0)
    assert visit.details(visit.ask()).disagreement["intensity"] >= 0


def test_direct_and_indirect_changes_of_a_linear_model(linear):
    visit = session_of(linear).visit("a")
    x = float(visit.observation.values["x"])
    visit.set("x", x + 1)
    (paths,) = visit.details(visit.ask()).paths
    assert (paths.name, paths.through) == ("y", ["m"])
    assert float(paths.direct) == pytest.approx(1, abs=1e-4)
    assert float(paths.indirect) == pytest.approx(6, abs=1e-4)


def test_effect_curves_pass_through_the_answers(linear):
    visit = session_of(linear).visit("a")
    visit.set("x", 0.5)
    curves = visit.details(visit.ask()).curves
    assert [each.name for each in curves.curves] == ["m", "y"]
    visit.set("x", curves.values[3])
    reply = visit.ask()
    for curve in curves.curves:
        assert curve.own[3] == pytest.approx(reply.scene.values[curve.name], abs=1e-4)
        assert all(len(each) == len(curves.values) for each in curve.others)


def test_details_of_a_question_that_was_left_are_not_computed(pictures, monkeypatch):
    visit = session_of(pictures).visit("a")
    visit.set("thickness", 2.0)
    reply = visit.ask()
    monkeypatch.setattr(visit, "_paths", lambda _: pytest.fail("the question was left before"))
    uncertainty = visit._uncertainty

    def leave(asked):
        visit.set("thickness", 3.0)
        visit.ask()
        return uncertainty(asked)

    monkeypatch.setattr(visit, "_uncertainty", leave)
    assert visit.details(reply) is None
    assert not visit.history


def test_a_link_asks_the_same_question(table):
    first, second = (session_of(table).visit(key) for key in "ab")
    first.choose(2)
    for name, value in (("dose", 12345.5), ("kind", 2.0)):
        first.set(name, value)
    second.follow(first.link)
    assert "<" not in first.link
    assert second.question.do == first.question.do
    assert second.observation.row == 2
    assert parse_do(first.text, table.variables) == first.do
    assert second.ask().scene == first.ask().scene


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("?index=999", "rows from 0 to 23"),
        ("?index=-1", "number of a row"),
        ("?index=1&do=weight%3D3", "weight"),
        ("?index=1&do=thickness%3Dthick", "thickness"),
        ("?index=1&do=thickness%3D-4", r"expected values in \(0, inf\)"),
        ("?index=1&do=thickness%2B%3D1", "a change or a draw"),
        ("?index=1&do=image%3D4", "thickness, intensity"),
        ("?index=1&do=%3D%3D", "do"),
    ],
)
def test_a_link_that_cannot_be_answered_changes_nothing(link, reason, pictures):
    visit = session_of(pictures).visit("a")
    visit.choose(5)
    visit.set("thickness", 2.0)
    with pytest.raises(ValueError, match=reason):
        visit.follow(link)
    assert visit.observation.row == 5
    assert visit.do == {"thickness": 2.0}


def test_the_history_has_each_question_once(pictures):
    visit = session_of(pictures).visit("a")
    for value in (2.0, 3.0, 2.0):
        visit.set("thickness", value)
        visit.details(visit.ask())
    assert [each.do["thickness"] for each in visit.history] == [2.0, 3.0]


def test_visitors_do_not_see_each_other_and_are_limited(pictures):
    session = session_of(pictures)
    session.visit("a").set("thickness", 2.0)
    assert session.visit("b").do == {}
    assert session.visit("a").do == {"thickness": 2.0}
    for number in range(100):
        session.visit(str(number))
    assert session.visitors < 100
    session.leave("99")
    assert session.visit("99").do == {}
