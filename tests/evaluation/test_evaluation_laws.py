"""What an evaluation must say of models that are right, or wrong in a known way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from world_columns import log_prob

from deepscm_pl.evaluation import EvaluationSettings, Subject, evaluate
from deepscm_pl.evaluation.counterfactuals import (
    check_originals,
    evaluate_counterfactuals,
    true_counterfactuals,
)
from deepscm_pl.evaluation.noise import evaluate_noise
from deepscm_pl.evaluation.questions import Question, default_questions, short_quantiles
from deepscm_pl.evaluation.run import check_questions
from deepscm_pl.reports import Report
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

from oracle import (
    Black,
    Drifting,
    Intensity,
    IntensityAlone,
    Photograph,
    Picture,
    Thickness,
    Timid,
    make,
)
from tiny import KnownTinyDataModule, TinyWorld

KNOWN = ["thickness=1.5", "thickness=1.5, intensity=96", "intensity=224", "intensity+=1"]
"""Interventions that show nothing that the factual hides: their truth is determined."""


def subject_of(scm, test_size=40, **settings):
    return Subject.of(scm, KnownTinyDataModule(test_size=test_size, **settings))


def run(scm, interventions, test_size=40, classifier=None, **settings):
    found = evaluate(
        subject_of(scm, test_size),
        EvaluationSettings(
            interventions,
            workers=1,
            **{"num_particles": 3, "batch_size": 16, "density_size": 500, **settings},
        ),
        classifier,
        progress=False,
    )
    return found, {each.question.text: each for each in found.counterfactuals}


def thin_rows(subject, limit):
    """The rows of a subject whose thickness is above ``limit``, so that thinner is determined."""
    return (subject.variables["thickness"].squeeze(-1) > limit).numpy()


@pytest.fixture(scope="module")
def oracle():
    return run(make(), KNOWN)


def test_the_truth_scores_no_error(oracle):
    for text in KNOWN:
        quantities = oracle[1][text].quantities
        if "thickness" in text:  # some rows are thinner than what is asked, and show more of it
            continue
        assert quantities["error/mean_absolute_error/particle"].mean == 0, text
        assert quantities["particles/mean_absolute_error/particle_mean"].mean == 0, text
        assert quantities["error/structural_similarity/particle"].mean == pytest.approx(1), text
        assert quantities["error/mean_absolute_error/factual"].mean > 0.01, text


def test_the_truth_of_thinner_images_scores_no_error():
    data = KnownTinyDataModule(test_size=60)
    rows = thin_rows(Subject.of(make(), data), 2.0)
    whole = Subject.of(make(), data)
    subject = Subject(
        whole.scm,
        {name: value[rows] for name, value in whole.variables.items()},
        whole.world,
        whole.originals[rows],
    )
    found = evaluate(
        subject,
        EvaluationSettings(
            ["thickness=2", "thickness=2, intensity=96"],
            workers=1,
            num_particles=2,
            density_size=50,
        ),
        progress=False,
    )
    for each in found.counterfactuals:
        assert each.rows == rows.sum() > 30
        assert each.quantities["error/mean_absolute_error/particle"].mean == 0
        assert each.quantities["error/ratio/particle"].mean == 0
        # Another texture in the same shape is wrong wherever the texture shows.
        assert each.quantities["error/mean_absolute_error/stranger"].mean > 5
        assert each.quantities["minimality/ratio"].mean == pytest.approx(1)


def test_the_truth_is_as_effective_as_the_measurement_allows(oracle):
    for text in KNOWN:
        quantities = oracle[1][text].quantities
        for name, rounding in (("thickness", 0.1), ("intensity", 0.5)):
            prefix = f"effectiveness/{name}"
            error = quantities[f"{prefix}/intended/absolute_error"].mean
            floor = quantities[f"{prefix}/noise_floor/absolute_error"].mean
            assert error <= rounding, (text, name)
            assert error == pytest.approx(floor, abs=1e-6), (text, name)
            assert quantities[f"{prefix}/intended/unmeasurable"].mean == 0
    # Thickness moves intensity, which the model and the world agree on; not the other way round.
    prefix = "effectiveness/intensity/true/absolute_error"
    assert oracle[1]["thickness=1.5"].quantities[prefix].mean <= 0.5
    assert oracle[1]["thickness=1.5"].quantities["attribute_error/intensity"].mean < 1e-4
    assert prefix not in oracle[1]["intensity=224"].quantities


def test_the_truth_is_covered_as_often_as_it_should():
    found = run(make(), ["thickness=7.5"], test_size=200, num_particles=7, detail_rows=200)[1]
    result = found["thickness=7.5"]
    assert list(result.coverage.varying) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]  # 7 span 6/8
    for level, covered in result.coverage.varying.items():
        assert covered.mean == pytest.approx(level, abs=4 * covered.standard_error)
        assert covered.standard_error < 0.02
    # The mean of particles is a better guess of what is hidden than one of them.
    ratio = result.particles.ratio
    assert ratio.particle_mean.mean < 0.9 * ratio.particle.mean


def test_particles_that_agree_are_too_sure():
    quantities = run(make(Timid), ["thickness=7.5"], num_particles=19)[1][
        "thickness=7.5"
    ].quantities
    assert quantities["coverage/varying/0.9"].mean < 0.5


def test_a_truth_beyond_all_particles_is_never_covered():
    """At no level that is reported, whatever the number of particles."""
    for particles in (2, 4, 19):
        found = run(make(Photograph), ["thickness=7.5"], num_particles=particles)[1]
        covered = found["thickness=7.5"].coverage.varying
        assert len(covered) == {2: 3, 4: 6, 19: 9}[particles]
        assert {each.mean for each in covered.values()} == {0.0}


def test_a_model_that_ignores_the_intervention_is_worth_the_factual():
    found = run(make(Photograph), ["thickness=1.5", "thickness=7", "intensity=96"])[1]
    for text, each in found.items():
        quantities = each.quantities
        for kind in ("error/ratio/particle", "particles/ratio/particle_mean"):
            assert quantities[kind].mean == pytest.approx(1), text
        assert quantities["minimality/ratio"].mean == 0
        assert quantities["minimality/truth"].mean > 1
    # It shows the factual thickness, wherever it was asked for another.
    data = KnownTinyDataModule(test_size=40).variables("test")
    missed = (data["thickness"] - 7).abs().mean().item()
    error = found["thickness=7"].quantities["effectiveness/thickness/intended/absolute_error"].mean
    assert error == pytest.approx(missed, abs=0.1)


def test_a_model_without_the_edge_is_told_so():
    scm = make(
        intensity=IntensityAlone, graph="thickness; intensity; thickness, intensity -> image"
    )
    found, answers = run(scm, ["thickness=1.5"], test_size=300, density_size=2000)
    quantities = answers["thickness=1.5"].quantities
    prefix = "effectiveness/intensity"
    # The image shows what the model intended, which is not what is true.
    assert quantities[f"{prefix}/intended/absolute_error"].mean <= 0.5
    assert quantities[f"{prefix}/true/absolute_error"].mean > 20
    assert quantities["attribute_error/intensity"].mean > 20
    noise = {each.variable: each for each in found.noise}["intensity"]
    assert noise.quantities["correlation/thickness"] > 0.7
    assert noise.quantities["p_value"] < 1e-3
    densities = {each.title: each for each in found.densities}
    wrong = [each for title, each in densities.items() if title.startswith("p(intensity | do(")]
    assert max(each.distance for each in wrong) > 20
    conditional = [each for each in densities.values() if not each.done]
    assert max(each.distance for each in conditional) > 0.5


def test_densities_of_the_truth_are_as_close_as_samples_are():
    found, _ = run(make(), ["intensity=96"], density_size=20_000)
    assert len(found.densities) == 9
    titles = [each.title for each in found.densities]
    assert any(title.startswith("p(thickness | intensity = ") for title in titles)
    for each in found.densities:
        scale = 0.05 if each.variable == "thickness" else 1.0
        assert each.distance < scale, each.title
        assert each.floor < scale, each.title


def test_conditional_density_is_bayes_rule():
    """p(t | i) from weighted draws, against the density on a grid."""
    subject = subject_of(make())
    found = evaluate(
        subject,
        EvaluationSettings(
            ["intensity=96"],
            density_values={"intensity": [150.0]},
            density_size=40_000,
            workers=1,
            num_particles=1,
        ),
        progress=False,
    )
    each = next(each for each in found.densities if not each.done)
    grid = np.linspace(1, 6, 2001)[1:-1]
    attributes = {"thickness": grid, "intensity": np.full_like(grid, 150.0)}
    density = np.exp(log_prob(subject.world, attributes)["intensity"])
    expected = (grid * density).sum() / density.sum()
    for sample in (each.model, each.world):
        assert (sample.values @ sample.weights).item() == pytest.approx(expected, abs=0.02)
    done = next(each for each in found.densities if each.done and each.variable == "thickness")
    assert (done.model.values @ done.model.weights).item() == pytest.approx(3.5, abs=0.05)


def test_noise_of_the_truth_is_standard_normal():
    found, _ = run(make(), ["intensity=96"], test_size=400, detail_rows=400)
    assert {(each.variable, each.part) for each in found.noise} == {
        ("thickness", "u"),
        ("intensity", "u"),
        ("image", "u"),
    }
    for each in found.noise:
        assert each.rows == 400
        assert each.quantities["kolmogorov_smirnov"] < 0.08, each.variable
        if each.entries == 1:
            assert each.quantities["p_value"] > 0.01
            assert all(
                abs(v) < 0.15 for k, v in each.quantities.items() if k.startswith("correlation")
            )
    assert found.noise[1].quantities.keys() >= {"correlation/thickness"}


def test_several_rows_of_one_person_count_once_as_noise():
    single = subject_of(make(), test_size=60)
    names = [str(row // 3) for row in range(60)]
    third = {name: value[::3] for name, value in single.variables.items()}
    repeated = replace(
        single,
        variables={name: value.repeat_interleave(3, dim=0) for name, value in third.items()},
        identifiers=names,
    )
    expected, found = (
        {each.variable: each for each in evaluate_noise(each, 20, progress=False)}
        for each in (replace(single, variables=third), repeated)
    )
    for name in ("thickness", "intensity"):
        assert found[name].rows == expected[name].rows == 20
        assert found[name].quantities == pytest.approx(expected[name].quantities)
    assert found["image"].rows == 7
    text = Report(
        repeated,
        evaluate(repeated, EvaluationSettings([], workers=1, density_size=50), progress=False),
    )
    assert text.rows == "60 images of the test split, from 20 subjects"
    assert "noise is that of the first image of each subject" in text.as_markdown()
    assert (
        "subject"
        not in Report(
            single, evaluate(single, EvaluationSettings([], workers=1), progress=False)
        ).rows
    )


def test_null_interventions_and_cycles_return(oracle):
    found, answers = oracle
    for count in (1, 10):
        assert found.composition[count].mean == 0
    for text in ("intensity=224", "intensity+=1"):
        for count in (1, 10):
            key = f"reversibility/mean_absolute_error/{count}"
            assert answers[text].quantities[key].mean == 0, text
    # Thinner and back: what was hidden on the way is drawn anew.
    key = "reversibility/mean_absolute_error/1"
    assert answers["thickness=1.5"].quantities[key].mean > 1


def test_drift_adds_up():
    """A grey level for each drawing: one for a null intervention, two for a cycle."""
    found, answers = run(make(Drifting), ["intensity=224"], num_particles=1)
    share = (KnownTinyDataModule(test_size=40).variables("test")["image"][:, :, 1:] > 0).double()
    shown = share.mean().item() * 7 / 8
    composition = found.composition
    once = composition[1].mean
    assert once == pytest.approx(shown, rel=0.02)
    # A bright pixel stops at 255.
    ten = composition[10].mean
    assert 9 * once < ten <= 10 * once
    cycles = answers["intensity=224"].quantities
    assert cycles["reversibility/mean_absolute_error/1"].mean == pytest.approx(2 * shown, rel=0.02)
    assert cycles["reversibility/mean_absolute_error/10"].mean > 15 * once


def test_identity_is_what_the_classifier_sees():
    def classifier(images):
        return (images[:, 0, 1, 0] >= 128).long()

    found = run(make(), KNOWN, classifier=classifier)[1]
    assert all(each.quantities["identity/kept"].mean == 1 for each in found.values())
    black = run(make(Black), ["intensity=96"], classifier=classifier)[1]["intensity=96"]
    dark = (KnownTinyDataModule(test_size=40).variables("test")["label"] == 0).double().mean()
    assert black.quantities["identity/kept"].mean == pytest.approx(dark.item())
    assert black.quantities["identity/truth"].mean == 1


def test_black_images_are_unmeasurable_and_said_to_be():
    found = run(make(Black), ["intensity=96"])[1]["intensity=96"]
    prefix = "effectiveness/thickness"
    assert found.quantities[f"{prefix}/intended/unmeasurable"].mean == 1
    assert found.quantities[f"{prefix}/noise_floor/unmeasurable"].mean == 0


def test_rows_where_the_intervention_is_impossible_are_left_out():
    data = KnownTinyDataModule(test_size=40)
    intensity = data.variables("test")["intensity"].squeeze(-1)
    found = run(make(), ["intensity-=60"])[1]["intensity-=60"]
    possible = int((intensity - 60 > 64).sum())
    assert 0 < possible < 40
    assert (found.rows, found.left_out) == (possible, 40 - possible)
    assert found.quantities["error/mean_absolute_error/particle"].mean == 0
    assert found.quantities["error/mean_absolute_error/particle"].rows == possible
    nowhere = run(make(), ["intensity-=250"])[1]["intensity-=250"]
    assert (nowhere.rows, nowhere.left_out, nowhere.quantities) == (0, 40, {})


def test_rows_that_are_left_out_leave_the_others_in_their_places():
    """An intervention that thin digits cannot have, and that intensity follows."""
    found = run(make(), ["thickness-=1"])[1]["thickness-=1"]
    assert 0 < found.left_out < 20
    quantities = found.quantities
    assert quantities["error/mean_absolute_error/particle"].mean == 0
    assert quantities["attribute_error/intensity"].mean < 1e-4
    assert quantities["attribute_error/intensity"].rows == found.rows
    for name, kind in (("thickness", "intended"), ("intensity", "intended"), ("intensity", "true")):
        error = quantities[f"effectiveness/{name}/{kind}/absolute_error"]
        floor = quantities[f"effectiveness/{name}/noise_floor/absolute_error"]
        assert error.mean == pytest.approx(floor.mean, abs=1e-6), (name, kind)
        assert error.rows == floor.rows == found.rows


class PictureWithoutIntensity(Picture):
    """Draws every digit in the same intensity."""

    def _seen(self, parents):
        return {**parents, "intensity": torch.full_like(parents["thickness"], 160.0)}

    def forward(self, noise, parents):
        return super().forward(noise, self._seen(parents))


class Alone(Photograph):
    """Without parents."""

    def forward(self, noise, parents):
        return noise["u"]


class AnyIntensity(Intensity):
    """Holds values possible that the world does not."""

    @property
    def domain(self):
        return Domain(lower=0.0, upper=1000.0)


def test_rows_that_are_impossible_in_the_world_alone_are_left_out_too():
    found = run(make(intensity=AnyIntensity), ["intensity+=60"])[1]["intensity+=60"]
    intensity = KnownTinyDataModule(test_size=40).variables("test")["intensity"]
    assert found.rows == int((intensity + 60 < 255).sum())
    assert 0 < found.left_out < 40
    assert found.quantities["error/mean_absolute_error/particle"].mean == 0


def test_misaligned_truth_is_an_error():
    """Rows that do not belong together must show in the number, and stop before it is computed."""
    subject = subject_of(make())
    questions = [Question("intensity=96")]
    truths = true_counterfactuals(subject, questions, 10, workers=1, progress=False)
    aligned = evaluate_counterfactuals(subject, questions, truths, 1, 10, workers=1, progress=False)
    assert aligned[0].quantities["error/mean_absolute_error/particle"].mean == 0
    rolled = Subject(
        subject.scm, subject.variables, subject.world, np.roll(subject.originals, 1, axis=0)
    )
    with pytest.raises(ValueError, match="originals are of other rows"):
        true_counterfactuals(rolled, questions, 10, workers=1, progress=False)
    for field in ("images", "strangers"):
        shifted = [torch.roll(getattr(truths[0], field), 1, dims=0)]
        moved = [type(truths[0])(**{**vars(truths[0]), field: shifted[0]})]
        wrong = evaluate_counterfactuals(
            subject, questions, moved, 1, 10, workers=1, progress=False
        )
        key = {"images": "error/mean_absolute_error/particle",
               "strangers": "error/mean_absolute_error/stranger"}[field]  # fmt: skip
        before, after = aligned[0].quantities[key].mean, wrong[0].quantities[key].mean
        assert abs(after - before) > 1, field


def test_strangers_are_other_originals_with_the_same_attributes():
    subject = subject_of(make())
    truth = true_counterfactuals(
        subject, [Question("intensity=96")], 40, workers=1, progress=False
    )[0]
    for n in range(40):
        assert not torch.equal(truth.images[n, 0, 1:], truth.strangers[n, 0, 1:]), n
        assert torch.equal(truth.images[n, 0, 0], truth.strangers[n, 0, 0]), n


def test_batches_do_not_matter():
    """Of a model without chance, whatever is computed is per row."""
    small, _ = run(make(Photograph), ["thickness=2"], batch_size=7)
    large, _ = run(make(Photograph), ["thickness=2"], batch_size=40)
    for key, value in small.counterfactuals[0].quantities.items():
        other = large.counterfactuals[0].quantities[key]
        assert value.mean == pytest.approx(other.mean, nan_ok=True), key
        assert value.rows == other.rows, key


def test_evaluation_repeats_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    first, _ = run(make(), ["thickness=7"])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    second, _ = run(make(), ["thickness=7"])
    assert first.counterfactuals[0].quantities == second.counterfactuals[0].quantities


def test_parts_do_not_share_their_chance():
    """What is asked in one part moves no number of another."""
    few, _ = run(make(), ["thickness=7.5"], density_size=100)
    more, _ = run(make(), ["thickness=7.5", "thickness=7"], density_size=101)
    first, second = (each.counterfactuals[0] for each in (few, more))
    assert first.question.text == second.question.text
    for key, value in first.quantities.items():
        assert second.quantities[key] == value, key
    assert few.composition == more.composition
    for one, other in zip(few.noise, more.noise, strict=True):
        assert one.quantities == other.quantities, one.variable


def test_a_model_that_lacks_an_attribute_of_the_world_is_evaluated():
    """The truth depends on the intensity of each row, which the model does not know of."""
    scm = StructuralCausalModel(
        "thickness -> image", {"thickness": Thickness, "image": PictureWithoutIntensity}
    )
    recorded = KnownTinyDataModule(test_size=30).variables("test")["intensity"].squeeze(-1)
    assert subject_of(scm, 30).columns()["intensity"] == pytest.approx(recorded.numpy())
    found, answers = run(scm, None, test_size=30)
    assert len(answers) == 2
    for text, each in answers.items():
        assert text.startswith("thickness=")
        assert each.rows == 30
        assert each.quantities["error/mean_absolute_error/particle"].mean > 1
    assert found.densities == []


def test_default_questions_are_about_causes_in_the_world():
    """A model without edges is asked, too, and its values stay possible."""
    subject = subject_of(make(Alone, graph="thickness; intensity; image"))
    asked = [question.text for question in default_questions(subject)]
    assert [text.partition("=")[0] for text in asked] == ["thickness"] * 2 + ["intensity"] * 2


def test_values_in_few_digits_stay_apart_and_possible():
    subject = subject_of(make())
    for low, high, wanted in ((1000.0, 1001.0, [1000.1, 1000.9]), (254.7, 254.71, None)):
        values = torch.linspace(low, high, 1001, dtype=torch.float64)[:, None]
        moved = replace(subject, variables={**subject.variables, "intensity": values}, world=None)
        wide = replace(moved, scm=make(intensity=AnyIntensity)) if wanted else moved
        found = short_quantiles(wide, "intensity", (0.1, 0.9))
        assert low < found[0] < found[1] < high
        if wanted:
            assert found == pytest.approx(wanted, abs=1e-2)
            assert all(len(str(value)) <= 6 for value in found)
    assert short_quantiles(subject, "thickness", (0.5,))[0] == pytest.approx(
        float(torch.quantile(subject.variables["thickness"].double(), 0.5)), rel=5e-3
    )


@pytest.mark.parametrize(
    ("intensity", "world"), [(Intensity, TinyWorld()), (AnyIntensity, TinyWorld(brightest=254.8))]
)
def test_few_digits_do_not_leave_the_domain_of_the_model_or_the_world(intensity, world):
    """Three digits make 255 of 254.7, which is close but impossible in one of the two."""
    subject = replace(subject_of(make(intensity=intensity)), world=world)
    values = torch.full_like(subject.variables["intensity"], 254.7)
    values[:10] = 100
    subject = replace(subject, variables={**subject.variables, "intensity": values})
    assert short_quantiles(subject, "intensity", (0.1, 0.9)) == [100.0, 254.7]
    assert [question.text for question in check_questions(subject, None)][2:] == [
        "intensity=100",
        "intensity=254.7",
    ]


def test_what_the_world_holds_impossible_is_refused_before_the_work():
    subject = subject_of(make(intensity=AnyIntensity))
    with pytest.raises(ValueError, match=r"do\(intensity\): .* the world .* but got 300"):
        check_questions(subject, ["intensity=300"])
    with pytest.raises(ValueError, match=r"do\(intensity\): .* the world .* but got 300"):
        evaluate(
            subject,
            EvaluationSettings(["thickness=2"], density_values={"intensity": [300.0]}),
            progress=False,
        )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("thickness=2", "thickness=2"),
        ("thickness=2", "thickness=2.0"),
        ("thickness-=1", "thickness+=-1"),
        ("thickness=2,intensity=96", "intensity=96, thickness=2"),
    ],
)
def test_an_intervention_that_comes_twice_is_refused(first, second):
    with pytest.raises(ValueError, match=r"interventions: expected each once, but '.*' and '"):
        check_questions(subject_of(make()), [first, "thickness=3", second])


def test_setting_and_shifting_by_the_same_number_are_different_interventions():
    texts = ["thickness=2", "thickness+=2", "thickness*=2"]
    assert [each.text for each in check_questions(subject_of(make()), texts)] == texts


def test_examples_show_no_truth_where_there_is_none():
    """Intensities that the model can have and the world cannot."""
    found, _ = run(make(intensity=AnyIntensity), ["intensity+=100"])
    example = found.examples[1]
    intensity = KnownTinyDataModule(test_size=40).variables("test")["intensity"][:4, 0]
    shown = intensity + 100 < 255
    assert bool(shown.any())
    assert not bool(shown.all())
    assert torch.equal(example.truth.flatten(1).any(1), shown)
    assert torch.equal(example.images.flatten(1).any(1), shown)


def test_without_interventions_the_rest_is_evaluated():
    found, answers = run(make(), [])
    assert answers == {}
    assert found.composition[10].mean == 0
    assert len(found.noise) == 3
    assert any("no intervention to ask about" in reason for reason in found.left_out)


class Restless(Photograph):
    """Forgets the image while it is trained, as dropout may."""

    def abduct(self, value, parents, sample_shape=()):
        return super().abduct(value * (not self.training), parents, sample_shape)


def test_a_model_in_training_is_evaluated_as_if_it_were_not():
    scm = make(Restless)
    scm.train()
    scm["thickness"].eval()
    found, _ = run(scm, ["thickness=7"])
    assert found.composition[1].mean == 0
    assert scm["image"].training
    assert not scm["thickness"].training


def test_originals_of_the_world_pass_the_check():
    check_originals(subject_of(make()))
