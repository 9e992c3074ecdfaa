"""Verdicts: good models are good, untrained ones are bad, and each limit is where it is stated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache, partial

import pytest
import torch

from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.evaluation.association import AssociationRow
from deepscm_pl.evaluation.best_constant import (
    constant_image_log_probs,
    constant_scalar_log_probs,
)
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.mechanism_fit import Convergence, MechanismFit, evaluate_mechanisms
from deepscm_pl.evaluation.noise import NoiseResult, NoiseStatistics
from deepscm_pl.evaluation.overlap import OverlapResult
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.evaluation.reaction import CauseReaction, ReactionResult
from deepscm_pl.evaluation.results import (
    CounterfactualResult,
    CoverageEstimates,
    EffectivenessEstimates,
    ErrorEstimates,
    ImageErrors,
    IntervalEstimates,
    MeasurementErrors,
)
from deepscm_pl.evaluation.run import Evaluation
from deepscm_pl.evaluation.verdict import Judgement, Verdict, VerdictThresholds, judge, worst
from deepscm_pl.likelihoods import FixedVarianceGaussian
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.overlap import OverlapThresholds
from deepscm_pl.reaction import ImageReaction, ReactionThresholds
from deepscm_pl.reports import Report
from deepscm_pl.reports.verdict import changed_limits, verdict_lines, verdict_markdown
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

from oracle import Black, Photograph, Picture, Timid, make
from tiny import KnownTinyDataModule, draw, image_mechanism

QUESTIONS = ["thickness=5", "intensity-=5"]


@cache
def judged(picture=Picture, count=2):
    """The report on a model of the tiny world, with the first of the questions."""
    data, scm = KnownTinyDataModule(test_size=40), make(picture)
    scm.fit({name: data.variables("train")[name].double() for name in scm.graph})
    model = ModelOnData.of(scm, data)
    settings = EvaluationSettings(
        QUESTIONS[:count], num_particles=19, density_size=20, workers=1, overlap_rows=0
    )
    return Report(model, evaluate(model, settings, progress=False))


def of(judgement, subject, criterion):
    return [v for v in judgement.subjects[subject] if v.criterion == criterion]


def test_the_true_model_is_good():
    report = judged()
    found = report.judgement
    assert found.grade == "good"
    for cause in ("thickness", "intensity"):
        (reacts,) = [v for v in of(found, "image", "reacts") if f"reacts to {cause}" in v.reason]
        assert reacts.figure == pytest.approx(1, abs=0.1)
        assert "measured in the images" in reacts.reason
    questions = [subject for subject in found.subjects if subject.startswith("do(")]
    assert len(questions) == len(QUESTIONS)
    for subject in questions:
        # Only a wider bar shows pixels that the factual image hides.
        expected = "good" if "thickness = 5" in subject else "unknown"
        assert worst(of(found, subject, "calibrated")) in ("good", expected)
        assert worst(of(found, subject, "supported")) != "bad", found.subjects[subject]
    assert not report.verdicts


@pytest.mark.parametrize("picture", [Photograph, Black])
def test_an_image_that_ignores_its_causes_is_bad(picture):
    found = judged(picture, 1).judgement
    assert found.grade == "bad"
    assert found.headline.startswith("do not rely on this model")
    said = [v for v in of(found, "image", "reacts") if "thickness" in v.reason]
    assert [v.word for v in said] == ["does not react"]
    assert said[0].figure < said[0].threshold == 0.1
    (against_truth,) = of(found, "do(thickness = 5 pixels)", "better than no model")
    assert against_truth.grade == "bad"


def test_particles_that_are_all_the_same_are_overconfident():
    found = judged(Timid, 1).judgement
    (said,) = of(found, "do(thickness = 5 pixels)", "calibrated")
    assert (said.word, said.grade) == ("overconfident", "bad")


SCM = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
IMAGE = StructuralCausalModel("a -> image", {"a": AffineFlow, "image": image_mechanism()})


def one(evaluation, subject, criterion, scm=SCM, association=(), thresholds=None):
    (found,) = of(judge(evaluation, scm, association, thresholds), subject, criterion)
    return found


def evaluation(**parts):
    return Evaluation(100, 100, 19, None, **parts)


def gain(mean, error=0.001):
    return Estimate(mean, error, 100)


@pytest.mark.parametrize(
    ("gains", "grade", "word"),
    [
        ({"over_parentless": gain(0.5)}, "good", "better"),
        ({"over_parentless": gain(0.0101)}, "good", "better"),
        ({"over_parentless": gain(0.0099)}, "doubtful", "no better"),
        ({"over_parentless": gain(0.2, 0.11)}, "doubtful", "perhaps better"),
        ({"over_parentless": gain(-0.02)}, "bad", "worse"),
        ({"over_parentless": gain(0.5), "over_linear": gain(-0.11)}, "doubtful", "better"),
        ({"over_parentless": gain(0.5), "over_linear": gain(-0.09)}, "good", "better"),
        ({"over_parentless": gain(0.0), "over_linear": gain(-0.5)}, "bad", "no better"),
        ({"over_parentless": gain(0.0), "nonlinear": gain(0.5)}, "bad", "no better"),
        ({"over_parentless": gain(0.0), "nonlinear": gain(0.05)}, "doubtful", "no better"),
        ({"over_parentless": gain(0.5), "over_constant": gain(-0.2)}, "bad", "worse"),
        ({"over_parentless": gain(0.5), "over_constant": gain(-0.05)}, "doubtful", "worse"),
        ({"over_constant": gain(0.005)}, "good", "as good"),
        ({"over_constant": gain(0.3)}, "good", "better"),
        ({"over_constant": gain(-0.3)}, "bad", "worse"),
        ({"over_constant": gain(-0.3, 0.2)}, "good", "as good"),
    ],
)
def test_limits_of_scalar_mechanisms(gains, grade, word):
    fit = MechanismFit("b", ("a",), gain(-1.0), **gains)
    found = one(evaluation(mechanisms=[fit]), "b", "better than no model")
    assert (found.grade, found.word) == (grade, word)
    assert found.threshold == 0.01


@pytest.mark.parametrize(
    ("nats", "bits", "grade"), [(10.0, 3.0, "good"), (0.4, 3.0, "bad"), (-5.0, 3.0, "bad"),
                                (10.0, 8.0, "doubtful")],
)  # fmt: skip
def test_limits_of_image_mechanisms(nats, bits, grade):
    """0.4 nats of 64 pixels are 0.009 bits per dimension, less than the limit."""
    fit = MechanismFit(
        "image", ("a",), gain(-1.0), gain(1.0), over_constant=gain(nats), features=64
    )
    row = AssociationRow("bits_per_dimension/image", "", "bits", gain(bits))
    found = one(evaluation(mechanisms=[fit]), "image", "better than no model", IMAGE, [row])
    assert found.grade == grade
    assert found.figure == pytest.approx(nats / 64 / math.log(2))
    unused = MechanismFit(
        "image", ("a",), gain(-1.0), gain(0.0), over_constant=gain(10.0), features=64
    )
    found = one(evaluation(mechanisms=[unused]), "image", "better than no model", IMAGE)
    assert found.grade == "doubtful"
    assert "its own parents" in found.reason


def test_gains_of_images_have_their_standard_error_in_bits():
    fit = MechanismFit("image", (), gain(-1.0), over_constant=gain(0.6, 0.2), features=64)
    found = one(evaluation(mechanisms=[fit]), "image", "better than no model", IMAGE)
    assert found.grade == "good"
    assert "0.01 ± 0.00 bits per dimension" in found.reason


def test_the_lower_bound_of_bits_is_compared_with_uniform_levels():
    found = {"bits_per_dimension/image": 9, "recorded_bits_per_dimension/image": 7}
    rows = [AssociationRow(key, "", "bits", gain(bits)) for key, bits in found.items()]
    fit = MechanismFit("image", (), gain(-1.0), over_constant=gain(10.0), features=64)
    for order in (rows, rows[::-1]):
        found = one(evaluation(mechanisms=[fit]), "image", "better than no model", IMAGE, order)
        assert found.grade == "good"


def test_more_bits_than_uniform_levels_are_bad_without_a_constant_to_compare_with():
    row = AssociationRow("bits_per_dimension/image", "", "bits", gain(133.0))
    found = one(evaluation(), "image", "better than no model", IMAGE, [row])
    assert found.grade == "bad"
    assert "133 bits per dimension, where uniform grey levels have 8" in found.sentence


@pytest.mark.parametrize(
    ("course", "grade", "figure"),
    [
        (Convergence(20, 0.0199, 0.001), "good", 0.0199),
        (Convergence(20, 0.0201, 0.001), "doubtful", 0.0201),
        (Convergence(20, -0.5, 0.1), "doubtful", -0.5),
        (Convergence(20, 0.1, 0.06), "good", 0.1),
        (Convergence(1), "unknown", None),
    ],
)
def test_limits_of_the_convergence(course, grade, figure):
    fit = MechanismFit("a", (), gain(-1.0), convergence=course)
    found = one(evaluation(mechanisms=[fit]), "a", "converged")
    assert (found.grade, found.figure) == (grade, figure)
    assert found.threshold == (None if figure is None else max(0.02, 2 * course.standard_error))
    assert found.reason == course.words


def test_a_linear_mechanism_below_its_own_fitted_form_has_not_converged():
    flat = Convergence(20, 0.001, 0.001)

    def judged(lost, course=flat):
        fit = MechanismFit(
            "b", ("a",), gain(-1.0), gain(0.5), gain(-lost), gain(0.0), convergence=course
        )
        return one(evaluation(mechanisms=[fit]), "b", "converged")

    assert (judged(0.021).word, judged(0.021).grade) == ("stopped early", "doubtful")
    assert (judged(0.021).figure, judged(0.021).threshold) == (0.021, 0.02)
    assert "larger learning rate" in judged(0.021).reason
    assert (judged(0.019).word, judged(0.019).grade) == ("converged", "good")
    assert judged(0.021, Convergence(20, 0.5, 0.1)).word == "still rising"


def test_large_rises_are_written_in_full():
    assert "by 2500 nats" in Convergence(20, 2512.0, 1.0).words
    assert "by 0.021 nats" in Convergence(20, 0.0211, 0.001).words


@pytest.mark.parametrize(
    ("distance", "p_value", "correlation", "grade"),
    [
        (0.05, 0.0001, 0.0, "good"),
        (0.06, 0.01, 0.0, "good"),
        (0.06, 0.009, 0.0, "doubtful"),
        (0.1, 0.009, 0.0, "bad"),
        (0.02, 0.5, 0.11, "doubtful"),
        (0.02, 0.5, -0.09, "good"),
        (0.2, None, 0.0, "bad"),
        (0.09, 0.5, 0.0, "good"),
        (0.1, 0.5, 0.0, "unknown"),
    ],
)
def test_limits_of_noise(distance, p_value, correlation, grade):
    statistics = NoiseStatistics(
        distance, p_value, 0.0, 1.0, correlations={"a": correlation}, correlation_by_chance=0.05
    )
    noise = NoiseResult("b", "u", 100, 0, 1, statistics, torch.zeros(2))
    assert one(evaluation(noise=[noise]), "b", "calibrated").grade == grade


@pytest.mark.parametrize(("by_chance", "grade"), [(0.19, "doubtful"), (0.21, "good")])
def test_correlations_of_noise_count_beyond_chance(by_chance, grade):
    statistics = NoiseStatistics(
        0.02, 0.5, 0.0, 1.0, correlations={"a": 0.2}, correlation_by_chance=by_chance
    )
    noise = NoiseResult("b", "u", 100, 0, 1, statistics, torch.zeros(2))
    assert one(evaluation(noise=[noise]), "b", "calibrated").grade == grade


def test_noise_of_too_few_rows_is_unknown():
    noise = NoiseResult("b", "u", 1, 0, 1, NoiseStatistics(), torch.zeros(2))
    assert one(evaluation(noise=[noise]), "b", "calibrated").grade == "unknown"


def reaction(cause=None, measured=None):
    causes = {} if cause is None else {"a": cause}
    return ReactionResult("image", causes, [], None, [], [], measured, ReactionThresholds())


@pytest.mark.parametrize(
    ("share", "word", "grade"),
    [
        (0.0999, "does not react", "bad"),
        (0.1, "hardly reacts", "doubtful"),
        (0.4999, "hardly reacts", "doubtful"),
        (0.5, "reacts", "good"),
        (1.5, "reacts", "good"),
        (1.51, "exaggerates", "doubtful"),
        (-0.2, "does not react", "bad"),
    ],
)
def test_limits_of_the_reaction(share, word, grade):
    read = CauseReaction(gain(0.5), response=gain(share))
    found = one(evaluation(reaction=reaction(read)), "image", "reacts", IMAGE)
    assert (found.word, found.grade) == (word, grade)
    assert "read by a predictor" in found.reason
    # What a known world measures takes precedence.
    error = MeasurementErrors(gain(1.0), gain(1.0), gain(0.0))
    shown = {"a": EffectivenessEstimates(error, shown=gain(share))}
    answered = CounterfactualResult(Question("a=3"), 100, 0, effectiveness=shown)
    other = CauseReaction(gain(0.5), response=gain(0.7))
    both = evaluation(reaction=reaction(other), counterfactuals=[answered])
    found = one(both, "image", "reacts", IMAGE)
    assert (found.word, found.grade) == (word, grade)
    assert "measured in the images" in found.reason


def test_shares_of_several_questions_are_weighted_by_their_rows():
    error = MeasurementErrors(gain(1.0), gain(1.0), gain(0.0))
    answered = [
        CounterfactualResult(
            Question(f"a={rows}"),
            100,
            0,
            effectiveness={"a": EffectivenessEstimates(error, shown=Estimate(share, 0.01, rows))},
        )
        for share, rows in ((1.0, 30), (0.0, 10))
    ]
    found = one(
        evaluation(reaction=reaction(CauseReaction(gain(0.5))), counterfactuals=answered),
        "image",
        "reacts",
        IMAGE,
    )
    assert found.figure == pytest.approx(0.75)


def test_changes_of_pixels_show_no_reaction_but_its_absence():
    for change, grade in ((0.0199, "bad"), (0.02, "unknown")):
        cause = CauseReaction(gain(change))
        assert one(evaluation(reaction=reaction(cause)), "image", "reacts", IMAGE).grade == grade


def test_an_image_does_not_react_to_what_is_no_cause_of_it():
    measured = ImageReaction("image", {"b": 0.0}, frozenset("a"))
    answered = CounterfactualResult(Question("b=3"), 100, 0)
    found = evaluation(reaction=reaction(measured=measured), counterfactuals=[answered])
    said = one(found, "image", "reacts", IMAGE)
    assert (said.word, said.grade, said.threshold) == ("does not react", "doubtful", 0.02)
    assert "no path between them in the graph" in said.reason


@pytest.mark.parametrize(
    ("noise", "latent", "grade"),
    [(0.9, 0.5, "bad"), (0.89, 0.5, "good"), (0.1, 0.019, "doubtful"), (0.09, 0.019, "good")],
)
def test_limits_of_pixel_noise(noise, latent, grade):
    measured = ImageReaction("image", {}, frozenset(), latent, noise)
    found = one(evaluation(reaction=reaction(measured=measured)), "image", "reacts", IMAGE)
    assert (found.grade, found.figure) == (grade, noise)


@pytest.mark.parametrize(
    ("ratio", "stranger", "grade"),
    [(0.5, 1.2, "good"), (0.89, 1.2, "good"), (0.9, 1.2, "doubtful"), (1.0, 1.2, "bad"),
     (0.5, 0.4, "doubtful")],
)  # fmt: skip
def test_limits_of_the_error_against_the_truth(ratio, stranger, grade):
    errors = ImageErrors(ratio=ErrorEstimates(particle=gain(ratio), stranger=gain(stranger)))
    answered = CounterfactualResult(Question("a=3"), 100, 0, errors)
    found = one(evaluation(counterfactuals=[answered]), "do(a = 3)", "better than no model")
    assert found.grade == grade
    assert found.question == "a=3"


@pytest.mark.parametrize(
    ("covered", "word", "grade"),
    [
        (0.9, "calibrated", "good"),
        (0.851, "calibrated", "good"),
        (0.84, "overconfident", "doubtful"),
        (0.74, "overconfident", "bad"),
        (0.96, "underconfident", "doubtful"),
    ],
)
def test_limits_of_coverage(covered, word, grade):
    particles = CoverageEstimates(varying={0.9: gain(covered)})
    answered = CounterfactualResult(Question("a=3"), 100, 0, coverage=particles)
    found = one(evaluation(counterfactuals=[answered]), "do(a = 3)", "calibrated")
    assert (found.word, found.grade) == (word, grade)
    intervals = IntervalEstimates(covered_varying=gain(covered), width=gain(30.0))
    other = CoverageEstimates(varying={0.9: gain(0.1)})
    answered = CounterfactualResult(Question("a=3"), 100, 0, coverage=other, intervals=intervals)
    found = one(evaluation(counterfactuals=[answered]), "do(a = 3)", "calibrated")
    assert (found.word, found.grade) == (word, grade)
    assert "30 grey levels wide" in found.reason
    for width, expected in ((127.0, grade), (128.0, "bad")):
        wide = replace(answered, intervals=replace(intervals, width=gain(width)))
        found = one(evaluation(counterfactuals=[wide]), "do(a = 3)", "calibrated")
        assert found.grade == expected


@pytest.mark.parametrize(
    ("covered", "error", "word", "grade"),
    [
        (0.84, 0.029, "overconfident", "doubtful"),
        (0.84, 0.031, "calibrated", "good"),
        (0.74, 0.079, "overconfident", "bad"),
        (0.74, 0.081, "unknown", "unknown"),
        (0.84, math.nan, "overconfident", "doubtful"),
    ],
)
def test_coverage_by_chance(covered, error, word, grade):
    """Coverage of few rows is not wrong if it is within two standard errors."""
    particles = CoverageEstimates(varying={0.9: gain(covered, error)})
    answered = CounterfactualResult(Question("a=3"), 100, 0, coverage=particles)
    found = one(evaluation(counterfactuals=[answered]), "do(a = 3)", "calibrated")
    assert (found.word, found.grade) == (word, grade)
    assert ("no further from 90 % than by chance" in found.reason) == (error in (0.031, 0.081))


def supported(first):
    """The judgement of support of 100 answers, of which the first ones have these verdicts."""
    verdicts = torch.zeros(100, dtype=torch.long)
    verdicts[: len(first)] = torch.tensor(first)
    overlap = OverlapResult(OverlapThresholds(), {"a=3": verdicts})
    answered = CounterfactualResult(Question("a=3"), 100, 0)
    return one(evaluation(counterfactuals=[answered], overlap=overlap), "do(a = 3)", "supported")


@pytest.mark.parametrize(
    ("extrapolated", "grade"), [(4, "good"), (5, "doubtful"), (49, "doubtful"), (50, "bad")]
)
def test_limits_of_support(extrapolated, grade):
    found = supported([2] * extrapolated)
    assert (found.grade, found.figure) == (grade, extrapolated / 100)


@pytest.mark.parametrize(("edge", "words"), [(49, "supported"), (50, "supported, 50 % are at")])
def test_answers_at_the_edge_are_named_if_they_are_many(edge, words):
    found = supported([1] * edge)
    assert found.grade == "good"
    assert found.reason.partition(" the edge")[0] == words


def test_limits_can_be_chosen_and_are_checked():
    fit = MechanismFit("a", (), gain(-1.0), over_constant=gain(-0.05))
    parts = evaluation(mechanisms=[fit])
    assert one(parts, "a", "better than no model").grade == "doubtful"
    strict = VerdictThresholds(large_gain=0.05)
    assert one(parts, "a", "better than no model", thresholds=strict).grade == "bad"
    chosen = replace(parts, thresholds=strict)
    assert one(chosen, "a", "better than no model").grade == "bad"
    assert judge(chosen, SCM).thresholds == EvaluationSettings(verdict=strict).verdict == strict
    assert changed_limits(judge(chosen, SCM)).endswith(": verdict.large_gain = 0.05 (0.1).")
    assert changed_limits(judge(parts, SCM)) == ""


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"gain": -1}, "gain: expected a number of at least 0, but got -1"),
        ({"width": math.nan}, "width: expected"),
        ({"p_value": 1.1}, "p_value: expected a number of at least 0 and of at most 1"),
        ({"error": 1.2}, r"error: expected at most useless \(1\), but got 1.2; set both"),
        ({"shown": 2}, r"shown: expected at most exaggerated \(1.5\)"),
        ({"mostly_extrapolated": 0}, r"extrapolated: expected at most mostly_extrapolated \(0\)"),
    ],
)
def test_senseless_limits_are_refused(limits, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        VerdictThresholds(**limits)


def test_the_grade_is_that_of_the_worst_variable():
    def said(subject, grade, question=""):
        return Verdict(subject, "x", question, "reacts", "", grade, None, None, "")

    assert Judgement([said("x", "good"), said("y", "doubtful")]).grade == "doubtful"
    assert Judgement([said("x", "good"), said("q", "bad", "a=1")]).grade == "bad"
    both = [said("x", "good"), said("q", "bad", "a=1"), said("r", "good", "a=2")]
    assert Judgement(both).grade == "good"
    assert "1 of 3 are bad" in Judgement(both).headline
    assert Judgement([said("x", "unknown")]).grade == "unknown"


def test_an_untrained_table_is_bad_and_a_fitted_one_good():
    """Standardisation alone is the best distribution without parents."""
    torch.manual_seed(0)
    a = torch.randn(600, 1)
    columns = {"a": a, "b": 2 * a + 0.5 * torch.randn(600, 1)}
    rows = {name: value[:300] for name, value in columns.items()}
    others = {name: value[300:] for name, value in columns.items()}
    scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": partial(AffineFlow, hidden=())})
    scm.fit(rows)
    model = ModelOnData(scm, others, None, None, training=rows)
    fits = evaluate_mechanisms(model, {"a": [-1.4], "b": [-2.0]}, progress=False)
    found = judge(evaluation(mechanisms=fits), scm)
    assert found.grade == "bad"
    assert one(evaluation(mechanisms=fits), "b", "converged").grade == "unknown"
    (said,) = of(found, "b", "better than no model")
    assert "fitted linear form gains" in said.reason
    optimizer = torch.optim.Adam(scm.parameters(), lr=0.1)
    for _ in range(100):
        loss = -scm.elbo(rows).bound.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fits = evaluate_mechanisms(model, progress=False)
    assert judge(evaluation(mechanisms=fits), scm).grade == "good"


def test_the_best_constant_of_scalars():
    torch.manual_seed(0)
    value = 3 + 2 * torch.randn(5000, 1)
    found = constant_scalar_log_probs(Domain(), value, value).mean()
    entropy = 0.5 * math.log(2 * math.pi * math.e * 4)
    assert found == pytest.approx(-entropy, abs=0.03)
    counts = torch.tensor([[2.0], [2.0], [4.0]])
    whole = constant_scalar_log_probs(Domain(whole=True), counts, torch.tensor([[2.0], [3.0]]))
    assert whole.exp().tolist() == pytest.approx([3 / 6, 1 / 6])
    steps = constant_scalar_log_probs(Domain(step=0.5), counts / 2, torch.tensor([[1.0]]))
    assert steps.exp().item() == pytest.approx(3 / 6)
    assert constant_scalar_log_probs(Domain(), torch.zeros(9, 1), value) is None
    doses = torch.where(value > 3, value, 0.0)
    assert constant_scalar_log_probs(Domain(), doses, doses) is None


def test_the_best_constant_of_images_is_that_of_its_likelihood():
    """A decoder without weights that is fitted by hand has the same bound."""
    torch.manual_seed(0)
    likelihood = partial(FixedVarianceGaussian, log_variance=-1)
    factory = image_mechanism(likelihood=likelihood)
    scm = StructuralCausalModel("a; image", {"a": AffineFlow, "image": factory})
    images = draw(100, seed=1)["image"]
    mechanism = scm["image"]
    before = {name: value.clone() for name, value in mechanism.state_dict().items()}
    with torch.inference_mode():
        found = constant_image_log_probs(mechanism, images, images).mean()
    processed = mechanism.preprocessing(images.double() + 0.5)
    jacobian = mechanism.preprocessing.log_abs_det_jacobian(images.double() + 0.5, processed)
    normal = torch.distributions.Normal(processed.mean(dim=0), math.exp(-0.5))
    expected = (normal.log_prob(processed) + jacobian).flatten(1).sum(1).mean()
    assert found == pytest.approx(expected.item(), rel=0.01)
    assert all(torch.equal(before[name], each) for name, each in mechanism.state_dict().items())
    assert constant_image_log_probs(make()["image"], images, images) is None


def test_reasons_begin_with_the_worst():
    grades = ("good", "unknown", "bad", "doubtful")
    found = Judgement([Verdict("x", "x", "", "reacts", each, each, 0, 0, each) for each in grades])
    assert verdict_lines(found)[1].split() == ["x", "bad", "bad;", "doubtful;", "unknown;", "good"]
    assert verdict_markdown(found).endswith("*bad*. bad; doubtful; unknown; good.")


def test_the_verdict_is_data_in_json_and_lines_on_a_terminal(tmp_path):
    report = judged(Black, 1)
    report.write(tmp_path / "evaluation")
    plain = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["verdict"]
    assert plain["grade"] == "bad"
    assert plain["thresholds"]["shown"] == 0.5
    assert plain["thresholds"]["reaction"]["response"] == 0.1
    assert len(plain["verdicts"]) == len(report.judgement.verdicts)
    wanted = {"variable", "question", "word", "figure", "threshold", "sentence"}
    assert all(wanted <= each.keys() for each in plain["verdicts"])
    for width in (60, 120):
        lines = verdict_lines(report.judgement, width)
        assert lines[0].startswith("Verdict: bad – do not rely on this model")
        assert max(map(len, lines[1:])) <= max(width, 90)
    assert any("does not react to thickness" in line for line in lines)


def test_classes_that_are_shown_are_counted():
    """By `_share_shown`: images of classes show another class or they do not."""
    from deepscm_pl.evaluation.counterfactuals import _share_shown

    asked, factual = torch.tensor([1.0, 1.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, 0.0, 0.0])
    measured = torch.tensor([1.0, 0.0, 0.0, math.nan])
    assert _share_shown(measured, asked, factual, True).mean == pytest.approx(1 / 3)
    assert _share_shown(measured, factual, factual, True) is None
    double = torch.tensor([2.0, 2.0, 0.0, math.nan])
    assert _share_shown(double, asked, factual, False).mean == pytest.approx(4 / 6)
