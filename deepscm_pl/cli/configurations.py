"""Configurations in several files, each with only its difference from earlier ones.

Files merge like JSON merge patches (RFC 7386): mappings key by key, where the later value wins;
everything else, such as a list, is replaced; null over a value removes it, so that the default
applies. A mapping whose ``class_path`` changes drops the ``init_args`` of the earlier class.
``base: full.yaml`` at the top of a file names the file that comes before it, relative to its own
folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from deepscm_pl.checks import nearest, shown
from deepscm_pl.cli.parser import UsageError, without_dumps
from deepscm_pl.cli.yaml_files import experiments, load_yaml, read_text
from deepscm_pl.escaping import for_terminal

__all__ = ["Configuration", "Layer", "merge_settings"]

_BASE = "base"
_ARGUMENTS = frozenset({"init_args", "dict_kwargs"})
_KEYS = re.compile(r"^([\w.]+(?:, [\w.]+)*): |[Oo]ption '([\w.]+)'")


def merge_settings(base: Any, overlay: Any) -> Any:
    """Merge the settings of an overlay into those of a base.

    Example:
        >>> base = {"a": {"class_path": "X", "init_args": {"p": 1, "q": 2}}, "b": [1, 2], "c": 3}
        >>> merge_settings(base, {"a": {"init_args": {"p": 5}}, "b": [4], "c": None})
        {'a': {'class_path': 'X', 'init_args': {'p': 5, 'q': 2}}, 'b': [4]}
        >>> merge_settings(base, {"a": {"class_path": "Y"}})["a"]
        {'class_path': 'Y'}
    """
    if not isinstance(overlay, Mapping):
        return overlay
    if isinstance(base, str) and _ARGUMENTS & set(overlay):
        base = {"class_path": base}
    if not isinstance(base, Mapping):
        return overlay
    names_class = "class_path" in overlay and not set(base) <= _ARGUMENTS
    if names_class and base.get("class_path") != overlay["class_path"]:
        return overlay
    merged = dict(base)
    for key, value in overlay.items():
        if value is None and merged.get(key) is not None:
            del merged[key]
        else:
            merged[key] = merge_settings(merged.get(key), value)
    return merged


@dataclass(frozen=True)
class Layer:
    """One configuration of a command line, or its base.

    Attributes:
        name: The file as the user names it; ``config`` for a text.
        path: The file; None for a text.
        text: The YAML.
        settings: The content of the YAML without the entry ``base``.
        base: The file that comes before this one; None without one.
    """

    name: str
    path: Path | None
    text: str
    settings: dict[str, Any]
    base: str | None

    @classmethod
    def read(cls, configuration: str) -> Layer:
        """Read a file, an experiment, or a text with settings.

        Raises:
            FileNotFoundError: If it is none of them.
            ValueError: If it is not YAML, contains no settings, or exceeds a limit.
        """
        name = f"config: {configuration}"
        path: Path | None = Path(configuration)
        if os.path.isfile(configuration):
            text = read_text(Path(configuration), name)
        elif configuration.startswith("{") or ": " in configuration:
            name, path, text = "config", None, configuration
        else:
            known = experiments()
            if configuration not in known:
                raise FileNotFoundError(
                    f"config: there is no file or experiment {configuration}"
                    f"{nearest(configuration, known) or '; deepscm experiments lists them.'}"
                )
            path = known[configuration]
            text = read_text(path, name)
        settings = load_yaml(text, name)
        if not isinstance(settings, dict):
            raise ValueError(f"{name} has no settings; expected 'name: value' in every line.")
        base = settings.pop(_BASE, None)
        if base is not None and (not isinstance(base, str) or not base):
            raise ValueError(f"{name}: base: expected the name of a file, but got {shown(base)}.")
        return cls(name.removeprefix("config: "), path, text, settings, base)

    def read_base(self) -> Layer | None:
        """Read the file that comes before this one, or raise FileNotFoundError."""
        if self.base is None:
            return None
        folder = Path() if self.path is None else self.path.parent
        path = Path(os.path.normpath(folder / self.base))
        if not path.is_file():
            beside = [each.name for each in folder.glob("*.yaml")]
            raise FileNotFoundError(
                f"config: {self.name}: base: there is no file {path}; give its path relative to "
                f"the folder {folder}{nearest(path.name, beside)}"
            )
        return Layer.read(str(path))

    def key_lines(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Yield the path of every key, with its line."""
        node = yaml.compose(self.text, Loader=yaml.SafeLoader)
        return iter(()) if node is None else _keys(node, ())


def _keys(node: yaml.Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            within = (*path, str(key.value))
            yield within, key.start_mark.line + 1
            yield from _keys(value, within)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _keys(value, (*path, str(number)))


@dataclass(frozen=True)
class Configuration:
    """The configurations of a command line, in the order in which they are merged."""

    layers: tuple[Layer, ...]

    @classmethod
    def read(cls, configurations: Sequence[str]) -> Configuration:
        """Read files or texts, each after its base unless that was read before.

        Raises errors as :meth:`Layer.read` does, and ValueError if a file is its own base.
        """
        layers: list[Layer] = []
        for configuration in configurations:
            *bases, last = _with_bases(configuration)
            known = {layer.path and layer.path.resolve() for layer in layers}
            layers += [base for base in bases if base.path and base.path.resolve() not in known]
            layers.append(last)
        return cls(tuple(layers))

    @property
    def settings(self) -> dict[str, Any]:
        """All layers merged."""
        layers: list[Any] = [layer.settings for layer in self.layers]
        return reduce(merge_settings, layers, {})

    def words(self) -> list[str]:
        """Return the option ``--config`` with all layers."""
        if not self.layers:
            return []
        first = self.layers[0]
        if len(self.layers) == 1 and first.path is not None and first.base is None:
            return ["--config", str(first.path)]
        text = yaml.dump(
            self.settings, Dumper=_Quoting, default_flow_style=True, width=2**31, sort_keys=False
        )
        return ["--config", str(text)]

    def line_of(self, message: str) -> str | None:
        """Return file and line of the one key that an error names; None if that is not clear."""
        named = [key for found in _KEYS.findall(message) for key in found if key]
        keys = re.split(r"[., ]+", ".".join(named))
        places = {}
        for layer in self.layers:
            for path, line in layer.key_lines():
                is_argument = len(path) <= 2 or path[-2] == "init_args" or len(keys) > 1
                if path[-1] == keys[-1] and set(keys) <= set(path) and is_argument:
                    places[path] = f"{layer.name}, line {line}"
        return next(iter(places.values())) if len(places) == 1 else None

    @contextmanager
    def naming_lines(self) -> Iterator[None]:
        """Add file and line to errors that name a key of these files."""
        try:
            yield
        except UsageError as error:
            if place := self.line_of(error.message):
                sys.stderr.write(f"It is set in {for_terminal(place)}.\n")
            raise
        except ValueError as error:
            message = without_dumps(str(error))
            place = self.line_of(message) if type(error) is ValueError else None
            if place is None:
                raise
            raise ValueError(f"{message.removesuffix('.')}. It is set in {place}.") from error


def _with_bases(configuration: str) -> list[Layer]:
    """A configuration after its base, the base of that, and so on."""
    layers = [Layer.read(configuration)]
    while (base := layers[0].read_base()) is not None:
        names = [layer.name for layer in reversed([base, *layers])]
        if any(base.path and x.path and base.path.samefile(x.path) for x in layers):
            raise ValueError(
                f"config: base: {' -> '.join(names)} is a circle; remove one of these bases."
            )
        layers.insert(0, base)
    return layers


class _Quoting(yaml.SafeDumper):
    """Quotes every text, so that none is read as a number, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)
