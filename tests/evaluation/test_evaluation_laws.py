"""Evaluations of models that are correct, or wrong in a known way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from world_columns import log_prob

from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
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
"""Interventions whose truth is determined by the factual image."""


def model_on_data(scm, test_size=40, **settings):
    return ModelOnData.of(scm, KnownTinyDataModule(test_size=test_size, **settings))


def run(scm, interventions, test_size=40, classifier=None, **settings):
    found = evaluate(
        model_on_data(scm, test_size),
        EvaluationSettings(
            interventions,
            workers=1,
            **{"num_particles": 3, "batch_size": 16, "density_size": 500, **settings},
        ),
        classifier,
        progress=False,
    )
    return found, {each.question.text: each for each in found.counterfactuals}


def thin_rows(model, limit):
    """The rows of a subject whose thickness is above ``limit``, so that thinner is determined."""
    return (model.variables["thickness"].squeeze(-1) > limit).numpy()


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
    rows = thin_rows(ModelOnData.of(make(), data), 2.0)
    whole = ModelOnData.of(make(), data)
    model = ModelOnData(
        whole.scm,
        {name: value[rows] for name, value in whole.variables.items()},
        whole.world,
        whole.originals[rows],
    )
    found = evaluate(
        model,
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


def test_coverage_of_the_truth_equals_the_level():
    found = run(make(), ["thickness=7.5"], test_size=200, num_particles=7, detail_rows=200)[1]
    result = found["thickness=7.5"]
    assert list(result.coverage.varying) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]  # 7 span 6/8
    for level, covered in result.coverage.varying.items():
        assert covered.mean == pytest.approx(level, abs=4 * covered.standard_error)
        assert covered.standard_error < 0.02
    # The mean of particles is a better guess of what is hidden than one of them.
    ratio = result.particles.ratio
    assert ratio.particle_mean.mean < 0.9 * ratio.particle.mean


def test_particles_that_agree_cover_too_little():
    quantities = run(make(Timid), ["thickness=7.5"], num_particles=19)[1][
        "thickness=7.5"
    ].quantities
    assert quantities["coverage/varying/0.9"].mean < 0.5


def test_a_truth_beyond_all_particles_is_never_covered():
    """At no reported level, for any number of particles."""
    for particles in (2, 4, 19):
        found = run(make(Photograph), ["thickness=7.5"], num_particles=particles)[1]
        covered = found["thickness=7.5"].coverage.varying
        assert len(covered) == {2: 3, 4: 6, 19: 9}[particles]
        assert {each.mean for each in covered.values()} == {0.0}


def test_a_model_that_ignores_the_intervention_scores_as_the_factual():
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


def test_a_missing_edge_shows_in_the_results():
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
    model = model_on_data(make())
    found = evaluate(
        model,
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
    density = np.exp(log_prob(model.world, attributes)["intensity"])
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
    single = model_on_data(make(), test_size=60)
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
    assert text.rows == "60 rows of the test split, from 20 subjects"
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


def test_identity_follows_the_classifier():
    def classifier(images):
        return (images[:, 0, 1, 0] >= 128).long()

    found = run(make(), KNOWN, classifier=classifier)[1]
    assert all(each.quantities["identity/kept"].mean == 1 for each in found.values())
    black = run(make(Black), ["intensity=96"], classifier=classifier)[1]["intensity=96"]
    dark = (KnownTinyDataModule(test_size=40).variables("test")["label"] == 0).double().mean()
    assert black.quantities["identity/kept"].mean == pytest.approx(dark.item())
    assert black.quantities["identity/truth"].mean == 1


def test_black_images_are_reported_as_unmeasurable():
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
    """An intervention that is impossible for thin digits, and that affects intensity."""
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
    """With a larger domain than in the world."""

    @property
    def domain(self):
        return Domain(lower=0.0, upper=1000.0)


def test_rows_that_are_impossible_only_in_the_world_are_left_out():
    found = run(make(intensity=AnyIntensity), ["intensity+=60"])[1]["intensity+=60"]
    intensity = KnownTinyDataModule(test_size=40).variables("test")["intensity"]
    assert found.rows == int((intensity + 60 < 255).sum())
    assert 0 < found.left_out < 40
    assert found.quantities["error/mean_absolute_error/particle"].mean == 0


def test_misaligned_truth_is_an_error():
    """Misaligned rows raise an error, and would change the results."""
    model = model_on_data(make())
    questions = [Question("intensity=96")]
    truths = true_counterfactuals(model, questions, 10, workers=1, progress=False)
    aligned = evaluate_counterfactuals(model, questions, truths, 1, 10, workers=1, progress=False)
    assert aligned[0].quantities["error/mean_absolute_error/particle"].mean == 0
    rolled = ModelOnData(
        model.scm, model.variables, model.world, np.roll(model.originals, 1, axis=0)
    )
    with pytest.raises(ValueError, match="originals belong to other rows"):
        true_counterfactuals(rolled, questions, 10, workers=1, progress=False)
    for field in ("images", "others"):
        shifted = [torch.roll(getattr(truths[0], field), 1, dims=0)]
        moved = [type(truths[0])(**{**vars(truths[0]), field: shifted[0]})]
        wrong = evaluate_counterfactuals(model, questions, moved, 1, 10, workers=1, progress=False)
        key = {"images": "error/mean_absolute_error/particle",
               "others": "error/mean_absolute_error/stranger"}[field]  # fmt: skip
        before, after = aligned[0].quantities[key].mean, wrong[0].quantities[key].mean
        assert abs(after - before) > 1, field


def test_baselines_are_other_originals_with_the_same_attributes():
    model = model_on_data(make())
    truth = true_counterfactuals(model, [Question("intensity=96")], 40, workers=1, progress=False)[
        0
    ]
    for n in range(40):
        assert not torch.equal(truth.images[n, 0, 1:], truth.others[n, 0, 1:]), n
        assert torch.equal(truth.images[n, 0, 0], truth.others[n, 0, 0]), n


def test_batches_do_not_matter():
    """Results of a deterministic model do not depend on the batch size."""
    small, _ = run(make(Photograph), ["thickness=2"], batch_size=7)
    large, _ = run(make(Photograph), ["thickness=2"], batch_size=40)
    for key, value in small.counterfactuals[0].quantities.items():
        other = large.counterfactuals[0].quantities[key]
        assert value.mean == pytest.approx(other.mean, nan_ok=True), key
        assert value.rows == other.rows, key


def test_evaluation_is_reproducible_and_restores_the_generator():
    before = torch.get_rng_state()
    first, _ = run(make(), ["thickness=7"])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    second, _ = run(make(), ["thickness=7"])
    assert first.counterfactuals[0].quantities == second.counterfactuals[0].quantities


def test_random_numbers_of_parts_are_independent():
    """Settings of one part do not change the numbers of another."""
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
    """The truth depends on the intensity of each row, which is not in the model."""
    scm = StructuralCausalModel(
        "thickness -> image", {"thickness": Thickness, "image": PictureWithoutIntensity}
    )
    recorded = KnownTinyDataModule(test_size=30).variables("test")["intensity"].squeeze(-1)
    assert model_on_data(scm, 30).columns()["intensity"] == pytest.approx(recorded.numpy())
    found, answers = run(scm, None, test_size=30)
    assert len(answers) == 2
    for text, each in answers.items():
        assert text.startswith("thickness=")
        assert each.rows == 30
        assert each.quantities["error/mean_absolute_error/particle"].mean > 1
    assert found.densities == []


def test_default_questions_are_about_causes_in_the_world():
    """Also for a model without edges, with possible values."""
    model = model_on_data(make(Alone, graph="thickness; intensity; image"))
    asked = [question.text for question in default_questions(model)]
    assert [text.partition("=")[0] for text in asked] == ["thickness"] * 2 + ["intensity"] * 2


def test_values_in_few_digits_stay_apart_and_possible():
    model = model_on_data(make())
    for low, high, wanted in ((1000.0, 1001.0, [1000.1, 1000.9]), (254.7, 254.71, None)):
        values = torch.linspace(low, high, 1001, dtype=torch.float64)[:, None]
        moved = replace(model, variables={**model.variables, "intensity": values}, world=None)
        wide = replace(moved, scm=make(intensity=AnyIntensity)) if wanted else moved
        found = short_quantiles(wide, "intensity", (0.1, 0.9))
        assert low < found[0] < found[1] < high
        if wanted:
            assert found == pytest.approx(wanted, abs=1e-2)
            assert all(len(str(value)) <= 6 for value in found)
    assert short_quantiles(model, "thickness", (0.5,))[0] == pytest.approx(
        float(torch.quantile(model.variables["thickness"].double(), 0.5)), rel=5e-3
    )


@pytest.mark.parametrize(
    ("intensity", "world"), [(Intensity, TinyWorld()), (AnyIntensity, TinyWorld(brightest=254.8))]
)
def test_few_digits_do_not_leave_the_domain_of_the_model_or_the_world(intensity, world):
    """Three digits make 255 of 254.7, which is close but impossible in one of the two."""
    model = replace(model_on_data(make(intensity=intensity)), world=world)
    values = torch.full_like(model.variables["intensity"], 254.7)
    values[:10] = 100
    model = replace(model, variables={**model.variables, "intensity": values})
    assert short_quantiles(model, "intensity", (0.1, 0.9)) == [100.0, 254.7]
    assert [question.text for question in check_questions(model, None)][2:] == [
        "intensity=100",
        "intensity=254.7",
    ]


def test_interventions_that_are_impossible_in_the_world_are_refused_early():
    model = model_on_data(make(intensity=AnyIntensity))
    with pytest.raises(ValueError, match=r"do\(intensity\): .* the world .* but got 300"):
        check_questions(model, ["intensity=300"])
    with pytest.raises(ValueError, match=r"do\(intensity\): .* the world .* but got 300"):
        evaluate(
            model,
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
def test_duplicate_interventions_are_refused(first, second):
    with pytest.raises(ValueError, match=r"interventions: expected each once, but '.*' and '"):
        check_questions(model_on_data(make()), [first, "thickness=3", second])


def test_setting_and_shifting_by_the_same_number_are_different_interventions():
    texts = ["thickness=2", "thickness+=2", "thickness*=2"]
    assert [each.text for each in check_questions(model_on_data(make()), texts)] == texts


def test_examples_show_no_truth_where_there_is_none():
    """Intensities that are possible in the model but not in the world."""
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
    """Ignores the image in training mode, similar to dropout."""

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
    check_originals(model_on_data(make()))
