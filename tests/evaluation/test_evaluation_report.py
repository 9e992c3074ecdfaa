"""Reports: numbers under their headings, none lost, and no files of the user deleted."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.evaluation.association import AssociationRow
from deepscm_pl.evaluation.densities import DensityResult, Sample
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.noise import NoiseResult, NoiseStatistics
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.evaluation.results import (
    ChangeEstimates,
    CounterfactualResult,
    CoverageEstimates,
    EffectivenessEstimates,
    ErrorEstimates,
    IdentityEstimates,
    ImageErrors,
    MeasurementErrors,
)
from deepscm_pl.reports import Report
from deepscm_pl.reports.tables import (
    density_table,
    effectiveness_table,
    error_table,
    noise_table,
    print_table,
    similarity_table,
    soundness_table,
)
from deepscm_pl.variables import Variable

from oracle import Intensity, make
from tiny import KnownTinyDataModule

MEASURES = ("mean_absolute_error", "peak_signal_to_noise_ratio", "structural_similarity")


def numbered(question, *attributes):
    """Return a result in which all estimates differ."""
    count = itertools.count(1)

    def estimate(rows=10_000):
        return Estimate(float(next(count)), 0.1, rows)

    def errors(rows):
        return ImageErrors(*(ErrorEstimates(*(estimate(rows) for _ in range(4))) for _ in range(4)))

    def measured():
        return MeasurementErrors(estimate(), estimate(), estimate())

    return CounterfactualResult(
        Question(question),
        10_000,
        0,
        errors(10_000),
        ChangeEstimates(estimate(), estimate(), estimate()),
        {},
        errors(500),
        CoverageEstimates(varying={level: estimate(500) for level in (0.5, 0.9)}),
        {name: EffectivenessEstimates(measured(), measured(), measured()) for name in attributes},
        IdentityEstimates(estimate(), estimate()),
        {count: estimate(500) for count in (1, 10)},
    )


def cells(table):
    """The one row of a table, by heading."""
    return dict(zip(table.columns, table.rows[0], strict=True))


@pytest.fixture
def result():
    return numbered("thickness=3", "thickness")


def test_errors_are_under_their_headings(result):
    shown = cells(error_table([result]))
    for heading, key in {
        "error of a draw": "error/mean_absolute_error/particle",
        "factual unchanged": "error/mean_absolute_error/factual",
        "another original": "error/mean_absolute_error/stranger",
        "ratio to unchanged": "error/ratio/particle",
        "error, mean of particles (first 500)": "particles/mean_absolute_error/particle_mean",
        "ratio, mean of particles (first 500)": "particles/ratio/particle_mean",
    }.items():
        assert float(shown.pop(heading)) == result.quantities[key].mean, heading
    assert shown == {"intervention": "do(thickness = 3)", "rows": "10000"}


def test_no_column_is_cut_off_where_the_terminal_is_narrow(capsys):
    both = numbered("thickness=1.5, intensity=224")
    for table in (error_table([both]), soundness_table([both])):
        print_table(table)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 120
        assert table.rows[0][-1] in " ".join(lines)
        assert all("…" not in line for line in lines)
        assert any("do(thickness = 1.5, " in line for line in lines)
        assert any("intensity = 224)" in line for line in lines)


def test_similarity_is_under_its_headings(result):
    table = similarity_table([result])
    for row, (name, measure) in zip(
        table.rows,
        (("PSNR (dB)", "peak_signal_to_noise_ratio"), ("SSIM", "structural_similarity")),
        strict=True,
    ):
        shown = dict(zip(table.columns, row, strict=True))
        for heading, key in {
            "a draw": f"error/{measure}/particle",
            "mean of particles (first 500)": f"particles/{measure}/particle_mean",
            "factual unchanged": f"error/{measure}/factual",
            "another original": f"error/{measure}/stranger",
        }.items():
            assert float(shown.pop(heading)) == result.quantities[key].mean, heading
        title = "do(thickness = 3)"
        assert shown == {"intervention": title, "measure": name, "rows": "10000"}


def test_effectiveness_is_under_its_headings(result):
    shown = cells(effectiveness_table([result], ["thickness"], lambda name: "pixels"))
    prefix = "effectiveness/thickness"
    assert float(shown.pop("unmeasurable").removesuffix(" %")) == (
        100 * result.quantities[f"{prefix}/intended/unmeasurable"].mean
    )
    for heading, key in {
        "error": "intended/absolute_error",
        "bias": "intended/bias",
        "error against the truth": "true/absolute_error",
        "noise floor": "noise_floor/absolute_error",
    }.items():
        assert float(shown.pop(heading)) == result.quantities[f"{prefix}/{key}"].mean, heading
    assert shown == {
        "intervention": "do(thickness = 3)",
        "attribute": "thickness",
        "unit": "pixels",
    }


def test_soundness_is_under_its_headings(result):
    shown = cells(soundness_table([result]))
    for heading, key in {
        "there and back": "reversibility/mean_absolute_error/1",
        "10 times": "reversibility/mean_absolute_error/10",
        "change": "minimality/counterfactual",
        "true change": "minimality/truth",
        "change ÷ true change": "minimality/ratio",
    }.items():
        assert float(shown.pop(heading)) == result.quantities[key].mean, heading
    for heading, key in {
        "identity kept": "identity/kept",
        "by the truth": "identity/truth",
        "coverage of 50 %": "coverage/varying/0.5",
        "of 90 %": "coverage/varying/0.9",
    }.items():
        percent = shown.pop(heading)
        assert percent.endswith(" %"), heading
        assert float(percent.removesuffix(" %")) == 100 * result.quantities[key].mean, heading
    assert shown == {"intervention": "do(thickness = 3)", "rows": "10000"}


def test_percentages_and_interventions_are_written_as_everywhere():
    identity = IdentityEstimates(kept=Estimate(0.98765, 0.01, 50))
    question = Question("intensity-=30, thickness*=2")
    result = CounterfactualResult(question, 50, 0, identity=identity)
    shown = cells(soundness_table([result]))
    assert shown == {
        "intervention": "do(intensity − 30, thickness × 2)",
        "rows": "50",
        "identity kept": "98.8 %",
    }


def test_densities_and_noise_are_under_their_headings():
    sample = torch.zeros(3)
    nothing = Sample(sample, sample)
    pixels = {"a": Variable("a", unit="pixels")}
    density = DensityResult("a", {"b": 1.0}, True, nothing, nothing, 2.5, 1.5, pixels)
    shown = cells(density_table([density]))
    assert shown == {
        "density": "p(a | do(b = 1))",
        "unit": "pixels",
        "distance": "2.5",
        "two samples of the world": "1.5",
    }
    statistics = NoiseStatistics(0.1, 0.2, 0.3, 0.4, correlations={"b": 0.5})
    statistics = replace(statistics, correlation_by_chance=0.358)
    shown = cells(noise_table([NoiseResult("a", "u", 30, 0, 1, statistics, sample)]))
    assert shown == {
        "noise": "u of a",
        "correlation with parents": "b +0.500",
        "by chance up to": "0.358",
        "rows": "30",
        "numbers": "1",
        "Kolmogorov–Smirnov": "0.1000",
        "p": "0.200",
        "mean": "0.300",
        "standard deviation": "0.400",
    }


@pytest.fixture(scope="module")
def evaluated():
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=20))
    texts = ["thickness=2", "thickness+=2", "intensity*=1.1", "intensity-=3"]
    found = evaluate(
        model,
        EvaluationSettings(texts, num_particles=2, density_size=50, workers=1),
        progress=False,
    )
    return model, found


def test_no_number_is_lost_on_the_way_to_tensorboard(evaluated):
    """Interventions that look alike but for a sign have tags of their own."""
    found = Report(*evaluated).scalars()
    for name in ("thickness_2", "thickness_plus_2", "intensity_times_1.1", "intensity_minus_3"):
        assert f"evaluation/{name}/error/mean_absolute_error/particle" in found
    finite = sum(
        math.isfinite(value.mean)
        for each in evaluated[1].counterfactuals
        for value in each.quantities.values()
    )
    of_questions = [tag for tag in found if tag.split("/")[1].startswith(("thick", "intens"))]
    assert len(of_questions) == finite


def test_a_folder_with_other_files_is_not_replaced(evaluated, tmp_path):
    report = Report(*evaluated)
    (tmp_path / "thesis.tex").write_text("two years of work")
    with pytest.raises(ValueError, match="files other than an evaluation"):
        report.write(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "two years of work"
    for _ in range(2):
        assert report.write(tmp_path / "report")


def test_the_document_has_no_numbers_that_json_lacks(evaluated, tmp_path):
    row = AssociationRow("bound", "log p", "nats", Estimate(-1.0, math.nan, 20), math.nan)
    Report(*evaluated, association=[row]).write(tmp_path / "report")

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "report" / "evaluation.json").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert found["association"]["bound"]["reference"] is None


class Narrow(Intensity):
    """With a domain that excludes a part of the data."""

    def abduct(self, value, parents, sample_shape=()):
        noise = super().abduct(value, parents, sample_shape)["u"]
        return {"u": torch.where(value > 150, noise, -math.inf)}


def test_rows_of_infinite_noise_are_reported_as_left_out():
    data = KnownTinyDataModule(test_size=60)
    lost = int((data.variables("test")["intensity"] <= 150).sum())
    model = ModelOnData.of(make(intensity=Narrow), data)
    found = evaluate(model, EvaluationSettings([], workers=1, density_size=50), progress=False)
    report = Report(model, found)
    assert 0 < lost < 60
    assert report.as_plain_data()["noise"]["intensity/u"]["left_out"] == lost
    assert any(
        f"u of intensity is infinite for {lost} of 60 rows" in reason for reason in report.left_out
    )
