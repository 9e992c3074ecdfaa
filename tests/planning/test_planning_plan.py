"""Plans of every kind of variable and image make models that can be built and fitted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from deepscm_pl.configuration import restore_arguments
from deepscm_pl.planning import ColumnFingerprint, Fingerprint, ImageFingerprint, make_plan
from deepscm_pl.planning.network import image_mechanism, image_shape, preprocessing
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import DeepSCM


def column(name: str, kind: str, **settings: Any) -> ColumnFingerprint:
    given = {"rows": 400, "missing": 0, "distinct": 100, "rarest": 9} | settings
    return ColumnFingerprint(name, name, kind, "a reason", **given)


def data(*columns: ColumnFingerprint, **settings: Any) -> Fingerprint:
    return Fingerprint("t.csv", 1, 1, 400, columns, units=400, **settings)


def images(*sizes: int, **settings: Any) -> ImageFingerprint:
    given = {
        "pattern": "{file}",
        "files": 400,
        "inspected": 60,
        "sizes": sizes,
        "different_sizes": 1,
        "largest": sizes,
        "channels": 1,
        "type": "uint8",
        "lowest": 0.0,
        "highest": 255.0,
        "formats": (".png",),
    }
    return ImageFingerprint(**given | settings)


KINDS: dict[str, tuple[ColumnFingerprint, Tensor, str]] = {
    "continuous": (
        column("y", "continuous", lowest=-3.0, highest=3.0),
        torch.linspace(-3, 3, 400),
        "SplineFlow",
    ),
    "positive": (
        column("y", "positive", lowest=0.1, highest=90.0),
        torch.linspace(0.1, 90, 400),
        "SplineFlow",
    ),
    "bounded": (
        column("y", "bounded", lowest=0.01, highest=0.99),
        torch.linspace(0.01, 0.99, 400),
        "SplineFlow",
    ),
    "percentages": (
        column("y", "bounded", lowest=2.0, highest=99.0),
        torch.linspace(2, 99, 400),
        "SplineFlow",
    ),
    "count": (
        column("y", "count", lowest=0.0, highest=9.0, distinct=10, step=1.0),
        torch.arange(400) % 10,
        "SteppedFlow",
    ),
    "scores": (
        column("y", "positive", lowest=1.0, highest=5.0, distinct=9, step=0.5, most_frequent=0.1),
        1 + 0.5 * (torch.arange(400) % 9),
        "SteppedFlow",
    ),
    "falling": (
        column("y", "continuous", lowest=-4.0, highest=0.0, distinct=5, step=1.0),
        -(torch.arange(400) % 5),
        "SteppedFlow",
    ),
    "doses": (
        column("y", "continuous", lowest=0.0, highest=9.9, zeros=0.5, most_frequent=0.5),
        torch.linspace(-9.9, 9.9, 400).clamp(min=0),
        "ZeroInflatedFlow",
    ),
    "binary": (
        column("y", "binary", levels=("f", "m"), distinct=2),
        torch.arange(400) % 2,
        "Bernoulli",
    ),
    "categorical": (
        column("y", "categorical", levels=("a", "b", "c"), distinct=3),
        torch.arange(400) % 3,
        "Categorical",
    ),
    "ordinal": (
        column("y", "ordinal", levels=("low", "mid", "high"), distinct=3),
        torch.arange(400) % 3,
        "Ordinal",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", ["y", "x -> y", "y -> x"])
def test_variables_of_each_kind_can_be_fitted(kind: str, graph: str) -> None:
    y, values, name = KINDS[kind]
    x = column("x", "continuous", lowest=-2.0, highest=2.0)
    plan = make_plan(data(x, y), graph)
    described = plan.settings["model"]["mechanisms"]["y"]
    path = described if isinstance(described, str) else described["class_path"]
    assert path == f"deepscm_pl.mechanisms.{name}"
    model = restore_model(plan.settings["model"])
    variables = {"y": values.float()[:, None], "x": torch.linspace(-2, 2, 400)[:, None]}
    observed = {each: variables[each] for each in model.graph.nodes}
    model.fit(observed)
    assert model["y"].domain.contains(observed["y"]).all()
    log_prob = model.elbo(observed).evidence["y"].log_prob
    assert torch.isfinite(log_prob).all()
    kept = model.counterfactual(observed, {"y": observed["y"]})
    torch.testing.assert_close(kept["y"][0], observed["y"])


def restore_model(settings: dict[str, Any]) -> StructuralCausalModel:
    return DeepSCM(**restore_arguments(DeepSCM, with_class_paths(settings))).scm


def with_class_paths(node: Any) -> Any:
    """Write the short form of a class as the command line reads it."""
    if isinstance(node, dict):
        return {k: v if k == "class_path" else with_class_paths(v) for k, v in node.items()}
    is_class = isinstance(node, str) and node.startswith("deepscm_pl.")
    return {"class_path": node} if is_class else node


@pytest.mark.parametrize("rows", [60, 300, 3000, 30_000])
@pytest.mark.parametrize(
    "given",
    [
        images(28, 28),
        images(64, 64, channels=3),
        images(218, 178, channels=3),
        images(17, 23),
        images(1024, 1024, type="uint16"),
        images(8, 8),
        images(32, 40, 32, formats=(".nii.gz",)),
        images(182, 218, 182, formats=(".nii.gz",), type="float32", lowest=-3.0),
    ],
    ids=lambda given: " × ".join(map(str, (given.channels, *given.sizes))),
)
def test_networks_fit_the_images_and_the_rows(given: ImageFingerprint, rows: int) -> None:
    described, _ = image_mechanism(given, rows)
    graph = "x -> image"
    x, mechanisms = "deepscm_pl.mechanisms.AffineFlow", {"image": described}
    scm = restore_model({"graph": graph, "mechanisms": {"x": x, **mechanisms}})
    parameters = sum(each.numel() for each in scm["image"].parameters())
    assert parameters < (1_500_000 if rows < 5000 else 4_000_000)
    shape = image_shape(given)
    assert tuple(described["init_args"]["shape"]) == shape
    small = {"x": torch.randn(4, 1), "image": torch.randint(0, 256, (4, *shape)).byte()}
    scm.fit(small)
    assert torch.isfinite(scm.elbo(small).evidence["image"].log_prob).all()


def test_images_are_prepared_only_where_it_is_needed() -> None:
    assert preprocessing(images(28, 28))[0] == {}
    assert preprocessing(images(128, 96))[0] == {"shape": [64, 48]}
    colours = images(28, 28, channels=3, type="uint16", highest=60_000.0)
    assert preprocessing(colours)[0] == {"normalisation": "depth", "colour": "rgb"}
    dark = preprocessing(images(28, 28, type="uint16", highest=4095.0))[0]
    assert dark == {"normalisation": "window", "window": [0.0, 4095.0]}
    scored = preprocessing(images(28, 28, type="float32", lowest=-3.0, highest=4.0))[0]
    assert scored == {"normalisation": "percentiles"}
    scan = preprocessing(images(182, 218, 182, type="int16", lowest=-1000.0))[0]
    assert scan == {"normalisation": "percentiles", "shape": [64, 52]}
    sizes = {"different_sizes": 4, "largest": (190, 220, 180)}
    padded = preprocessing(images(182, 218, 182, **sizes))[0]
    assert padded == {"field_of_view": [220, 190], "shape": [64, 56]}


def test_each_setting_of_a_plan_has_a_reason() -> None:
    columns = [
        column("age", "positive", lowest=20.0, highest=80.0, unit="years", missing=30),
        column("grade", "ordinal", levels=("low", "mid", "high"), distinct=3, rarest=2),
    ]
    given = data(*columns, images=images(32, 32), identifier="id", visits=("session",))
    plan = make_plan(given, "age -> grade; age, grade -> image")
    text = plan.yaml("A plan.")
    assert yaml.safe_load(text) == plan.settings
    assert [reason for reason in plan.reasons.values() if reason[:40] not in text] == []
    unexplained = [
        line
        for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False)
        if ": " in line and "#" not in line and "#" not in before and "class_path" not in line
    ]
    # Names of columns, and what is explained once for a group of settings.
    assert len(unexplained) <= 12, unexplained
    table = plan.settings["data"]["init_args"]["table"]
    assert table["missing"] == "infer"
    assert table["units"] == {"age": "years"}
    assert table["classes"] == {"grade": ["low", "mid", "high"]}
    assert plan.settings["data"]["init_args"]["splits"]["stratify"] == ["grade"]
    assert any("has only 2 rows" in note for note in plan.notes)


@pytest.mark.parametrize("rows", [30, 300, 3_000, 30_000, 300_000])
def test_trainings_are_as_long_as_the_rows_need(rows: int) -> None:
    x, y = (column(name, "continuous", lowest=-1.0, highest=1.0, rows=rows) for name in "xy")
    settings = make_plan(Fingerprint("t.csv", 1, 1, rows, (x, y), units=rows), "x -> y").settings
    fraction = settings["data"]["init_args"]["splits"]["fractions"][0]
    batch = settings["data"]["init_args"]["batch_size"]
    steps = settings["trainer"]["max_epochs"] * -(-int(fraction * rows) // batch)
    assert 1000 <= steps <= 6000
    assert batch <= fraction * rows
    stops = settings["trainer"]["callbacks"][0]["init_args"]
    validations = (
        settings["trainer"]["max_epochs"] // settings["trainer"]["check_val_every_n_epoch"]
    )
    assert 2 <= stops["patience"] < validations
