"""Checks of a plug-in's class when it registers, before any cell is trained.

robust-tin calls the methods of an attack or a defense by the names and parameters of its base class. A method
with other parameters would fail in the middle of a run, and one with a misspelled name would never be called.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from robustbench_tin.errors import one_line
from robustbench_tin.specs import Configurable

# Smallest similarity of two names, from 0 to 1, at which one counts as a misspelling of the other.
_CLOSE = 0.8
_SETTING_TYPES = "int, float, bool, str, Path, a StrEnum, a Literal of str, or one of them | None"
# Properties that tables, cache keys and error messages read.
_RESERVED = ("name", "kind", "spec", "mode", "goal")
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def problems(value: object, base: type[Configurable], register: str) -> Iterator[str]:
    """Reasons why robust-tin cannot use ``value`` as a plug-in; none if it can.

    Args:
        value: the registered object.
        base: the class that it must be derived from, for example :class:`~robustbench_tin.attacks.Attack`.
        register: the decorator's name in an author's code.

    Yields:
        A clause for each problem: the given value, then the expected one.
    """
    if not (isinstance(value, type) and issubclass(value, base)):
        yield f"got {value!r:.80}; expected a class derived from {base.__name__}"
    elif "__dataclass_fields__" not in vars(value):
        yield (
            f"class {value.__name__} is not a dataclass, so it has no settings; put @dataclass(frozen=True)"
            f" between @{register}(...) and class {value.__name__}"
        )
    elif "__eq__" not in vars(value):
        yield f"class {value.__name__} has eq=False; expected objects with the same settings to be equal"
    else:
        yield from _wrong_settings(value, base)
        yield from _wrong_members(value, base)
        yield from _missing_methods(value)


def written_by_author(value: type, base: type) -> list[type]:
    """The classes that ``value`` is made of, most derived first, without ``base`` and its bases."""
    return [part for part in value.__mro__ if part not in base.__mro__]


def _wrong_settings(value: type[Configurable], base: type[Configurable]) -> Iterator[str]:
    try:
        types_of = typing.get_type_hints(value)
    except Exception as error:  # noqa: BLE001 - an annotation may be any expression
        yield f"the annotations of class {value.__name__} cannot be read: {one_line(error)}"
        return
    inherited = {field.name for field in dataclasses.fields(base)}
    for field in dataclasses.fields(value):
        written = f"setting {field.name}: {_written(types_of[field.name])}"
        if field.name not in inherited:
            yield from _shadowed(field.name, value, base)
        if not _is_readable(types_of[field.name]):
            yield f"{written} cannot be read from a spec; expected {_SETTING_TYPES}"
        elif (default := _default(field)) is dataclasses.MISSING:
            yield f"{written} has no default; expected {field.name}: {_written(types_of[field.name])} = VALUE"
        elif not _holds(default, types_of[field.name]):
            yield f"{written} has the default {default!r:.40}; expected a value of its type"


def _shadowed(setting: str, value: type, base: type) -> Iterator[str]:
    """Problems of a setting that replaces a method, or a name that robust-tin reads."""
    homes = [part for part in value.__mro__ if isinstance(vars(part).get(setting), types.FunctionType)]
    if homes:
        yield f"setting {setting} hides the method {homes[0].__name__}.{setting}; choose another name for it"
    elif setting in _RESERVED and hasattr(base, setting):
        yield f"setting {setting} hides {base.__name__}.{setting}; choose another name for it"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_readable(hint: Any) -> bool:
    """True if a spec's text can be converted to this type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return all(map(_is_readable, arguments))
    if origin is typing.Literal:
        return all(argument is None or isinstance(argument, str) for argument in arguments)
    return hint in (int, float, bool, str, types.NoneType) or (
        isinstance(hint, type) and issubclass(hint, PurePath | StrEnum)
    )


def _holds(default: Any, hint: Any) -> bool:
    from pydantic import TypeAdapter, ValidationError

    try:
        return bool(TypeAdapter(hint).validate_python(default) == default)
    except ValidationError:
        return False


def _written(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _wrong_members(value: type[Configurable], base: type[Configurable]) -> Iterator[str]:
    settings = {field.name for field in dataclasses.fields(value)}
    author = written_by_author(value, base)
    for part in author:
        later = [home for home in value.__mro__[value.__mro__.index(part) + 1 :] if home is not object]
        for name, member in vars(part).items():
            if name.startswith("_") or name in settings:
                continue
            homes = [home for home in later if name in vars(home)]
            if homes:
                # The last one is the class through which robust-tin calls it.
                yield from _unlike(part, name, member, vars(homes[-1])[name])
            elif not isinstance(member, type):
                yield from _misspelt(part, name, base, author)


def _misspelt(part: type, name: str, base: type, author: Sequence[type]) -> Iterator[str]:
    if name.isupper():  # a constant
        return
    hooks = {_plain(hook): hook for hook in dir(base) if not hook.startswith("_")}
    close = difflib.get_close_matches(_plain(name), hooks, n=1, cutoff=_CLOSE)
    if close and not any(hooks[close[0]] in vars(home) for home in author):
        yield (
            f"class {part.__name__} defines {name}, which robust-tin does not use; did you mean"
            f" {hooks[close[0]]}? (start the name of a helper with an underscore)"
        )


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _unlike(part: type, name: str, own: Any, theirs: Any) -> Iterator[str]:
    """Reasons why ``own`` cannot be called, or read, like ``theirs``."""
    where = f"class {part.__name__}"
    if isinstance(theirs, property):
        if isinstance(own, types.FunctionType):
            yield f"{where} defines {name} as a method; expected a property, put @property on it"
    elif isinstance(theirs, bool):
        if not isinstance(own, bool | property):
            yield f"{where} sets {name} = {own!r:.40}; expected True or False"
    elif callable(theirs) or isinstance(theirs, classmethod | staticmethod):
        if isinstance(own, property):
            yield f"{where} defines {name} as a property; expected the method {_signature(name, theirs)}"
        elif not (callable(own) or isinstance(own, classmethod | staticmethod)):
            yield f"{where} sets {name} = {own!r:.40}; expected the method {_signature(name, theirs)}"
        elif isinstance(own, types.FunctionType | classmethod | staticmethod) and not _accepts(own, theirs):
            yield f"{where} defines {_signature(name, own)}; expected {_signature(name, theirs)}"


def _accepts(own: Any, theirs: Any) -> bool:
    """True if ``own`` accepts the arguments of ``theirs``, keyword-only ones by name."""
    mine, expected = _parameters(own), _parameters(theirs)
    kinds = {parameter.kind for parameter in mine}
    takes_more = inspect.Parameter.VAR_POSITIONAL in kinds
    places = [parameter for parameter in mine if parameter.kind in _BY_POSITION]
    needed = [parameter for parameter in expected if parameter.kind in _BY_POSITION]
    for index, parameter in enumerate(needed):
        if index >= len(places):
            return takes_more
        # A leading underscore marks an unused argument.
        if places[index].name != parameter.name and not places[index].name.startswith("_"):
            return False
    names = {parameter.name for parameter in mine}
    keywords = {parameter.name for parameter in expected if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    if not (keywords <= names or inspect.Parameter.VAR_KEYWORD in kinds):
        return False
    surplus = [
        *places[len(needed) :],
        *(parameter for parameter in mine if parameter.kind is inspect.Parameter.KEYWORD_ONLY),
    ]
    return all(
        parameter.default is not inspect.Parameter.empty or parameter.name in keywords
        for parameter in surplus
    )


def _function(member: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(member, "__func__", member)
    return function


def _parameters(member: Any) -> list[inspect.Parameter]:
    """All parameters except the object or class that a method is called on."""
    parameters = list(inspect.signature(_function(member)).parameters.values())
    has_self = not isinstance(member, staticmethod) and parameters and parameters[0].kind in _BY_POSITION
    return parameters[1:] if has_self else parameters


def _signature(name: str, member: Any) -> str:
    """A method with the names of its parameters: ``run(self, attacked, labels, ball, generator)``."""
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(_function(member)).parameters.values()
    ]
    return f"{name}{inspect.Signature(bare)}"


def _missing_methods(value: type) -> Iterator[str]:
    for name in dir(value):
        member = inspect.getattr_static(value, name)
        if getattr(member, "__isabstractmethod__", False):
            yield f"class {value.__name__} does not define {_signature(name, member)}; expected that method"
