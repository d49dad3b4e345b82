"""From the signature of another library's attack to an attack of ours: each parameter becomes a setting."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from robustbench_tin.attacks.external.base import Bridge

_SCALARS: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str, "None": None}

B = TypeVar("B", bound=Bridge)


@dataclass(frozen=True)
class Setting:
    """One parameter that can be given as text.

    Attributes:
        name: its name in the library.
        hint: the type that its text is converted to.
        default: the library's default; None also if there is no default.
        required: True if it has no default.
    """

    name: str
    hint: Any
    default: bool | int | float | str | None
    required: bool = False


def parameters_of(target: type[Any]) -> list[inspect.Parameter]:
    """The named parameters of a class's constructor, without ``self``."""
    signature = inspect.signature(target.__init__)
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each for each in list(signature.parameters.values())[1:] if each.kind not in kinds]


def fits(target: type[Any], set_by_us: Iterable[str]) -> bool:
    """True if each required argument of a class can be given as text or by us."""
    return all(
        each.default is not each.empty or each.name in set_by_us or _setting(each) is not None
        for each in parameters_of(target)
    )


def bridged(
    base: type[B], name: str, target: type[Any], *, steps: Iterable[str] = (), **facts: Any
) -> type[B]:
    """The attack for one class of a library: a frozen dataclass whose fields are the class's settings.

    Args:
        base: the library's bridge.
        name: name of the attack, with its prefix.
        target: the library's class.
        steps: parameters that are step lengths: left out, they keep the library's proportion to eps.
        facts: class attributes of the result.
    """
    defaults = {each.name: each.default for each in parameters_of(target)}
    eps_name = facts.get("eps_name")
    parts = {}
    fields: list[tuple[str, Any, Any]] = []
    required = []
    for setting in _settings(base, target):
        hint, default = setting.hint, setting.default
        if setting.name in steps and eps_name is not None:
            parts[setting.name] = float(defaults[setting.name]) / float(defaults[eps_name])
            hint, default = float | None, None
        if setting.required:
            required.append(setting.name)
            hint = hint | None
        fields.append((setting.name, hint, dataclasses.field(default=default)))
    namespace = {
        "__doc__": _summary(target),
        "name": name,
        "foreign_class": target,
        "steps_of_eps": parts,
        "required": tuple(required),
        "settings": tuple(field[0] for field in fields),
        "knows_eps": eps_name is not None,
        **facts,
    }
    made = dataclasses.make_dataclass(
        target.__name__, fields, bases=(base,), namespace=namespace, frozen=True, kw_only=True
    )
    return typing.cast("type[B]", made)


def _settings(base: type[Bridge], target: type[Any]) -> Iterator[Setting]:
    taken = {name for kind in base.__mro__ for name in (*vars(kind), *vars(kind).get("__annotations__", ()))}
    for parameter in parameters_of(target):
        # A parameter named as something that every attack has could not be told from it.
        if parameter.name in base.set_by_us or parameter.name in taken:
            continue
        setting = _setting(parameter)
        if setting is not None:
            yield setting


def _setting(parameter: inspect.Parameter) -> Setting | None:
    """The parameter as a setting; None if no text can express its value."""
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    if default is not None and type(default) not in _SCALARS.values():
        return None
    kinds = list(_kinds(parameter.annotation))
    if isinstance(default, bool) and not any(kind is not bool for kind in kinds if kind is not None):
        return Setting(parameter.name, bool, default, required)
    if default is not None and not any(kind is not None for kind in kinds):
        kinds.append(type(default))
    if type(default) is int and parameter.annotation is parameter.empty:
        kinds.append(float)
    if not any(kind is not None for kind in kinds):
        return None
    return Setting(parameter.name, typing.Union[tuple(kinds)], default, required)  # noqa: UP007


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types in an annotation whose values can be written as text."""
    if isinstance(annotation, str):
        parts = [part.strip() for part in annotation.split("|")]
        yield from (_SCALARS[part] for part in parts if part in _SCALARS)
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _kinds(part)
    elif annotation is type(None):
        yield None
    elif annotation in _SCALARS.values() or typing.get_origin(annotation) is typing.Literal:
        yield annotation


def _summary(target: type[Any]) -> str:
    """The first sentence of a class's documentation, in one line."""
    text = " ".join((inspect.getdoc(target) or target.__name__).split())
    return text.partition(". ")[0].rstrip(".")[:160] + "."
