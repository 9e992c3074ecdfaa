"""Whether images show what was asked: predictors of causes, pixel noise and verdicts."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from deepscm_pl.data import SourceSplits
from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.evaluation.association import AssociationRow
from deepscm_pl.evaluation.cause_predictor import CausePredictor, fingerprint
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.evaluation.reaction import evaluate_reaction
from deepscm_pl.likelihoods import FixedVarianceGaussian
from deepscm_pl.mechanisms import AffineFlow, Categorical
from deepscm_pl.reaction import ReactionThresholds
from deepscm_pl.reports import Report
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms import Interval

from tiny import TinyDataModule, draw, image_mechanism

FULL = "thickness -> intensity; thickness, intensity -> image"


class Bars(TinyDataModule):
    """600 training, 200 validation and 120 test rows."""

    def __init__(self) -> None:
        super().__init__(validation_size=200)

    def load(self) -> SourceSplits:
        return SourceSplits(train=draw(800, seed=1), test=draw(120, seed=2))


class WideOrNarrow(Bars):
    """The images depend on a class: whether the bar is wide."""

    def load(self) -> SourceSplits:
        return SourceSplits(*(self._add(each) for each in vars(super().load()).values()))

    @staticmethod
    def _add(variables):
        return {**variables, "wide": (variables["thickness"] > 3.5).float()}


def model(data, graph=FULL, steps=0, **mechanisms):
    """A model of bars, trained for a number of steps."""
    torch.manual_seed(0)
    constraint = partial(Interval, low=60, high=256)
    known = {
        "thickness": partial(AffineFlow, constraint=partial(Interval, low=0.9, high=6.1)),
        "intensity": partial(AffineFlow, constraint=constraint),
        "image": image_mechanism(likelihood=partial(FixedVarianceGaussian, log_variance=-3)),
        **mechanisms,
    }
    nodes = [name for name in known if name in graph]
    scm = StructuralCausalModel(graph, {name: known[name] for name in nodes})
    train = {name: data.variables("train")[name].float() for name in scm.graph.nodes}
    scm.fit(train)
    optimizer = torch.optim.Adam(scm.parameters(), lr=0.01)
    for _ in range(steps):
        rows = torch.randint(len(train["image"]), (64,))
        loss = -scm.elbo({name: value[rows] for name, value in train.items()}).bound.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return scm.eval()


@pytest.fixture(scope="module")
def bars():
    data = Bars()
    data.setup()
    return data


@pytest.fixture(scope="module")
def untrained(bars):
    return model(bars)


@pytest.fixture(scope="module")
def trained(bars):
    return model(bars, steps=300)


@pytest.fixture(scope="module")
def predictor(bars, untrained):
    return CausePredictor.trained_on(untrained, bars, 300, progress=False)


def reaction(scm, data, predictor, *texts, **settings):
    on_data = ModelOnData.of(scm, data)
    questions = [Question(text, scm.variables) for text in texts]
    with torch.inference_mode():
        return evaluate_reaction(on_data, questions, predictor, progress=False, **settings)


def test_the_predictor_reads_the_causes_of_images(bars, predictor):
    assert min(predictor.skill.values()) > 0.8
    test = bars.variables("test")
    read = predictor.read(test["image"])
    for name in ("thickness", "intensity"):
        actual = test[name].flatten().double()
        assert torch.corrcoef(torch.stack([read[name], actual]))[0, 1] > 0.9


def test_an_untrained_image_model_repeats_the_factual_image(untrained, bars, predictor):
    found = reaction(untrained, bars, predictor, "thickness=2", "intensity=200")
    assert any("untrained" in verdict for verdict in found.verdicts)
    for name in ("thickness", "intensity"):
        assert any(f"does not react to {name}" in verdict for verdict in found.verdicts)
        assert abs(found.causes[name].response.mean) < 0.1
        assert found.causes[name].change.mean < 0.1
    assert all(each.pixel_noise.mean > 0.9 for each in found.questions)


def test_a_trained_image_model_reacts(trained, bars, predictor):
    found = reaction(trained, bars, predictor, "thickness=2", "intensity=200")
    assert not any("react" in verdict or "untrained" in verdict for verdict in found.verdicts)
    assert found.causes["thickness"].response.mean > 0.5
    assert found.causes["thickness"].r_squared.mean > 0.5
    assert found.causes["thickness"].change.mean > 0.3
    assert found.pixel_noise.mean < 0.5


def test_an_image_without_an_edge_from_a_cause_does_not_react(bars, predictor):
    scm = model(bars, "thickness -> intensity; thickness -> image", steps=100)
    found = reaction(scm, bars, None, "intensity=200", "thickness=2")
    (verdict,) = [each for each in found.verdicts if "react" in each]
    assert "does not react to intensity; there is no path" in verdict
    assert list(found.causes) == ["thickness"]


def test_causes_that_are_kept_are_shown_as_well(trained, bars, predictor):
    found = reaction(trained, bars, predictor, "intensity=200")
    assert set(found.questions[0].shown) == {"thickness", "intensity"}
    assert "intensity=200/shown/thickness" in found.quantities
    assert "cause/thickness/response" in found.quantities


class Reader:
    """A predictor that reads the brightness of the first pixel, without error."""

    def __init__(self):
        self.skill = {"thickness": 1.0}

    def read(self, images):
        return {"thickness": images[:, 0, 0, 0].double()}


class Slope(torch.nn.Module):
    """A decoder of a constant image with logits ``slope`` times the first feature."""

    def __init__(self, latent, features, shape, slope=0.2):
        super().__init__()
        self.shape, self.slope = shape, slope

    def forward(self, latent, context):
        centred = context[:, :1] - 0.5 * (context.shape[1] == 2)  # one-hot, or standardised
        return (self.slope * centred).expand(-1, 64).reshape(-1, *self.shape)


def test_the_response_is_the_slope_of_shown_over_asked_changes():
    torch.manual_seed(0)
    image = partial(
        image_mechanism(likelihood=partial(FixedVarianceGaussian, log_variance=-9)), decoder=Slope
    )
    scm = StructuralCausalModel("thickness -> image", {"thickness": AffineFlow, "image": image})
    with torch.no_grad():
        variables = {name: value.float() for name, value in scm.sample(400).items()}
        scm.fit(variables)
        on_data = ModelOnData(scm, variables, None, None)
        found = evaluate_reaction(on_data, [], Reader(), progress=False).causes["thickness"]
    # sigmoid'(0)·0.2 of 256/0.95 levels, for each unit of the thickness.
    expected = 0.25 * 0.2 * 256 / 0.95 / variables["thickness"].std().item()
    assert found.response.mean == pytest.approx(expected, rel=0.05)
    assert found.change.mean == pytest.approx(1.0, abs=0.1)


def test_pixel_noise_is_the_share_that_the_decoder_lacks():
    torch.manual_seed(0)
    image = partial(
        image_mechanism(likelihood=partial(FixedVarianceGaussian, log_variance=-3)), decoder=Slope
    )
    scm = StructuralCausalModel("thickness -> image", {"thickness": AffineFlow, "image": image})
    with torch.no_grad():
        variables = {name: value.float() for name, value in scm.sample(600).items()}
        scm.fit(variables)
        found = evaluate_reaction(ModelOnData(scm, variables, None, None), [], progress=False)
    noise, signal = 0.0498, 0.2**2  # e^-3, in logits
    assert found.pixel_noise.mean == pytest.approx(noise / (noise + signal), abs=0.06)


def test_classes_are_compared_by_the_share_that_shows_the_asked_one():
    data = WideOrNarrow()
    data.setup()
    wide = partial(Categorical, categories=2)
    scm = model(data, "wide -> image", wide=wide)
    made = CausePredictor.trained_on(scm, data, 300, progress=False)
    assert made.skill["wide"] > 0.5
    untrained = reaction(scm, data, made).causes["wide"]
    assert abs(untrained.response.mean) < 0.1
    assert untrained.r_squared is None


@pytest.mark.parametrize(("slope", "response"), [(2.0, 1.0), (0.0, 0.0)])
def test_the_response_to_a_class_is_the_share_of_images_that_show_it(slope, response):
    torch.manual_seed(0)
    image = partial(
        image_mechanism(likelihood=partial(FixedVarianceGaussian, log_variance=-9)),
        decoder=partial(Slope, slope=slope),
    )
    wide = partial(Categorical, categories=2)
    scm = StructuralCausalModel("thickness -> image", {"thickness": wide, "image": image})
    reader = Reader()
    reader.read = lambda images: {"thickness": (images[:, 0, 0, 0] < 127).double()}
    with torch.no_grad():
        drawn = {name: value.float() for name, value in scm.sample(200).items()}
        scm.fit(drawn)
        # The recorded images are those of a perfect model.
        level = torch.where(drawn["thickness"] == 1, 40.0, 200.0)
        drawn["image"] = level[..., None, None].expand(-1, 1, 8, 8)
        found = evaluate_reaction(ModelOnData(scm, drawn, None, None), [], reader, progress=False)
    cause = found.causes["thickness"]
    assert cause.floor.mean == 0
    assert cause.error.mean == 1 - response
    assert cause.response.mean == response
    assert any("does not react to thickness" in each for each in found.verdicts) == (not slope)


def test_a_predictor_without_skill_is_not_used(trained, bars, predictor):
    strict = ReactionThresholds(skill=1.0)
    found = reaction(trained, bars, predictor, "intensity=200", thresholds=strict)
    assert found.causes["thickness"].error is None
    assert found.questions[0].shown == {}
    assert any("Reaction to thickness: its predictor removes" in each for each in found.left_out)


def test_a_predictor_is_used_again_if_it_fits(untrained, bars, predictor, tmp_path):
    path, cpu = tmp_path / "predictor.safetensors", torch.device("cpu")
    key = fingerprint(untrained, bars, 300, 0)
    predictor.save(path, key)
    loaded = CausePredictor.load(path, key, cpu)
    images = bars.variables("test")["image"]
    for name, value in predictor.read(images).items():
        assert torch.equal(loaded.read(images)[name], value)
    assert loaded.skill == predictor.skill
    others = [
        fingerprint(untrained, bars, 301, 0),
        fingerprint(untrained, TinyDataModule(), 300, 0),
    ]
    assert all(CausePredictor.load(path, other, cpu) is None for other in others)
    path.write_bytes(path.read_bytes()[:200])
    assert CausePredictor.load(path, key, cpu) is None
    assert CausePredictor.load(tmp_path / "absent", key, cpu) is None


def test_training_of_a_predictor_is_repeatable_and_restores_random_numbers(untrained, bars):
    before = torch.get_rng_state()
    first, second = (CausePredictor.trained_on(untrained, bars, 5, progress=False) for _ in "ab")
    assert torch.equal(before, torch.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_slices_of_volumes_are_channels_and_large_images_are_averaged():
    made = CausePredictor((1, 4, 130, 100), {"age": None, "sex": 2})
    read = made.read(torch.zeros(3, 1, 4, 130, 100))
    assert {name: value.shape for name, value in read.items()} == {"age": (3,), "sex": (3,)}


def test_reports_have_verdicts_tables_numbers_and_words(untrained, bars, predictor, tmp_path):
    on_data = ModelOnData.of(untrained, bars)
    settings = EvaluationSettings(
        interventions=["thickness=2"], num_particles=2, detail_rows=40, density_size=50
    )
    found = evaluate(on_data, settings, progress=False, cause_predictor=predictor)
    bits = AssociationRow("bits_per_dimension/image", "", "bits", Estimate(133.0, 1.0, 40))
    report = Report(on_data, found, [bits])
    assert {"reaction", "shown"} <= report.tables.keys()
    report.write(tmp_path / "evaluation")
    plain = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["reaction"]
    assert plain["verdicts"] == report.verdicts
    assert abs(plain["quantities"]["cause/thickness/response"]["mean"]) < 0.1
    text = (tmp_path / "evaluation" / "evaluation.md").read_text()
    assert text.startswith("# Evaluation\n\n## Verdict\n\n**Bad**: do not rely on this model")
    assert "133 bits per dimension, where uniform grey levels have 8" in text
    assert "does not react to thickness" in text
    assert "asked changes shown" in text
    scalars = report.scalars()
    assert scalars["evaluation/reaction/verdicts"] == len(report.verdicts) >= 4
    assert "evaluation/reaction/cause/thickness/response" in scalars


def test_thresholds_are_settings_of_an_evaluation():
    assert EvaluationSettings(reaction_response=0.3).reaction.response == 0.3
    assert EvaluationSettings().reaction == ReactionThresholds()
    with pytest.raises(ValueError, match="reaction_change"):
        EvaluationSettings(reaction_change=-1)
    with pytest.raises(ValueError, match="predictor_steps"):
        EvaluationSettings(predictor_steps=0)
