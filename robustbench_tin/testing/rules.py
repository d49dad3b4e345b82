"""A rule of a contract: a name, a check, and one clear line if it is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from robustbench_tin.errors import FOREIGN, one_line
from robustbench_tin.specs import Configurable

Case = TypeVar("Case")


@dataclass(frozen=True)
class Rule(Generic[Case]):
    """One thing that every plug-in owes.

    Attributes:
        name: of the function that checks it, for test ids.
        text: the rule as a sentence's end, after *must*.
        check: raises if the case breaks the rule.
        each_norm: whether it is checked in every norm that the plug-in supports, or in one.
    """

    name: str
    text: str
    check: Callable[[Case], None]
    each_norm: bool = False

    def hold(self, case: Case, subject: str) -> None:
        """Check the rule.

        Args:
            case: what is checked, with all that the check needs.
            subject: its name in the message.

        Raises:
            AssertionError: the subject, the rule, what was found and what was expected, in one line.
        """
        __tracebackhide__ = True
        try:
            self.check(case)
        except FOREIGN as error:
            found = str(error) if isinstance(error, AssertionError) and str(error) else one_line(error)
            raise AssertionError(f"{subject} must {self.text}: {' '.join(found.split())}") from error


@dataclass
class Rules(Generic[Case]):
    """The rules of one contract, in the order in which they are checked."""

    _rules: list[Rule[Case]] = field(default_factory=list)

    def rule(
        self, text: str, *, each_norm: bool = False
    ) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
        """Decorator: the function that follows checks the rule ``text``."""

        def decorate(check: Callable[[Case], None]) -> Callable[[Case], None]:
            self._rules.append(Rule(check.__name__, text, check, each_norm))
            return check

        return decorate

    def __iter__(self) -> Iterator[Rule[Case]]:
        return iter(self._rules)


def is_registered(plug_in: Configurable) -> bool:
    """Whether the class of an attack or a defense has a name of its own, which registering gives it."""
    return bool(vars(type(plug_in)).get("name"))


def require(condition: object, found: str) -> None:
    """Fail unless the condition is true.

    Raises:
        AssertionError: with ``found``: what was found and what was expected.
    """
    if not condition:
        raise AssertionError(found)


def must_raise(call: Callable[[], object], kind: type[BaseException], containing: str, when: str) -> None:
    """Fail unless a call raises an error of this kind.

    Args:
        call: without arguments.
        kind: of the error.
        containing: a part of its text.
        when: what the call does, for the message.

    Raises:
        AssertionError: if it raises nothing, or something else.
    """
    expected = f"expected {kind.__name__} with '{containing}'"
    try:
        call()
    except FOREIGN as error:
        require(
            isinstance(error, kind) and containing in str(error),
            f"{when}, it raised {one_line(error)}; {expected}",
        )
    else:
        raise AssertionError(f"{when}, it raised nothing; {expected}")
