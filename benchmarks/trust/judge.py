"""Run the trust checks: each robust figure gets the verdict ``ok``, ``unchecked``, or reasons to doubt it.

A cell is judged after all its measurements. The stored results per image are compared without further passes;
a short probe (:mod:`robustbench_tin.benchmarks.trust.probe`) gives the remaining evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason, Verdict, too_few
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.runs.records import CLEAN, Record
from robustbench_tin.benchmarks.trust import attack_checks, comparisons, model_checks
from robustbench_tin.benchmarks.trust.measured import Measured, needs_trust, with_cause
from robustbench_tin.benchmarks.trust.probe import Hits, ProbeResult, gather
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.base import Defense
from robustbench_tin.errors import FOREIGN, RobustTinError, one_line

# A budget can show a fault if an attack leaves at least this fraction of the right images.
_LEFT_TO_BREAK = 0.1


@dataclass(frozen=True)
class Judgement:
    """The verdicts on a cell.

    Attributes:
        records: the records of the measurements, in the same order, with their ``trust``.
        passes: forward and backward passes of the probe, summed over the images; not part of any record.
        seconds: wall-clock time of the probe.
    """

    records: list[Record]
    passes: int = 0
    seconds: float = 0.0


def judge(
    model: nn.Module,
    batches: ImageBatches,
    measures: Sequence[Measured],
    protocol: AttackProtocol,
    *,
    defense: Defense | None = None,
) -> Judgement:
    """Run the trust checks on all measurements of a cell.

    Each figure under attack gets a verdict; it is ``unchecked`` if it cannot be judged. The clean figure gets
    the reasons that also affect it. If the checks raise an error, the figures get a reason that says so.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the cell's images.
        measures: all measurements of the cell, including the clean one.
        protocol: the protocol that they were measured with.
        defense: the cell's defense; None for the defense that the records name, if any.

    Returns:
        The records with their verdicts, and the cost of the probe.
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
    except FOREIGN as error:  # a model may raise anything; if the checks fail, the figures are doubted
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
    """The defense that a record names; None if a user's own model has another name there."""
    try:
        return parse_defense(record.defense)
    except RobustTinError:
        return None


@dataclass(frozen=True)
class _Cell:
    """The measurements of a cell, and their comparison with each other.

    Attributes:
        measures: all measurements.
        checked: the measurements that get a verdict.
        defense: the model's defense; None if it is unknown.
    """

    measures: Sequence[Measured]
    checked: Sequence[Measured]
    defense: Defense | None

    def reasons(self, measured: Measured, found: ProbeResult) -> list[Reason]:
        """All reasons to doubt one figure."""
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
        """The budget for the probe, in units of the pixel range.

        After single-step training it is the budget nearest to the one in training. Otherwise it is the
        largest budget that leaves enough right images: if no image survives, no attack looks weak.
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
        """Reasons why the checks could not judge a figure of this cell completely."""
        return [
            model_checks.no_gradients(found),
            model_checks.too_coarse(found),
            too_few(len(self._right), int(self._right.sum())),
        ]

    def answers(self, found: ProbeResult) -> list[Reason]:
        """Reasons to doubt every figure of the model, including the clean one."""
        return [reason for reason in self._of_answers(found) if reason is not None]

    def _of_answers(self, found: ProbeResult) -> Iterator[Reason | None]:
        yield model_checks.remembered_calls(found)
        yield model_checks.other_clean_answers(self._right, found)
        yield model_checks.depends_on_company(found)

    def _of_model(self, measured: Measured, found: ProbeResult) -> Iterator[Reason | None]:
        record = measured.record
        yield from self._of_answers(found)
        yield model_checks.differing_passes(found, measured.eot)
        probed = self._at(record.attack, found.eps)
        if probed is None or probed.top1 is None or not comparisons.keeps_up(probed.top1, found):
            yield model_checks.dead_gradients(found)
        if probed is not None and probed.top1 is not None and probed.claims:
            yield model_checks.faint_logits(probed.top1, found)
        yield model_checks.withstands_anything(found, record.norm, record.classes)
        yield model_checks.jumping_answers(found)
        yield model_checks.false_gradients(found)
        yield model_checks.shattered_gradients(found)
        yield model_checks.stepwise_answers(found)
        yield model_checks.black_box_wins(found)

    def _of_attack(self, measured: Measured, found: ProbeResult) -> Iterator[Reason | None]:
        """Reasons from the probe's budget; they count for the other budgets of the attack too."""
        record = measured.record
        if measured.claims and measured.whole:
            yield attack_checks.asked_nothing(record.forward_passes, record.backward_passes, record.n)
        probed = self._at(measured.record.attack, found.eps)
        if probed is None or probed.top1 is None or not measured.claims:
            return
        yield attack_checks.weaker_than_probe(probed.top1, found, iterative=measured.iterative)
        if not measured.iterative:
            return
        mine = probed.top1[found.numbers]
        yield attack_checks.no_better_than_noise(mine, found.noise, found.right, found.eps)
        if not any(other.single_step for other in self._beside(probed)):
            yield attack_checks.weaker_than_one_step(mine, found.fgsm, found.eps, "a single step of FGSM")

    def _of_measure(self, measured: Measured, found: ProbeResult) -> Iterator[Reason | None]:
        record = measured.record
        yield attack_checks.not_converged(record.late_successes, record.n)
        if (
            record.late_successes is None
            and record.eps == found.eps
            and measured.iterative
            and measured.is_short
        ):
            yield attack_checks.probe_not_converged(found)
        if not record.oblivious:
            yield attack_checks.unverified_successes(record.unverified or 0, record.n)
        if measured.top1 is not None and measured.single_step:
            yield from self._of_single_step(measured, found)
        if not measured.iterative:
            return
        yield from self._of_neighbours(measured)
        below = self._next_below(measured)
        if below is not None:
            for lower, higher in ((below.independent(k), measured.independent(k)) for k in (1, 5)):
                if lower is not None and higher is not None:
                    yield attack_checks.rising(lower, higher, below.record.eps, record.eps)
                    break

    def _of_neighbours(self, measured: Measured) -> Iterator[Reason | None]:
        """Reasons from other attacks of the same budget, by the criterion of this attack.

        All attacks saw the same images. A worst case includes all attacks, so nothing refutes it.
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
            yield attack_checks.refuted(left, strongest, eps, name)

    def _of_neighbour(self, left: Hits, other: Measured, theirs: Hits, k: int) -> Reason | None:
        """A reason from an attack that should be weaker than an iterative attack, if it is stronger."""
        eps, name = other.record.eps, other.record.attack
        reason: Reason | None = None
        right = self.clean.hits(k)
        if not other.claims and right is not None:
            reason = attack_checks.no_better_than_noise(left, theirs, right, eps, name)
        if reason is None and other.single_step:
            reason = attack_checks.weaker_than_one_step(left, theirs, eps, name)
        if reason is None and other.black_box:
            reason = attack_checks.black_box_beats(left, theirs, eps, name)
        return reason

    def _of_single_step(self, measured: Measured, found: ProbeResult) -> Iterator[Reason | None]:
        trained_so = self._trained_eps is not None
        record, left = measured.record, measured.independent(1)
        assert left is not None
        asked = np.ones(record.n, dtype=bool) if measured.sampled is None else measured.sampled
        for other in self._beside_record(record):
            if other.iterative and other.top1 is not None:
                yield attack_checks.single_step_blind(
                    self._right[asked], left, other.top1[asked], record.eps, single_step_training=trained_so
                )
                return
        if found.pgd is not None and record.eps == found.eps:
            numbers = found.numbers[: len(found.pgd)]
            known = asked[numbers]
            yield attack_checks.single_step_blind(
                found.right[: len(numbers)][known],
                left[(np.cumsum(asked) - 1)[numbers[known]]],
                found.pgd[known],
                record.eps,
                single_step_training=trained_so,
            )

    @cached_property
    def clean(self) -> Measured:
        """The clean measurement."""
        return next(measured for measured in self.measures if measured.record.attack == CLEAN)

    @cached_property
    def _right(self) -> Hits:
        assert self.clean.top1 is not None
        return self.clean.top1

    @cached_property
    def _trained_eps(self) -> float | None:
        """The budget of single-step adversarial training; None without it or if its norm is another."""
        threat = None if self.defense is None else self.defense.threat
        if self.defense is None or not self.defense.single_step or threat is None:
            return None
        return threat.eps if threat.norm == self.checked[0].record.norm else None

    def _at(self, attack: str, eps: float) -> Measured | None:
        return next((m for m in self.checked if m.record.attack == attack and m.record.eps == eps), None)

    def _beside(self, measured: Measured) -> list[Measured]:
        """Other attacks of the same budget; empty for a worst case, which includes them all."""
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
