"""Figures of a report: numbers in their places, legible texts, nothing impossible drawn."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import StepPatch
from rich.console import Console

from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.evaluation.densities import DensityResult, Sample
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.examples import Example
from deepscm_pl.evaluation.fitted_null import largest_correlation_by_chance
from deepscm_pl.evaluation.noise import (
    NoiseResult,
)
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.evaluation.results import (
    CounterfactualResult,
    CoverageEstimates,
    EffectivenessEstimates,
    ErrorEstimates,
    IdentityEstimates,
    ImageErrors,
    MeasurementErrors,
)
from deepscm_pl.figures import DensityPanel, draw_marginal_densities as watched_densities
from deepscm_pl.figures.output import wrapped
from deepscm_pl.interventions import format_do, parse_do
from deepscm_pl.reports import (
    Report,
    draw_coverage,
    draw_densities,
    draw_errors,
    draw_examples,
    draw_noise_results,
    has_coverage,
)
from deepscm_pl.reports.tables import (
    TextTable,
    density_table,
    effectiveness_table,
    how_to_read,
    soundness_table,
)
from deepscm_pl.variables import Domain, Variable

from oracle import make
from tiny import KnownTinyDataModule, TinyDataModule

LONG = "left_ventricular_end_diastolic_volume"


def written(figure):
    """Visible texts of a figure, with their boxes in dots."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = list(figure.texts)
    legends = list(figure.legends)
    for axes in figure.axes:
        texts += axes.texts
        if axes.axison:
            texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = axis.get_major_ticks()
                texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
        legends += [axes.get_legend()] if axes.get_legend() else []
    texts += [text for legend in legends for text in legend.get_texts()]
    shown = [text for text in texts if text.get_text().strip() and text.get_visible()]
    return [(text, text.get_window_extent(canvas.get_renderer())) for text in shown]


def check_legible(figure):
    """No text is cut off, too small, or written over another."""
    found = written(figure)
    assert found
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in found:
        assert text.get_fontsize() >= 7, text
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (one, first), (other, second) in combinations(found, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert wide <= 1 or high <= 1, (one, other)


def answered(text, particles=0.01, draw=0.02, other=6.0, coverage=None):
    """An intervention with ratios to the error of the factual unchanged."""
    errors = ErrorEstimates(factual=Estimate(3.0, 0.1, 300), stranger=Estimate(3 * other, 0.1, 300))
    return CounterfactualResult(
        Question(text),
        290,
        10,
        error=ImageErrors(errors, ratio=ErrorEstimates(particle=Estimate(draw, 0.001, 300))),
        particles=ImageErrors(ratio=ErrorEstimates(Estimate(particles, 0.001, 60))),
        coverage=CoverageEstimates(
            varying={level: Estimate(share, 0.01, 60) for level, share in (coverage or {}).items()}
        ),
    )


def labels_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def dots(axes):
    """Every single dot by its marker and whether it is filled: horizontal places, from the top."""
    found = {}
    for line in axes.lines:
        if len(line.get_xdata()) == 1:
            kind = (line.get_marker(), line.get_markerfacecolor() != "white")
            found.setdefault(kind, []).append(float(line.get_xdata()[0]))
    return found


def test_a_hundredth_and_six_are_both_readable():
    figure = draw_errors([answered("thickness=1.5"), answered("thickness+=0.5", 0.22, 0.3, 0.8)],
                         "19 particles, first 60 images")  # fmt: skip
    axes = figure.axes[0]
    assert dots(axes) == {
        ("o", True): [0.01, 0.22],
        ("o", False): [0.02, 0.3],
        ("D", True): [6.0, pytest.approx(0.8)],
    }
    check_legible(figure)
    for ratios in dots(axes).values():
        for ratio in ratios:
            across, _ = axes.transAxes.inverted().transform(axes.transData.transform((ratio, 0)))
            assert 0.03 < across < 0.9
    values = {text.get_text() for text in axes.texts}
    assert values == {"0.0100", "0.0200", "6.00", "0.220", "0.300", "0.800"}
    assert labels_of(figure) == [
        "factual unchanged",
        "mean of 19 particles, first 60 images",
        "single draw, 300 rows",
        "another original, same attributes",
    ]
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert titles == ["do(thickness = 1.5)", "do(thickness + 0.5)"]


def test_error_bars_span_two_standard_errors():
    axes = draw_errors([answered("thickness=1.5", draw=0.5)]).axes[0]
    bars = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    assert any(np.allclose(bar, [0.498, 0.502]) for bar in bars)


def test_no_error_at_all_is_an_arrow_at_the_end_of_the_axis():
    figure = draw_errors(
        [answered("intensity+=1", 0.0, 0.0), answered("thickness=2")], "3 particles"
    )
    axes = figure.axes[0]
    assert dots(axes)["<", True] == dots(axes)["<", False] == [axes.get_xlim()[0]]
    assert [text.get_text() for text in axes.texts].count("0") == 2
    check_legible(figure)


def test_unknown_quantities_are_not_drawn():
    """One particle has no mean worth a dot; without a baseline there is no ratio to it."""
    result = answered("thickness=1.5")
    known = replace(result.error, mean_absolute_error=ErrorEstimates())
    figure = draw_errors([replace(result, error=known)])
    assert dots(figure.axes[0]) == {("o", False): [0.02]}
    assert not any("mean of" in label for label in labels_of(figure))


def test_levels_that_are_not_known_leave_no_gap():
    some = {0.1: 0.05, 0.3: 0.2, 0.5: 0.45, 0.7: float("nan")}
    result = answered("intensity-=30", coverage=some)
    figure = draw_coverage([result], "4 particles, first 60 images")
    exact, line = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), [10, 30, 50])
    np.testing.assert_allclose(line.get_ydata(), [5, 20, 45])
    np.testing.assert_allclose(exact.get_xdata(), exact.get_ydata())
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["exact", "do(intensity − 30)"]
    assert figure.axes[0].get_title() == "4 particles, first 60 images"
    assert has_coverage(result)
    assert not has_coverage(answered("thickness=1"))
    assert not has_coverage(answered("thickness=1", coverage={0.5: float("nan")}))


def test_twelve_interventions_are_distinguishable():
    results = [answered(f"thickness={k}, intensity={k}", coverage={0.5: 0.4}) for k in range(12)]
    lines = draw_coverage(results, "19 particles, 60 images").axes[0].lines[1:]
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == 12
    assert len({line.get_marker() for line in lines}) == 12


@pytest.fixture(scope="module")
def examples():
    """Three rows; the second is impossible under the second of two interventions."""
    grey = torch.full((3, 1, 28, 28), 100.0)
    truth = grey - torch.tensor([0.0, 5.0, 30.0])[:, None, None, None]
    everywhere, some = torch.tensor([True, True, True]), torch.tensor([True, False, True])
    return [
        Example("factual", grey, None, everywhere),
        Example("do(thickness = 3)", grey, truth, everywhere),
        Example("do(thickness + 0.5, intensity − 30)", grey, truth, some),
    ]


LABELS = ["test 0\nthickness 2.1 pixels\nintensity 180 grey levels", "test 1", "test 2"]


def test_impossible_answers_are_hatched_and_not_black(examples):
    figure = draw_examples(examples, LABELS)
    axes = figure.axes[0]
    hatched = [patch for patch in axes.patches if patch.get_hatch()]
    assert len(hatched) == 1
    # The factual of each row; answer, truth and difference of each that is possible.
    assert len(axes.images) == 3 + 3 * 3 + 2 * 3
    lefts = sorted({image.get_extent()[0] for image in axes.images})
    assert hatched[0].get_x() == pytest.approx(lefts[2])
    box = hatched[0].get_bbox()
    assert [text.get_text() for text in axes.texts].count("impossible") == 1
    for image in axes.images:
        left, right, bottom, top = image.get_extent()
        beside = right <= box.x0 + 1e-9 or left >= box.x1 - 1e-9
        assert beside or bottom <= box.y0 + 1e-9 or top >= box.y1 - 1e-9


def test_rows_are_named_between_factual_and_counterfactuals(examples):
    figure = draw_examples(examples, LABELS)
    axes = figure.axes[0]
    texts = [(text.get_text(), text.get_position()[0]) for text in axes.texts]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert "factual" in dict(texts)
    right = min(image.get_extent()[1] for image in axes.images)
    names = [(text, x) for text, x in texts if text in ("model", "truth", "difference")]
    assert len(names) == 9
    # Their right ends lie between the factual and the first counterfactual.
    assert all(x > right + 0.1 for _, x in names)
    assert labels == LABELS
    assert "do(thickness = 3)" in dict(texts)
    check_legible(figure)


def test_small_differences_are_visible_and_the_scale_is_labelled(examples):
    figure = draw_examples(examples, LABELS)
    changes = [image for image in figure.axes[0].images if image.get_array().ndim == 2]
    assert {image.get_clim() for image in changes} == {(-32.0, 32.0)}
    of_first = sorted(changes, key=lambda image: (image.get_extent()[0], image.get_extent()[3]))[:3]
    for image, difference in zip(of_first, (0.0, 5.0, 30.0), strict=True):
        np.testing.assert_allclose(image.get_array(), difference)
    bar = figure.axes[1]
    assert " ".join(bar.get_ylabel().split()) == "difference: model − truth (grey levels)"
    assert bar.get_ylim() == (-32, 32)
    exact = [replace(each, truth=each.images) for each in examples[1:]]
    assert draw_examples([examples[0], *exact], LABELS).axes[1].get_ylim() == (-16, 16)


def test_without_truth_there_is_nothing_to_compare(examples):
    unknown = [replace(each, truth=None) for each in examples]
    figure = draw_examples(unknown, LABELS)
    assert len(figure.axes) == 1
    assert len(figure.axes[0].images) == 3 + 3 + 2
    assert "truth" not in {text.get_text() for text in figure.axes[0].texts}
    check_legible(figure)


def test_examples_record_where_their_intervention_is_possible():
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=12))
    found = evaluate(
        model,
        EvaluationSettings(
            ["thickness+=3", "thickness=2"], num_particles=1, density_size=50, workers=1
        ),
        progress=False,
    )
    factual, increased, constant = found.examples
    expected = model.variables["thickness"][:4, 0] + 3 <= 8
    assert 0 < expected.sum() < 4
    assert torch.equal(increased.possible, expected)
    assert bool(constant.possible.all())
    assert bool(factual.possible.all())
    figure = Report(model, found).pictures["examples"]
    assert sum(bool(patch.get_hatch()) for patch in figure.axes[0].patches) == (~expected).sum()
    first = f"test 0\nthickness {model.variables['thickness'][0].item():.3g} pixels\nintensity"
    assert figure.axes[0].get_yticklabels()[0].get_text().startswith(first)


def with_units(units):
    return {name: Variable(name, unit=unit) for name, unit in units.items()}


def density(value, given="intensity", variable="thickness", done=True, given_unit="grey levels"):
    draws = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sample = Sample(draws, torch.full((200,), 1 / 200, dtype=torch.float64))
    variables = with_units({variable: "pixels", given: given_unit})
    return DensityResult(variable, {given: value}, done, sample, sample, 0.1, 0.1, variables)


def test_the_legends_of_densities_cover_no_curve_and_have_units():
    figure = draw_densities([density(96.0), density(160.0), density(96.0, done=False)])
    check_legible(figure)
    for axes in figure.axes:
        assert axes.get_ylabel() == "density (1/pixels)"
        assert axes.get_xlabel() == "thickness (pixels)"
        legend = axes.get_legend()
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
        assert not figure.legends[0].get_window_extent().overlaps(legend.get_window_extent())
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["intensity = 96 grey levels", "intensity = 160 grey levels"]
    assert labels_of(figure) == ["model", "world"]


def test_a_density_given_several_causes_names_them_all():
    draws = torch.randn(200, dtype=torch.float64)
    sample = Sample(draws, torch.full((200,), 1 / 200, dtype=torch.float64))
    given, variables = {"age": 60.0, "sex": 1.0}, with_units({"age": "years"})
    result = DensityResult("brain_volume", given, False, sample, sample, 1, 1, variables)
    assert result.title == "p(brain_volume | age = 60 years, sex = 1)"
    (axes,) = draw_densities([result]).axes
    assert axes.get_title() == "p(brain_volume | age, sex)"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["age = 60 years, sex = 1"]


def noise(sample, entries=1, variable="image"):
    return NoiseResult(variable, "u", 50, 0, entries, {}, sample)


def test_noise_outside_the_histogram_is_labelled_and_not_drawn():
    inside = torch.linspace(-1, 1, 300)
    figure = draw_noise_results(
        [noise(torch.cat([inside, torch.full((100,), 9.0)]), 8), noise(inside)]
    )
    outer, inner = figure.axes
    assert outer.get_xlabel() == "noise (standard deviations; 25 % beyond ±4.5)"
    assert inner.get_xlabel() == "noise (standard deviations)"
    assert outer.get_title().splitlines() == [
        "u of image",
        "n = 50 rows, 8 numbers each",
        "mean 2.25, standard deviation 3.93",
    ]
    assert inner.get_title().splitlines()[:2] == ["u of image", "n = 50 rows"]
    for axes, share in ((outer, 0.75), (inner, 1.0)):
        (histogram,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
        heights, edges, _ = histogram.get_data()
        assert (heights * np.diff(edges)).sum() == pytest.approx(share)
        assert heights[-1] == 0
    assert labels_of(figure) == ["inferred", "prior N(0, 1)"]
    check_legible(figure)


def test_noise_that_is_all_infinite_is_an_empty_panel():
    figure = draw_noise_results([replace(noise(torch.zeros(0)), rows=0)])
    assert figure.axes[0].get_title() == "u of image\nn = 0 rows\nno finite value"
    check_legible(figure)


MANY = [f"thickness={1 + k / 2}" for k in range(10)] + ["thickness*=2, intensity-=40",
                                                        "thickness+=1, intensity*=1.1"]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "texts", "particles"),
    [
        (KnownTinyDataModule(test_size=20), ["intensity+=1"], 1),
        (KnownTinyDataModule(test_size=20), ["thickness=7.5"], 3),
        (KnownTinyDataModule(test_size=20), MANY, 9),
        (TinyDataModule(), ["thickness=7.5", "intensity+=60"], 3),
    ],
    ids=["one", "one with coverage", "twelve", "no world"],
)
def test_every_picture_of_a_report_is_legible(data, texts, particles):
    model = ModelOnData.of(make(), data)
    found = evaluate(
        model, EvaluationSettings(texts, particles, density_size=200, workers=1), progress=False
    )
    report = Report(model, found)
    for figure in report.pictures.values():
        check_legible(figure)
    expected = {"examples", "noise", "densities"}
    if found.world is not None:
        expected |= {"errors", "overlap"}
    if texts in (["thickness=7.5"], MANY):
        expected |= {"coverage"}
    assert set(report.pictures) == expected


def test_long_names_fit():
    """Names that are longer than those of the known worlds."""
    text = f"{LONG}=120.5, {LONG[::-1]}+=12.25, age=70"
    results = [answered(text, coverage={0.5: 0.4}), answered("age=3", coverage={0.5: 0.6})]
    image = torch.zeros(1, 1, 28, 28)
    everywhere = torch.ones(1, dtype=torch.bool)
    asked = Example(Question(text).title, image, image, everywhere)
    samples = [density(120.5, LONG, "age", done, "millilitres") for done in (True, False)]
    for figure in (
        draw_errors(results, "19 particles, first 500 images"),
        draw_coverage(results, "19 particles, first 500 images"),
        draw_examples([Example("factual", image, None, everywhere), asked, asked],
                      [f"test 0\n{LONG} 120 millilitres"]),
        draw_densities([*samples, density(3.0, "age", LONG)]),
        draw_noise_results([noise(torch.zeros(9), variable=LONG)] * 4),
    ):  # fmt: skip
        check_legible(figure)


def test_interventions_have_one_name_in_tables_and_pictures():
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=12))
    found = evaluate(
        model,
        EvaluationSettings(["thickness+=0.5"], 3, density_size=50, workers=1),
        progress=False,
    )
    name = "do(thickness + 0.5 pixels)"
    report = Report(model, found)
    for table in ("errors", "effectiveness", "soundness"):
        assert {row[0] for row in report.tables[table].rows} == {name}
    for picture in ("errors", "examples", "coverage"):
        texts = {text.get_text() for text, _ in written(report.pictures[picture])}
        assert name in {text.replace("\n", " ") for text in texts}
    assert list(report.as_plain_data()["counterfactual"]) == ["thickness+=0.5"]


def test_only_tables_with_content_are_explained():
    known = ModelOnData.of(make(), KnownTinyDataModule(test_size=12))
    found = evaluate(
        known, EvaluationSettings(["thickness=7.5"], 19, density_size=50, workers=1), progress=False
    )
    markdown = Report(known, found).as_markdown()
    for phrase in ("*Two samples of the world* is", "*another original*, the error", "noise floor*",
                 "*Change ÷ true change*", "*Coverage* is", "*by chance up to*"):  # fmt: skip
        assert phrase in markdown, phrase
    assert "*Identity kept*" not in markdown
    unknown = ModelOnData.of(make(), TinyDataModule())
    found = evaluate(unknown, EvaluationSettings(["thickness=2"], 19, workers=1), progress=False)
    markdown = Report(unknown, found).as_markdown()
    assert "*There and back*" in markdown
    for phrase in (
        "another original",
        "*Coverage*",
        "*Change ÷ true change*",
        "the truth, and the",
    ):
        assert phrase not in markdown, phrase


def test_explanations_name_existing_columns_only():
    identity = IdentityEstimates(kept=Estimate(0.9, 0.1, 9))
    coverage = CoverageEstimates(varying={0.5: Estimate(0.5, 0, 9)})
    result = CounterfactualResult(Question("a=1"), 9, 0, coverage=coverage, identity=identity)
    table = soundness_table([result])
    explanation = how_to_read("soundness", table)
    assert "*Identity kept*" in explanation
    assert "*Coverage*" in explanation
    assert "*By the truth*" not in explanation
    assert "*There and back*" not in explanation


@pytest.mark.parametrize(("entries", "about"), [(1, 2 / 10), (60, None)])
def test_correlations_of_independent_noise_stay_below_the_limit(entries, about):
    """In 95 % of samples of 100 rows, by drawing them."""
    generator = torch.Generator().manual_seed(0)
    noises = torch.randn(2000, 100, entries, dtype=torch.float64, generator=generator)
    parents = torch.rand(2000, 100, 1, dtype=torch.float64, generator=generator)
    centred = [each - each.mean(dim=1, keepdim=True) for each in (noises, parents)]
    scaled = [each / each.norm(dim=1, keepdim=True) for each in centred]
    largest = (scaled[0] * scaled[1]).sum(dim=1).abs().amax(dim=1)
    limit = largest_correlation_by_chance(100, entries)
    assert (largest < limit).double().mean() == pytest.approx(0.95, abs=0.02)
    if about is not None:
        assert limit == pytest.approx(about, rel=0.03)


def volumes(given: float, unit: str = "mm³") -> DensityResult:
    draws = 1.1e6 + 1e5 * torch.randn(200, dtype=torch.float64)
    sample = Sample(draws, torch.full((200,), 1 / 200, dtype=torch.float64))
    asked = {"ventricle_volume": given}
    variables = with_units({"brain_volume": unit, "ventricle_volume": unit})
    return DensityResult("brain_volume", asked, True, sample, sample, 1e4, 1e3, variables)


def test_densities_of_volumes_are_legible():
    figure = draw_densities([volumes(22_800.0), volumes(1_045_000.0)])
    check_legible(figure)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "brain_volume (million mm³)"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["ventricle_volume = 22,800 mm³", "ventricle_volume = 1.045 million mm³"]
    table = density_table([volumes(1_045_000.0)])
    title = "p(brain_volume | do(ventricle_volume = 1.045 million mm³))"
    assert table.rows == [[title, "mm³", "10,000", "1000"]]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_legends_of_watched_densities_are_within_the_figure(count):
    dos = ["brain_volume=1.2e6, ventricle_volume=4e4", "age=80", "age+=10, sex=1", "sex=0"]
    units = {"brain_volume": "mm³", "ventricle_volume": "mm³", "age": "years"}
    curves = {format_do(parse_do(text), with_units(units)): torch.randn(50) for text in dos}
    panels = [DensityPanel(f"age {k} (years)", torch.randn(50), curves) for k in range(count)]
    figure = watched_densities(panels)
    check_legible(figure)
    assert len(figure.legends[0].get_texts()) == 5


def test_classes_are_bars_of_their_probability():
    weights = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    model = Sample(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), weights)
    world = Sample(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), weights)
    sex = Variable("sex", Domain(categories=2))
    results = [
        DensityResult("sex", {"age": value}, True, model, world, 0.2, 0.1, {"sex": sex})
        for value in (40.0, 80.0)
    ]
    figure = draw_densities(results)
    check_legible(figure)
    axes = figure.axes[0]
    heights = [patch.get_height() for patch in axes.patches]
    assert heights == pytest.approx([0.1, 0.9, 0.3, 0.7] * 2)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    assert axes.get_ylabel() == "probability"
    first, second = (axes.patches[k].get_bbox() for k in (0, 4))
    assert first.x1 < second.x0


def test_examples_of_volumes_show_their_planes():
    grey = torch.full((1, 1, 6, 8, 5), 100.0)
    truth = grey.clone()
    truth[:, :, 3] = 60  # the sagittal plane of the middle, a line in the others
    everywhere = torch.tensor([True])
    examples = [
        Example("factual", grey, None, everywhere),
        Example("do(brain_volume = 1 million, sex = 1)", grey, truth, everywhere),
    ]
    figure = draw_examples(examples, ["test 0\nbrain volume 1.04 million mm³"])
    check_legible(figure)
    axes = figure.axes[0]
    assert {image.get_array().shape[:2] for image in axes.images} == {(8, 2 * 6 + 8 + 2)}
    change = next(image for image in axes.images if image.get_array().ndim == 2).get_array()
    assert (change[1:6, -8:] == 40).all()
    assert (change[:, :6] == 40).sum() == 8
    assert figure.axes[1].get_ylim() == (-40, 40)


def test_a_number_stays_with_its_million():
    assert wrapped("do(brain_volume = 1 million)", 20) == "do(brain_volume =\n1 million)"


def test_large_effects_have_no_decimals_that_hide_their_size():
    measured = MeasurementErrors(*(Estimate(value, 1.0, 10) for value in (53_412.123, -12.5, 0.0)))
    effectiveness = {"brain_volume": EffectivenessEstimates(measured, noise_floor=measured)}
    question = Question("brain_volume=1e6")
    result = CounterfactualResult(question, 10, 0, effectiveness=effectiveness)
    table = effectiveness_table([result], ["brain_volume"], lambda name: "mm³")
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    assert shown["intervention"] == "do(brain_volume = 1 million)"
    assert (shown["error"], shown["bias"]) == ("53,412", "-12.500")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_cut_no_number_off(width):
    """However long the names are, as long as the longest words fit."""
    table = TextTable(
        "Noise",
        ["noise", "correlation with parents", "numbers", "standard deviation"],
        [["u of ventricle_volume", "age +0.170, brain_volume +0.399", "5120", "-29.123"]] * 2,
        words=2,
    )
    console = Console(width=width, file=io.StringIO())
    console.print(table.as_rich(width))
    text = console.file.getvalue()
    assert "…" not in text
    for word in ("ventricle_volume", "brain_volume", "+0.399", "5120", "-29.123", "deviation"):
        assert word in text
