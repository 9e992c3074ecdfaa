"""Looking into a checkpoint before torch reads it: what it would build, and how large."""

from __future__ import annotations

import os
import pickletools
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deepscm_pl.escaping import one_line

__all__ = ["check_archive"]

_PICKLE = "data.pkl"
_LARGEST_PICKLE = 64 * 2**20
_MOST_OPERATIONS = 100_000
_MOST_OPERATIONS_PER_RECORD = 200
_MOST_VALUES = 2_000_000
"""Bounds on the part of a checkpoint without tensors; a tensor takes about 25 operations."""

_END = b"PK\x05\x06"
_END_SIZE = 22
"""What a ZIP file ends with, unless a comment follows, which torch never writes."""

_STORAGE = re.compile(r"(?:torch|torch\.storage) (\w+)Storage")
_BYTES = {
    **dict.fromkeys(("Untyped", "Bool", "Byte", "Char"), 1),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
"""Of a number in each kind of storage."""

_TENSOR_PARTS = re.compile(
    r"torch\._utils (_rebuild_tensor_v2|_rebuild_parameter)"
    r"|torch (Size|device|b?float\w*|u?int\w+|bool|complex\w+|double|half|long)"
)
_DICTIONARY = "collections OrderedDict"

_SCALARS = re.compile(r"\w*INT\d?|LONG[14]?|\w*FLOAT|\w*UNICODE8?|NEW(TRUE|FALSE)|NONE")
_NEW = {
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("GLOBAL", "REDUCE", "BINPERSID"),
}
_ADDITIONS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}
_TO_MARK = {"TUPLE", "APPENDS", "SETITEMS"}
_POPPED = {
    **dict.fromkeys(("TUPLE1", "APPEND", "BUILD", "BINPERSID"), 1),
    **dict.fromkeys(("TUPLE2", "REDUCE", "SETITEM"), 2),
    "TUPLE3": 3,
}
_NOTHING = {"PROTO", "STOP"}


def check_archive(path: Path) -> None:
    """Refuse a file that torch would take long, or much memory, to read, or that names code.

    Torch stores records uncompressed, so a checkpoint never holds more than its own size. The
    objects in it are counted without building them, those in shared parts each time: lists of
    lists that refer to one another can hold 2ⁿ values in n lines.

    Args:
        path: The ``.ckpt`` file.

    Raises:
        ValueError: If the file is no checkpoint, or is refused; without the name of the file.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _END_SIZE, 0))
        if not file.read(_END_SIZE).startswith(_END):
            raise ValueError("it is truncated or no checkpoint")
    with zipfile.ZipFile(path) as archive:
        records = {each.filename: each for each in archive.infolist()}
        _check_records(archive.infolist(), size)
        pickles = [name for name in records if name.rpartition("/")[2] == _PICKLE]
        if len(pickles) != 1 or records[pickles[0]].file_size > _LARGEST_PICKLE:
            raise ValueError(f"expected one record {_PICKLE} of at most 64 MiB in it")
        content = archive.read(pickles[0])
    folder = pickles[0].removesuffix(_PICKLE)
    machine = _PickleMachine(_MOST_OPERATIONS + _MOST_OPERATIONS_PER_RECORD * len(records))
    _check_values(machine.run(content))
    for key, needed in machine.storages:
        record = records.get(f"{folder}data/{key}")
        if record is None or record.file_size < needed:
            raise ValueError(f"the numbers of tensor {one_line(key, 20)} are not all there")


def _check_records(records: Sequence[zipfile.ZipInfo], size: int) -> None:
    names = [each.filename for each in records]
    if len(set(names)) < len(names):
        raise ValueError("a record occurs in it twice")
    if any(each.compress_type != zipfile.ZIP_STORED for each in records):
        raise ValueError("a record in it is compressed, which torch never does")
    if sum(each.file_size for each in records) > size:
        raise ValueError("its records would be larger than the file")


class _Value:
    """An object that a pickle would build.

    Attributes:
        content: A number, a text or None; of what has a name, the name.
        is_scalar: Whether it is a number, a text or None, and so may be a key.
        parts: What it holds.
    """

    __slots__ = ("content", "is_scalar", "parts")

    def __init__(self, content: Any = None, is_scalar: bool = False) -> None:
        self.content = content
        self.is_scalar = is_scalar
        self.parts: list[_Value] = []


class _PickleMachine:
    """Follows the operations of a pickle without building anything.

    Args:
        most: How many operations are followed.

    Attributes:
        storages: For each tensor's numbers the name of their record and the bytes they need.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.storages: list[tuple[str, int]] = []
        self._stack: list[_Value] = []
        self._marks: list[int] = []
        self._memory: dict[int, _Value] = {}

    def run(self, content: bytes) -> _Value:
        """Follow all operations; the object that they would build.

        Raises:
            ValueError: If it names anything but parts of tensors, or is broken.
        """
        try:
            for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
                if count > self.most:
                    raise ValueError("it holds more objects than any model does")
                self._follow(operation.name, argument)
        except (IndexError, KeyError, TypeError):
            raise ValueError("it is broken") from None
        if len(self._stack) != 1:
            raise ValueError("it is broken")
        return self._stack[0]

    def _follow(self, name: str, argument: Any) -> None:
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memory[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memory[argument])
        elif name in _NEW or name in _ADDITIONS:
            self._build(name, argument)
        elif _SCALARS.fullmatch(name):
            self._stack.append(_Value(argument, is_scalar=True))
        elif name not in _NOTHING:
            raise ValueError(f"it uses the operation {name}, which torch never does")

    def _build(self, name: str, argument: Any) -> None:
        """A new container, or additions to one."""
        count = len(self._stack) - self._marks.pop() if name in _TO_MARK else _POPPED.get(name, 0)
        parts = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        if name in ("SETITEM", "SETITEMS") and not all(key.is_scalar for key in parts[::2]):
            raise ValueError("a name in it is neither a text nor a number")
        if name == "GLOBAL":
            _check_name(argument)
        elif name == "REDUCE":
            _check_call(*parts)
        elif name == "BINPERSID":
            self.storages.append(_storage(parts[0]))
        if name in _NEW:
            self._stack.append(_Value(argument))
        self._stack[-1].parts += parts


def _check_name(name: str) -> None:
    if not (_STORAGE.fullmatch(name) or _is_called(name)):
        raise ValueError(
            f"it names {one_line(name.replace(' ', '.'), 80)!r}, which is no part of a tensor"
        )


def _check_call(called: _Value, arguments: _Value) -> None:
    """Refuse dictionaries that are not filled item by item: names in them would go unseen."""
    is_filled = called.content == _DICTIONARY and arguments.parts
    if is_filled or not _is_called(called.content):
        raise ValueError("it builds an object in a way that torch never does")


def _is_called(name: Any) -> bool:
    return isinstance(name, str) and (name == _DICTIONARY or bool(_TENSOR_PARTS.fullmatch(name)))


def _storage(described: _Value) -> tuple[str, int]:
    """The record of a tensor's numbers, and the bytes that they need."""
    kind, storage, key, _, count = (part.content for part in described.parts)
    found = _STORAGE.fullmatch(str(storage))
    if kind != "storage" or found is None or found[1] not in _BYTES:
        raise ValueError("it holds numbers of an unknown kind")
    return str(key), int(count) * _BYTES[found[1]]


def _check_values(root: _Value) -> None:
    """Refuse what holds itself, or holds more values than any model.

    Raises:
        ValueError: If so.
    """
    sizes: dict[_Value, int] = {}
    for value in _parts_first(root):
        sizes[value] = 1 + sum(sizes[part] for part in value.parts)
        if sizes[value] > _MOST_VALUES:
            raise ValueError("it holds more values than any model does")


def _parts_first(root: _Value) -> Iterator[_Value]:
    """Every value once, after what it holds."""
    done, open_ = set[_Value](), set[_Value]()
    waiting: list[tuple[_Value, bool]] = [(root, False)]
    while waiting:
        value, is_complete = waiting.pop()
        if is_complete:
            open_.discard(value)
            done.add(value)
            yield value
        elif value in open_:
            raise ValueError("a value in it holds itself")
        elif value not in done:
            open_.add(value)
            waiting.append((value, True))
            waiting.extend((part, False) for part in value.parts if part not in done)
