"""Trust checks: beside every robust figure a verdict: ``ok``, reasons not to believe it, or ``unchecked``.

A cell is judged once all its measures are taken. What an attack broke on every image of the cell is
compared without another pass; a short probe (:mod:`robustbench_tin.benchmarks.trust.probe`) tells the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.base import Attack, IterativeAttack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason, Verdict, too_few
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN, WORST_CASE, Record
from robustbench_tin.benchmarks.trust import checks
from robustbench_tin.benchmarks.trust.probe import Hits, ProbeResult, gather
from robustbench_tin.benchmarks.trust.trials import PROBE_STEPS
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.base import Defense
from robustbench_tin.errors import FOREIGN, RobustTinError, one_line

# A budget at which this part of the right images is left can still show a fault.
_LEFT_TO_BREAK = 0.1


@dataclass(frozen=True)
class Measured:
    """A measure and its outcomes.

    Attributes:
        record: of the measure.
        top1: was the true label the top 1, bool ``(N,)``; None where that was not measured.
        top5: was it in the top 5, likewise.
        given: the attack, which no registry needs to know; None: the one that the record names.
        sampled: on a ladder of budgets, images that were attacked at this eps whatever they were at smaller
            ones, bool ``(N,)``; None: all were.
        alone: of these, the images that are right under the attack at this eps alone; None likewise.
    """

    record: Record
    top1: Hits | None
    top5: Hits | None
    given: Attack | None = None
    sampled: Hits | None = None
    alone: Hits | None = None

    @cached_property
    def attack(self) -> Attack | None:
        """What was measured under; None for a worst case."""
        if self.given is not None or self.record.attack in (CLEAN, WORST_CASE):
            return self.given
        return parse_attack(self.record.attack)

    @property
    def iterative(self) -> bool:
        """Whether it claims to find what is there: a search along gradients."""
        return self.claims and not self.black_box and not self.single_step

    @property
    def single_step(self) -> bool:
        """Whether it is one step along a gradient, and claims no more."""
        return self._gradients == 1 and self.whole

    @property
    def is_short(self) -> bool:
        """Whether it takes no more steps than the probe."""
        return self.attack is not None and self._gradients <= PROBE_STEPS

    @property
    def black_box(self) -> bool:
        """Whether it followed no gradient."""
        return self.record.backward_passes == 0

    @property
    def whole(self) -> bool:
        """Whether it is a method of its own, not a search that is driven from here."""
        return self.attack is not None and not isinstance(self.attack, IterativeAttack)

    @property
    def claims(self) -> bool:
        """Whether a high accuracy under it is meant to say something; under noise it is not."""
        return self._gradients > 0

    @property
    def eot(self) -> int:
        """Passes averaged for one gradient."""
        own = [
            getattr(stage, "eot", None) or 1
            for stage in (self.attack.stages(self.record.classes) if self.attack else ())
        ]
        return max(self.record.eot, *own, 1)

    @property
    def counted(self) -> int:
        """The k of what the attack is after: 1, or 5 if it goes on until the top 5 are broken."""
        return 1 if self.attack is None else self.attack.goal.k

    def hits(self, k: int) -> Hits | None:
        """The outcomes that tell whether the label was in the top ``k``, 1 or 5; None if not measured."""
        return self.top5 if k == 5 else self.top1

    def independent(self, k: int) -> Hits | None:
        """The outcomes of the attack at this eps alone, of the images that it was asked about.

        On a ladder :meth:`hits` has the successes of smaller budgets in it, and can never rise with eps.
        """
        hits = self.hits(k)
        if hits is None or self.alone is None or self.sampled is None:
            return hits
        return self.alone[self.sampled]

    @property
    def _gradients(self) -> int:
        return 2 if self.attack is None else self.attack.gradients(1)


@dataclass(frozen=True)
class Judgement:
    """The verdicts on a cell.

    Attributes:
        records: those of the measures, in their order, with their ``trust``.
        passes: forward and backward passes of the probe, summed over the images; in no measure's record.
        seconds: of the probe.
    """

    records: list[Record]
    passes: int = 0
    seconds: float = 0.0


def gets_verdict(record: Record) -> bool:
    """Whether a measure is under attack, so that checks that were asked for never leave its verdict blank."""
    return record.attack not in (CLEAN, CERTIFIED)


def needs_trust(record: Record) -> bool:
    """Whether a figure is to be checked: taken, under attack, of a model that learned something."""
    return gets_verdict(record) and uncheckable(record) is None


def uncheckable(record: Record) -> TrustCode | None:
    """Why the checks have nothing to look at; None if they have."""
    if record.status != OK:
        return TrustCode.no_figure
    if record.above_chance is None:
        return TrustCode.clean_failed
    return None if record.above_chance else TrustCode.at_chance


def with_cause(record: Record) -> Record:
    """A record with its verdict if that is known without a check; else the record as it is."""
    cause = uncheckable(record)
    if cause is None or not gets_verdict(record):
        return record
    return record.model_copy(update={"trust": (Reason.of(cause),)})


def judge(
    model: nn.Module,
    batches: ImageBatches,
    measures: Sequence[Measured],
    protocol: AttackProtocol,
    *,
    defense: Defense | None = None,
) -> Judgement:
    """Give every robust figure of a cell its verdict, and the clean one the reasons that hold for it, too.

    What cannot be judged is ``unchecked``; no figure under attack is left without a verdict.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the pool.
        batches: the cell's images.
        measures: all of the cell; the clean one among them.
        protocol: under which they were taken.
        defense: of the cell; None: the one that the records name, if they name one.
    """
    checked = [measured for measured in measures if needs_trust(measured.record)]
    if not checked:
        return Judgement([with_cause(measured.record) for measured in measures])
    found: ProbeResult | None = None
    try:
        cell = _Cell(measures, checked, defense or _named_defense(checked[0].record))
        found = gather(model, batches, cell.probe_eps(), protocol)
        verdicts = {
            id(measured): Verdict.of([*cell.reasons(measured, found), *cell.unchecked(found)])
            for measured in checked
        }
        if of_answers := cell.answers(found):
            verdicts[id(cell.clean)] = Verdict.of(of_answers)
    except FOREIGN as error:  # whatever a model raises; what fails meanwhile is not trusted
        failed = Verdict.of([Reason.of(TrustCode.checks_failed, error=one_line(error))])
        verdicts = {id(measured): failed for measured in checked}
    records = [
        measured.record.model_copy(update={"trust": verdicts[id(measured)].reasons})
        if id(measured) in verdicts
        else with_cause(measured.record)
        for measured in measures
    ]
    if found is None:
        return Judgement(records)
    return Judgement(records, found.forward_passes + found.backward_passes, found.seconds)


def _named_defense(record: Record) -> Defense | None:
    """The defense that a record names; None: a user's own model may have any name there."""
    try:
        return parse_defense(record.defense)
    except RobustTinError:
        return None


@dataclass(frozen=True)
class _Cell:
    """The measures of a cell, and how they look beside each other.

    Attributes:
        measures: all of them.
        checked: those that get a verdict.
        defense: of the model; None: unknown.
    """

    measures: Sequence[Measured]
    checked: Sequence[Measured]
    defense: Defense | None

    def reasons(self, measured: Measured, found: ProbeResult) -> list[Reason]:
        """All that speaks against one figure."""
        return [
            reason
            for reason in (
                *self._of_model(measured, found),
                *self._of_attack(measured, found),
                *self._of_measure(measured, found),
            )
            if reason is not None
        ]

    def probe_eps(self) -> float:
        """Where the probe looks: single-step training near its own budget, else where faults would show.

        At a budget that breaks everything, no attack looks weak.
        """
        budgets = sorted({measured.record.eps for measured in self.checked})
        trained = self._trained_eps
        if trained is not None:
            return min(budgets, key=lambda eps: abs(eps - trained))
        right = self._right.sum()
        telling = [
            measured.record.eps
            for measured in self.checked
            if measured.claims
            and measured.top1 is not None
            and (measured.top1 & self._right).sum() >= _LEFT_TO_BREAK * right
        ]
        return max(telling, default=budgets[0])

    def unchecked(self, found: ProbeResult) -> list[Reason | None]:
        """Why the checks could not judge a figure of this cell in full."""
        return [
            checks.no_gradients(found),
            checks.too_coarse(found),
            too_few(len(self._right), int(self._right.sum())),
        ]

    def answers(self, found: ProbeResult) -> list[Reason]:
        """What speaks against any figure of the model, the clean one as well."""
        return [reason for reason in self._of_answers(found) if reason is not None]

    def _of_answers(self, found: ProbeResult) -> Iterator[Reason | None]:
        yield checks.remembered_calls(found)
        yield checks.other_clean_answers(self._right, found)
        yield checks.depends_on_company(found)

    def _of_model(self, measured: Measured, found: ProbeResult) -> Iterator[Reason | None]:
        record = measured.record
        yield from self._of_answers(found)
        yield checks.differing_passes(found, measured.eot)
        probed = self._at(record.attack, found.eps)
        if probed is None or probed.top1 is None or not checks.keeps_up(probed.top1, found):
            yield checks.dead_gradients(found)
        if probed is not None and probed.top1 is not None and probed.claims:
            yield checks.faint_logits(probed.top1, found)
        yield checks.withstands_anything(found, record.norm, record.classes)
        yield checks.jumping_answers(found)
        yield checks.false_gradients(found)
        yield checks.shattered_gradients(found)
        yield checks.stepwise_answers(found)
        yield checks.black_box_wins(found)

    def _of_attack(self, measured: Measured, found: ProbeResult) -> Iterator[Reason | None]:
        """What is wrong at the probe's budget is so at the others."""
        record = measured.record
        if measured.claims and measured.whole:
            yield checks.asked_nothing(record.forward_passes, record.backward_passes, record.n)
        probed = self._at(measured.record.attack, found.eps)
        if probed is None or probed.top1 is None or not measured.claims:
            return
        yield checks.weaker_than_probe(probed.top1, found, iterative=measured.iterative)
        if not measured.iterative:
            return
        mine = probed.top1[found.numbers]
        yield checks.no_better_than_noise(mine, found.noise, found.right, found.eps)
        if not any(other.single_step for other in self._beside(probed)):
            yield checks.weaker_than_one_step(mine, found.fgsm, found.eps, "a single step of FGSM")

    def _of_measure(self, measured: Measured, found: ProbeResult) -> Iterator[Reason | None]:
        record = measured.record
        yield checks.not_converged(record.late_successes, record.n)
        if (
            record.late_successes is None
            and record.eps == found.eps
            and measured.iterative
            and measured.is_short
        ):
            yield checks.probe_not_converged(found)
        if not record.oblivious:
            yield checks.unverified_successes(record.unverified or 0, record.n)
        if measured.top1 is not None and measured.single_step:
            yield from self._of_single_step(measured, found)
        if not measured.iterative:
            return
        yield from self._of_neighbours(measured)
        below = self._next_below(measured)
        if below is not None:
            for lower, higher in ((below.independent(k), measured.independent(k)) for k in (1, 5)):
                if lower is not None and higher is not None:
                    yield checks.rising(lower, higher, below.record.eps, record.eps)
                    break

    def _of_neighbours(self, measured: Measured) -> Iterator[Reason | None]:
        """What other attacks of the same budget show, by the outcomes that this one is after.

        Their figures are of the same images, so no chance is in it. A worst case has them all in it.
        """
        k = measured.counted
        left, eps = measured.hits(k), measured.record.eps
        if left is None:
            return
        others: list[tuple[Hits, str]] = []
        for other in self._beside(measured):
            theirs, name = other.hits(k), other.record.attack
            if theirs is None:
                continue
            reason = self._of_neighbour(left, other, theirs, k)
            if reason is None:
                others.append((theirs, name))
            yield reason
        if others:
            strongest, name = min(others, key=lambda other: int(other[0].sum()))
            yield checks.refuted(left, strongest, eps, name)

    def _of_neighbour(self, left: Hits, other: Measured, theirs: Hits, k: int) -> Reason | None:
        """What one that claims less than an iterative attack shows of it."""
        eps, name = other.record.eps, other.record.attack
        reason: Reason | None = None
        right = self.clean.hits(k)
        if not other.claims and right is not None:
            reason = checks.no_better_than_noise(left, theirs, right, eps, name)
        if reason is None and other.single_step:
            reason = checks.weaker_than_one_step(left, theirs, eps, name)
        if reason is None and other.black_box:
            reason = checks.black_box_beats(left, theirs, eps, name)
        return reason

    def _of_single_step(self, measured: Measured, found: ProbeResult) -> Iterator[Reason | None]:
        trained_so = self._trained_eps is not None
        record, left = measured.record, measured.independent(1)
        assert left is not None
        asked = np.ones(record.n, dtype=bool) if measured.sampled is None else measured.sampled
        for other in self._beside_record(record):
            if other.iterative and other.top1 is not None:
                yield checks.single_step_blind(
                    self._right[asked], left, other.top1[asked], record.eps, single_step_training=trained_so
                )
                return
        if found.pgd is not None and record.eps == found.eps:
            numbers = found.numbers[: len(found.pgd)]
            known = asked[numbers]
            yield checks.single_step_blind(
                found.right[: len(numbers)][known],
                left[(np.cumsum(asked) - 1)[numbers[known]]],
                found.pgd[known],
                record.eps,
                single_step_training=trained_so,
            )

    @cached_property
    def clean(self) -> Measured:
        """The clean measure."""
        return next(measured for measured in self.measures if measured.record.attack == CLEAN)

    @cached_property
    def _right(self) -> Hits:
        assert self.clean.top1 is not None
        return self.clean.top1

    @cached_property
    def _trained_eps(self) -> float | None:
        """The budget of single-step adversarial training; None without it, or where it is of another norm."""
        threat = None if self.defense is None else self.defense.threat
        if self.defense is None or not self.defense.single_step or threat is None:
            return None
        return threat.eps if threat.norm == self.checked[0].record.norm else None

    def _at(self, attack: str, eps: float) -> Measured | None:
        return next((m for m in self.checked if m.record.attack == attack and m.record.eps == eps), None)

    def _beside(self, measured: Measured) -> list[Measured]:
        """Other attacks of the same budget; the worst case has all of them in it."""
        return [] if measured.attack is None else self._beside_record(measured.record)

    def _beside_record(self, record: Record) -> list[Measured]:
        return [
            other
            for other in self.checked
            if other.attack is not None and other.record.eps == record.eps and other.record != record
        ]

    def _next_below(self, measured: Measured) -> Measured | None:
        below = [
            other
            for other in self.checked
            if other.record.attack == measured.record.attack and other.record.eps < measured.record.eps
        ]
        return max(below, key=lambda other: other.record.eps, default=None)
