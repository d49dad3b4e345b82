"""The trust checks of one measured cell of a run."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.codes.verdict import Trust, Verdict
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.records import Record
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.trust.judge import Judgement, judge
from robustbench_tin.benchmarks.trust.measured import Measured
from robustbench_tin.progress import Reporter, duration


def judge_cell(
    context: CellContext, cell: Cell, model: nn.Module, batches: ImageBatches, protocol: AttackProtocol
) -> None:
    """Write a trust verdict into every record of a cell; an interrupted run judges the whole cell again.

    Args:
        context: the run and its data.
        cell: a cell whose measurements are all taken.
        model: the model with its defense.
        batches: the images.
        protocol: the attack protocol of the measurements.
    """
    run, reporter = context.run, context.reporter
    measures = [_measured(run, cell, attack, eps) for attack, eps in run.measures(cell)]
    with context.stage(cell, "trust checks", 1, context.costs.checking(cell.model)) as advance:
        judgement = judge(model, batches, measures, protocol, defense=context.plan.defense(cell.defense))
        advance(1)
    for measured, record in zip(measures, judgement.records, strict=True):
        if record != measured.record:
            run.save_record(cell, record)
    _tell(judgement, cell, reporter)


def _measured(run: RunDirectory, cell: Cell, attack: str, eps: float) -> Measured:
    """A measurement of the run, with its results per image."""
    record = run.record(cell, attack, eps)
    assert record is not None
    given = run.plan.attack(attack) if attack in run.plan.attacks_of(cell) else None
    if record.status != OK:
        return Measured(record, None, None, given)
    hits = run.outcomes(cell, attack, eps)
    top1, top5 = (hits[name].to_numpy() if name in hits else None for name in ("top1", "top5"))
    sampled, alone = (hits[name].to_numpy() if name in hits else None for name in ("sampled", "alone"))
    return Measured(record, top1, top5, given, sampled, alone)


def _tell(judgement: Judgement, cell: Cell, reporter: Reporter) -> None:
    if judgement.passes:
        reporter.finished(
            f"{cell.label}: trust checks, {judgement.passes:,} passes in {duration(judgement.seconds)}"
        )
    for verdict in _verdicts(judgement.records):
        tell = reporter.warn if verdict.state is Trust.doubted else reporter.say
        tell(f"{cell.label}: {verdict}")


def _verdicts(records: Iterable[Record]) -> list[Verdict]:
    """The distinct verdicts that say more than ``ok``."""
    return [
        Verdict.of(reasons) for reasons in dict.fromkeys(record.trust for record in records if record.trust)
    ]
