"""Descriptions of models as plain data, which checkpoints contain and a safe loader reads.

Networks and mechanisms are built from a *factory*: a class, or a :func:`functools.partial` of one.
:func:`describe` converts factories to the ``class_path`` and ``init_args`` of YAML files, and
:func:`restore` converts them back.

A description may come from a file of unknown origin, so :func:`restore` is the only way from a file
to an object. It checks each value against the annotation of its argument: a text remains text, and
a class must be derived from the annotated one. It imports only modules of this package, of
``torch.nn`` and ``torch.optim``, and of packages that the user trusts; other modules must have been
imported by the user's program.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import re
import reprlib
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch

from deepscm_pl.older import translated, with_former_defaults

__all__ = [
    "annotations_of",
    "count_values",
    "describe",
    "restore",
    "restore_arguments",
    "restore_class",
    "untrusted_packages",
    "with_classes",
]

_BUILDING_BLOCKS: tuple[type, ...] = (
    torch.nn.Module,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
)
"""Bases of the classes that are accepted for an argument without an annotation."""

_PACKAGE = __name__.partition(".")[0]
_KNOWN = (_PACKAGE, "torch.nn", "torch.optim")
"""Packages whose modules a file may name."""

_DEPENDENCIES = (
    "lightning_fabric",
    "monai",
    "pyro",
    "pytorch_lightning",
    "torch",
    "torchmetrics",
    "torchvision",
)
"""Packages that are refused unless trusted, even if imported: classes may download files."""

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_PATH_LIMIT = 300
_TEXT_CHARACTERS = 100_000
_LARGEST_INTEGER = 2**63 - 1

_UNTYPED = (Any, object, list, tuple, dict)

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    NoneType: "null",
}


def describe(value: Any) -> Any:
    """Convert a value to plain data from which :func:`restore` rebuilds it.

    A class with the method ``self_contained`` says which arguments describe it without other files.

    Args:
        value: Plain data, a class, a ``functools.partial`` of a class, or containers of these.

    Raises:
        ValueError: If a part of it cannot be described, such as a module that is already built.

    Example:
        >>> describe({"net": functools.partial(torch.nn.Linear, bias=False)})
        {'net': {'class_path': 'torch.nn.modules.linear.Linear', 'init_args': {'bias': False}}}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: describe(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, type | functools.partial):
        return _describe_factory(value)
    raise ValueError(
        f"cannot describe {value!r} in a checkpoint: expected plain data, a class, or "
        "functools.partial(a class, its arguments), from which the model can be built again; "
        "pass the class instead of an object of it."
    )


def _describe_factory(factory: type | functools.partial[Any]) -> dict[str, Any]:
    if isinstance(factory, type):
        target, arguments = factory, {}
    else:
        # The parser of the command line wraps the class in functions.
        classes = [part for part in (factory.func, *factory.args) if isinstance(part, type)]
        if not classes:
            raise ValueError(f"cannot describe {factory!r}: expected functools.partial of a class.")
        target, arguments = classes[0], factory.keywords
        if target is factory.func:
            arguments = {**_named_arguments(target, factory.args), **arguments}
    changed = with_former_defaults(target, {}).keys() - arguments.keys()
    defaults = {name: annotations_of(target)[name][1] for name in sorted(changed)}
    arguments = {**arguments, **defaults}
    if (self_contained := getattr(target, "self_contained", None)) is not None:
        arguments = self_contained(arguments)
    return {
        "class_path": _class_path(target),
        "init_args": {name: describe(item) for name, item in arguments.items()},
    }


def _named_arguments(target: type, values: Sequence[Any]) -> dict[str, Any]:
    """The leading arguments of a class, by name."""
    named = [
        name
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(values) > len(named):
        raise ValueError(
            f"cannot describe functools.partial of {target.__qualname__}: expected its arguments "
            f"by name, but got {len(values)} without one."
        )
    return dict(zip(named, values, strict=False))


def _class_path(target: type) -> str:
    """The import path of a class, through its package if that exports the class."""
    package = ".".join(target.__module__.split(".")[:2])
    if _is_within(package, _PACKAGE) and _class_in(sys.modules[package], target.__name__) is target:
        return f"{package}.{target.__qualname__}"
    return f"{target.__module__}.{target.__qualname__}"


def restore(description: Any, expected: Any = Any, trust: Sequence[str] = ()) -> Any:
    """Rebuild a value from :func:`describe`: plain data, with factories in place of classes.

    Args:
        description: A result of :func:`describe`, possibly from a file of unknown origin.
        expected: The annotation of the result. ``Any`` accepts plain data, and modules, optimisers
            and schedules of torch.
        trust: Additional packages whose modules may be imported.

    Raises:
        ValueError: If a value does not match ``expected``, or a ``class_path`` names a class that
            is missing, not trusted or of another kind. The message names the setting.

    Example:
        >>> restore({"class_path": "torch.nn.Linear", "init_args": {"bias": False}})(2, 3)
        Linear(in_features=2, out_features=3, bias=False)
        >>> restore("3", int)
        Traceback (most recent call last):
            ...
        ValueError: expected a whole number, but got '3'.
    """
    return _Restorer(tuple(trust)).value(description, expected, "")


def with_classes(settings: Any) -> Any:
    """Write names of this package's classes in settings as :func:`restore` expects them.

    Example:
        >>> with_classes({"constraint": "deepscm_pl.transforms.Real"})
        {'constraint': {'class_path': 'deepscm_pl.transforms.Real'}}
    """
    if isinstance(settings, Mapping):
        return {k: v if k == "class_path" else with_classes(v) for k, v in settings.items()}
    is_class = isinstance(settings, str) and settings.startswith(f"{_PACKAGE}.")
    return {"class_path": settings} if is_class else settings


def restore_arguments(
    target: type, description: Any, trust: Sequence[str] = (), where: str = ""
) -> dict[str, Any]:
    """Rebuild the arguments of a class according to the annotations of its constructor.

    ``where`` is the dotted path of the arguments, for messages.

    Raises:
        ValueError: As in :func:`restore`; also for an unknown argument.
    """
    return _Restorer(tuple(trust)).arguments(target, description, where)


def restore_class(class_path: Any, bases: tuple[type, ...], trust: Sequence[str] = ()) -> type:
    """Find a class by its path, and import its module if that is known or trusted.

    Raises:
        ValueError: If there is no such class, or it is refused.
    """
    text = class_path if isinstance(class_path, str) else ""
    module_name, _, name = text.rpartition(".")
    if len(text) > _PATH_LIMIT or not _PATH.fullmatch(text) or ".__main__" in module_name:
        raise ValueError(
            f"expected the path of a class, such as torch.nn.Linear, but got {_brief(class_path)}."
        )
    target = _class_in(_module(module_name, text, bases, trust), name)
    if target is None:
        raise ValueError(
            f"cannot import {text!r} (its module has no such class); install the version of the "
            "package that it comes from."
        )
    if not (isinstance(target, type) and issubclass(target, bases)):
        raise _refusal_of(text, bases)
    return target


def _class_in(module: ModuleType, name: str) -> Any:
    """The attribute ``name`` of a module, or None."""
    # Not getattr for other packages: their modules may import others in __getattr__.
    if _is_within(module.__name__, _PACKAGE) and name in getattr(module, "__all__", ()):
        return getattr(module, name)
    return vars(module).get(name)


def _module(
    name: str, class_path: str, bases: tuple[type, ...], trust: Sequence[str]
) -> ModuleType:
    """Import a module if a file is allowed to name it."""
    root = name.partition(".")[0]
    if any(_is_within(name, package) for package in (*_KNOWN, *trust)):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            is_missing = isinstance(error, ModuleNotFoundError) and _is_within(
                name, str(error.name)
            )
            if is_missing and _is_within(name, _PACKAGE) and name != _PACKAGE:
                # The package exports the classes of modules that moved between versions.
                return _module(name.rpartition(".")[0], class_path, bases, trust)
            raise ValueError(
                f"cannot import {class_path!r} ({error}); install the package that it comes from, "
                "or put its folder on PYTHONPATH."
            ) from None
    if root in sys.stdlib_module_names and root != "__main__":
        raise _refusal_of(class_path, bases)
    if root in _DEPENDENCIES or name not in sys.modules:
        raise ValueError(
            f"{class_path!r} is refused: its module is not a part of deepscm_pl, torch.nn or "
            f"torch.optim. If you trust the package {root}, add --trust {root} (in Python "
            f"trust=[{root!r}])."
        )
    return sys.modules[name]


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _refusal_of(class_path: str, bases: tuple[type, ...]) -> ValueError:
    names = " or ".join(base.__name__ for base in bases)
    return ValueError(f"{class_path!r} is refused: expected a class derived from {names}.")


class _Restorer:
    """A converter of descriptions to values, according to annotations."""

    def __init__(self, trust: tuple[str, ...]) -> None:
        self.trust = trust

    def value(self, found: Any, kind: Any, where: str) -> Any:
        origin, parts = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.value(found, parts[0], where)
        if origin in (Union, UnionType):
            return self._one_of(found, parts, where)
        if origin is Literal:
            if isinstance(found, str | int | bool | None) and found in parts:
                return found
            raise _mismatch(where, f"one of {', '.join(map(repr, parts))}", found)
        if kind in _KINDS or kind is None:
            return _check_plain(found, NoneType if kind is None else kind, where)
        if is_dataclass(kind) and isinstance(kind, type):
            return self._settings(found, kind, where)
        bases = _bases(kind)
        if bases is not None:
            return self._factory(found, bases, where)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(found, parts, where)
        if isinstance(origin, type) and issubclass(origin, Iterable):
            return self._sequence(found, origin, parts, where)
        if isinstance(kind, type) and kind not in _UNTYPED:
            raise _mismatch(where, f"{kind.__name__}, which no file can contain", found)
        return self._untyped(found, where)

    def arguments(self, target: type, found: Any, where: str) -> dict[str, Any]:
        if not isinstance(found, Mapping):
            raise _mismatch(where, "arguments by name", found)
        known = annotations_of(target)
        restored = {}
        for name, value in found.items():
            place = _dotted(where, name)
            if name not in known:
                raise ValueError(f"{place}: {target.__name__} has no such argument.")
            if name in getattr(target, "never_restored", ()) and value is not None:
                raise _mismatch(place, "null, because a file must not name another", value)
            if name == "device" and value is not None:
                raise _mismatch(place, "null, because a file must not set the device", value)
            kind, default = known[name]
            is_default = type(value) is type(default) and value == default
            restored[name] = value if is_default else self.value(value, kind, place)
        return restored

    def _factory(self, found: Any, bases: tuple[type, ...], where: str) -> Any:
        is_class = isinstance(found, Mapping) and "class_path" in found
        if not is_class or not found.keys() <= {"class_path", "init_args"}:
            raise _mismatch(where, "a class with its arguments", found)
        try:
            target = restore_class(found["class_path"], bases, self.trust)
        except ValueError as error:
            raise ValueError(f"{where}: {error}" if where else str(error)) from None
        described = found.get("init_args") or {}
        if isinstance(described, Mapping) and _is_within(target.__module__, _PACKAGE):
            described = translated(target.__name__, described)
        if isinstance(described, Mapping):
            described = with_former_defaults(target, described)
        arguments = self.arguments(target, described, where)
        return functools.partial(target, **arguments)

    def _settings(self, found: Any, kind: type, where: str) -> Any:
        if isinstance(found, kind):
            return found
        arguments = self.arguments(kind, found, where)
        try:
            return kind(**arguments)
        except ValueError as error:
            raise ValueError(f"{where}.{error}" if where else str(error)) from None

    def _one_of(self, found: Any, kinds: tuple[Any, ...], where: str) -> Any:
        errors = []
        # float last, so that 3 stays an integer
        for kind in sorted(kinds, key=lambda kind: kind is float):
            try:
                return self.value(found, kind, where)
            except ValueError as error:
                errors.append(error)
        # The longest message is about an argument of a class, so it is the most specific.
        raise max(errors, key=lambda error: len(str(error)))

    def _mapping(self, found: Any, parts: tuple[Any, ...], where: str) -> dict[Any, Any]:
        if not isinstance(found, Mapping):
            raise _mismatch(where, "values by name", found)
        keys, values = parts or (Any, Any)
        return {
            self.value(key, keys, where): self.value(value, values, _dotted(where, key))
            for key, value in found.items()
        }

    def _sequence(self, found: Any, origin: type, parts: tuple[Any, ...], where: str) -> Any:
        if not isinstance(found, list | tuple):
            raise _mismatch(where, "a list", found)
        is_fixed = origin is tuple and parts and parts[-1] is not Ellipsis
        if is_fixed and len(parts) != len(found):
            raise _mismatch(where, f"a list of {len(parts)}", found)
        kinds = parts if is_fixed else (parts or (Any,))[:1] * len(found)
        each = [
            self.value(value, kind, f"{where}[{number}]")
            for number, (value, kind) in enumerate(zip(found, kinds, strict=True))
        ]
        return tuple(each) if origin is tuple else each

    def _untyped(self, found: Any, where: str) -> Any:
        """Rebuild the value of an argument without an annotation."""
        if isinstance(found, Mapping) and "class_path" in found:
            return self._factory(found, _BUILDING_BLOCKS, where)
        if isinstance(found, Mapping):
            return self._mapping(found, (str | int, Any), where)
        if isinstance(found, list | tuple):
            return self._sequence(found, list, (), where)
        return _check_plain(found, type(found), where)


def _check_plain(found: Any, kind: Any, where: str) -> Any:
    if kind not in _KINDS:
        raise _mismatch(where, "plain data", found)
    kinds = (int, float) if kind is float else (str,) if kind is Path else (kind,)
    if type(found) not in kinds:
        raise _mismatch(where, _KINDS[kind], found)
    if type(found) is int and abs(found) > _LARGEST_INTEGER:
        raise _mismatch(where, "a number of at most 64 bits", found)
    if type(found) is str and len(found) > _TEXT_CHARACTERS:
        raise _mismatch(where, f"a text of at most {_TEXT_CHARACTERS:,} characters", found)
    return Path(found) if kind is Path else found


def _bases(kind: Any) -> tuple[type, ...] | None:
    """The classes from which an annotation requires a class to derive; None for other values."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Callable:
        result = parts[1] if len(parts) == 2 else Any
    elif origin is type:
        result = parts[0]
    else:
        return _BUILDING_BLOCKS if kind in (Callable, typing.Callable, type) else None
    found = tuple(each for each in (get_args(result) or (result,)) if isinstance(each, type))
    return found or _BUILDING_BLOCKS


def annotations_of(target: type) -> dict[str, tuple[Any, Any]]:
    """The annotation and the default of each constructor argument of a class, by name.

    Arguments of the bases, or of the class that the class attribute ``keyword_arguments_of`` names,
    are included if the constructor has ``**`` arguments.
    """
    found: dict[str, tuple[Any, Any]] = {}
    settings: Any = getattr(target, "keyword_arguments_of", None)
    for each in (*target.__mro__, *(settings.__mro__ if settings else ())):
        constructor = vars(each).get("__init__")
        if not inspect.isfunction(constructor):
            continue
        hints: dict[str, Any] = {}
        with suppress(NameError, TypeError, AttributeError):  # imported for type checkers only
            hints = typing.get_type_hints(constructor)
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                annotation = hints.get(parameter.name, Any)
                found.setdefault(parameter.name, (annotation, parameter.default))
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def count_values(description: Any, most: int) -> int:
    """Count the values in plain data, up to ``most`` + 1; shared parts count each time."""
    return sum(1 for _ in itertools.islice(_nested_values(description), most + 1))


def untrusted_packages(description: Any) -> list[str]:
    """Names of the packages that a user has to trust before a description is restored."""
    paths = [
        each.get("class_path") for each in _nested_values(description) if isinstance(each, Mapping)
    ]
    return sorted(
        {
            path.partition(".")[0]
            for path in paths
            if path and not any(_is_within(path, package) for package in _KNOWN)
        }
    )


def _nested_values(description: Any) -> Iterator[Any]:
    """All values in plain data, containers included."""
    waiting = [description]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


def _dotted(where: str, name: object) -> str:
    shown = name if isinstance(name, str) and name.isidentifier() else _brief(name)
    return f"{where}.{shown}" if where else str(shown)


def _brief(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping) and "class_path" in value:
        return f"the class {_brief(value['class_path'])}"
    if isinstance(value, bool | int | float | str):
        return reprlib.repr(value)
    return f"a value of type {type(value).__name__}"


def _mismatch(where: str, expected: str, found: object) -> ValueError:
    place = f"{where}: " if where else ""
    return ValueError(f"{place}expected {expected}, but got {_brief(found)}.")
