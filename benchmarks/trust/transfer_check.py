"""Use transfer attacks as evidence: images of another cell succeed although a gradient attack failed."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason, Verdict
from robustbench_tin.benchmarks.runs.records import WORST_CASE
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.runs.transfer_records import TransferRecord
from robustbench_tin.benchmarks.trust import attack_checks
from robustbench_tin.benchmarks.trust.measured import Measured, needs_trust

_OF_TRANSFERS = (TrustCode.transfer_beats, TrustCode.transfer_refutes)


def doubt_beaten(run: RunDirectory) -> list[str]:
    """Add a trust reason to each figure that a transfer attack refutes, and remove outdated reasons.

    Only attacks with several gradient steps can be refuted, and a worst case that includes such an attack. A
    figure without a verdict gets one only if there is a reason. The records of the run are updated.

    Args:
        run: a run with transfer measurements.

    Returns:
        One line for each reason: cell, attack and reason.
    """
    transfers = [record for record in run.transfers if record.status == OK]
    said = []
    for cell in run.plan.cells():
        against = [record for record in transfers if record.target == cell]
        records = [run.record(cell, attack, eps) for attack, eps in run.measures(cell) if eps > 0]
        measured = [
            Measured(record, None, None)
            for record in records
            if record is not None and needs_trust(record) and record.top1 is not None
        ]
        searched = {one.record.eps for one in measured if one.attack is not None and one.iterative}
        for one in measured:
            record = one.record
            if not (one.iterative or record.attack == WORST_CASE) or record.eps not in searched:
                continue
            reason = _reason(run, record.attack, [other for other in against if other.eps == record.eps])
            trust = _with_reason(record.verdict, reason, checked=run.plan.trust)
            if trust != record.trust:
                run.save_record(cell, record.model_copy(update={"trust": trust}))
            if reason is not None:
                said.append(f"{cell.label}, {record.attack}: {reason}")
    return said


def _reason(run: RunDirectory, attack: str, others: Sequence[TransferRecord]) -> Reason | None:
    """The reason against an attack's figure, from the transfer with the most successes on its survivors."""
    if not others:
        return None
    left = run.outcomes(others[0].target, attack, others[0].eps)["top1"].to_numpy()
    hits = {other: run.transfers.top1(other) for other in others}
    strongest = max(others, key=lambda other: int((left & ~hits[other]).sum()))
    name = f"{strongest.source.label} by {strongest.attack}"
    beaten = attack_checks.black_box_beats(left, hits[strongest], strongest.eps, name, transfer=True)
    # On few images the exact test may find nothing although the difference is large.
    return beaten or attack_checks.refuted(left, hits[strongest], strongest.eps, name, transfer=True)


def _with_reason(
    verdict: Verdict | None, reason: Reason | None, *, checked: bool
) -> tuple[Reason, ...] | None:
    """The verdict's reasons with this transfer reason instead of earlier ones; unchecked reasons are kept."""
    known = () if verdict is None else verdict.reasons
    found = Verdict.of([*(each for each in known if each.code not in _OF_TRANSFERS), reason])
    return found.reasons if found.doubts or (checked and verdict is not None) else None
