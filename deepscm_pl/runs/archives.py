"""Inspection of a checkpoint before torch reads it: the objects in it and their size."""

from __future__ import annotations

import os
import pickletools
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from deepscm_pl.escaping import one_line

__all__ = ["check_archive"]

_PICKLE = "data.pkl"
_PICKLE_LIMIT = 64 * 2**20
_OPERATION_LIMIT = 100_000
_OPERATIONS_PER_RECORD = 200
_VALUE_LIMIT = 2_000_000
"""Limits of the part of a checkpoint without tensors; a tensor takes about 25 operations."""

_END = b"PK\x05\x06"
_END_SIZE = 22
"""The end of a ZIP file without a comment, which torch never writes."""

_STORAGE = re.compile(r"(?:torch|torch\.storage) (\w+)Storage")
_ITEM_SIZES = {
    **dict.fromkeys(("Untyped", "Bool", "Byte", "Char"), 1),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
_TENSOR_PARTS = re.compile(
    r"torch\._utils (_rebuild_tensor_v2|_rebuild_parameter)"
    r"|torch (Size|device|b?float\w*|u?int\w+|bool|complex\w+|double|half|long)"
)
_DICTIONARY = "collections OrderedDict"

_SCALAR = re.compile(r"\w*INT\d?|LONG[14]?|\w*FLOAT|\w*UNICODE8?|NEW(TRUE|FALSE)|NONE")
_SCALARS = {each.name for each in pickletools.opcodes if _SCALAR.fullmatch(each.name)}
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


def check_archive(path: Path) -> None:
    """Refuse a file that torch would need long, or much memory, to read, or that names code.

    Torch stores records uncompressed, so the tensors of a checkpoint are never larger than the
    file. Other objects are counted without building them, shared ones each time that they occur:
    lists of lists that refer to one another can hold 2ⁿ values in n lines.

    Raises:
        ValueError: If the file is not a checkpoint, or is refused. The message lacks the path.
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
        if len(pickles) != 1 or records[pickles[0]].file_size > _PICKLE_LIMIT:
            raise ValueError(f"expected one record {_PICKLE} of at most 64 MiB in it")
        content = archive.read(pickles[0])
    folder = pickles[0].removesuffix(_PICKLE)
    machine = _PickleMachine(_OPERATION_LIMIT + _OPERATIONS_PER_RECORD * len(records))
    machine.run(content)
    for key, needed in machine.storages:
        record = records.get(f"{folder}data/{key}")
        if record is None or record.file_size < needed:
            raise ValueError(f"the numbers of tensor {one_line(key, 20)} are not complete")


def _check_records(records: Sequence[zipfile.ZipInfo], size: int) -> None:
    if len({each.filename for each in records}) < len(records):
        raise ValueError("a record occurs in it twice")
    if any(each.compress_type != zipfile.ZIP_STORED for each in records):
        raise ValueError("a record in it is compressed, which torch never does")
    if sum(each.file_size for each in records) > size:
        raise ValueError("its records would be larger than the file")


@dataclass(eq=False, slots=True)
class _Value:
    """An object that a pickle would build: a scalar, the name of a global, or a container."""

    content: Any = None
    is_scalar: bool = False
    parts: list[_Value] = field(default_factory=list)


class _PickleMachine:
    """An interpreter of pickle operations that builds nothing.

    Args:
        limit: Largest number of operations.

    Attributes:
        storages: The record name and the size in bytes of each tensor's numbers.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.storages: list[tuple[str, int]] = []
        self._stack: list[_Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Value] = {}
        self._filled: list[_Value] = []

    def run(self, content: bytes) -> None:
        """Interpret a pickle.

        Raises:
            ValueError: If it names anything but parts of tensors, is broken, contains itself, or
                would hold more values than any model does.
        """
        try:
            for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
                if count > self.limit:
                    raise ValueError("it holds more objects than any model does")
                self._interpret(operation.name, argument)
        except (IndexError, KeyError, TypeError):
            raise ValueError("it is broken") from None
        if len(self._stack) != 1:
            raise ValueError("it is broken")
        self._check_size()

    def _check_size(self) -> None:
        # Only values with parts are sorted: most have none, and a size of 1.
        graph = {each: [part for part in each.parts if part.parts] for each in self._filled}
        sizes: dict[_Value, int] = {}
        try:
            for value in TopologicalSorter(graph).static_order():
                sizes[value] = 1 + sum(sizes.get(part, 1) for part in value.parts)
                if sizes[value] > _VALUE_LIMIT:
                    raise ValueError("it holds more values than any model does")
        except CycleError:
            raise ValueError("a value in it contains itself") from None

    def _interpret(self, name: str, argument: Any) -> None:
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in _NEW or name in _ADDITIONS:
            self._build(name, argument)
        elif name in _SCALARS:
            self._stack.append(_Value(argument, is_scalar=True))
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"it uses the operation {name}, which torch never does")

    def _build(self, name: str, argument: Any) -> None:
        """Make a new container, or add to the one on top of the stack."""
        count = len(self._stack) - self._marks.pop() if name in _TO_MARK else _POPPED.get(name, 0)
        parts = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        if name in ("SETITEM", "SETITEMS") and not all(key.is_scalar for key in parts[::2]):
            raise ValueError("a name in it is neither a text nor a number")
        if name == "GLOBAL" and not (_STORAGE.fullmatch(argument) or _is_callable(argument)):
            shown = one_line(argument.replace(" ", "."), 80)
            raise ValueError(f"it names {shown!r}, which is no part of a tensor")
        if name == "REDUCE":
            called, arguments = parts
            # A dictionary made of arguments would hide the names in it.
            is_filled = called.content == _DICTIONARY and arguments.parts
            if is_filled or not _is_callable(called.content):
                raise ValueError("it builds an object in a way that torch never does")
        if name == "BINPERSID":
            self.storages.append(_storage(parts[0]))
        if name in _NEW:
            self._stack.append(_Value(argument))
        filled = self._stack[-1]
        if parts and not filled.parts:
            self._filled.append(filled)
        filled.parts += parts


def _is_callable(name: Any) -> bool:
    return isinstance(name, str) and (name == _DICTIONARY or bool(_TENSOR_PARTS.fullmatch(name)))


def _storage(description: _Value) -> tuple[str, int]:
    """The record name of a tensor's numbers, and their size in bytes."""
    kind, storage, key, _, count = (part.content for part in description.parts)
    found = _STORAGE.fullmatch(str(storage))
    if kind != "storage" or found is None or found[1] not in _ITEM_SIZES:
        raise ValueError("it holds numbers of an unknown kind")
    return str(key), int(count) * _ITEM_SIZES[found[1]]
