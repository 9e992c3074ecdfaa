"""Protocols give the floor for the true model, and what is wrong for models with known errors."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepscm_pl.ensemble import Ensemble
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.protocols import Judge, ProtocolSettings, morphometry, run_protocol
from deepscm_pl.evaluation.protocols.answering import Task
from deepscm_pl.evaluation.protocols.drawing import of_other_bins, of_training, random_subset
from deepscm_pl.evaluation.protocols.effectiveness import mean_over_batches
from deepscm_pl.metrics.perceptual import NetworkFeatures, NetworkLayers
from deepscm_pl.nn import ResidualClassifier
from deepscm_pl.reports.protocols import PROTOCOL_COLUMNS, protocol_table, write_protocol
from deepscm_pl.variables import Domain

import oracle
from tiny import KnownTinyDataModule

SETTINGS = ProtocolSettings(
    seeds=(0, 1), batch_size=9, workers=1, progress=False, particles=5, detail_rows=10
)
THICKER, BRIGHTER = "do(thickness ~ train)", "do(intensity ~ train)"


@pytest.fixture(scope="module")
def data():
    return KnownTinyDataModule()


def task(data, picture=oracle.Picture, **fields) -> Task:
    model = ModelOnData.of(oracle.make(picture), data)
    judges = fields.pop("judges", morphometry(model, workers=1))
    return Task(model, judges, SETTINGS, data.variables("train"), **fields)


def run(name, *arguments, **fields):
    return run_protocol(name, task(*arguments, **fields))


def test_the_true_model_shows_what_was_asked(data):
    found = run("causal-gen", data)
    titles = {each.intervention for each in found.figures}
    assert titles == {THICKER, BRIGHTER, "do(random subset ~ train)"}
    for each in found.figures:
        assert each.judge == "morphometry"
        assert each.defined.mean < 0.6  # a grey level is rounded
        assert each.floor < 0.3
        assert np.isfinite(each.deviation)


def test_a_model_that_ignores_its_parents_does_not(data):
    found = run("causal-gen", data, oracle.Photograph)
    assert found.figure(THICKER, "thickness", "mean absolute error", "morphometry").defined.mean > 1
    intact = found.figure(BRIGHTER, "thickness", "mean absolute error", "morphometry")
    assert intact.defined.mean < 0.1


def test_the_same_seeds_give_the_same_figures(data):
    first, second = (run("causal-gen", data).as_plain_data() for _ in range(2))
    assert first == second


def test_errors_against_the_truth_by_region(data):
    true, photograph = (run("ours", data, each) for each in (oracle.Picture, oracle.Photograph))
    name = "error ÷ doing nothing"
    assert photograph.figure(THICKER, "image", name).defined.mean == pytest.approx(1)
    assert photograph.figure(THICKER, "image", "untouched error").defined.mean == 0
    assert true.figure(BRIGHTER, "image", name).defined.mean < 0.05
    assert true.figure(BRIGHTER, "image", "error after 10 cycles").defined.mean < 1
    assert true.figure("", "image", "bits per dimension").defined.mean == 0
    covered = true.figure(THICKER, "image", "coverage of 90% intervals").defined.mean
    assert covered > 0.4


def test_constants_are_compared_with_their_truth(data):
    settings = replace(SETTINGS, asked=["thickness=2", "thickness=5, intensity=100"])
    part = replace(task(data), settings=settings)
    found = run_protocol("ours", part)
    dark = "do(thickness = 5 pixels, intensity = 100 grey levels)"
    name = "changed error of doing nothing"
    assert found.figure(dark, "image", name).defined.mean > 30
    with pytest.raises(ValueError, match=r"do: expected constants, .* but got 'thickness\+=1'"):
        run_protocol("ours", replace(part, settings=replace(settings, asked=["thickness+=1"])))


def test_a_drift_shows_in_cycles(data):
    found = run("ours", data, oracle.Drifting)
    once, often = (
        found.figure(BRIGHTER, "image", f"error after {count}").defined.mean
        for count in ("1 cycle", "10 cycles")
    )
    assert once > 0.5
    assert often > 5 * once


def together(part: Task, *pictures) -> Task:
    members = [oracle.make(each) for each in pictures]
    model = replace(part.model, scm=members[0], ensemble=Ensemble(members))
    return replace(part, model=model)


def test_several_models_answer_by_their_median(data):
    """Two true models outvote one that ignores its parents; alone, neither answer changes."""
    true, photograph = oracle.Picture, oracle.Photograph
    part = task(data)
    mixed, alone = (
        run_protocol("ours", together(part, *pictures))
        for pictures in ((true, photograph, true), (photograph, photograph, photograph))
    )
    name = "error ÷ doing nothing"
    assert mixed.figure(BRIGHTER, "image", name).defined.mean < 0.05
    assert alone.figure(BRIGHTER, "image", name).defined.mean == pytest.approx(1)
    parameters = mixed.figure("", "image", "parameters").defined.mean
    assert parameters == 3 * run("ours", data).figure("", "image", "parameters").defined.mean
    assert "answers are medians of 3 models, which together have all costs" in mixed.notes


def test_coverage_is_that_of_all_models_together(data):
    """Particles of a model that is wrong leave intervals that contain the truth of the other."""
    part, name = task(data), "coverage of 90% intervals"
    wrong, both = (
        run_protocol("ours", together(part, *pictures)).figure(BRIGHTER, "image", name).defined.mean
        for pictures in ((oracle.Photograph,), (oracle.Photograph, oracle.Picture))
    )
    assert both > wrong + 0.2


def test_the_bound_of_several_models_is_that_of_their_mixture(data):
    class Half(oracle.Picture):
        def log_prob(self, value, parents):
            return value.new_full(value.shape[:-3], -2 * 64 * np.log(2.0))

    found = run_protocol("ours", together(task(data), Half, oracle.Picture))
    bits = found.figure("", "image", "bits per dimension").defined.mean
    assert bits == pytest.approx(1 / 64)  # of (2^-128 + 1) / 2, over 64 pixels


def test_other_protocols_refuse_several_models(data):
    with pytest.raises(ValueError, match=r"causal-gen: expected one model, but got 2; test them"):
        run_protocol("causal-gen", together(task(data), oracle.Picture, oracle.Picture))


def test_classes_of_several_models_are_the_most_frequent():
    model = SimpleNamespace(scm={"digit": SimpleNamespace(domain=Domain(categories=3))})
    answers = [{"digit": torch.tensor([[k], [0]])} for k in (0, 2, 2)]
    assert Task(model, [], SETTINGS)._joined(answers)["digit"].tolist() == [[2], [0]]


def test_rendered_truths(data):
    found = run("rasal", data)
    brighter = "do(intensity ~ batch)"
    assert found.figure("null, 1 time", "image", "L1").defined.mean == 0
    assert found.figure(brighter, "image", "L1").defined.mean < 0.01
    assert found.figure(brighter, "image", "L1").published is not None
    nothing = found.figure(brighter, "image", "L1 of doing nothing").defined.mean
    assert run("rasal", data, oracle.Photograph).figure(
        brighter, "image", "L1"
    ).defined.mean == pytest.approx(nothing)
    assert found.figure(brighter, "intensity", "MAPE", "morphometry").defined.mean < 0.02


class Embedding(torch.nn.Module):
    def forward(self, images):
        mean = images.flatten(1)[:, :3] / 255
        return mean, torch.zeros_like(mean)


def test_the_benchmark_has_all_its_metrics(data):
    torch.manual_seed(0)
    network = ResidualClassifier((1, 8, 8), 2, channels=(2, 4), groups=1)
    found = run(
        "benchmark",
        data,
        features=NetworkFeatures(network),
        perceptual=NetworkLayers(network),
        embedding=Embedding(),
    )
    quantities = [each.quantity for each in found.figures]
    assert quantities.count("mean absolute error") == 2 + 2 * 2
    for name in ("perceptual distance", "Fréchet distance", "counterfactual latent divergence"):
        assert name in quantities
    once = found.figure("null, 1 time", "image", "mean absolute error")
    assert once.defined.mean == once.published == 0
    effective = found.figure(
        "do(thickness ~ another bin)", "thickness", "mean absolute error", "morphometry"
    )
    assert effective.published is not None
    assert effective.published != effective.defined.mean


def test_fewer_images_than_features_are_refused(data):
    network = ResidualClassifier((1, 8, 8), 2, channels=(64,), groups=1)
    with pytest.raises(ValueError, match="more real images than the 64 features, but got 60"):
        run("benchmark", data, features=NetworkFeatures(network))


def test_a_protocol_without_its_judges_is_refused(data):
    with pytest.raises(ValueError, match=r"causal-gen: expected a judge .* none of thickness, int"):
        run("causal-gen", data, judges=[])
    blind = Judge("network", ("thickness",), lambda images: {"thickness": images[:, 0, 0, 0]})
    with pytest.raises(ValueError, match=r"ours: .* none of intensity; train one"):
        run("ours", data, judges=[blind])


def test_a_protocol_on_other_data_is_refused():
    data = KnownTinyDataModule(has_originals=False)
    with pytest.raises(ValueError, match=r"protocol rasal: expected images that a known world"):
        run("rasal", data)
    with pytest.raises(ValueError, match=r"expected one of causal-gen, .*, but got 'their'"):
        run("their", data)


def test_classes_are_judged_by_accuracy(data):
    from deepscm_pl.evaluation.protocols.judging import readings_of

    judge = Judge("network", ("kind",), lambda images: {"kind": torch.tensor([1, 0, 1])})
    found = readings_of(judge, torch.zeros(3, 1, 2, 2), {"kind": torch.ones(3, 1)}, {"kind": 2})
    assert found["kind"].errors.tolist() == [1, 0, 1]


def test_values_of_the_training_column_are_not_repeated_in_a_batch():
    column = torch.arange(50.0)[:, None]
    do = of_training("age", column, 100, torch.Generator().manual_seed(0), batch=50)
    first, second = do.values["age"].flatten().split(50)
    assert torch.equal(first.sort().values, column.flatten())
    assert torch.equal(second.sort().values, column.flatten())
    assert not torch.equal(first, second)
    subset = random_subset({"age": column, "sex": column}, 100, torch.Generator(), batch=50)
    assert 30 < int(subset.chosen["age"].sum()) < 70
    assert not torch.equal(subset.chosen["age"], subset.chosen["sex"])


@pytest.mark.parametrize("categories", [None, 3])
def test_values_of_other_bins(categories):
    column = torch.arange(30.0)[:, None] % (categories or 30)
    generator = torch.Generator().manual_seed(0)
    do = of_other_bins("age", column, column, categories, generator, bins=3)
    (value,) = do.values.values()
    assert set(value.flatten().tolist()) <= set(column.flatten().tolist())
    if categories:
        assert bool((value != column).all())
    else:
        assert bool(((value / 9.67).floor() != (column / 9.67).floor()).all())
    with pytest.raises(ValueError, match="at least two of 3 bins"):
        of_other_bins("age", column[:1], column, categories, generator, bins=3)


def test_means_over_batches_overrate_a_small_last_batch():
    assert mean_over_batches(torch.tensor([0.0, 0.0, 3.0]), 2) == 1.5


def test_a_report_has_every_figure(data, tmp_path):
    found = run("causal-gen", data)
    table = protocol_table(found)
    assert len(table.rows) == len(found.figures)
    write_protocol(found, tmp_path)
    lines = (tmp_path / "protocol.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(PROTOCOL_COLUMNS)
    assert len(lines) == 1 + len(found.figures)
    assert "nan" not in (tmp_path / "protocol.json").read_text(encoding="utf-8").lower()
    assert "pads them to 32" in (tmp_path / "protocol.md").read_text(encoding="utf-8")


def test_rows_that_are_left_out_are_stated(data):
    model = ModelOnData.of(oracle.make(), data, rows=5)
    part = Task(model, morphometry(model, 1), SETTINGS, data.variables("train"))
    assert (
        "only the first 5 of 24 test images were judged" in run_protocol("causal-gen", part).notes
    )


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_are_different(seeds):
    with pytest.raises(ValueError, match="seeds: expected different whole numbers"):
        partial(ProtocolSettings, seeds=seeds)()
