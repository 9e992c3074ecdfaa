"""Export of a trained model as a MONAI bundle: a folder that MONAI's programs can run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from deepscm_pl.checkpoints.bundle import CounterfactualNetwork, image_of
from deepscm_pl.checkpoints.export import write_model
from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.escaping import as_json, for_shell, for_terminal, markdown_code
from deepscm_pl.files import new_folder, replaced_folder
from deepscm_pl.interventions import parse_do
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.suggestions import suggest_do
from deepscm_pl.variables import Variable

__all__ = ["BundleTexts", "write_bundle"]

_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
_MODEL, _STATE = "models/model.safetensors", "models/model.pt"
_METADATA, _INFERENCE = "configs/metadata.json", "configs/inference.json"
_HERE = f"{CounterfactualNetwork.__module__}."
_VERSION = "0.1.0"
_PAPER = (
    "Pawlowski, N., Castro, D. C., Glocker, B. (2020). Deep Structural Causal Models for Tractable "
    "Counterfactual Inference. NeurIPS. arXiv:2006.06485"
)
_NO_LICENCE = """No licence has been chosen for the weights of this model. Ask its authors before
you use or share them, or replace this file by the terms of a licence.
"""
_KEYWORDS = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_", "_meta_")
"""Keys with a meaning in MONAI's configurations."""
_DRAWS = 101
"""Draws whose medians are the constant attributes; odd, so that medians are drawn values."""


@dataclass(frozen=True)
class BundleTexts:
    """Texts of a bundle that are not in the file of the model.

    Attributes:
        card: The model card in Markdown; empty for none.
        intended_use: What the model is for.
        figures: Measured figures by their names.
        authors: Authors of the model.
        licence: The terms of a licence.
    """

    card: str = ""
    intended_use: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)
    authors: str = ""
    licence: str = ""


def write_bundle(
    checkpoint_path: str | Path,
    folder: str | Path,
    texts: BundleTexts = BundleTexts(),
    overwrite: bool = False,
    trust: Sequence[str] = (),
    root: str | None = None,
) -> StructuralCausalModel:
    """Write a model with one image as a MONAI bundle.

    =============================  =================================================================
    file                           content
    =============================  =================================================================
    ``configs/metadata.json``      versions, intended use, figures, and the format of the network
    ``configs/inference.json``     answers a counterfactual for the images of a table
    ``models/model.safetensors``   the model, as :func:`~deepscm_pl.checkpoints.export.export_model`
                                   writes it
    ``models/model.pt``            its weights, for programs of MONAI that need this file
    ``docs/README.md``             the model card, and how to run the bundle
    ``LICENSE``                    the licence of the weights
    =============================  =================================================================

    MONAI evaluates texts in configurations that begin with ``$``, ``@`` or ``%``; texts of the
    model that do are quoted.

    Args:
        checkpoint_path: A checkpoint, or an exported model.
        folder: The folder to make; its name is that of the bundle.
        texts: What is not in the file of the model.
        overwrite: Whether an existing bundle is replaced.
        trust: Packages whose classes the file may name, in addition to this package.
        root: As for :func:`~deepscm_pl.checkpoints.export.export_model`.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint cannot be read, its model has not exactly one image, a
            variable has the name of a keyword of MONAI, or the folder exists.
    """
    folder = Path(folder)
    checkpoint = Checkpoint.read(checkpoint_path, trust=trust)
    scm = checkpoint.trained_model().scm
    image_of(scm)
    _check_names(scm)
    with _new_bundle(folder, overwrite) as made:
        for name in ("configs", "models", "docs"):
            (made / name).mkdir()
        write_model(checkpoint_path, made / _MODEL, False, trust, root)
        inference = _inference(scm, trust)
        defined = inference["network_def"]
        network = CounterfactualNetwork(
            made / _MODEL, inference["do"], defined["attributes"], trust=trust
        )
        torch.save(network.state_dict(), made / _STATE)
        metadata = _metadata(folder.resolve().name, network, texts, checkpoint.content)
        _write(made / _METADATA, as_json(_inert(metadata)))
        _write(made / _INFERENCE, json.dumps(inference, indent=2, ensure_ascii=False) + "\n")
        usage = _usage(network, inference["do"])
        _write(made / "docs/README.md", f"{texts.card.strip()}\n\n{usage}".lstrip())
        _write(made / "LICENSE", texts.licence or _NO_LICENCE)
    return scm


def _new_bundle(folder: Path, overwrite: bool) -> AbstractContextManager[Path]:
    exists = folder.is_dir() and any(folder.iterdir())
    if not exists:
        return new_folder(folder)
    if overwrite and (folder / _METADATA).is_file():
        return replaced_folder(folder)
    if overwrite:
        raise ValueError(
            f"out: expected a bundle to replace, with {_METADATA}, but {folder} has none; name "
            "another folder."
        )
    raise ValueError(
        f"out: {folder} exists; choose another --out, or --overwrite to replace it (in Python "
        "overwrite=True)."
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _check_names(scm: StructuralCausalModel) -> None:
    wrong = [name for name in scm.graph.nodes if name in _KEYWORDS]
    if wrong:
        raise ValueError(
            f"bundle: {wrong[0]} has a meaning in MONAI's configurations, so that no variable of a "
            "bundle can have this name; rename it, or export as safetensors."
        )


def _inference(scm: StructuralCausalModel, trust: Sequence[str]) -> dict[str, Any]:
    """The configuration that answers a question for the rows of a table."""
    constants = _typical(scm)
    network = {
        "_target_": f"{_HERE}CounterfactualNetwork",
        "model": f"$@bundle_root + '/{_MODEL}'",
        "do": "@do",
        "attributes": constants,
        **({"trust": list(trust)} if trust else {}),
    }
    return {
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "dataset_dir": "$@bundle_root + '/data'",
        "observations": "$@dataset_dir + '/observations.csv'",
        "output_dir": "$@bundle_root + '/eval'",
        "do": _question(scm, constants),
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": f"{_HERE}ObservationReader", "network": "@network_def"},
        "dataset": {
            "_target_": "Dataset",
            "data": "$@preprocessing.rows(@observations)",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 8,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "evaluator": {
            "_target_": f"{_HERE}CounterfactualWriter",
            "network": "@network",
            "dataloader": "@dataloader",
            "inferer": "@inferer",
            "output_dir": "@output_dir",
        },
        "run": ["$@evaluator.run()"],
    }


def _question(scm: StructuralCausalModel, constants: Mapping[str, float | list[float]]) -> str:
    """An intervention as text that MONAI leaves as it is."""
    texts = [suggest_do(scm, shifts=False)]
    texts += [f"{name}={value:g}" for name, value in constants.items() if isinstance(value, float)]
    for text in texts:
        # MONAI replaces # in any text of a configuration.
        if text is not None and "#" not in text:
            with suppress(ValueError):
                scm.check_do(parse_do(text, scm.variables))
                return text
    raise ValueError(
        "bundle: expected a variable whose value can be set by a text, but the model has none; "
        "export it as safetensors (leave --format out)."
    )


def _typical(scm: StructuralCausalModel) -> dict[str, float | list[float]]:
    """A typical value of each attribute: the median of draws, which is one of them."""
    image = image_of(scm).name
    names = [name for name in scm.graph if name != image]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        draws = scm.restrict(names).sample(_DRAWS)
    medians = {name: draws[name].median(dim=0).values.tolist() for name in names}
    return {name: each[0] if len(each) == 1 else each for name, each in medians.items()}


def _metadata(
    name: str, network: CounterfactualNetwork, texts: BundleTexts, content: Mapping[str, Any]
) -> dict[str, Any]:
    packages = ["deepscm_pl", *network.checkpoint.trust]
    levels = f"whole grey levels from 0 to {network.levels:g}, divided by {network.levels:g}"
    graph = str(network.scm.graph)
    data = content.get("data")
    kind = str(data.get("class_path", "")).rpartition(".")[2] if isinstance(data, Mapping) else ""
    return {
        "schema": _SCHEMA,
        "version": _VERSION,
        "changelog": {_VERSION: f"exported by deepscm_pl {_installed('deepscm_pl')}"},
        "monai_version": _installed("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": _installed("numpy"),
        "required_packages_version": {each: _installed(each) for each in packages},
        "name": name,
        "task": "Counterfactual images of a structural causal model",
        "description": (
            f"A deep structural causal model of the graph {graph}. The network infers the "
            "exogenous noise of an image and its attributes, and computes the image that would "
            "have been seen under an intervention."
        ),
        "authors": texts.authors or "not stated",
        "copyright": f"Copyright (c) {texts.authors}" if texts.authors else "see LICENSE",
        "data_source": kind or "not stated",
        "image_classes": levels,
        "pred_classes": levels,
        "eval_metrics": dict(texts.figures),
        "intended_use": " ".join(texts.intended_use.split()) or "Research",
        "references": [_PAPER],
        "network_data_format": {
            "inputs": {"image": _image_format(network), "attributes": _attribute_format(network)},
            "outputs": {"pred": _image_format(network)},
        },
    }


def _image_format(network: CounterfactualNetwork) -> dict[str, Any]:
    channels, *sizes = network.image.domain.shape
    names = ("red", "green", "blue") if channels == 3 else (network.image.name,)
    labels = names if channels == len(names) else [f"channel {k}" for k in range(channels)]
    return {
        "type": "image",
        "format": "magnitude",
        "modality": "n/a",
        "num_channels": channels,
        "spatial_shape": sizes,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {str(k): label for k, label in enumerate(labels)},
    }


def _attribute_format(network: CounterfactualNetwork) -> dict[str, Any]:
    labels = [
        label for variable in network.attributes.values() for label in _attribute_labels(variable)
    ]
    return {
        "type": "tuples",
        "format": "attributes",
        "modality": "n/a",
        "num_channels": len(labels),
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(k): label for k, label in enumerate(labels)},
    }


def _attribute_labels(variable: Variable) -> list[str]:
    """The meaning of each number of an attribute."""
    size = variable.domain.shape[0]
    if size > 1:
        return [f"{variable.name}, number {k}" for k in range(size)]
    if variable.classes:
        classes = ", ".join(f"{k} = {label}" for k, label in enumerate(variable.classes))
        return [f"{variable.name}: {classes}"]
    return [f"{variable.name}: {variable.domain}{', ' if variable.unit else ''}{variable.unit}"]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _inert(value: Any) -> Any:
    """Quote the texts that MONAI would evaluate or resolve, keys included."""
    if isinstance(value, Mapping):
        return {_inert_key(key): _inert(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_inert(each) for each in value]
    if not isinstance(value, str):
        return value
    text = for_terminal(value)
    return f"'{text}'" if text[:1] in ("$", "@", "%") else text


def _inert_key(key: str) -> str:
    text = for_terminal(key).replace("#", "no. ").replace("::", ":")
    return f"'{text}'" if text[:1] in ("$", "@", "%", "+") or text in _KEYWORDS else text


def _usage(network: CounterfactualNetwork, do: str) -> str:
    """How to run the bundle, for its page."""
    columns = ", ".join(f"`{name}`" for name in (*network.attributes, network.image.name))
    axes = "pictures with the first row at the top"
    if len(network.image.domain.shape) == 4:
        axes = "volumes from left to right, back to front and bottom to top"
    command = for_shell(
        *("python", "-m", "monai.bundle", "run", "--config_file", _INFERENCE),
        *("--observations", "observations.csv", "--output_dir", "answers"),
    )
    question = markdown_code(do)
    return f"""## Run it with MONAI

In the folder of the bundle, with `pip install deepscm_pl fire`:

```bash
{command}
```

The table has a row for each observation, with the columns {columns};
paths of images are relative to it. Without `--do TEXT`, the question is {question}.
The network takes and returns {axes},
with grey levels divided by {network.levels:g}. `models/model.pt` contains the weights of
`models/model.safetensors` again, for programs that need a state dictionary.
"""
