"""Rules: the largest allowed drop (tolerance) and the smallest allowed accuracy (floor) of measurements.

A rule is a number, or ``SELECTOR=NUMBER``. A selector is ``ATTACK`` or ``ATTACK@EPS``, optionally after
``MODEL/DEFENSE/``; each part is a pattern (``pgd*``, ``densenet*/*/pgd@0.03``). If several tolerances match,
the last one applies. If several floors match, all apply.
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
    """A number for the measurements that match a pattern.

    Attributes:
        number: a fraction, in [0, 1].
        model: pattern for the name of the backbone.
        defense: pattern for the spec of the defense.
        attack: pattern for the spec of the attack.
        eps: the budget in units of the pixel range; None for any budget.
        text: the text of the rule, for messages.
    """

    number: float
    model: str = "*"
    defense: str = "*"
    attack: str = "*"
    eps: float | None = None
    text: str = ""

    def fits(self, model: str, defense: str, key: MeasurementKey) -> bool:
        """Whether the rule matches a measurement.

        Args:
            model: name of the backbone.
            defense: canonical spec of the defense.
            key: attack, norm and eps.
        """
        return (
            fnmatchcase(model, self.model)
            and fnmatchcase(defense, self.defense)
            and fnmatchcase(key.attack, self.attack)
            and (self.eps is None or math.isclose(self.eps, key.eps, rel_tol=1e-6, abs_tol=1e-12))
        )


@dataclass(frozen=True)
class Rules:
    """The requirements of a check.

    Attributes:
        max_drop: tolerances; the last matching one applies, or :data:`MAX_DROP` if none matches.
        floors: smallest allowed accuracies.
        level: false-alarm rate: the probability that a check fails although nothing got worse, in (0, 1).
        baseline: the baseline file that a rules file names; None if it names none.
        assumed_spread: assumed standard deviation between seeds, a fraction in (0, 1), for a re-training if
            the baseline has one seed.
        require_power: fail if there are too few images or seeds to detect the tolerance.
        allow_untrained: let a model pass although its clean accuracy is not above chance.
    """

    max_drop: tuple[Rule, ...] = ()
    floors: tuple[Rule, ...] = ()
    level: float = LEVEL
    baseline: Path | None = None
    assumed_spread: float = ASSUMED_SPREAD
    require_power: bool = False
    allow_untrained: bool = False

    def tolerance(self, model: str, defense: str, key: MeasurementKey) -> float:
        """The largest allowed drop of a measurement, a fraction."""
        fitting = [rule.number for rule in self.max_drop if rule.fits(model, defense, key)]
        return fitting[-1] if fitting else MAX_DROP

    def floor(self, model: str, defense: str, key: MeasurementKey) -> float | None:
        """The smallest allowed accuracy of a measurement, a fraction; None if no floor matches."""
        return max((rule.number for rule in self.floors if rule.fits(model, defense, key)), default=None)

    def idle(self, measures: Iterable[tuple[str, str, MeasurementKey]]) -> list[Rule]:
        """The rules that match none of these measurements, and so have no effect.

        Args:
            measures: backbone, defense and key of each measurement.
        """
        known = list(measures)
        return [
            rule
            for rule in (*self.max_drop, *self.floors)
            if not any(rule.fits(*measure) for measure in known)
        ]

    def require_budgets(self, norm: str) -> None:
        """Refuse rules with budgets that are impossible in this norm.

        Args:
            norm: norm of all measurements.

        Raises:
            InvalidSettingError: if a budget is impossible; it names the rule.
        """
        for rule in (*self.max_drop, *self.floors):
            if norm == "linf" and rule.eps is not None:
                check_length(f"rule '{rule.text}' got eps", rule.eps)

    def of(self, measures: Iterable[tuple[str, str, MeasurementKey]]) -> Rules:
        """The rules that match at least one of these measurements.

        Args:
            measures: backbone, defense and key of each measurement.
        """
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
        """Add the rules of a command line after these rules.

        Args:
            max_drop: texts of tolerances.
            floors: texts of floors.
            level: false-alarm rate, in (0, 1); None to keep the present one.
            assumed_spread: standard deviation between seeds, in (0, 1); None to keep the present one.
            require_power: True to require power; False to keep the present setting.
            allow_untrained: True to allow untrained models; False to keep the present setting.

        Raises:
            InvalidSettingError: if a rule cannot be read, or a number is out of range.
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
    """Read ``NUMBER`` or ``SELECTOR=NUMBER``; the number follows the last ``=``, as specs may contain ``=``.

    Args:
        option: name of the option, for the error.
        text: the text of the rule.

    Raises:
        InvalidSettingError: if the text cannot be read; it names the option.

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
    """Make a rule from a selector and a number.

    Args:
        option: name of the option, for the error.
        selector: the selector; empty for all measurements.
        number: a fraction, as a number or a text.
        text: the text of the rule, for messages.

    Raises:
        InvalidSettingError: if the selector or the number is invalid; it names the option.
    """
    value = _fraction(number)
    if value is None:
        raise InvalidSettingError(f"{option} got '{text}'; {_GRAMMAR}")
    if not selector:
        return Rule(value, text=text)
    names, at, budget = selector.rpartition("@")
    if not at:
        names, budget = selector, "*"
    # A slash within a number, as in eps=4/255, is not a separator.
    parts = [
        part.replace(_OVER, "/") for part in _FRACTION.sub(rf"\1{_OVER}\2", short_numbers(names)).split("/")
    ]
    try:
        eps = None if budget.strip() == "*" else parse_number(budget)
    except ValueError:
        raise InvalidSettingError(
            f"{option} got '{text}', but eps '{budget}' is not a number; {_GRAMMAR}"
        ) from None
    if len(parts) not in (1, 3) or not all(part.strip() for part in parts):
        raise InvalidSettingError(
            f"{option} got '{text}'; expected ATTACK[@EPS] or MODEL/DEFENSE/ATTACK[@EPS]"
        )
    model, defense, attack = ("*", "*", *parts)[-3:]
    return Rule(value, model.strip(), defense.strip(), attack.strip(), eps, text)


def check_level(value: object) -> float:
    """Validate a level of significance.

    Raises:
        InvalidSettingError: if it is not a number between 0 and 1.
    """
    return _between_0_and_1("level", value, LEVEL)


def check_spread(value: object) -> float:
    """Validate a standard deviation between seeds.

    Raises:
        InvalidSettingError: if it is not a number between 0 and 1.
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
    """Convert a value to a number from 0 to 1; None if that is impossible."""
    if isinstance(value, bool):
        return None
    try:
        number = parse_number(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= 1 else None
