"""YAML that may come from a stranger: measured before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent, ScalarEvent

__all__ = ["PARSER_MODE", "YAMLLimitError", "check_yaml", "experiments", "load_yaml", "read_text"]

PARSER_MODE = "yaml within limits"
"""The mode of jsonargparse in which all that it reads is checked first."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BYTES = 2**20
"""Of a configuration at most; those of this package have some thousands."""
_DEPTH = 64
"""Levels of lists and mappings at most."""
_NODES = 50_000
"""Values at most, those that aliases repeat included."""
_TOO_DEEP = "nesting depth"
"""In the message of libyaml, which stops at a thousand by itself."""


def experiments() -> dict[str, Path]:
    """The configurations that are installed with this package, by names such as digits/full."""
    package = Path(__file__).parents[1]
    installed = package / "experiments"
    folder = installed if installed.is_dir() else package.parent / "experiments"
    paths = sorted(folder.glob("*/*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


class YAMLLimitError(yaml.YAMLError, ValueError):
    """YAML that is too long, nests too deeply, or expands to too much."""


def read_text(path: Path, where: str) -> str:
    """Read a file of YAML.

    Args:
        path: The file.
        where: Its name in errors.

    Raises:
        ValueError: If it is too long, or not UTF-8.
    """
    _check_length(path.stat().st_size, where)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no YAML file ({error}).") from None


def load_yaml(text: str, where: str) -> Any:
    """What a YAML text stands for, once :func:`check_yaml` has let it pass.

    Args:
        text: The text.
        where: Where it stands, for errors.

    Raises:
        ValueError: If it is no YAML, or exceeds a limit.
    """
    check_yaml(text, where)
    try:
        return get_loader("yaml")(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{where} is no YAML ({' '.join(str(error).split())}).") from None


def check_yaml(text: str, where: str) -> None:
    """Raise if a YAML text exceeds a limit; nothing is made of it.

    Texts inside of it count as YAML, too, because the parser of options reads them as such. What is
    no YAML passes: its reader names what is wrong with it.

    Args:
        text: The text.
        where: Where it stands, for errors.

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
            if _TOO_DEEP in str(error):
                raise size.too_deep() from None


@dataclass
class _Size:
    """What the events of a YAML text have made so far, were aliases written out."""

    where: str
    total: int = 0
    open: list[tuple[str | None, int]] = field(default_factory=list)
    """The anchor, and the total before it, of every collection that has not ended."""
    anchors: dict[str, int] = field(default_factory=dict)

    def add(self, event: yaml.Event) -> None:
        if isinstance(event, CollectionEndEvent):
            anchor, before = self.open.pop()
            self._keep(anchor, self.total - before)
        if not isinstance(event, NodeEvent):
            return
        self.total += self._nodes(event)
        if self.total > _NODES:
            raise YAMLLimitError(
                f"{self.where} has more than {_NODES:,} values, those that aliases repeat "
                "included; shorten it."
            )
        if isinstance(event, CollectionStartEvent):
            self.open.append((event.anchor, self.total - 1))
            if len(self.open) > _DEPTH:
                raise self.too_deep()
        elif isinstance(event, ScalarEvent):
            self._keep(event.anchor, 1)

    def too_deep(self) -> YAMLLimitError:
        return YAMLLimitError(
            f"{self.where} nests lists or mappings more than {_DEPTH} deep; flatten it."
        )

    def _nodes(self, event: NodeEvent) -> int:
        """How many values an event stands for."""
        if not isinstance(event, AliasEvent):
            return 1
        if any(anchor == event.anchor for anchor, _ in self.open):
            raise YAMLLimitError(f"{self.where} contains itself by *{event.anchor}; write it out.")
        return self.anchors.get(event.anchor or "", 1)

    def _keep(self, anchor: str | None, nodes: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = nodes


def _texts_within(event: yaml.Event, whole: str) -> Iterator[str]:
    """The text of an event, where it could be a list, a mapping or an alias itself."""
    if isinstance(event, ScalarEvent) and event.value != whole:
        text = event.value.strip()
        if len(text) > _DEPTH and any(sign in text for sign in "[{&"):
            yield text


def _check_length(length: int, where: str) -> None:
    if length > _BYTES:
        raise YAMLLimitError(
            f"{where} is longer than {_BYTES:,} bytes; a configuration has some thousands."
        )


def _load_for_parser(text: str) -> Any:
    check_yaml(text, "config: a text or file")
    return get_loader("yaml")(text)


set_loader(PARSER_MODE, _load_for_parser, exceptions=(yaml.YAMLError,))
