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
    """One rule for every plug-in.

    Attributes:
        name: name of the function that checks it, for test ids.
        text: the rule as the end of a sentence, after *must*.
        check: raises an error if the case breaks the rule.
        each_norm: True to check it in every norm that the plug-in supports, False for one norm.
    """

    name: str
    text: str
    check: Callable[[Case], None]
    each_norm: bool = False

    def hold(self, case: Case, subject: str) -> None:
        """Check the rule.

        Args:
            case: the case, with everything that the check needs.
            subject: its name in the message.

        Raises:
            AssertionError: the subject, the rule, the value found and the one expected, in one line.
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
        """Decorator: make the decorated function the check of the rule ``text``."""

        def decorate(check: Callable[[Case], None]) -> Callable[[Case], None]:
            self._rules.append(Rule(check.__name__, text, check, each_norm))
            return check

        return decorate

    def __iter__(self) -> Iterator[Rule[Case]]:
        return iter(self._rules)


def is_registered(plug_in: Configurable) -> bool:
    """True if the class of an attack or a defense has its own name, which registering sets."""
    return bool(vars(type(plug_in)).get("name"))


def require(condition: object, found: str) -> None:
    """Fail unless the condition is true.

    Raises:
        AssertionError: with the text ``found``: the value found and the one expected.
    """
    if not condition:
        raise AssertionError(found)


def must_raise(call: Callable[[], object], kind: type[BaseException], containing: str, when: str) -> None:
    """Fail unless a call raises an error of this kind.

    Args:
        call: a function without arguments.
        kind: kind of the error.
        containing: a part of its text.
        when: the situation, for the message.

    Raises:
        AssertionError: if it raises nothing, or another error.
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
