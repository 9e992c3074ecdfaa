"""The live explorer without its page: answers from noise that is inferred once."""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import AffineTransform

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.explorer import Explorer, session
from deepscm_pl.explorer.abduction import Abduction, average
from deepscm_pl.explorer.parts import Parts
from deepscm_pl.explorer.programs import Programs
from deepscm_pl.explorer.session import Question, Session, Turns
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


def sums(**weights):
    """The sum of weighted parents and a standard normal."""

    def layers(parents):
        shift = sum((weights[n] * parents[n] for n in parents), torch.zeros(()))
        return [AffineTransform(shift, 1.0)]

    return partial(Known, layers=layers)


def explorer_of(graph, **mechanisms):
    data = NumbersTable()
    data.setup()
    scm = StructuralCausalModel(graph, mechanisms)
    scm.fit(data.variables("train"))
    return Explorer(TrainedModel.of(scm), data)


@pytest.fixture(scope="module")
def linear():
    """x -> m; x, m -> y with known coefficients: m = 2x + u, y = x + 3m + u."""
    return explorer_of("x -> m; x, m -> y", x=sums(), m=sums(x=2.0), y=sums(x=1.0, m=3.0))


@pytest.fixture(scope="module")
def chain():
    return explorer_of("x -> m -> y", x=sums(), m=sums(x=2.0), y=sums(m=3.0))


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


def test_models_in_order_get_their_share_of_values_that_are_set(two_models):
    abduction = Abduction.infer(two_models.model.ensemble, two_models.rows_of([4]), 6)
    values = torch.linspace(70, 120, 6).view(6, 1, 1)
    assert torch.equal(abduction.draws({"intensity": values})["intensity"], values)


def test_the_average_of_a_class_is_the_most_frequent_one(table):
    draws = {"sick": torch.tensor([0.0, 1, 1])[:, None, None], "dose": torch.ones(3, 1, 1)}
    found = average(Ensemble([table.scm]), draws)
    assert found["sick"].tolist() == [[1.0]]


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


def test_an_answer_is_judged(pictures):
    visit = session_of(pictures).visit("a")
    low, high = visit.session.limits("thickness")
    visit.set("thickness", high)
    first = visit.ask()
    visit.set("thickness", float(visit.observation.values["thickness"]))
    second = visit.ask()
    assert first.scene.verdict == "extrapolated"
    assert second.scene.verdict != "extrapolated"
    assert low >= 0  # inside of the domain


def test_a_colour_scale_is_kept_until_another_observation_is_chosen(pictures, monkeypatch):
    wanted = iter([60.0, 20.0, 20.0])
    monkeypatch.setattr(session, "difference_limit", lambda _: next(wanted))
    visit = session_of(pictures).visit("a")
    found = [visit.ask().limits["image"], visit.ask().limits["image"]]
    visit.choose(3)
    assert [*found, visit.ask().limits["image"]] == [60.0, 60.0, 20.0]


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


def particles_of(visit):
    """The particles of the details of a question."""
    steps = visit.session.particles_of(visit.observation, visit.do)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_models_disagree(two_models):
    visit = session_of(two_models).visit("a")
    visit.set("thickness", 2.0)
    found = visit.details(visit.ask()).disagreement
    between = two_models.model.ensemble.spread(particles_of(visit)["image"]).between
    assert found["image"] == pytest.approx(float(between.square().mean().sqrt()), rel=1e-4)
    assert found["image"] > 0
    assert found.keys() == {"intensity", "image"}


def test_intervals_and_shares_are_those_of_the_particles(table):
    visit = session_of(table).visit("a")  # of the first row, the effect is missing
    visit.set("dose", 5e5)
    details, drawn = visit.details(visit.ask()), particles_of(visit)
    values = drawn["effect"].flatten().double()
    ends = [float(values.quantile(level)) for level in (0.05, 0.95)]
    assert [*details.intervals["effect"]] == pytest.approx(ends)
    assert ends[0] < ends[1]
    sick = float(drawn["sick"].mean())
    assert details.shares["sick"].get(1, 0.0) == pytest.approx(sick)
    assert [*details.shares["sick"].values()] == sorted(details.shares["sick"].values())[::-1]
    # Values that are inferred, but do not follow, are uncertain, too.
    visit.hold([])
    visit.set("sick", 1.0)
    low, high = visit.details(visit.ask()).intervals["effect"]
    assert low < high


def test_particles_are_drawn_in_portions(two_models, monkeypatch):
    monkeypatch.setattr(session, "_NUMBERS_AT_A_TIME", 200)  # three particles
    visit = session_of(two_models).visit("a")
    visit.set("thickness", 2.0)
    assert len(visit.session._portions) == 6
    drawn = particles_of(visit)
    assert drawn["image"].shape == (16, 1, 1, 8, 8)
    # Each has its own noise, and the models answer in order.
    assert len({tuple(each.flatten().tolist()) for each in drawn["image"]}) == 16
    intensity = drawn["intensity"].flatten()
    assert intensity[:8].unique().numel() == intensity[8:].unique().numel() == 1
    assert visit.details(visit.ask()).particles == 16


def test_large_images_have_two_particles_of_each_model(two_models, monkeypatch):
    monkeypatch.setattr(session, "_DRAWN_NUMBERS", 1)
    assert session_of(two_models).particles == 4


def test_sliders_reach_a_sixth_beyond_the_training_data(linear):
    session = session_of(linear)
    low, high = linear.scm.training_distribution.limits("x")
    found, step = session.limits("x"), session.step("x")
    sixth = (high - low) / 6
    assert [*found] == pytest.approx([low - sixth, high + sixth], abs=1.01 * step)
    assert found[0] <= low - sixth
    assert found[1] >= high + sixth


def test_another_observation_begins_with_nothing_set(linear):
    visit = session_of(linear).visit("a")
    visit.set("x", 0.5)
    visit.ask()
    visit.place = (1, 2, 3)
    visit.choose(4)
    assert visit.do == {}
    assert visit.place is None
    reply = visit.ask()
    assert reply.scene.values == linear.observe(4).values
    assert visit.details(reply) is not None
    assert not visit.history  # nothing was asked


def test_direct_and_indirect_changes_of_a_linear_model(linear):
    visit = session_of(linear).visit("a")
    x = float(visit.observation.values["x"])
    visit.set("x", x + 1)
    (paths,) = visit.details(visit.ask()).paths
    assert (paths.name, paths.through) == ("y", ["m"])
    assert float(paths.direct) == pytest.approx(1, abs=1e-4)
    assert float(paths.indirect) == pytest.approx(6, abs=1e-4)


def test_a_variable_that_is_reached_through_others_alone_has_no_direct_change(chain):
    visit = session_of(chain).visit("a")
    visit.set("x", 1.0)
    assert visit.details(visit.ask()).paths == []


def test_effect_curves_pass_through_the_answers(linear):
    visit = session_of(linear).visit("a")
    visit.set("x", 0.5)
    curves = visit.details(visit.ask()).curves
    assert [each.name for each in curves.curves] == ["m", "y"]
    # Those of others are of other rows.
    assert [len(each.others) for each in curves.curves] == [5, 5]
    assert curves.curves[0].own not in curves.curves[0].others
    visit.set("m", 1.0)
    both = visit.details(visit.ask()).curves
    assert both.cause == "m"  # the last one
    visit.set("m", both.values[2])
    assert both.curves[0].own[2] == pytest.approx(visit.ask().scene.values["y"], abs=1e-4)
    visit.hold([])
    visit.set("x", curves.values[3])
    reply = visit.ask()
    for curve in curves.curves:
        assert curve.own[3] == pytest.approx(reply.scene.values[curve.name], abs=1e-4)
        assert all(len(each) == len(curves.values) for each in curve.others)


def test_the_observed_and_the_asked_value_are_drawn_on_the_effect_curve(linear):
    visit = session_of(linear).visit("a")
    visit.set("x", float(visit.observation.values["x"]) + 1)
    reply = visit.ask()
    more = Parts(linear).details(reply, visit.details(reply)).partition("</svg>")[0]
    (path,) = re.findall(r'<path class="own" d="M([^"]+)"', more)
    xs, ys = np.array([[*map(float, each.split())] for each in path.split("L")]).T
    dots = re.findall(r'<circle class="(\w+)" cx="([\d.]+)" cy="([\d.]+)"', more)
    assert [kind for kind, _, _ in dots] == ["factual", "asked"]
    (x, y), (to_x, to_y) = ([float(number) for number in numbers] for _, *numbers in dots)
    assert to_x - x > 20 < y - to_y
    assert [y, to_y] == pytest.approx(np.interp([x, to_x], xs, ys), abs=1)


def test_details_of_a_question_that_was_left_are_not_computed(pictures, monkeypatch):
    visit = session_of(pictures).visit("a")
    visit.set("thickness", 2.0)
    reply = visit.ask()
    monkeypatch.setattr(visit, "_paths", lambda _: pytest.fail("the question was left before"))
    asked = []

    def left(_):
        # Another thread asks; it has to wait until these details pause.
        thread = threading.Thread(target=lambda: asked.append(visit.ask()), daemon=True)
        visit.set("thickness", 3.0)
        thread.start()
        while visit.is_current(reply):
            thread.join(0.001)
        assert not asked
        yield
        thread.join(60)
        pytest.fail("details went on after the question was left")

    monkeypatch.setattr(visit, "_uncertainty", left)
    assert visit.details(reply) is None
    while not asked:
        time.sleep(0.001)
    assert asked[0].scene.values["thickness"] == 3.0
    assert visit.reply is asked[0]
    assert not visit.history


def test_an_answer_goes_before_the_details_of_another_visitor():
    turns, order = Turns(), []

    def take(name, is_urgent):
        with turns.take(is_urgent):
            order.append(name)

    with turns.take(is_urgent=False):
        threads = []
        for name in ("details", "more details", "answer"):
            threads.append(threading.Thread(target=take, args=(name, name == "answer")))
            threads[-1].start()
        while turns._urgent == 0:
            time.sleep(0.001)
        assert not order
    for thread in threads:
        thread.join(60)
    assert order[0] == "answer"
    assert len(order) == 3


def test_a_computation_that_fails_ends_its_turn():
    turns = Turns()
    with pytest.raises(ValueError, match="failed"), turns.take(is_urgent=True):
        raise ValueError("failed")
    with turns.take(is_urgent=False):
        pass


def test_a_turn_within_a_turn_is_an_error_and_not_a_wait_for_ever():
    turns, ended = Turns(), threading.Event()

    def nest():
        with (
            turns.take(is_urgent=False),
            pytest.raises(RuntimeError, match="has the turn already"),
            turns.take(is_urgent=True),
        ):
            pass
        with turns.take(is_urgent=True):
            ended.set()

    # In a thread that may wait for ever, so that the test does not.
    threading.Thread(target=nest, daemon=True).start()
    assert ended.wait(timeout=10)


def test_the_noise_of_visitors_and_of_rows_is_not_mixed(pictures):
    session = session_of(pictures)
    first, second = session.visit("a"), session.visit("b")
    second.choose(3)
    for visit in (first, second):
        visit.set("thickness", 2.0)
    together = [visit.ask() for visit in (first, second)]
    details = [visit.details(reply) for visit, reply in zip((first, second), together, strict=True)]
    for row, reply, found in zip((0, 3), together, details, strict=True):
        alone = session_of(pictures).visit("c")
        alone.choose(row)
        alone.set("thickness", 2.0)
        assert alone.ask().scene.values == reply.scene.values
        assert alone.reply.scene.pictures == reply.scene.pictures
        deviations = alone.details(alone.reply).deviations
        assert torch.equal(deviations["image"], found.deviations["image"])
    assert together[0].scene.pictures != together[1].scene.pictures


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


def test_commands_and_programs_open_the_model_as_it_was():
    files = [Path("a.ckpt"), Path("b.ckpt")]
    programs = Programs(files, Path("data"), ["mine"], ["0.3", "0.7"], seed=5)
    assert programs.command("x=1", 3) == (
        "deepscm counterfactual --ckpt_path a.ckpt b.ckpt --weights 0.3 0.7 --trust mine "
        "--data.root data --seed 5 --do x=1 --index 3 --out answers"
    )
    assert programs.python("x=1", 3) == (
        "from deepscm_pl import load\n\n"
        "model = load(['a.ckpt', 'b.ckpt'], trust=['mine'], weights=[0.3, 0.7])\n"
        "factual = model.observations([3], root='data')\n"
        "answer = model.counterfactual(factual, 'x=1', seed=5)\nprint(answer)\n"
    )
    stacked = Programs(files, weights=["validation"]).python("x=1", 3)
    assert "model = load(['a.ckpt', 'b.ckpt']).stacked()\n" in stacked


def test_interventions_of_a_link_act_together(pictures):
    visit = session_of(pictures).visit("a")
    visit.follow("?index=3&do=thickness%3D2&do=intensity%3D90")
    assert visit.do == {"thickness": 2.0, "intensity": 90.0}


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
        ("?index=1&index=2", "number of a row, but got 1 and 2"),
        ("?index=1&do=thickness%3D2&do=thickness%3D3", "thickness"),
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
    for value in range(20):
        visit._remember(Question(visit.observation, {"thickness": float(value)}))
    assert [each.do["thickness"] for each in visit.history] == [*range(19, 7, -1)]


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


def test_shares_begin_with_the_most_frequent_class():
    found = session._shares(torch.tensor([1.0, 2, 2, 1, 2])[:, None, None])
    assert list(found.items()) == [(2, 0.6), (1, 0.4)]
