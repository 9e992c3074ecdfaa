"""Composition with exact pixel noise is zero by construction; without pixel noise it is not."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.evaluation.cycles import evaluate_composition
from deepscm_pl.mechanisms import AffineFlow, MultiscaleFlow
from deepscm_pl.reports import Report
from deepscm_pl.scm import StructuralCausalModel

from tiny import TinyDataModule, image_mechanism

GRAPH = "thickness -> intensity; thickness, intensity -> image"


def untrained(image):
    torch.manual_seed(0)
    mechanisms = {"thickness": AffineFlow, "intensity": AffineFlow, "image": image}
    data = TinyDataModule()
    scm = StructuralCausalModel(GRAPH, mechanisms).eval()
    scm.fit(data.variables("train"))
    return ModelOnData.of(scm, data)


@torch.no_grad()
def test_without_pixel_noise_the_error_is_that_of_repeated_reconstructions():
    model = untrained(image_mechanism())
    exact, found = (
        evaluate_composition(model, 20, (1, 3), 7, False, without_pixel_noise=each)
        for each in (False, True)
    )
    assert [each.mean for each in exact.values()] == [0, 0]
    values = {name: value[:20].float() for name, value in model.variables.items()}
    parents = {name: values[name] for name in ("thickness", "intensity")}
    image = values["image"]
    for count in (1, 2, 3):
        image = model.scm["image"].reconstruct(image, parents)
        if count in found:
            error = (image - values["image"]).abs().mean().item()
            assert found[count].mean == pytest.approx(error, rel=1e-5)
            assert found[count].rows == 20
            assert error > 1


def test_results_tables_and_scalars_have_both_errors():
    model = untrained(image_mechanism())
    settings = EvaluationSettings([], workers=1, density_size=50, num_particles=1)
    report = Report(model, evaluate(model, settings, progress=False))
    key = "composition/without_pixel_noise/mean_absolute_error/10"
    error = report.as_plain_data()["composition"][key]["mean"]
    assert report.evaluation.composition_without_pixel_noise[10].mean == error > 1
    assert report.scalars()[f"evaluation/{key}"] == error
    assert report.as_plain_data()["composition"]["composition/mean_absolute_error/10"]["mean"] == 0
    exact, without = report.tables["composition"].rows
    assert exact == ["all noise inferred", "20", "0.000", "0.000"]
    assert without[-1] == f"{error:.3f}"
    text = report.as_markdown()
    assert "## Composition" in text
    assert "zero by construction" in text


def test_flows_of_images_have_no_error_without_latent():
    model = untrained(lambda context: MultiscaleFlow(context, (1, 8, 8), (1, 1)))
    found = evaluate_composition(model, 6, (1,), 6, False, without_pixel_noise=True)
    assert found[1].mean == 0
