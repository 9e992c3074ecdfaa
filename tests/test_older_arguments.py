"""Arguments of version 0.1 that have moved are translated in checkpoints and named in errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
import yaml

from deepscm_pl.cli import main
from deepscm_pl.configuration import describe, restore
from deepscm_pl.data import BrainMRIDataModule
from deepscm_pl.mechanisms import (
    AffineFlow,
    Bernoulli,
    Categorical,
    ConditionalVAE,
    Context,
    Mechanism,
    Ordinal,
    SteppedFlow,
    ZeroInflatedFlow,
)
from deepscm_pl.nn import Features
from deepscm_pl.older import SUCCESSORS, translated
from deepscm_pl.variables import Domain

DOMAINS = {name: Domain() for name in ("thickness", "intensity", "width")}
SMALL = {"channels": [4], "hidden": 8, "embedding": 4}
DRAWING = {"class_path": "deepscm_pl.nn.ResidualDecoder", "init_args": SMALL}
LAYER = {"class_path": "deepscm_pl.nn.Overlay", "init_args": {"field": DRAWING, "hidden": 4}}
STRUCTURE = {"brightness": ["intensity"], "placed_by": ["thickness"], "overlaid_by": ["width"]}


def older_image(layer=LAYER, **structure):
    """A mechanism as version 0.1 described it."""
    decoder = {"decoder": DRAWING, "hidden": 4, "overlay": layer}
    encoder = {"features": 4, "channels": [4], "embedding": 4}
    return {
        "class_path": "deepscm_pl.mechanisms.ConditionalVAE",
        "init_args": {
            "shape": [1, 4, 4],
            "latent": 2,
            "encoder": {"class_path": "deepscm_pl.nn.ResidualEncoder", "init_args": encoder},
            "decoder": {"class_path": "deepscm_pl.nn.TemplateDecoder", "init_args": decoder},
            "likelihood": {"class_path": "deepscm_pl.likelihoods.DiscretisedLogisticMixture"},
            **structure,
        },
    }


def restored(description):
    return restore(description, Callable[[Context], Mechanism])(Context(DOMAINS))


def test_the_structure_of_an_image_is_translated():
    image = restored(older_image(**STRUCTURE))
    assert image.likelihood.brightness == ("intensity",)
    assert image.decoder.placing.tolist() == [1, 0]
    assert image.decoder.drawing.tolist() == [1, 0]
    assert image.decoder.overlay.colouring[0].out_features == 4


def test_an_image_without_structure_is_as_it_was():
    image = restored(older_image(None, brightness=[], placed_by=None, overlaid_by=[]))
    assert image.brightness is None
    assert image.decoder.overlay is None
    assert image.decoder.placing.tolist() == [1, 1, 1]
    placed = restored(older_image(None, brightness=[], placed_by=[], overlaid_by=[]))
    assert placed.decoder.placing.tolist() == [0, 0, 0]


def test_a_translated_description_is_described_as_one_of_today():
    factory = restore(older_image(**STRUCTURE), Callable[[Context], Mechanism])
    today = describe(factory)
    assert not STRUCTURE.keys() & today["init_args"].keys()
    assert describe(restore(today, Callable[[Context], Mechanism])) == today


def test_weights_of_a_brightness_are_found_under_their_older_names():
    image = restored(older_image(**STRUCTURE))
    for tensor in image.state_dict().values():
        tensor.copy_(torch.randn_like(tensor))
    renamed = {
        "brightness.parents.": "brightness.",
        "brightness.others.": "content_context.",
        "brightness.exposure.": "exposure.",
    }
    older = {}
    for name, value in image.state_dict().items():
        old = next((each for each in renamed if name.startswith(each)), "")
        older[renamed.get(old, "") + name.removeprefix(old)] = value.clone()
    assert {"brightness.weight", "exposure.mean", "content_context.width_mean"} <= older.keys()
    again = restored(older_image(**STRUCTURE))
    again.load_state_dict(older)
    for name, value in image.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_settings_of_scans_are_grouped():
    older = {
        "root": "/scans",
        "images": "{id}.png",
        "identifier": "id",
        "split_column": "fold",
        "axis": "axial",
        "slices": [3, 0.5],
        "window": [0.0, 9.0],
        "normalisation": "window",
        "cache_dir": "/cache",
        "memory": 1.0,
        "units": None,
        "batch_size": 4,
    }
    description = {"class_path": "deepscm_pl.data.BrainMRIDataModule", "init_args": older}
    data = restore(description, Callable[[], BrainMRIDataModule])()
    assert (data.subjects.images, data.subjects.identifier) == ("{id}.png", "id")
    assert data.splits.column == "fold"
    assert data.slicing.slices == (3, 0.5)
    assert data.preprocessing.window == (0.0, 9.0)
    assert str(data.cache.path) == "/cache"
    again = restore(data.configuration(), Callable[[], BrainMRIDataModule])()
    assert again.configuration() == data.configuration()


@pytest.mark.parametrize(("owner", "kind"), [("ConditionalVAE", ConditionalVAE)])
def test_successors_are_named_in_python(owner, kind):
    for name, successor in SUCCESSORS[owner].items():
        with pytest.raises(TypeError, match=f"{name} is now {successor}"):
            kind(Context(DOMAINS), **{name: ["width"]})


def test_successors_of_scans_are_named_in_python():
    for name, successor in SUCCESSORS["BrainMRIDataModule"].items():
        with pytest.raises(TypeError, match=f"{name} is now {successor}"):
            BrainMRIDataModule("scans", **{name: None})


def message_of(tmp_path, capsys, image=None, data=None, *words):
    configuration = {
        "model": {"graph": "thickness -> image", "mechanisms": {}},
        "data": data or {"class_path": "deepscm_pl.data.SyntheticBrainDataModule"},
    }
    if image:
        configuration["model"]["mechanisms"]["image"] = image
    (tmp_path / "older.yaml").write_text(yaml.safe_dump(configuration))
    with pytest.raises(SystemExit) as leaving:
        main(["fit", "--config", str(tmp_path / "older.yaml"), *words])
    assert leaving.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", STRUCTURE)
def test_successors_of_a_structure_are_named_in_yaml(name, tmp_path, capsys):
    image = older_image(**{name: STRUCTURE[name]})
    del image["init_args"]["decoder"]["init_args"]["overlay"]
    told = message_of(tmp_path, capsys, image)
    assert f"{name} of ConditionalVAE is now {SUCCESSORS['ConditionalVAE'][name]}" in told


def test_the_successor_of_an_overlay_is_named_in_yaml(tmp_path, capsys):
    told = message_of(tmp_path, capsys, older_image(**STRUCTURE))
    assert "give the class of the layer as layer" in told


@pytest.mark.parametrize(
    ("name", "value"), [("split_column", "split"), ("units", {"age": "years"}), ("slices", [3])]
)
def test_successors_of_scans_are_named_in_yaml(name, value, tmp_path, capsys):
    settings = {"root": "scans", name: value}
    data = {"class_path": "deepscm_pl.data.BrainMRIDataModule", "init_args": settings}
    told = message_of(tmp_path, capsys, None, data)
    assert f"is now {SUCCESSORS['BrainMRIDataModule'][name]}" in told


def test_features_keep_their_names_when_copied():
    features = Features({"sex": 2, "age": 1})
    for again in (copy.deepcopy(features), pickle.loads(pickle.dumps(features))):
        assert (again, again.positions("place", ["age"])) == (3, [2])


def test_arguments_of_today_stay_as_they_are():
    today = {"root": "scans", "slicing": {"axis": "axial"}, "batch_size": 3}
    assert translated("BrainMRIDataModule", today) == today


@pytest.mark.parametrize(
    ("kind", "network", "settings"),
    [
        (AffineFlow, "parameters_of", {}),
        (Bernoulli, "correction", {}),
        (Categorical, "correction", {"categories": 3}),
        (Ordinal, "parameters_of", {"categories": 3}),
        (ZeroInflatedFlow, "threshold", {}),
    ],
)
def test_linear_mechanisms_of_older_descriptions_stay_linear(kind, network, settings):
    path = f"deepscm_pl.mechanisms.{kind.__name__}"
    older = restored({"class_path": path, "init_args": settings})
    assert getattr(older, network).is_affine
    # Descriptions of today name the widths, also if they are the default.
    today = describe(partial(kind, **settings))
    assert today["init_args"]["hidden"] == [16, 16]
    assert not getattr(restored(today), network).is_affine
    chosen = describe(partial(kind, **settings, hidden=[]))
    assert chosen["init_args"]["hidden"] == []
    assert getattr(restored(chosen), network).is_affine


def test_nested_and_derived_mechanisms_stay_linear():
    described = describe(partial(SteppedFlow, flow=AffineFlow))
    assert described["init_args"]["flow"]["init_args"] == {"hidden": [16, 16]}
    del described["init_args"]["flow"]["init_args"]["hidden"]
    assert restored(described).flow.parameters_of.is_affine
    # With a constructor of its own, a class has its own arguments.
    assert describe(Narrow)["init_args"] == {}
    assert describe(Inherited)["init_args"] == {"hidden": [16, 16]}


class Narrow(AffineFlow):
    def __init__(self, context):
        super().__init__(context, hidden=(4,))


class Inherited(AffineFlow):
    pass
