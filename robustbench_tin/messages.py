"""Messages: codes with facts, in memory and in files; the text is made only for display.

Code decides on the codes, never on the texts. A text may be reworded or translated without changing a result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator

from robustbench_tin.specs import eps_text

Fact = bool | int | float | str

# Facts that are words; the others are numbers. A pattern with many free words would match slowly.
_WORDS = {"name", "kind", "norm", "error", "text", "why"}
_NUMBER = r"[-+.\de/]+"
_BUDGETS = {"eps", "low", "high"}

_translations: list[Callable[[str], str]] = []


class Message(BaseModel):
    """A code with facts; ``str()`` is its text.

    A subclass narrows the type of :attr:`code` and defines :attr:`TEXTS`.

    Attributes:
        code: the code of the message.
        facts: the values in its text, rounded for display.
        TEXTS: for each code, a text with a ``{name}`` for each fact.
        FORMER_TEXTS: codes, and the texts that earlier versions had for them, with the same facts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: StrEnum
    facts: dict[str, Fact] = {}

    TEXTS: ClassVar[Mapping[Any, str]] = {}
    FORMER_TEXTS: ClassVar[Sequence[tuple[Any, str]]] = ()

    @classmethod
    def of(cls, code: StrEnum, **facts: Fact) -> Self:
        """The message with this code and these facts."""
        return cls(code=code, facts=facts)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The message of a text that this or an earlier version wrote; its facts are texts.

        Returns:
            None if no text of :attr:`FORMER_TEXTS` or :attr:`TEXTS` matches.
        """
        for code, template in (*cls.FORMER_TEXTS, *cls.TEXTS.items()):
            found = re.fullmatch(_pattern(template), text, flags=re.DOTALL)
            if found is not None:
                return cls(code=code, facts=found.groupdict())
        return None

    @model_validator(mode="after")
    def _has_its_facts(self) -> Self:
        wanted = _names(self.TEXTS[self.code])
        if wanted != set(self.facts):
            raise ValueError(f"'{self.code}' has the facts {sorted(self.facts)}; expected {sorted(wanted)}")
        return self

    def __str__(self) -> str:
        shown = {name: _shown(name, fact) for name, fact in self.facts.items()}
        text = self.TEXTS[self.code].format_map(shown)
        for translate in _translations:
            text = translate(text)
        return text

    def __hash__(self) -> int:
        return hash((self.code, *sorted(self.facts.items())))


@contextmanager
def translated(translate: Callable[[str], str]) -> Iterator[None]:
    """Pass the text of every message through a function, inside the block."""
    _translations.append(translate)
    try:
        yield
    finally:
        _translations.remove(translate)


def _shown(name: str, fact: Fact) -> Fact:
    if not isinstance(fact, float):
        return fact
    return eps_text(fact) if name in _BUDGETS else f"{fact:g}"


def _names(template: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", template))


def _pattern(template: str) -> str:
    """A regular expression for all texts of a template; a repeated fact must have the same value."""
    seen: set[str] = set()

    def group(found: re.Match[str]) -> str:
        name = found[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{'.+' if name in _WORDS else _NUMBER})"

    parts = re.split(r"(\{\w+\})", template)
    return "".join(
        re.sub(r"\{(\w+)\}", group, part) if part[:1] == "{" else re.escape(part) for part in parts
    )
