"""Exported models give the same answers; broken and hostile files are refused."""

from __future__ import annotations

import json
import math
import os
import stat
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deepscm_pl.cli import main
from deepscm_pl.data import CausalDataModule
from deepscm_pl.runs.safetensors_file import read_exported, write_exported
from deepscm_pl.training import (
    CounterfactualTuning,
    DeepSCM,
    export_model,
    load_data,
    read_checkpoint,
)


@pytest.fixture
def exported(checkpoint, tmp_path):
    return export_model(checkpoint, tmp_path / "model.safetensors")


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def draw(path):
    torch.manual_seed(5)
    scm = DeepSCM.load_from_checkpoint(path).scm
    with torch.no_grad():
        return scm.sample(4)


def test_an_exported_model_is_the_model_of_the_checkpoint(checkpoint, exported):
    expected, found = read_checkpoint(checkpoint), read_checkpoint(exported)
    for name in ("hyper_parameters", "data", "reports", "random_seed", "global_step", "deepscm_pl"):
        assert found.get(name) == expected.get(name)
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        assert found["state_dict"][name].dtype == value.dtype
        assert torch.equal(found["state_dict"][name], value)
    assert not {"optimizer_states", "loops", "callbacks"} & found.keys()
    assert exported.stat().st_size < checkpoint.stat().st_size


def test_samples_are_the_same_bits(checkpoint, exported):
    expected, found = draw(checkpoint), draw(exported)
    for name, values in expected.items():
        assert torch.equal(found[name], values)


def test_the_data_are_known(exported):
    assert isinstance(load_data(exported), CausalDataModule)


def test_tensors_are_loaded_to_the_given_device(exported):
    weights = read_checkpoint(exported, map_location="meta")["state_dict"]
    assert {value.device.type for value in weights.values()} == {"meta"}


DESCRIPTIONS = {
    "units": {"thickness": "pixels", "intensity": "grey levels"},
    "class_names": {"another": ["thin", "thick"]},
}
"""The descriptions of version 0.1."""


def test_the_file_describes_its_variables(altered, tmp_path):
    checkpoint = altered(variables=None, descriptions=DESCRIPTIONS)
    about = json.loads(metadata(export_model(checkpoint, tmp_path / "a.safetensors"))["deepscm_pl"])
    variables = about["variables"]
    assert list(variables) == ["thickness", "intensity", "image"]
    assert variables["thickness"] == {
        "parents": [],
        "unit": "pixels",
        "classes": None,
        "values": "values in (0, inf)",
        "shape": [1],
        "lower": 0.0,
        "upper": None,
        "open": True,
        "whole": False,
        "step": None,
        "categories": None,
    }
    assert variables["intensity"]["unit"] == "grey levels"
    assert variables["image"]["unit"] is None
    assert variables["image"]["parents"] == ["thickness", "intensity"]
    assert variables["image"]["shape"] == [1, 8, 8]
    assert variables["image"]["values"] == "whole numbers in [0, 255]"
    model = DeepSCM.load_from_checkpoint(checkpoint)
    assert about["parameters"] == sum(each.numel() for each in model.parameters())
    assert about["weights"] == "raw"


def test_units_are_read_without_the_data(altered, tmp_path):
    first = altered(variables=None, descriptions=DESCRIPTIONS)
    path = export_model(first, tmp_path / "model.safetensors")
    alter(path, data=None)
    again = export_model(path, tmp_path / "again.safetensors")
    for each in (path, again):
        found = DeepSCM.load_from_checkpoint(each).scm.variables
        units = {name: variable.unit for name, variable in found.items()}
        assert units == {**DESCRIPTIONS["units"], "image": ""}
    assert read_checkpoint(again)["variables"]["thickness"]["unit"] == "pixels"


def test_descriptions_are_escaped_for_a_terminal(exported, tmp_path, capsys):
    odd = "\x1b[2Jmm\nwritten: elsewhere"
    alter(exported, variables={"thickness": {"unit": odd, "classes": None}})
    assert DeepSCM.load_from_checkpoint(exported).scm.variables["thickness"].unit == odd
    again = tmp_path / "again.safetensors"
    assert main(["export", "--ckpt_path", str(exported), "--out", str(again)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\x1b[2Jmm\\nwritten: elsewhere" in printed
    assert printed.count("\nwritten: ") == 1


@pytest.mark.parametrize(
    "descriptions", [None, [], "pixels", {"units": ["pixels"]}, {"class_names": {"thickness": 3}}]
)
def test_malformed_descriptions_are_refused(exported, descriptions):
    alter(exported, variables=None, descriptions=descriptions)
    with pytest.raises(ValueError, match="describes its variables in an unexpected form"):
        DeepSCM.load_from_checkpoint(exported)


@pytest.mark.parametrize(
    "described",
    [[], "pixels", {"thickness": "pixels"}, {"thickness": {"unit": 3}},
     {"thickness": {"classes": [3]}}, {"thickness": {"unit": "m" * 2000}}],
)  # fmt: skip
def test_malformed_variables_are_refused(exported, described):
    alter(exported, variables=described)
    with pytest.raises(ValueError, match="describes its variables in an unexpected form"):
        DeepSCM.load_from_checkpoint(exported)


def test_classes_of_a_number_are_refused(exported):
    alter(exported, variables={"thickness": {"classes": ["thin", "thick"]}})
    with pytest.raises(ValueError, match="thickness is one of 2 classes"):
        DeepSCM.load_from_checkpoint(exported)


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint, exported, tmp_path):
    for number in range(5):
        again = export_model(checkpoint, tmp_path / f"{number}.safetensors")
        assert again.read_bytes() == exported.read_bytes()


def test_existing_files_are_kept(checkpoint, exported):
    before = exported.read_bytes()
    with pytest.raises(ValueError, match=r"out: .* exists; choose another --out, or --overwrite"):
        export_model(checkpoint, exported)
    assert exported.read_bytes() == before
    exported.write_text("something else")
    assert export_model(checkpoint, exported, overwrite=True).read_bytes() == before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_file_has_the_permissions_of_new_files(checkpoint, tmp_path, umask):
    before = os.umask(umask)
    try:
        path = export_model(checkpoint, tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def alter(path, **entries):
    """Change the description in an exported file."""
    content = json.loads(metadata(path)["deepscm_pl"])
    rewrite(path, json.dumps({**content, **entries}))


def rewrite(path, description):
    save_file(load_file(path), path, metadata={"deepscm_pl": description})


def test_averaged_weights_are_exported(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["current_model_state"] = {n: torch.zeros_like(v) for n, v in saved["state_dict"].items()}
    torch.save(saved, tmp_path / "averaged.ckpt")
    path = export_model(tmp_path / "averaged.ckpt", tmp_path / "averaged.safetensors")
    found = read_checkpoint(path)
    assert "current_model_state" not in found
    assert found["weights"] == "averaged"
    again = export_model(path, tmp_path / "again.safetensors")
    assert read_checkpoint(again)["weights"] == "averaged"
    for name, value in saved["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value)


def test_files_of_the_training_have_no_folders_of_this_computer(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    given = {"thickness": "/home/me/thickness.ckpt", "intensity": "runs/intensity.ckpt"}
    kept = {"predictors": given, "variables": [["thickness"]], "weight": 2.0}
    kind = "deepscm_pl.training.CounterfactualTuning"
    saved["hyper_parameters"]["objective"] = {"class_path": kind, "init_args": kept}
    saved["hyper_parameters"]["initial"] = r"C:\runs\start.ckpt"
    of_objective = CounterfactualTuning(1).state_dict()
    for key, value in of_objective.items():
        saved["state_dict"][f"objective.{key}"] = torch.ones_like(value)
    torch.save(saved, tmp_path / "tuned.ckpt")
    path = export_model(tmp_path / "tuned.ckpt", tmp_path / "tuned.safetensors")
    found = read_checkpoint(path)["hyper_parameters"]
    named = {**given, "thickness": "thickness.ckpt"}
    assert found["objective"] == {"class_path": kind, "init_args": {**kept, "predictors": named}}
    assert found["initial"] == "start.ckpt"
    draw(path)


def spoil(kind, path):
    weights, about = load_file(path), metadata(path)
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "foreign":
        save_file(weights, path)
    elif kind == "no JSON":
        save_file(weights, path, metadata={"deepscm_pl": "{"})
    elif kind == "a list":
        save_file(weights, path, metadata={"deepscm_pl": "[]"})
    elif kind == "fewer tensors":
        weights.popitem()
        save_file(weights, path, metadata=about)
    elif kind == "more tensors":
        save_file({**weights, "extra": torch.zeros(1)}, path, metadata=about)
    elif kind == "another shape":
        weights["scm.fitted"] = torch.ones(3, dtype=torch.bool)
        save_file(weights, path, metadata=about)
    elif kind == "another kind":
        name = next(name for name, value in weights.items() if value.is_floating_point())
        weights[name] = weights[name].to(torch.int64)
        save_file(weights, path, metadata=about)
    elif kind == "deep":
        rewrite(path, '{"hyper_parameters": ' + "[" * 10**5 + "]" * 10**5 + "}")
    elif kind == "huge":
        rewrite(path, json.dumps({"hyper_parameters": "x" * 10_000_001}))
    elif kind == "a name twice":
        text = about["deepscm_pl"]
        assert text.startswith("{")
        rewrite(path, '{"hyper_parameters": {}, ' + text[1:])
    elif kind == "a bad number":
        rewrite(path, '{"hyper_parameters": {"deepscm_pl.number": "1e5"}}')
    elif kind == "no settings":
        alter(path, hyper_parameters={"graph": 5, "mechanisms": None})
    elif kind == "settings of lists":
        content = json.loads(about["deepscm_pl"])
        content["hyper_parameters"]["mechanisms"]["image"]["init_args"] = [1, 2]
        rewrite(path, json.dumps(content))
    elif kind == "other sizes":
        content = json.loads(about["deepscm_pl"])
        content["hyper_parameters"]["mechanisms"]["image"]["init_args"]["latent"] = 5
        save_file(weights, path, metadata={"deepscm_pl": json.dumps(content)})
    elif kind == "hostile":
        content = json.loads(about["deepscm_pl"])
        command = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "executed"]}}
        content["hyper_parameters"]["mechanisms"]["image"] = command
        save_file(weights, path, metadata={"deepscm_pl": json.dumps(content)})


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("missing", FileNotFoundError, "there is no file"),
        ("truncated", ValueError, "truncated or no safetensors"),
        ("empty", ValueError, "truncated or no safetensors"),
        ("foreign", ValueError, "is no model of this program"),
        ("no JSON", ValueError, "is no model of this program"),
        ("a list", ValueError, "is no model of this program"),
        ("deep", ValueError, "is no model of this program"),
        ("huge", ValueError, "is no model of this program"),
        ("a name twice", ValueError, "is no model of this program"),
        ("a bad number", ValueError, "is no model of this program"),
        ("no settings", ValueError, "does not fit"),
        ("settings of lists", ValueError, "does not fit"),
        ("fewer tensors", ValueError, r"do not fit the model \(missing: scm\."),
        ("more tensors", ValueError, r"do not fit the model \(unexpected: extra\)"),
        ("another shape", ValueError, r"scm.fitted is of shape \(3,\) instead of \(\)"),
        ("another kind", ValueError, r"is of torch.int64 \(.*\) instead of torch.float64"),
        ("other sizes", ValueError, "does not fit"),
        ("hostile", ValueError, "'subprocess.Popen' is refused"),
    ],
)
def test_bad_files_are_refused(exported, monkeypatch, tmp_path, kind, error, message):
    monkeypatch.chdir(tmp_path)
    spoil(kind, exported)
    with pytest.raises(error, match=message) as caught:
        DeepSCM.load_from_checkpoint(exported)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "executed").exists()


def test_a_file_that_cannot_be_written_leaves_nothing(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"expected a file ending in \.safetensors"):
        export_model(checkpoint, tmp_path / "model.bin")
    with pytest.raises(ValueError, match="cannot be written"):
        export_model(checkpoint, tmp_path / "none" / "model.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ValueError, match="cannot be written"):
        export_model(checkpoint, tmp_path / "folder.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.safetensors"]


def test_a_checkpoint_with_values_that_json_lacks_is_not_exported(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["extra"] = torch.zeros(2)
    torch.save(saved, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        export_model(tmp_path / "odd.ckpt", tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def write_raw(path, header, data=bytes(8)):
    """A safetensors file with any header; a header that is not a text becomes the metadata."""
    if not isinstance(header, str):
        about = json.dumps({"state_dict": {}, "hyper_parameters": {"graph": "", "mechanisms": {}}})
        header = json.dumps({"__metadata__": {"deepscm_pl": about}, **header})
    text = header.encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "{",
        "\x00" * 8,
        "[" * 10**5,
        {"a": tensor(dtype="BOGUS\n\x1b[2J")},
        {"a": tensor(dtype="F4")},
        {"a": tensor(shape=(0, 2**63), offsets=(0, 0)), "b": tensor()},
        {"a": tensor(shape=(2**63, 2**63))},
        {"a": tensor(shape=(3,))},
        {"a": tensor(shape=(-2,))},
        {"a": tensor(offsets=(0, 10**6))},
        {"a": tensor(offsets=(8, 0))},
        {"a": tensor(), "b": tensor()},
        {"a": tensor(), "__metadata__": {"deepscm_pl": 1}},
        json.dumps({"a": tensor(), "b": tensor(offsets=(0, 8))}).replace('"b"', '"a"'),
    ],
)
def test_hostile_headers_are_refused_in_one_line(tmp_path, header):
    path = write_raw(tmp_path / "hostile.safetensors", header)
    with pytest.raises(ValueError, match="cannot be read") as error:
        read_checkpoint(path)
    assert str(error.value).isprintable()


def test_a_name_that_occurs_twice_in_the_metadata_is_refused(tmp_path):
    """Without tensors: safetensors itself would use the last entry of a name."""
    header = json.dumps({"__metadata__": {"deepscm_pl": "{}", "other": "{}"}})
    header = header.replace("other", "deepscm_pl")
    path = write_raw(tmp_path / "hostile.safetensors", header, data=b"")
    with pytest.raises(ValueError, match="cannot be read"):
        read_checkpoint(path)


def test_a_header_longer_than_its_file_is_refused(tmp_path):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(ValueError, match=f"its header would be {2**63} bytes long"):
        read_checkpoint(path)


def test_the_smallest_file_of_this_kind_is_read(tmp_path):
    path = write_raw(tmp_path / "model.safetensors", {"a": tensor()})
    assert read_checkpoint(path)["state_dict"]["a"].tolist() == [0.0, 0.0]


def test_the_state_of_the_training_is_not_read(exported):
    alter(exported, callbacks={"a": 1}, optimizer_states=[], current_model_state={})
    assert not {"callbacks", "optimizer_states", "current_model_state"} & (
        read_checkpoint(exported).keys()
    )


def test_tensors_of_all_kinds_are_restored(tmp_path):
    shared = torch.arange(12.0)
    weights = {
        "z_last": shared.view(3, 4).T,
        "a_first": shared[:4],
        "whole": shared,
        "one": torch.tensor(True),
        "empty": torch.zeros(0, 3),
        "also_empty": torch.zeros(0),
        "expanded": torch.ones(1).expand(5),
        **{
            str(dtype): torch.tensor([1, 0, 3]).to(dtype)
            for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8)
        },
    }
    path = tmp_path / "model.safetensors"
    write_exported({"state_dict": weights}, path)
    found = read_exported(path)["state_dict"]
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    found["whole"][0] = -1
    assert found["a_first"][0] == 0


@pytest.mark.parametrize(
    "value",
    [None, "text", torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.complex128)],
)
def test_weights_that_the_format_lacks_are_refused(tmp_path, value):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="for odd; such a model cannot be exported"):
        write_exported({"state_dict": {"odd": value}}, path)
    assert not path.exists()


def test_numbers_that_json_lacks_are_restored(tmp_path):
    path = tmp_path / "model.safetensors"
    settings = {"bounds": [-math.inf, math.inf], "none": math.nan, "text": "NaN", "one": 1.0}
    write_exported({"state_dict": {}, "hyper_parameters": settings}, path)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads(metadata(path)["deepscm_pl"], parse_constant=refuse)
    found = read_exported(path)["hyper_parameters"]
    assert math.isnan(found.pop("none"))
    settings.pop("none")
    assert found == settings


@pytest.mark.parametrize("extra", [{1: "a"}, {"a": {None: 1}}, {"a": {1, 2}}, {"a": b"bytes"}])
def test_ambiguous_descriptions_are_refused(tmp_path, extra):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        write_exported({"state_dict": {}, "extra": extra}, tmp_path / "model.safetensors")


def test_recursive_descriptions_are_refused(tmp_path):
    endless = []
    endless.append(endless)
    for extra in (endless, "x" * 10_000_001):
        with pytest.raises(ValueError, match="such a model cannot be exported"):
            write_exported({"state_dict": {}, "extra": extra}, tmp_path / "model.safetensors")
