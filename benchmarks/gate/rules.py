"""Rules: how much a measure may lose, and what it must keep, by pattern.

A rule is a number, or ``SELECTOR=NUMBER``. A selector is ``ATTACK``, ``ATTACK@EPS``, or either behind
``MODEL/DEFENSE/``; each part is a pattern (``pgd*``, ``densenet*/*/pgd@0.03``). Of several tolerances the
last that fits holds, of several floors each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from robustbench_tin.benchmarks.gate.candidate import MeasurementKey
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.specs import parse_number, short_numbers
from robustbench_tin.threat import check_length

MAX_DROP = 0.01
LEVEL = 0.05
ASSUMED_SPREAD = 0.02
_FRACTION, _OVER = re.compile(r"(=[\d.]+)/(\d)"), "\0"
_GRAMMAR = (
    "expected a number from 0 to 1, or SELECTOR=NUMBER such as pgd@0.03=0.20 or resnet*/none/pgd@*=0.02"
)


@dataclass(frozen=True)
class Rule:
    """A number for the measures that a pattern fits.

    Attributes:
        number: a fraction.
        model: pattern of the backbone's name.
        defense: pattern of the defense's spec.
        attack: pattern of the attack's spec.
        eps: the budget, or None for each.
        text: as it was written.
    """

    number: float
    model: str = "*"
    defense: str = "*"
    attack: str = "*"
    eps: float | None = None
    text: str = ""

    def fits(self, model: str, defense: str, key: MeasurementKey) -> bool:
        """Whether it is about this measure."""
        return (
            fnmatchcase(model, self.model)
            and fnmatchcase(defense, self.defense)
            and fnmatchcase(key.attack, self.attack)
            and (self.eps is None or math.isclose(self.eps, key.eps, rel_tol=1e-6, abs_tol=1e-12))
        )


@dataclass(frozen=True)
class Rules:
    """What a check asks of its measures.

    Attributes:
        max_drop: tolerances, of which the last that fits holds; none: :data:`MAX_DROP`.
        floors: what accuracy must be at least.
        level: at most this part of tables without a true drop fails by chance.
        baseline: the file to compare with, where a file of rules names one.
        assumed_spread: standard deviation between seeds, a fraction, that is assumed for a re-training if the
            baseline has one seed.
        require_power: fail if the images and seeds cannot see the tolerance.
        allow_untrained: let a model pass whose clean accuracy is not above chance.
    """

    max_drop: tuple[Rule, ...] = ()
    floors: tuple[Rule, ...] = ()
    level: float = LEVEL
    baseline: Path | None = None
    assumed_spread: float = ASSUMED_SPREAD
    require_power: bool = False
    allow_untrained: bool = False

    def tolerance(self, model: str, defense: str, key: MeasurementKey) -> float:
        """How much a measure may lose, a fraction."""
        fitting = [rule.number for rule in self.max_drop if rule.fits(model, defense, key)]
        return fitting[-1] if fitting else MAX_DROP

    def floor(self, model: str, defense: str, key: MeasurementKey) -> float | None:
        """What a measure must be at least, or None."""
        return max((rule.number for rule in self.floors if rule.fits(model, defense, key)), default=None)

    def idle(self, measures: Iterable[tuple[str, str, MeasurementKey]]) -> list[Rule]:
        """Rules that fit none of these measures, so that they guard nothing."""
        known = list(measures)
        return [
            rule
            for rule in (*self.max_drop, *self.floors)
            if not any(rule.fits(*measure) for measure in known)
        ]

    def require_budgets(self, norm: str) -> None:
        """Refuse rules for budgets that no measure in this norm can have.

        Raises:
            InvalidSettingError: naming the rule.
        """
        for rule in (*self.max_drop, *self.floors):
            if norm == "linf" and rule.eps is not None:
                check_length(f"rule '{rule.text}' got eps", rule.eps)

    def of(self, measures: Iterable[tuple[str, str, MeasurementKey]]) -> Rules:
        """Those that fit some of these measures."""
        idle = self.idle(measures)
        return replace(
            self,
            max_drop=tuple(rule for rule in self.max_drop if rule not in idle),
            floors=tuple(rule for rule in self.floors if rule not in idle),
        )

    def then(
        self,
        max_drop: Sequence[str] = (),
        floors: Sequence[str] = (),
        level: float | None = None,
        *,
        assumed_spread: float | None = None,
        require_power: bool = False,
        allow_untrained: bool = False,
    ) -> Rules:
        """These rules with those of a command line behind them.

        Raises:
            InvalidSettingError: for a rule that cannot be read.
        """
        return replace(
            self,
            max_drop=(*self.max_drop, *(parse_rule("max-drop", text) for text in max_drop)),
            floors=(*self.floors, *(parse_rule("min", text) for text in floors)),
            level=self.level if level is None else check_level(level),
            assumed_spread=self.assumed_spread if assumed_spread is None else check_spread(assumed_spread),
            require_power=self.require_power or require_power,
            allow_untrained=self.allow_untrained or allow_untrained,
        )


def parse_rule(option: str, text: str) -> Rule:
    """Read ``NUMBER`` or ``SELECTOR=NUMBER``; the number is behind the last ``=``, as specs hold some, too.

    Raises:
        InvalidSettingError: naming the option.

    >>> parse_rule("min", "resnet*/none/pgd:steps=20@8/255=0.2").attack
    'pgd:steps=20'
    >>> parse_rule("min", "resnet*/pgd-at:eps=4/255/pgd:alpha=2/255@8/255=0.2").defense
    'pgd-at:eps=4/255'
    """
    selector, equals, number = text.strip().rpartition("=")
    if equals and not selector.strip():
        raise InvalidSettingError(f"{option} got '{text}'; {_GRAMMAR}")
    return rule_of(option, selector.strip(), number, text)


def rule_of(option: str, selector: str, number: object, text: str) -> Rule:
    """The rule of a selector and a number; ``text`` is how both were written.

    Raises:
        InvalidSettingError: naming the option.
    """
    value = _fraction(number)
    if value is None:
        raise InvalidSettingError(f"{option} got '{text}'; {_GRAMMAR}")
    if not selector:
        return Rule(value, text=text)
    names, at, budget = selector.rpartition("@")
    if not at:
        names, budget = selector, "*"
    # A slash within a setting's number, as in eps=4/255, separates nothing.
    parts = [
        part.replace(_OVER, "/") for part in _FRACTION.sub(rf"\1{_OVER}\2", short_numbers(names)).split("/")
    ]
    try:
        eps = None if budget.strip() == "*" else parse_number(budget)
    except ValueError:
        raise InvalidSettingError(
            f"{option} got '{text}', whose eps '{budget}' is no number; {_GRAMMAR}"
        ) from None
    if len(parts) not in (1, 3) or not all(part.strip() for part in parts):
        raise InvalidSettingError(
            f"{option} got '{text}'; expected ATTACK[@EPS] or MODEL/DEFENSE/ATTACK[@EPS]"
        )
    model, defense, attack = ("*", "*", *parts)[-3:]
    return Rule(value, model.strip(), defense.strip(), attack.strip(), eps, text)


def check_level(value: object) -> float:
    """A level of significance.

    Raises:
        InvalidSettingError: if it is not between 0 and 1.
    """
    return _between_0_and_1("level", value, LEVEL)


def check_spread(value: object) -> float:
    """A standard deviation between seeds.

    Raises:
        InvalidSettingError: if it is not between 0 and 1.
    """
    return _between_0_and_1("assumed-spread", value, ASSUMED_SPREAD)


def _between_0_and_1(option: str, value: object, example: float) -> float:
    number = _fraction(value)
    if number is None or not 0 < number < 1:
        raise InvalidSettingError(
            f"{option} got {value}; expected a number between 0 and 1, such as {example}"
        )
    return number


def _fraction(value: object) -> float | None:
    """A number from 0 to 1; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = parse_number(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= 1 else None
