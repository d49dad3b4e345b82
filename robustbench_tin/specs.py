"""One grammar for everything that is chosen by name: ``name`` or ``name:key=value,key=value``.

In a comma list, an item with ``=`` belongs to the name before it, so ``fgsm,pgd:steps=20,restarts=2`` is two
items. ``timm:`` and ``art:`` are examples of prefixes of a name. :class:`Configurable` works in the other
direction: a frozen dataclass that prints as its canonical spec, which serves as label, cache key and test id.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

from robustbench_tin.errors import InvalidSettingError, UnknownNameError

# Longer decimals are written as fractions if they are equal to one.
_SHORT = 8
_LONG_DECIMAL = re.compile(r"(?<![\w./])\d+\.\d{7,}(?:e-?\d+)?(?![\w.]|/\d)")


@dataclass(frozen=True)
class Spec:
    """A parsed spec: the name (with its prefix, if any) and the settings as texts."""

    name: str
    settings: Mapping[str, str]


def parse_spec(text: str, prefixes: Collection[str] = ()) -> Spec:
    """Split ``name:key=value,key=value`` into its parts.

    Args:
        text: the spec as typed.
        prefixes: words that, before a first ``:``, belong to the name (``timm`` in ``timm:resnet18``).

    Raises:
        InvalidSettingError: if a setting is not ``key=value`` or a key is given twice.

    >>> parse_spec("pgd:steps=20,restarts=2")
    Spec(name='pgd', settings={'steps': '20', 'restarts': '2'})
    """
    name, _, rest = text.strip().partition(":")
    if name in prefixes:
        second, _, rest = rest.partition(":")
        name = f"{name}:{second}"
    if not name or name.endswith(":"):
        raise InvalidSettingError(f"'{text}' has no name; expected name or name:key=value,key=value")
    settings: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise InvalidSettingError(f"'{item}' in '{text}' is not a setting; expected key=value")
        if key in settings:
            raise InvalidSettingError(f"'{text}' sets {key} twice; give it once")
        settings[key] = value
    return Spec(name, settings)


def split_items(text: str) -> list[str]:
    """Split at commas; no items for an empty text.

    Raises:
        InvalidSettingError: for an empty item, as in ``fgsm,,pgd``.
    """
    items = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(items):
        raise InvalidSettingError(
            f"'{text}' has an empty item; expected a name between every two commas: a,b"
        )
    return items


def split_list(text: str) -> list[str]:
    """Split a comma list of specs; an item with ``=`` but no name belongs to the spec before it.

    Raises:
        InvalidSettingError: for an empty item.

    >>> split_list("fgsm,pgd:steps=20,restarts=2")
    ['fgsm', 'pgd:steps=20,restarts=2']
    """
    specs: list[str] = []
    for item in split_items(text):
        key, equals, _ = item.partition("=")
        if equals and ":" not in key and specs:
            separator = "," if "=" in specs[-1].rpartition("+")[2] else ":"
            specs[-1] += separator + item
        else:
            specs.append(item)
    return specs


def parse_number(text: str) -> float:
    """Read a number in the usual form of a budget: ``0.03`` or ``8/255``.

    Raises:
        ValueError: for any other text.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except ZeroDivisionError:
        raise ValueError(f"division by zero in {text!r}") from None


def number_text(value: float) -> str:
    """A number in its usual form, exact: :func:`parse_number` reads the same number back.

    A long decimal is written as a fraction if it equals one: with the denominator 255 and a numerator in
    quarters, or else with a denominator up to 255.

    >>> number_text(8 / 255), number_text(2.5 / 255), number_text(0.03), number_text(1 / 7)
    ('8/255', '2.5/255', '0.03', '1/7')
    """
    value = float(value)
    decimal = repr(value)
    if len(decimal) <= _SHORT or not math.isfinite(value):
        return decimal
    other = Fraction(value).limit_denominator(255)
    fractions = (
        f"{round(4 * 255 * value) / 4:.15g}/255",
        f"{other.numerator}/{other.denominator}" if other.denominator > 1 else decimal,
    )
    return next((text for text in fractions if parse_number(text) == value), decimal)


def eps_text(eps: float) -> str:
    """A budget for tables and messages: like :func:`number_text`, but longer decimals have six digits.

    >>> eps_text(8 / 255), eps_text(0.03), eps_text(0.0), eps_text(0.123456789)
    ('8/255', '0.03', '0', '0.123457')
    """
    text, rounded = number_text(eps), f"{eps:g}"
    return text if "/" in text or (float(rounded) != eps and len(text) <= _SHORT + 2) else rounded


def short_numbers(text: str) -> str:
    """A text of an earlier version, with its long decimals in the form of :func:`number_text`.

    >>> short_numbers("pgd-at:eps=0.01568627450980392")
    'pgd-at:eps=4/255'
    """
    return _LONG_DECIMAL.sub(lambda found: number_text(float(found[0])), text)


@dataclass(frozen=True)
class Configurable:
    """Base of attacks and defenses: a frozen dataclass whose fields are its settings.

    Registering a class sets its ``name``. Two objects with the same settings are equal and have the same
    :attr:`spec`, independent of the order and the defaults in the text they came from.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = "object"

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> Self:
        """Build an object from the texts of a spec; each is converted to its field's type.

        Raises:
            UnknownNameError: for an unknown key.
            InvalidSettingError: for a value that does not fit its type or its range, a missing value without
                a default, or a class whose author forgot the dataclass decorator.
        """
        if "__dataclass_fields__" not in vars(cls):
            raise InvalidSettingError(
                f"{cls.kind} '{cls.name}' is not a dataclass, so it has no settings; put"
                f" @dataclass(frozen=True) on class {cls.__name__}"
            )
        hints = typing.get_type_hints(cls)
        known = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for key, text in settings.items():
            if key not in known:
                raise UnknownNameError("setting", key, known or {"none"}, f"{cls.kind} '{cls.name}'")
            values[key] = cls._convert(key, text, hints[key])
        for field in dataclasses.fields(cls):
            if field.name not in values and not _has_default(field):
                raise InvalidSettingError(
                    f"{cls.kind} '{cls.name}' needs its setting {field.name}, which has no default; expected"
                    f" {cls.name}:{field.name}=VALUE"
                )
        return cls(**values)

    @classmethod
    def _convert(cls, key: str, text: str, hint: Any) -> Any:
        from pydantic import TypeAdapter, ValidationError

        value: Any = None if text.lower() == "none" else text
        try:
            if isinstance(value, str) and float in (hint, *typing.get_args(hint)):
                value = parse_number(value)
            return TypeAdapter(hint).validate_python(value)
        except (ValidationError, ValueError):
            expected = getattr(hint, "__name__", str(hint))
            raise InvalidSettingError(
                f"{cls.kind} '{cls.name}' got {key}={text}; expected {expected}"
            ) from None

    @classmethod
    def describe_settings(cls) -> str:
        """The settings with their defaults, if they have any: ``steps=10, alpha=None``."""
        return ", ".join(
            f"{field.name}={_default_text(field)}" if _has_default(field) else field.name
            for field in dataclasses.fields(cls)
        )

    def require(self, condition: bool, setting: str, expected: str) -> None:
        """Refuse a setting out of its range; call it in ``__post_init__``."""
        if not condition:
            raise InvalidSettingError(
                f"{self.kind} '{self.name}' got {setting}={_text(getattr(self, setting))}; expected"
                f" {expected}"
            )

    @property
    def spec(self) -> str:
        """The canonical spec: without defaults, with sorted keys."""
        changed = [
            f"{field.name}={_text(getattr(self, field.name))}"
            for field in sorted(dataclasses.fields(self), key=lambda field: field.name)
            if getattr(self, field.name) != field.default
        ]
        return self.name + (":" + ",".join(changed) if changed else "")

    def __str__(self) -> str:
        return self.spec


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return not (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)


def _default_text(field: dataclasses.Field[Any]) -> str:
    default = field.default
    return eps_text(default) if isinstance(default, float) else str(default)


def _text(value: object) -> str:
    return number_text(value) if isinstance(value, float) else str(value)
