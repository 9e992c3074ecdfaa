"""Bundles of MONAI: verified by MONAI itself, and the answers are those of the model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    load as load_bundle,
    run as run_bundle,
    verify_metadata,
    verify_net_in_out,
)
from PIL import Image

from deepscm_pl.checkpoints import load
from deepscm_pl.checkpoints.bundle import CounterfactualNetwork, ObservationReader
from deepscm_pl.checkpoints.bundle_files import write_bundle
from deepscm_pl.cli import main
from deepscm_pl.configuration import describe
from deepscm_pl.data.images import read_image
from deepscm_pl.digest import weights_digest
from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.runs.safetensors_file import read_exported, write_exported
from deepscm_pl.scm import StructuralCausalModel

from tiny import image_mechanism

MODELS = Path(__file__).parents[1] / "fixtures" / "checkpoints" / "0.1"
OBSERVATIONS = MODELS / "observations"
QUESTIONS = {
    "morphomnist.ckpt": "thickness=1, intensity=250",
    "volumes.safetensors": "brain_volume=700000",
}

TEXT, OBJECT = {"type": "string"}, {"type": "object"}
TENSOR = {
    "type": "object",
    "properties": {
        "type": TEXT,
        "format": TEXT,
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "dtype": TEXT,
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": OBJECT,
    },
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
}
TENSORS = {"type": "object", "additionalProperties": TENSOR, "minProperties": 1}
TEXTS = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task")
TEXTS += ("description", "authors", "copyright", "name", "data_source", "intended_use")
SCHEMA = {
    "type": "object",
    "properties": {
        **{name: {**TEXT, "minLength": 1} for name in TEXTS},
        **dict.fromkeys(("changelog", "required_packages_version", "eval_metrics"), OBJECT),
        "references": {"type": "array", "items": TEXT},
        "network_data_format": {
            "type": "object",
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
            "required": ["inputs", "outputs"],
        },
    },
    "required": [*TEXTS, "required_packages_version", "network_data_format"],
}
"""What MONAI's specification of bundles requires, so that nothing is downloaded."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A bundle of pictures and one of volumes, by the name of the model's file."""
    root = tmp_path_factory.mktemp("bundles")
    for name in QUESTIONS:
        out = root / name.partition(".")[0]
        words = ["--ckpt_path", str(MODELS / name), "--format", "monai", "--out", str(out)]
        assert main(["export", *words, "--authors", "A. Author"]) == 0
    return {name: root / name.partition(".")[0] for name in QUESTIONS}


@pytest.fixture(params=QUESTIONS)
def model(request):
    return request.param


def configs(bundle):
    return str(bundle / "configs" / "metadata.json"), str(bundle / "configs" / "inference.json")


def network_of(bundle, do="thickness=3", **settings):
    return CounterfactualNetwork(bundle / "models" / "model.safetensors", do, **settings)


def test_metadata_are_verified_by_monai(bundles, model, tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    metadata, _ = configs(bundles[model])
    verify_metadata(meta_file=metadata, filepath=str(tmp_path / "schema.json"))
    content = json.loads(Path(metadata).read_text())
    assert content["authors"] == "A. Author"
    assert "not validated for decisions about people" in content["intended_use"]
    del content["network_data_format"]["outputs"]
    (tmp_path / "broken.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(
            meta_file=str(tmp_path / "broken.json"), filepath=str(tmp_path / "schema.json")
        )


def test_the_network_is_verified_by_monai(bundles, model):
    metadata, inference = configs(bundles[model])
    given = {"config_file": inference, "device": "cpu", "bundle_root": str(bundles[model])}
    with pytest.warns(UserWarning, match="the constants of the configuration"):
        verify_net_in_out("network_def", meta_file=metadata, **given)
    changed = {"_meta_#network_data_format#outputs#pred#num_channels": 2}
    with pytest.raises(ValueError, match="channel number"):
        verify_net_in_out("network_def", meta_file=metadata, **given, **changed)


def factual(model):
    """The observations of a model, as columns."""
    lines = (OBSERVATIONS / f"{model.partition('.')[0]}.csv").read_text().splitlines()
    names, *rows = [line.split(",") for line in lines]
    columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    return {**columns, "image": [str(OBSERVATIONS / name) for name in columns["image"]]}


def ask(bundle, model, out, **changes):
    run_bundle(
        config_file=configs(bundle)[1],
        bundle_root=str(bundle),
        **{
            "observations": str(OBSERVATIONS / f"{model.partition('.')[0]}.csv"),
            "output_dir": str(out),
            "do": QUESTIONS[model],
            **changes,
        },
    )
    return sorted(out.iterdir())


def test_the_answers_are_those_of_the_model(bundles, model, tmp_path):
    files = ask(bundles[model], model, tmp_path / "answers")
    found = load(MODELS / model)
    expected = found.counterfactual(factual(model), QUESTIONS[model], seed=0)["image"][0]
    assert len(files) == len(expected)
    for path, image in zip(files, expected, strict=True):
        answer, _ = read_image(path, tuple(image.shape))
        torch.testing.assert_close(answer.to(image), image, rtol=0, atol=1)
    changed = expected - found.counterfactual(factual(model), {}, seed=0)["image"][0]
    assert changed.abs().max() > 1


def test_volumes_lie_where_their_scans_lie(bundles, tmp_path):
    columns = factual("volumes.safetensors")
    affine = np.array([[2.0, 0, 0, -9], [0, 3, 0, 5], [0, 0, 4, 1], [0, 0, 0, 1]])
    scan = np.load(columns["image"][0]).reshape(16, 20, 16).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(scan, affine), tmp_path / "scan.nii.gz")
    cells = {name: cells[0] for name, cells in columns.items()} | {"image": "scan.nii.gz"}
    (tmp_path / "table.csv").write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    table = {"observations": str(tmp_path / "table.csv")}
    bundle = bundles["volumes.safetensors"]
    [path] = ask(bundle, "volumes.safetensors", tmp_path / "answers", **table)
    assert path.name == "0-scan.nii.gz"
    answer = nibabel.load(path)
    np.testing.assert_allclose(answer.affine, affine)
    assert answer.shape == scan.shape
    assert answer.header["descrip"].item().startswith(b"do(brain_volume = 7")


def test_a_workflow_has_all_properties(bundles, model):
    metadata, inference = configs(bundles[model])
    table = str(OBSERVATIONS / f"{model.partition('.')[0]}.csv")
    workflow = ConfigWorkflow(
        config_file=inference,
        meta_file=metadata,
        workflow_type="inference",
        bundle_root=str(bundles[model]),
        observations=table,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_a_bundle_is_loaded_by_its_name(bundles, model):
    bundle = bundles[model]
    network = load_bundle(
        bundle.name,
        bundle_dir=str(bundle.parent),
        workflow_type="inference",
        net_override={"model": str(bundle / "models" / "model.safetensors")},
        device="cpu",
    )
    assert weights_digest(network) == weights_digest(load(MODELS / model).scm)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_the_question_can_change_at_every_call(bundles):
    network = network_of(bundles["morphomnist.ckpt"], attributes={"thickness": 2, "intensity": 150})
    image = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    attributes = torch.tensor([[2.0, 150.0], [3.0, 100.0]])
    answer = network(image, attributes)
    assert answer.dtype == torch.float32
    assert answer.min() >= 0
    assert answer.max() <= 1
    assert torch.equal(answer, network(image, attributes))
    other = network(image, attributes, do="intensity=90")
    assert not torch.equal(other, answer)
    # A null intervention returns the recorded image.
    kept = network(image, attributes, do="intensity=factual")
    torch.testing.assert_close(kept, (image * 255).round() / 255)
    with pytest.warns(UserWarning, match="thickness, intensity"):
        assumed = network(image[:1])
    torch.testing.assert_close(assumed, answer[:1])


IMAGE, ATTRIBUTES = torch.full((1, 1, 28, 28), 0.5), torch.tensor([[2.0, 150.0]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((IMAGE * 255, ATTRIBUTES), r"image: expected grey levels divided by 255, .* got 127\.5"),
        ((IMAGE - 1, ATTRIBUTES), r"in \[0, 1\], but got -0\.5; divide them"),
        ((IMAGE * torch.nan, ATTRIBUTES), "but got nan"),
        ((IMAGE[:, :, :-1], ATTRIBUTES), r"\(N, 1, 28, 28\), but got \(1, 1, 27, 28\)"),
        ((IMAGE[0], ATTRIBUTES), r"but got \(1, 28, 28\)"),
        ((IMAGE[:0], ATTRIBUTES[:0]), r"but got \(0, 1, 28, 28\)"),
        ((IMAGE, ATTRIBUTES[0]), r"attributes: expected a tensor \(1, 2\) with thickness, int"),
        ((IMAGE, ATTRIBUTES.expand(2, -1)), r"\(1, 2\) .* but got \(2, 2\)"),
        ((IMAGE,), r"attributes: expected a tensor .* but got none"),
        ((IMAGE, -ATTRIBUTES), r"thickness: expected values in \(0, inf\), but got -2"),
        ((IMAGE, ATTRIBUTES, "age=3"), "age"),
        ((IMAGE, ATTRIBUTES, "thickness=-3"), r"do\(thickness\): expected values in"),
        ((IMAGE, ATTRIBUTES, {"thickness": 3}), "do: expected a text such as"),
    ],
)
def test_bad_input_is_refused(bundles, given, message):
    with pytest.raises(ValueError, match=message):
        network_of(bundles["morphomnist.ckpt"])(*given)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"thickness": 2}, "intensity differs"),
        ({"thickness": 2, "intensity": 150, "age": 3}, "age differs"),
        ({"thickness": 2, "intensity": [150, 3]}, "expected 1 numbers of intensity, but got"),
        ({"thickness": 2, "intensity": "high"}, "but got 'high'"),
        ({"thickness": -2, "intensity": 150}, r"attributes: thickness: expected values in"),
    ],
)
def test_bad_constants_are_refused(bundles, attributes, message):
    with pytest.raises(ValueError, match=message):
        network_of(bundles["morphomnist.ckpt"], attributes=attributes)


def test_a_missing_model_is_named_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"bundle_root in monai\.bundle\.run"):
        CounterfactualNetwork(tmp_path / "model.safetensors", "thickness=3")


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (None, FileNotFoundError, "there is no table .* columns thickness, intensity, image"),
        ("thickness,image\n2,a.png\n", ValueError, "intensity is missing; it has thickness, im"),
        ("thickness,intensity,image\n2,150,b.png\n", FileNotFoundError, r"no image .*b\.png"),
        ("thickness,intensity,image\n2,150,\n", FileNotFoundError, "row 1|line 2"),
        ("thickness,intensity,image\nthick,150,a.png\n", ValueError, "number.* got 'thick'"),
        ("thickness,intensity,image\n-2,150,a.png\n", ValueError, r"values in \(0, inf\)"),
        ("thickness,intensity,image\n2,150,c.png\n", ValueError, r"one image \(1, 28, 28\)"),
    ],
)
def test_bad_tables_are_refused(bundles, tmp_path, table, error, message):
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    Image.new("L", (9, 9)).save(tmp_path / "c.png")
    if table is not None:
        (tmp_path / "table.csv").write_text(table)
    reader = ObservationReader(network_of(bundles["morphomnist.ckpt"]))
    with pytest.raises(error, match=message):
        _ = [reader(row) for row in reader.rows(tmp_path / "table.csv")]


def test_answers_replace_nothing(bundles, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RuntimeError, match="run") as caught:
        ask(bundles["morphomnist.ckpt"], "morphomnist.ckpt", tmp_path)
    assert "is not an empty folder" in str(caught.value.__cause__)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


def export(path, out, capsys, *words):
    status = main(
        ["export", "--ckpt_path", str(path), "--format", "monai", "--out", str(out), *words]
    )
    return status, capsys.readouterr().err


def in_file(path, graph, mechanisms):
    """Write a fitted model to a file."""
    scm = StructuralCausalModel(graph, mechanisms)
    scm.fitted.fill_(True)
    settings = {name: describe(mechanism) for name, mechanism in mechanisms.items()}
    content = {
        "state_dict": {f"scm.{name}": value for name, value in scm.state_dict().items()},
        "hyper_parameters": {"graph": graph, "mechanisms": settings},
    }
    write_exported(content, path)
    return path


@pytest.mark.parametrize(
    ("graph", "images", "message"),
    [
        ("a -> b", (), "expected a model with one image, .* but this one has only a, b; export"),
        ("a -> b, c", ("b", "c"), "this one has b, c"),
        ("a", ("a",), "expected a model with attributes to intervene on, but it has only a"),
        ("_target_ -> b", ("b",), "_target_ has a meaning in MONAI's configurations"),
    ],
)
def test_models_that_fit_no_bundle_are_refused(graph, images, message, tmp_path, capsys):
    mechanisms = {
        name: image_mechanism() if name in images else AffineFlow
        for name in CausalGraph(graph).nodes
    }
    path = in_file(tmp_path / "model.safetensors", graph, mechanisms)
    status, error = export(path, tmp_path / "bundle", capsys)
    assert status == 1
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


def test_existing_folders_are_kept(bundles, tmp_path, capsys):
    path, out = MODELS / "morphomnist.ckpt", tmp_path / "bundle"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for words in ([], ["--overwrite"]):
        status, error = export(path, out, capsys, *words)
        assert status == 1
        assert ("exists; choose another --out" if not words else "a bundle to replace") in error
    assert [each.name for each in out.iterdir()] == ["mine.txt"]
    again = shutil.copytree(bundles["morphomnist.ckpt"], tmp_path / "again")
    (again / "LICENSE").write_text("old")
    assert export(path, again, capsys, "--overwrite")[0] == 0
    assert "No licence has been chosen" in (again / "LICENSE").read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again", "bundle"]


def test_texts_of_a_hostile_model_are_not_executed(tmp_path):
    command = "$__import__('pathlib').Path('executed').touch()"
    content = read_exported(MODELS / "volumes.safetensors")
    described = {"age": {"unit": command, "classes": None}}
    data = {**content["data"], "class_path": f"x.{command}"}
    write_exported({**content, "variables": described, "data": data}, tmp_path / "m.safetensors")
    bundle = tmp_path / "$__import__('os').mkdir('executed')"
    write_bundle(tmp_path / "m.safetensors", bundle)
    parser = ConfigParser()
    metadata, inference = configs(bundle)
    parser.read_config(inference)
    parser.read_meta(metadata)
    parser["bundle_root"] = str(bundle)
    meta = parser.get_parsed_content("_meta_")
    assert meta["name"] == f"'{bundle.name}'"
    assert not (Path.cwd() / "executed").exists()
    everything = json.loads(Path(metadata).read_text())

    def texts(value):
        if isinstance(value, dict):
            return [text for pair in value.items() for each in pair for text in texts(each)]
        if isinstance(value, list):
            return [text for each in value for text in texts(each)]
        return [value] if isinstance(value, str) else []

    assert not [text for text in texts(everything) if text.startswith(("$", "@", "%"))]


def test_figures_and_licence_are_in_the_bundle(tmp_path, capsys):
    path = MODELS / "morphomnist.ckpt"
    figure = {
        "intervention": "do(thickness ~ train)",
        "variable": "image",
        "quantity": "error",
        "unit": "grey levels",
        "judge": "",
        "defined": {"mean": 0.15, "standard_error": 0.01, "rows": 9},
        "floor": 0.0,
    }
    content = {"protocol": "ours", "rows": 9, "weights": weights_digest(load(path).scm)}
    (tmp_path / "protocol.json").write_text(json.dumps({**content, "figures": [figure]}))
    (tmp_path / "terms.txt").write_text("Terms.")
    words = ("--card", str(tmp_path), "--license", str(tmp_path / "terms.txt"))
    assert export(path, tmp_path / "bundle", capsys, *words)[0] == 0
    metadata = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    name = "do(thickness ~ train): image, error, grey levels"
    assert metadata["eval_metrics"] == {name: "0.15 ± 0.01"}
    card = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: deepscm_pl\n")
    assert "0.15 ± 0.01" in card
    assert "## Run it with MONAI" in card
    assert (tmp_path / "bundle" / "LICENSE").read_text() == "Terms."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--authors", "me"], "authors: expected with --format monai only"),
        (["--license", "LICENSE"], "license: expected with --format monai only"),
        (["--format", "monai", "--license", "none.txt"], "license: none.txt cannot be read"),
        (["--format", "onnx"], "invalid choice"),
    ],
)
def test_options_that_do_not_fit_are_refused(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["export", "--ckpt_path", str(MODELS / "morphomnist.ckpt"), *words])
    except SystemExit as error:
        status = error.code
    assert status
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
