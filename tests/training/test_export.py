"""Models as safetensors: the same weights and answers, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deepscm_pl.data import CausalDataModule
from deepscm_pl.training import DeepSCM, export_model, load_data, read_checkpoint


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


def test_tensors_go_where_they_are_wanted(exported):
    weights = read_checkpoint(exported, map_location="meta")["state_dict"]
    assert {value.device.type for value in weights.values()} == {"meta"}


def test_averaged_weights_are_exported(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["current_model_state"] = {n: torch.zeros_like(v) for n, v in saved["state_dict"].items()}
    torch.save(saved, tmp_path / "averaged.ckpt")
    path = export_model(tmp_path / "averaged.ckpt", tmp_path / "averaged.safetensors")
    found = read_checkpoint(path)
    assert "current_model_state" not in found
    for name, value in saved["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value)


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
        ("fewer tensors", ValueError, "does not fit"),
        ("other sizes", ValueError, "does not fit"),
        ("hostile", ValueError, "'subprocess.Popen' is refused"),
    ],
)
def test_bad_files_are_refused(exported, monkeypatch, tmp_path, kind, error, message):
    monkeypatch.chdir(tmp_path)
    spoil(kind, exported)
    with pytest.raises(error, match=message):
        DeepSCM.load_from_checkpoint(exported)
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


def test_a_checkpoint_with_what_json_lacks_is_not_exported(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["extra"] = torch.zeros(2)
    torch.save(saved, tmp_path / "odd.ckpt")
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        export_model(tmp_path / "odd.ckpt", tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()
