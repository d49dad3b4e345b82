"""Options: each is declared once, as a field of a config, with type, default, bounds and help text.

::

    @dataclass(frozen=True, kw_only=True)
    class DataConfig(Config, panel="Data"):
        eval_images: int | None = option(None, "Number of validation images.", shown="all")

The command line, the check of presets, the plan and docs/reference/options.md are made from these fields.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, NoReturn, get_args, get_type_hints

from robustbench_tin.errors import InvalidSettingError

_IN_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


@dataclass(frozen=True)
class Option:
    """The declaration of an option, in addition to its type and default.

    Attributes:
        help: one or two sentences on the meaning and the unit.
        shown: the default in words, for a value that is chosen later.
        flag: its name on the command line; None for the field's name.
        metavar: placeholder for the value in the help; None for its type.
        panel: heading in the help; None for the heading of the config that declares it.
        at_least: lowest value; None for no lower bound. A bounded value is finite.
        above: the value must be larger than this; None for no such bound.
        at_most: highest value; None for no upper bound.
        below: the value must be smaller than this; None for no such bound.
        choices: the allowed values; empty for any value.
        example: a valid value, named in the error message.
        resolved: True if a plan contains a value derived from the option instead of the option's value.
        alone: the value if the option is given without one; None if it needs one.
        in_preset: True if a preset may set it; a switch that no preset sets has no ``--no-`` form.
    """

    help: str
    shown: str | None = None
    flag: str | None = None
    metavar: str | None = None
    panel: str | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    example: object = None
    resolved: bool = False
    alone: str | None = None
    in_preset: bool = True

    def fits(self, value: Any) -> bool:
        """True if a value is within the bounds."""
        if self.choices:
            return value in self.choices
        try:
            return (
                (self.at_least is None or self.at_least <= value < math.inf)
                and (self.above is None or self.above < value < math.inf)
                and (self.at_most is None or value <= self.at_most)
                and (self.below is None or value < self.below)
            )
        except TypeError:
            return False

    @property
    def expected(self) -> str:
        """The bounds in words: ``0 or more, below 1``, ``none, ema or swa``; empty for any value.

        >>> option(0.0, "Some.", at_least=0, below=1).metadata["option"].expected
        '0 or more, below 1'
        """
        if self.choices:
            return either(self.choices)
        words = [] if self.at_least is None else [f"{self.at_least} or more"]
        bounds = {"more than": self.above, "at most": self.at_most, "below": self.below}
        words += [f"{name} {bound}" for name, bound in bounds.items() if bound is not None]
        return ", ".join(words)


def option(default: Any, help: str, **more: Any) -> Any:
    """A field of a config; the keywords are the attributes of :class:`Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **more)})


class Config:
    """Base of the configs; creating one refuses values out of their bounds.

    Raises:
        InvalidSettingError: for a value out of its bounds.
    """

    panel: ClassVar[str] = "Options"

    def __init_subclass__(cls, *, panel: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if panel is not None:
            cls.panel = panel

    def __post_init__(self) -> None:
        for name, declared in options_of(type(self)).items():
            value = getattr(self, name)
            if value is not None and not declared.fits(value):
                refuse(name, value, declared.expected, declared.example)

    def of(self, kind: type[Config]) -> dict[str, Any]:
        """The values of one of the configs that this one is made of, by name."""
        return {name: getattr(self, name) for name in options_of(kind)}


def options_of(config: type) -> Mapping[str, Option]:
    """The options of a config by name, each with its panel.

    A class that declares a field again, with a narrower type, keeps the option.
    """
    found: dict[str, Option] = {}
    for base in reversed(config.__mro__):
        for name in inspect.get_annotations(base):
            declared = base.__dict__.get("__dataclass_fields__", {}).get(name)
            told = None if declared is None else declared.metadata.get("option")
            if told is not None:
                found[name] = dataclasses.replace(told, panel=told.panel or getattr(base, "panel", None))
    return found


def planned(*configs: type[Config]) -> type:
    """A dataclass with the options of these configs that a plan contains unchanged."""
    taken = [
        (name, types_of(config)[name], default_of(config, name))
        for config in configs
        for name, told in options_of(config).items()
        if not told.resolved
    ]
    return dataclasses.make_dataclass("Planned", taken, frozen=True)


def types_of(config: type, *, in_preset: bool = False) -> dict[str, Any]:
    """The type of each option, or of each that a preset may set."""
    hints = get_type_hints(config)
    told = options_of(config)
    return {name: hints[name] for name in told if told[name].in_preset or not in_preset}


def in_words(kind: Any) -> str:
    """The type of an option's value in words.

    >>> in_words(float | None)
    'a number'
    """
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    words = [_IN_WORDS[kind] for kind in kinds if kind in _IN_WORDS]
    if any(get_args(kind) for kind in kinds):
        words.append("a list")
    return " or ".join(words)


def default_of(config: type, name: str) -> Any:
    """The default value of an option."""
    return config.__dataclass_fields__[name].default  # type: ignore[attr-defined]


def flag_of(name: str, declared: Option | None = None) -> str:
    """An option's flag on the command line.

    >>> flag_of("batch_size")
    '--batch-size'
    """
    return f"--{(declared and declared.flag) or name.replace('_', '-')}"


def refuse(name: str, value: object, expected: str, example: object = None) -> NoReturn:
    """Raise the error for a value that does not fit.

    Raises:
        InvalidSettingError: always.
    """
    shown = f"'{value}'" if isinstance(value, str) else value
    such_as = "" if example is None else f", such as {example}"
    raise InvalidSettingError(f"{flag_of(name)[2:]} got {shown}; expected {expected}{such_as}")


def either(names: Iterable[str]) -> str:
    """Several names as a choice.

    >>> either(["none", "ema", "swa"])
    'none, ema or swa'
    """
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
