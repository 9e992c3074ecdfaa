"""YAML from untrusted sources, whose size is checked before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse._loaders_dumpers import get_yaml_default_loader
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent, ScalarEvent

__all__ = ["PARSER_MODE", "YAMLLimitError", "check_yaml", "experiments", "load_yaml", "read_text"]

PARSER_MODE = "yaml within limits"
"""The mode of jsonargparse in which all that it reads is checked first."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_BYTES = 2**20
_MAX_NESTING = 64
_MAX_VALUES = 50_000  # with those that aliases repeat


def experiments() -> dict[str, Path]:
    """Return the configurations of this package, by names such as digits/full."""
    package = Path(__file__).parents[1]
    installed = package / "experiments"
    folder = installed if installed.is_dir() else package.parent / "experiments"
    paths = sorted(folder.glob("*/*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


class YAMLLimitError(yaml.YAMLError, ValueError):
    """YAML that is too long, nests too deeply, or expands to too much."""


def read_text(path: Path, where: str) -> str:
    """Read a file of YAML; raise ValueError with ``where`` if it is too long, or not UTF-8."""
    _check_length(path.stat().st_size, where)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no YAML file ({error}).") from None


_NOT_TEXT = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null"))
_TRUTH_VALUE = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")


class _Loader(get_yaml_default_loader()):  # type: ignore[misc]
    """A loader for which keys are names, and ``no``, ``yes``, ``on`` and ``off`` are texts.

    YAML 1.1 reads a key ``21003`` as a number, and a name ``no`` as false. Settings that are truth
    values accept these texts, too.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag in _NOT_TEXT:
                key.tag = "tag:yaml.org,2002:str"
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _NOT_TEXT[0]]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_NOT_TEXT[0], _TRUTH_VALUE, list("tTfF"))


def load_checked(text: str) -> Any:
    """Load a YAML text that :func:`check_yaml` has accepted."""
    value = yaml.load(text, Loader=_Loader)
    # As jsonargparse does: a text such as "{a, b}" or "name:" is no mapping.
    if isinstance(value, dict) and value and all(each is None for each in value.values()):
        words = set(text.strip(" {}").replace(" ", "").split(","))
        if words == set(value) or text.strip() == f"{next(iter(value))}:":
            return text
    return value


def load_yaml(text: str, where: str) -> Any:
    """Check and load a YAML text; raise ValueError with ``where`` if it is no YAML."""
    check_yaml(text, where)
    try:
        return load_checked(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{where} is no YAML ({' '.join(str(error).split())}).") from None


def check_yaml(text: str, where: str) -> None:
    """Raise if a YAML text, named ``where`` in errors, exceeds a limit.

    Texts inside of it count as YAML, too, because the parser of options reads them as such. A text
    that is no YAML passes: its reader names the fault.

    Raises:
        YAMLLimitError: Naming the limit.

    Example:
        >>> check_yaml("a: [1, 2]", "config")
        >>> check_yaml("[" * 500 + "]" * 500, "config: deep.yaml")
        Traceback (most recent call last):
            ...
        deepscm_pl.cli.yaml_files.YAMLLimitError: config: deep.yaml nests lists or mappings more \
than 64 deep; flatten it.
    """
    _check_length(len(text), where)
    texts = [text]
    while texts:
        size = _Size(where)
        try:
            for event in yaml.parse(texts.pop(), Loader=_LOADER):
                size.add(event)
                texts += _texts_within(event, text)
        except YAMLLimitError:
            raise
        except yaml.YAMLError as error:
            if "nesting depth" in str(error):  # the limit of libyaml itself
                raise size.too_deep() from None


@dataclass
class _Size:
    """Number of values in the events of a YAML text so far, with those that aliases repeat."""

    where: str
    total: int = 0
    open: list[tuple[str | None, int]] = field(default_factory=list)
    """The anchor, and the total before it, of every collection that has not ended."""
    anchors: dict[str | None, int] = field(default_factory=dict)

    def add(self, event: yaml.Event) -> None:
        if isinstance(event, CollectionEndEvent):
            anchor, before = self.open.pop()
            self.anchors[anchor] = self.total - before
        if not isinstance(event, NodeEvent):
            return
        self.total += self._values(event)
        if self.total > _MAX_VALUES:
            raise YAMLLimitError(
                f"{self.where} has more than {_MAX_VALUES:,} values, with those that aliases "
                "repeat; shorten it."
            )
        if isinstance(event, CollectionStartEvent):
            self.open.append((event.anchor, self.total - 1))
            if len(self.open) > _MAX_NESTING:
                raise self.too_deep()
        elif isinstance(event, ScalarEvent):
            self.anchors[event.anchor] = 1

    def too_deep(self) -> YAMLLimitError:
        return YAMLLimitError(
            f"{self.where} nests lists or mappings more than {_MAX_NESTING} deep; flatten it."
        )

    def _values(self, event: NodeEvent) -> int:
        if not isinstance(event, AliasEvent):
            return 1
        if any(anchor == event.anchor for anchor, _ in self.open):
            raise YAMLLimitError(f"{self.where} contains itself by *{event.anchor}; write it out.")
        return self.anchors.get(event.anchor, 1)


def _texts_within(event: yaml.Event, whole: str) -> Iterator[str]:
    """The text of an event, if it could be a list, a mapping or an alias itself."""
    if isinstance(event, ScalarEvent) and event.value != whole:
        text = event.value.strip()
        if len(text) > _MAX_NESTING and any(sign in text for sign in "[{&"):
            yield text


def _check_length(length: int, where: str) -> None:
    if length > _MAX_BYTES:
        raise YAMLLimitError(
            f"{where} is longer than {_MAX_BYTES:,} bytes; a configuration has some thousands."
        )


def _load_for_parser(text: str) -> Any:
    check_yaml(text, "config: a text or file")
    return load_checked(text)


set_loader(PARSER_MODE, _load_for_parser, exceptions=(yaml.YAMLError,))
