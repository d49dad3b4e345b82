"""The place and the settings of a data set, from a text like ``imagenet:DIR,size=256,crop=224``."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

from robustbench_tin.data import datasets
from robustbench_tin.data.source import Source
from robustbench_tin.errors import DataError, InvalidSettingError, UnknownNameError

_SETTING = re.compile(r"\s*(\w+)=(.*)")


def source_at(kind: type[Source], name: str, text: str) -> Source:
    """The data set of a kind at a place, with the settings after it.

    Args:
        kind: a registered kind.
        name: the name under which it is registered.
        text: the text after the colon: ``PATH``, ``PATH,key=value``, ``key=value`` or ``root=PATH``.

    Raises:
        DataError: if the kind takes no path, or the path is empty.
        UnknownNameError: for a setting that the kind does not have.
        InvalidSettingError: for a value that does not fit.
    """
    if not kind.takes_path:
        raise DataError(f"data set '{name}' takes no path, got '{name}:{text}'; expected '{name}'")
    place, settings = split_place(kind, text)
    if not place and not settings:
        raise DataError(f"data set '{name}:' has an empty path; expected {name}:PATH")
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {
        key: _converted(name, key, value, hints[key]) for key, value in settings.items()
    }
    return kind(path=Path(place).expanduser() if place else None, **values)


def split_place(kind: type[Source], text: str) -> tuple[str, dict[str, str]]:
    """The path, and the settings as texts; a path may contain commas and equals signs.

    Raises:
        UnknownNameError: for a setting that the kind does not have.
        InvalidSettingError: for a path or a setting that is given twice.
    """
    known = {field.name for field in dataclasses.fields(kind)} - {"path"}
    known |= {kind.path_setting} - {""}
    if not known or Path(text).expanduser().exists():
        return text, {}
    parts = text.split(",")
    settings: dict[str, str] = {}
    while parts and (found := _SETTING.fullmatch(parts[-1])):
        if settings and Path(",".join(parts)).expanduser().exists():
            break
        key, value = found[1], found[2].strip()
        if key not in known:
            raise UnknownNameError("setting", key, known, f"data set '{kind.name}'")
        if key in settings:
            raise InvalidSettingError(f"data set '{kind.name}' got {key} twice; give it once")
        settings[key] = value
        parts.pop()
    named = settings.pop(kind.path_setting, "")
    if named and parts:
        raise InvalidSettingError(
            f"data set '{kind.name}' got '{','.join(parts)}' and {kind.path_setting}={named}; give one of"
            " them"
        )
    return named or ",".join(parts), settings


def absolute(data: str) -> str:
    """The text of a data set that works from any directory: a relative path becomes absolute."""
    name, colon, text = data.partition(":")
    if data in datasets.names():
        return data
    if not colon or name not in datasets.names():
        return str(Path(data).expanduser().absolute())
    kind = datasets.get(name)
    place, settings = split_place(kind, text)
    path = Path(place).expanduser()
    if place and (path.exists() or not kind.by_name):
        place = str(path.absolute())
    given = [f"{key}={value}" for key, value in sorted(settings.items())]
    return f"{name}:{','.join([*([place] if place else []), *given])}"


def _converted(name: str, key: str, text: str, hint: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint).validate_python(text)
    except ValidationError:
        kinds = {str(each): each for each in typing.get_args(hint) or (hint,)}
        words = {int: "a whole number", bool: "true or false", str: "a name"}
        expected = next((words[each] for each in kinds.values() if each in words), "another value")
        raise InvalidSettingError(f"data set '{name}' got {key}={text}; expected {expected}") from None
