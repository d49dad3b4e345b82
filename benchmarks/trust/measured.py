"""A measurement as the trust checks see it, and whether it can be checked at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.base import Attack, IterativeAttack
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN, WORST_CASE, Record
from robustbench_tin.benchmarks.trust.probe import Hits
from robustbench_tin.benchmarks.trust.trials import PROBE_STEPS


@dataclass(frozen=True)
class Measured:
    """A measurement and its results per image.

    Attributes:
        record: the record of the measurement.
        top1: whether the true label is the top 1, bool ``(N,)``; None if that was not measured.
        top5: whether the true label is in the top 5, bool ``(N,)``; None if that was not measured.
        given: the attack object, which need not be registered; None for the attack that the record names.
        sampled: on a ladder of budgets, the images that were attacked at this eps regardless of the smaller
            ones, bool ``(N,)``; None if all were.
        alone: sampled images that are right under the attack at this eps alone, bool ``(N,)``; None if
            ``sampled`` is None.
    """

    record: Record
    top1: Hits | None
    top5: Hits | None
    given: Attack | None = None
    sampled: Hits | None = None
    alone: Hits | None = None

    @cached_property
    def attack(self) -> Attack | None:
        """The attack of the measurement; None for a clean measurement or a worst case."""
        if self.given is not None or self.record.attack in (CLEAN, WORST_CASE):
            return self.given
        return parse_attack(self.record.attack)

    @property
    def iterative(self) -> bool:
        """Whether the attack is a search with several gradient steps, which should find most successes."""
        return self.claims and not self.black_box and not self.single_step

    @property
    def single_step(self) -> bool:
        """Whether the attack is a single gradient step."""
        return self._gradients == 1 and self.whole

    @property
    def is_short(self) -> bool:
        """Whether the attack takes at most as many steps as the probe."""
        return self.attack is not None and self._gradients <= PROBE_STEPS

    @property
    def black_box(self) -> bool:
        """Whether the measurement used no gradients."""
        return self.record.backward_passes == 0

    @property
    def whole(self) -> bool:
        """Whether the attack runs its own loop, instead of steps that the engine calls."""
        return self.attack is not None and not isinstance(self.attack, IterativeAttack)

    @property
    def claims(self) -> bool:
        """Whether the attack searches for adversarial images; ``noise``, for example, does not."""
        return self._gradients > 0

    @property
    def eot(self) -> int:
        """The largest number of gradients that the attack averages for one step."""
        own = [
            getattr(stage, "eot", None) or 1
            for stage in (self.attack.stages(self.record.classes) if self.attack else ())
        ]
        return max(self.record.eot, *own, 1)

    @property
    def counted(self) -> int:
        """The k of the attack's criterion: 1, or 5 if it must push the label out of the top 5."""
        return 1 if self.attack is None else self.attack.goal.k

    def hits(self, k: int) -> Hits | None:
        """Whether the label is in the top ``k``, 1 or 5, bool ``(N,)``; None if that was not measured."""
        return self.top5 if k == 5 else self.top1

    def independent(self, k: int) -> Hits | None:
        """The results of the attack at this eps alone, for the images that were attacked at this eps.

        On a ladder, :meth:`hits` includes the successes at smaller budgets, so it never rises with eps.

        Args:
            k: 1 or 5.
        """
        hits = self.hits(k)
        if hits is None or self.alone is None or self.sampled is None:
            return hits
        return self.alone[self.sampled]

    @property
    def _gradients(self) -> int:
        return 2 if self.attack is None else self.attack.gradients(1)


def gets_verdict(record: Record) -> bool:
    """Whether a measurement is under attack; if so, the trust checks always give it a verdict."""
    return record.attack not in (CLEAN, CERTIFIED)


def needs_trust(record: Record) -> bool:
    """Whether a figure can be checked: measured under attack, with a clean accuracy above chance."""
    return gets_verdict(record) and uncheckable(record) is None


def uncheckable(record: Record) -> TrustCode | None:
    """The code of the reason why the checks cannot check a record; None if they can."""
    if record.status != OK:
        return TrustCode.no_figure
    if record.above_chance is None:
        return TrustCode.clean_failed
    return None if record.above_chance else TrustCode.at_chance


def with_cause(record: Record) -> Record:
    """A copy of the record with its verdict if that is known without a check; else the record itself."""
    cause = uncheckable(record)
    if cause is None or not gets_verdict(record):
        return record
    return record.model_copy(update={"trust": (Reason.of(cause),)})
