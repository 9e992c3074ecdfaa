"""Malicious files: each is a checkpoint of the tiny world with one harmful change."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": "echo pwned", "shell": True}}
POPEN_TEXT = json.dumps(POPEN)
DATASET_TEXT = json.dumps(
    {
        "class_path": "pytorch_lightning.LightningDataModule.from_datasets",
        "init_args": {
            "train_dataset": {
                "class_path": "torchvision.datasets.DatasetFolder",
                "init_args": {
                    "root": "precious",
                    "loader": "os.system",
                    "is_valid_file": "os.remove",
                },
            }
        },
    }
)

EVERY = "every"
"""Scope: refused by every reader of the file."""
MODEL = "model"
"""Scope: refused when the model is built."""
FIT = "fit"
"""Scope: refused when the module that trains is built; nothing else reads these settings."""
DATA = "data"
"""Scope: refused when the data module is built."""
RESUME = "resume"
"""Scope: refused when a training resumes."""
TEST = "test"
"""Scope: refused when Lightning runs with the settings of the file."""
TRAINER = "trainer"
"""Scope: refused when Lightning reads the file."""
HARMLESS = "harmless"
"""Scope: answered without harm."""


@dataclass(frozen=True)
class Hostile:
    """A malicious file.

    Attributes:
        name: The harmful change.
        scope: Readers that refuse the file.
        write: Function that writes the file, given the content of a good checkpoint and a path
            without a suffix.
    """

    name: str
    scope: str
    write: Callable[[dict, Path], Path]


def _saved(change):
    """A checkpoint changed in place by a function."""

    def write(content, path):
        changed = copy.deepcopy(content)
        change(changed)
        path = path.with_suffix(".ckpt")
        torch.save(changed, path)
        return path

    return write


def _setting(*keys, value):
    """A checkpoint with one entry changed."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return _saved(change)


def _hyper(*keys, value):
    return _setting("hyper_parameters", *keys, value=value)


def _image(name, value):
    return _hyper("mechanisms", "image", "init_args", name, value=value)


def _class(class_path, **arguments):
    return {"class_path": class_path, "init_args": arguments}


def _mechanism(class_path, **arguments):
    return _hyper("mechanisms", "thickness", value=_class(class_path, **arguments))


def _callback(**state):
    def change(content):
        for kept in content["callbacks"].values():
            if "best_k_models" in kept:
                kept.update(state)

    return _saved(change)


def _nest(depth):
    nest = [1]
    for _ in range(depth):
        nest = [nest, nest]
    return nest


def _tuples(depth):
    nest = (1,)
    for _ in range(depth):
        nest = (nest, nest)
    return nest


def _deep(depth):
    nest = []
    for _ in range(depth):
        nest = [nest]
    return nest


def _key_of_tuples(content, path):
    """A name that takes 2⁶⁰ steps to hash, written by hand because building it would as well."""
    pickled = b"\x80\x02}X\x01\x00\x00\x00a]K\x01\x85q\x00a"
    for number in range(60):
        again = b"h" + bytes([number])
        pickled += again + again + b"\x86q" + bytes([number + 1]) + b"a"
    return _zip(path, pickled + b"sh\x3cK\x01s.")


def _circle(content, path):
    return _zip(path, b"\x80\x02}X\x01\x00\x00\x00a]q\x00h\x00as.")


def _zip(path, pickled, compression=zipfile.ZIP_STORED, **records):
    path = path.with_suffix(".ckpt")
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for name, record in records.items():
            archive.writestr(f"archive/{name}", record)
        archive.writestr("archive/version", "3\n")
    return path


def _repacked(change=lambda records: records, compression=zipfile.ZIP_STORED):
    """The records of a good checkpoint in another archive."""

    def write(content, path):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path = path.with_suffix(".ckpt")
        with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", compression) as new:
            for name, record in change([(name, old.read(name)) for name in old.namelist()]):
                new.writestr(name, record)
        return path

    return write


class _Runs:
    def __reduce__(self):
        return (os.system, ("echo pwned",))


class _Evaluates:
    def __reduce__(self):
        return (eval, ("__import__('os').system('echo pwned')",))


class _Sets:
    """A pickle that would set an attribute of the tensor class."""

    def __reduce__(self):
        return (setattr, (torch.Tensor, "pwned", 1))


def _bytes(make):
    def write(content, path):
        path = path.with_suffix(".ckpt")
        path.write_bytes(make(content))
        return path

    return write


def _whole(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _legacy(content, path):
    path = path.with_suffix(".ckpt")
    torch.save({**content, "x": _Runs()}, path, _use_new_zipfile_serialization=False)
    return path


def _too_few_numbers(content, path):
    """A tensor of 10⁹ numbers, of which the file contains four."""
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(1)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        pickled = archive.read("archive/data.pkl")
    count = b"J" + struct.pack("<i", 10**9)
    pickled = pickled.replace(b"K\x01tq", count + b"tq", 1)
    return _zip(path, pickled, **{"data/0": b"\0" * 4})


def _exported(change=lambda about: about, weights=None):
    def write(content, path):
        path = path.with_suffix(".safetensors")
        kept = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks")
        about = {name: value for name, value in content.items() if name not in kept}
        text = change(json.loads(json.dumps(about, default=str)))
        text = text if isinstance(text, str) else json.dumps(text)
        tensors = {k: v.clone() for k, v in (weights or content["state_dict"]).items()}
        save_file(tensors, path, metadata={"deepscm_pl": text})
        return path

    return write


def _with(about, *keys, value):
    inner = about
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return about


def _header(length, header=b"{}"):
    def write(content, path):
        path = path.with_suffix(".safetensors")
        path.write_bytes(length.to_bytes(8, "little") + header)
        return path

    return write


def _weights(change):
    return _saved(lambda content: change(content["state_dict"]))


def _first(weights):
    return next(name for name, value in weights.items() if value.is_floating_point())


def _wrong_gradients(content):
    content["gradients"] = {name: torch.zeros(7, 7, 7) for name in content["state_dict"]}


_DEFAULTS = _class("torch.optim.Optimizer", defaults={"lr": POPEN_TEXT})
_LIGHTNING = "pytorch-lightning_version"
_NODES = [f"n{k}" for k in range(100_000)]

HOSTILE = [
    # Settings that would run code.
    Hostile("a text in the optimiser's defaults", HARMLESS, _hyper("optimizer", value=_DEFAULTS)),
    Hostile("an optimiser that is a process", FIT, _hyper("optimizer", value=POPEN)),
    Hostile("an optimiser as text", FIT, _hyper("optimizer", value=POPEN_TEXT)),
    Hostile("a scheduler that is a process", FIT, _hyper("scheduler", value=POPEN)),
    Hostile("an objective that is a process", FIT, _hyper("objective", value=POPEN)),
    Hostile("a mechanism that is a process", MODEL, _mechanism("subprocess.Popen", args="pwned")),
    Hostile("a mechanism as text", MODEL, _hyper("mechanisms", "thickness", value=POPEN_TEXT)),
    Hostile("mechanisms as text", MODEL, _hyper("mechanisms", value=POPEN_TEXT)),
    Hostile("an encoder that is a process", MODEL, _image("encoder", POPEN)),
    Hostile("an encoder as text", MODEL, _image("encoder", POPEN_TEXT)),
    Hostile("a number as text", MODEL, _image("latent", POPEN_TEXT)),
    Hostile("a learning rate as text", FIT, _hyper("learning_rates", "image", value=POPEN_TEXT)),
    Hostile("a shell", MODEL, _mechanism("os.system", command="echo pwned")),
    Hostile("an evaluation", MODEL, _mechanism("builtins.eval", source="pwned")),
    Hostile("a program of unittest", MODEL, _mechanism("unittest.__main__.Program")),
    Hostile("a program of venv", MODEL, _mechanism("venv.__main__.main")),
    Hostile("an editor", MODEL, _mechanism("idlelib.idle.main")),
    Hostile("a browser", MODEL, _mechanism("antigravity.fly")),
    Hostile("a module of a stranger", MODEL, _mechanism("pwned.Mechanism")),
    Hostile("a relative module", MODEL, _mechanism(".os.system")),
    Hostile("a name without a module", MODEL, _mechanism("system")),
    Hostile("an attribute of a class", MODEL, _mechanism("torch.nn.Module.__init__.__globals__")),
    Hostile("a module of a module", MODEL, _mechanism("torch.nn.modules.module.torch.hub.load")),
    Hostile("a function", MODEL, _mechanism("torch.nn.functional.relu")),
    Hostile("a class of another kind", MODEL, _mechanism("torch.nn.Linear")),
    Hostile("a module that downloads", MODEL, _image("encoder", _class("torch.hub.load"))),
    Hostile(
        "a metric that downloads",
        MODEL,
        _image("encoder", _class("torchmetrics.image.fid.FrechetInceptionDistance")),
    ),
    Hostile(
        "a module made of code",
        MODEL,
        _image("encoder", _class("torch.fx.GraphModule", root={}, graph="pwned")),
    ),
    Hostile("a module with a line break", MODEL, _mechanism("os\n.system")),
    Hostile("a class that is a number", FIT, _hyper("optimizer", value={"class_path": 3})),
    Hostile("arguments as a list", FIT, _hyper("optimizer", "init_args", value=[POPEN])),
    Hostile("an argument of no name", FIT, _hyper("optimizer", "init_args", 3, value=1)),
    Hostile("an argument that is not there", MODEL, _image("__class__", POPEN)),
    Hostile("a further entry beside a class", FIT, _hyper("optimizer", "dict_kwargs", value={})),
    Hostile("a tensor as a setting", MODEL, _image("latent", torch.zeros(3))),
    Hostile("a model of another kind", TEST, _setting("model_class", value="subprocess.Popen")),
    Hostile(
        "a model of Lightning's demonstrations",
        TEST,
        _setting("model_class", value="pytorch_lightning.demos.boring_classes.BoringModel"),
    ),
    # Settings that would exhaust time or memory.
    Hostile(
        "a layer of 10¹⁰ weights outside of the device meta",
        MODEL,
        _image("encoder", _class("torch.nn.Bilinear", out_features=10**5, device="cpu")),
    ),
    Hostile("a latent of 10¹⁸", MODEL, _image("latent", 10**18)),
    Hostile("a latent of 10⁴⁰", MODEL, _image("latent", 10**40)),
    Hostile("a negative latent", MODEL, _image("latent", -1)),
    Hostile("an image of 10¹⁸ pixels", MODEL, _image("shape", [1, 10**9, 10**9])),
    Hostile(
        "200,000 layers",
        EVERY,
        _hyper(
            "mechanisms",
            "image",
            "init_args",
            "encoder",
            "init_args",
            "channels",
            value=[1] * 200_000,
        ),
    ),
    Hostile(
        "10,000 layers",
        MODEL,
        _hyper(
            "mechanisms",
            "image",
            "init_args",
            "encoder",
            "init_args",
            "channels",
            value=[1] * 10_000,
        ),
    ),
    Hostile("lists in lists", MODEL, _image("latent", _deep(400))),
    Hostile("a nest of 2⁶⁰ values", EVERY, _image("latent", _nest(60))),
    Hostile("a tuple of 2⁶⁰ values", EVERY, _image("latent", _tuples(60))),
    Hostile("a name of 2⁶⁰ values", EVERY, _key_of_tuples),
    Hostile("a list in itself", EVERY, _circle),
    Hostile("a graph of 10⁵ nodes", MODEL, _hyper("graph", value="; ".join(_NODES))),
    Hostile("parents of 10⁵ nodes", EVERY, _hyper("graph", value={n: [] for n in _NODES})),
    Hostile("a graph in a circle", MODEL, _hyper("graph", value="a -> b; b -> a")),
    Hostile("a graph that is a number", MODEL, _hyper("graph", value=7)),
    Hostile("settings that are a list", EVERY, _setting("hyper_parameters", value=[1])),
    # Weights.
    Hostile("weights that are NaN", MODEL, _weights(lambda w: w[_first(w)].fill_(float("nan")))),
    Hostile("a model never fitted", MODEL, _weights(lambda w: w["scm.fitted"].fill_(False))),
    Hostile("weights missing", MODEL, _weights(lambda w: w.pop(_first(w)))),
    Hostile("weights of no parameter", MODEL, _weights(lambda w: w.update(x=torch.zeros(1)))),
    Hostile(
        "weights of 10¹² numbers in four bytes",
        MODEL,
        _weights(lambda w: w.update({_first(w): torch.zeros(1).expand(10**6, 10**6)})),
    ),
    Hostile("weights that are a text", MODEL, _weights(lambda w: w.update({_first(w): "pwned"}))),
    Hostile("weights that are a list", MODEL, _setting("state_dict", value=[POPEN_TEXT])),
    # Data.
    Hostile("data as text", DATA, _setting("data", value=DATASET_TEXT)),
    Hostile("data that are a process", DATA, _setting("data", value=POPEN)),
    Hostile("data of datasets", DATA, _setting("data", value=json.loads(DATASET_TEXT))),
    Hostile(
        "data that download",
        DATA,
        _setting("data", value=_class("pytorch_lightning.demos.mnist_datamodule.MNISTDataModule")),
    ),
    Hostile("data that are a layer", DATA, _setting("data", value=_class("torch.nn.Identity"))),
    Hostile(
        "data with a text", DATA, _setting("data", "init_args", "batch_size", value=POPEN_TEXT)
    ),
    Hostile("data that are a number", DATA, _setting("data", value=3)),
    Hostile(
        "data with a cache among other files",
        HARMLESS,
        _setting("data", value=_class("cached_tiny.CachedTinyDataModule", cache_dir="precious")),
    ),
    # The state of a training.
    Hostile(
        "best models outside of the run",
        HARMLESS,
        _callback(
            best_k_models={"run/checkpoints/../../../precious": torch.tensor(-1e9)},
            kth_best_model_path="run/checkpoints/../../../precious",
            kth_value=torch.tensor(-1e9),
        ),
    ),
    Hostile(
        "a last model outside of the run",
        HARMLESS,
        _callback(last_model_path="run/checkpoints/../../../precious/letter.ckpt"),
    ),
    Hostile(
        "a best model that is a process",
        HARMLESS,
        _callback(best_model_path="../precious/letter.ckpt", best_model_score=torch.tensor(1e9)),
    ),
    Hostile("best models as text", RESUME, _callback(best_k_models=POPEN_TEXT)),
    Hostile("a score as text", RESUME, _callback(best_model_score=POPEN_TEXT)),
    Hostile("callbacks as a list", RESUME, _setting("callbacks", value=[POPEN])),
    Hostile("callbacks by number", RESUME, _setting("callbacks", value={3: {}})),
    Hostile("loops as text", RESUME, _setting("loops", value=POPEN_TEXT)),
    Hostile("a loop as a list", RESUME, _setting("loops", "fit_loop", value=[])),
    Hostile("a step of −5", EVERY, _setting("global_step", value=-5)),
    Hostile("an epoch as text", EVERY, _setting("epoch", value=POPEN_TEXT)),
    Hostile(
        "a progress of −3",
        RESUME,
        _setting("loops", "fit_loop", "epoch_loop.batch_progress", "current", "ready", value=-3),
    ),
    Hostile("states of optimisers as a mapping", RESUME, _setting("optimizer_states", value={})),
    Hostile("no states of optimisers", RESUME, _setting("optimizer_states", value=[])),
    Hostile(
        "states of no parameter", RESUME, _setting("optimizer_states", 0, "state", 999, value={})
    ),
    Hostile(
        "states of another shape",
        RESUME,
        _setting("optimizer_states", 0, "state", 0, "exp_avg", value=torch.zeros(1)),
    ),
    Hostile("groups as text", RESUME, _setting("optimizer_states", 0, "param_groups", value="x")),
    Hostile("a schedule without steps", RESUME, _setting("lr_schedulers", 0, "step", value=3)),
    Hostile("schedules as text", RESUME, _setting("lr_schedulers", value=POPEN_TEXT)),
    Hostile("metrics as text", RESUME, _setting("metrics", value=POPEN_TEXT)),
    Hostile("gradients of another shape", RESUME, _saved(_wrong_gradients)),
    Hostile("a version as text", TRAINER, _setting(_LIGHTNING, value="__import__('os')")),
    Hostile("no version", TRAINER, _saved(lambda content: content.pop(_LIGHTNING))),
    Hostile("a seed as text", RESUME, _setting("random_seed", value=POPEN_TEXT)),
    Hostile("a format of the future", EVERY, _setting("deepscm_pl", "format", value=99)),
    Hostile("a format as text", EVERY, _setting("deepscm_pl", value=POPEN_TEXT)),
    # Reports and descriptions.
    Hostile("reports as text", TEST, _setting("reports", value=POPEN_TEXT)),
    Hostile(
        "a report with a cache", TEST, _setting("reports", "evaluation", "cache_dir", value="/")
    ),
    Hostile(
        "a report with a predictor", TEST, _setting("reports", "evaluation", "predictor", value="x")
    ),
    Hostile(
        "a report with processes", TEST, _setting("reports", "evaluation", "workers", value=10**9)
    ),
    Hostile("a report as a list", TEST, _setting("reports", "association", value=[POPEN])),
    Hostile("a unit as a list", MODEL, _setting("variables", "thickness", "unit", value=[POPEN])),
    Hostile("variables as text", MODEL, _setting("variables", value=POPEN_TEXT)),
    Hostile(
        "classes of a number",
        MODEL,
        _setting("variables", "thickness", "classes", value=[POPEN_TEXT, "\x1b[31m"]),
    ),
    Hostile(
        "fifty thousand classes",
        EVERY,
        _setting("variables", "thickness", "classes", value=["x"] * 50_000),
    ),
    Hostile(
        "a unit with an escape",
        HARMLESS,
        _setting("variables", "thickness", "unit", value="\x1b]0;pwned\x07[/red]$x^{$"),
    ),
    # Archives.
    Hostile("compressed records", EVERY, _repacked(compression=zipfile.ZIP_DEFLATED)),
    Hostile("a record twice", EVERY, _repacked(lambda records: [*records, records[0]])),
    Hostile(
        "no record of objects", EVERY, _repacked(lambda r: [x for x in r if "pkl" not in x[0]])
    ),
    Hostile("more numbers than in the file", EVERY, _too_few_numbers),
    Hostile("a truncated file", EVERY, _bytes(lambda content: _whole(content)[:-200])),
    Hostile("half a file", EVERY, _bytes(lambda content: _whole(content)[:10_000])),
    Hostile("an empty file", EVERY, _bytes(lambda content: b"")),
    Hostile("any bytes", EVERY, _bytes(lambda content: bytes(range(256)) * 40)),
    Hostile("a pickle", EVERY, _bytes(lambda content: pickle.dumps(_Runs()))),
    Hostile("a file of old versions of torch", EVERY, _legacy),
    Hostile("an object that runs a command", EVERY, _setting("extra", value=_Runs())),
    Hostile("an object that evaluates", EVERY, _setting("extra", value=_Evaluates())),
    Hostile("an object that sets", EVERY, _setting("extra", value=_Sets())),
    Hostile("bytes", EVERY, _setting("extra", value=b"pwned")),
    # Exported models.
    Hostile(
        "exported: a text in the optimiser's defaults",
        HARMLESS,
        _exported(lambda a: _with(a, "hyper_parameters", "optimizer", value=_DEFAULTS)),
    ),
    Hostile(
        "exported: a mechanism that is a process",
        MODEL,
        _exported(lambda a: _with(a, "hyper_parameters", "mechanisms", "thickness", value=POPEN)),
    ),
    Hostile(
        "exported: data as text", DATA, _exported(lambda a: _with(a, "data", value=DATASET_TEXT))
    ),
    Hostile("exported: no JSON", EVERY, _exported(lambda a: "{")),
    Hostile("exported: a list", EVERY, _exported(lambda a: "[]")),
    Hostile("exported: JSON in JSON", EVERY, _exported(lambda a: "[" * 100_000)),
    Hostile("exported: a name twice", EVERY, _exported(lambda a: '{"a": 1, "a": 2}')),
    Hostile("exported: a header of 10¹² bytes", EVERY, _header(10**12)),
    Hostile("exported: a header that is no JSON", EVERY, _header(2, b"[]")),
    Hostile("exported: weights of another model", MODEL, _exported(weights={"x": torch.zeros(1)})),
]
