"""The benchmark: train each cell, attack it, store every result, continue after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_progress import is_complete, is_cut_short, state_of
from robustbench_tin.benchmarks.cells.choose_executor import SideBySide, side_by_side
from robustbench_tin.benchmarks.cells.time_estimate import estimate
from robustbench_tin.benchmarks.cells.time_limit import TimeLimit
from robustbench_tin.benchmarks.cells.train_cell import train_cell
from robustbench_tin.benchmarks.planning.config import BenchConfig, DataConfig
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.planning.resolve import resolve
from robustbench_tin.benchmarks.reporting.estimate_lines import estimate_lines
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.current_part import forget_current
from robustbench_tin.benchmarks.runs.image_labels import remember_labels
from robustbench_tin.benchmarks.runs.mirror import mirrored
from robustbench_tin.benchmarks.runs.remembered import remember
from robustbench_tin.benchmarks.runs.repair import repair
from robustbench_tin.benchmarks.runs.run_state import COSTS_FILE
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.benchmarks.tracking.track import tracked
from robustbench_tin.data import Dataset
from robustbench_tin.errors import OutOfTimeError
from robustbench_tin.presets import require_trusted, with_preset
from robustbench_tin.progress import Reporter, duration
from robustbench_tin.runtime import tune_allocator
from robustbench_tin.text import counted
from robustbench_tin.training.distributed import ProcessGroup, joined


def bench(
    *,
    reporter: Reporter | None = None,
    **options: Any,
) -> Run | None:
    """Train every backbone × defense × seed, attack each, and return the run with its records.

    Args:
        reporter: shows progress; None: silent.
        **options: the fields of :class:`robustbench_tin.benchmarks.planning.config.BenchConfig`, which are
            the options of ``robust-tin bench``; docs/reference/options.md lists them. ``attacks`` and
            ``defenses`` take objects as well as specs: ``attacks=["fgsm", PGD(steps=3)]``. ``jobs`` is 1 by
            default: the cells run in this process, one after the other. With ``executor="ray"``, the default
            is as many as the cluster holds.

    Returns:
        The run; ``.records`` is a DataFrame with one row per measurement, ``.tables`` renders it. None for
        a dry run.

    Raises:
        OutOfTimeError: if ``max_hours`` have passed and part of the plan is left.
        RobustTinError: if anything cannot be done as requested; raised before any training.

    >>> run = bench(models="timm:test_resnet", attacks="fgsm", eps=0.01, dry_run=True)
    >>> run is None
    True
    """
    reporter = reporter or Reporter()
    if options.get("preset") is not None:
        require_trusted(options)
        options = with_preset(options["preset"], options, BenchConfig)
    alone = {"jobs": 1} if options.get("executor", "local") == "local" else {}
    request = BenchConfig(**{**alone, **options})
    tune_allocator()
    with joined(request.device) as group:
        if not group.is_main:
            _train_along(request, group)
            return None
        run = _lead(request, group, reporter)
        group.broadcast(None)
        return run


def _lead(request: BenchConfig, group: ProcessGroup, reporter: Reporter) -> Run | None:
    limit = TimeLimit.of_hours(request.max_hours)
    plan, dataset = resolve(request, reporter, find_trained)
    place = request.out or Path("runs") / f"{plan.data}-{plan.fingerprint}"
    if request.dry_run or request.print_plan or request.estimate:
        chosen = side_by_side(request, plan, list(plan.cells()), group.size)
        costs = estimate(plan, dataset.image_size, chosen.threads)
        _announce(plan, dataset, costs.side_by_side(chosen.jobs), 0, place, reporter)
        lines = plan.describe() if request.print_plan else []
        lines += estimate_lines(plan, costs.expected(chosen.jobs)) if request.estimate else []
        for line in lines:
            reporter.say(line)
        return None
    with mirrored(place, reporter) as path, Run.begun(path, plan) as run:
        repair(run, reporter)
        remember(path, DataConfig(**request.of(DataConfig)))
        remember_labels(path, plan, dataset)
        with tracked(path, request, reporter):
            _finish(run, dataset, request, group, reporter, limit)
            run.write_results()
    if request.max_hours is not None and any(is_cut_short(run, cell) for cell in plan.cells()):
        raise OutOfTimeError(
            f"stopped after max-hours {request.max_hours:g}; {state_of(run)}; the same command continues"
        )
    return run


def _finish(
    run: Run,
    dataset: Dataset,
    request: BenchConfig,
    group: ProcessGroup,
    reporter: Reporter,
    limit: TimeLimit,
) -> None:
    """Train and measure the cells that are not complete."""
    plan = run.plan
    done = frozenset(cell.slug for cell in plan.cells() if is_complete(run, cell))
    left = [cell for cell in plan.cells() if cell.slug not in done]
    if not left:
        reporter.say(f"Run {run.path} is complete already: nothing to do. Choose another --out to repeat it.")
        return
    chosen = side_by_side(request, plan, left, group.size)
    costs = estimate(plan, dataset.image_size, chosen.threads)
    _announce(plan, dataset, costs.side_by_side(chosen.jobs, done), len(done), run.path, reporter)
    if any(run.trained(cell) for cell in plan.cells()):
        reporter.say(f"Continued: {state_of(run)}")
    run.files.write(run.path / COSTS_FILE, costs.expected(chosen.jobs))
    for cell in left:
        forget_current(run, cell)
    _complete(CellContext(run, dataset, request, costs, reporter, group, limit), left, chosen)


def _complete(context: CellContext, cells: Sequence[Cell], chosen: SideBySide) -> None:
    """Complete these cells."""
    context.group.broadcast(context.run.path)
    with context.reporter.overall(sum(map(context.costs.cell, cells))):
        try:
            chosen.executor.complete(context, cells)
        except KeyboardInterrupt:
            context.reporter.say(f"Stopped: {state_of(context.run)}")
            raise


def _train_along(request: BenchConfig, group: ProcessGroup) -> None:
    """The part of every process but the first: take its share of each training until none is left."""
    path = group.broadcast()
    if path is None:  # nothing is left to train
        return
    context = CellContext.opened(path, request, group=group)
    while (cell := group.broadcast()) is not None:
        train_cell(context, cell)


def _announce(
    plan: Plan, dataset: Dataset, seconds: float, done: int, path: str | Path, reporter: Reporter
) -> None:
    cells = len(list(plan.cells()))
    reporter.say(
        f"Data: {plan.data} ({dataset.source}), {plan.classes} classes, {plan.train_images:,} training and"
        f" {plan.eval_images:,} evaluated images of {dataset.image_size} px"
    )
    finished = f", {done} done" if done else ""
    reporter.say(
        f"Plan: {counted(cells, 'cell')}{finished}, {counted(plan.measures, 'measurement')},"
        f" {_epochs(plan)} of batches of {plan.batch_size} on {plan.device}; about {duration(seconds)}."
        f" Run directory: {path}"
    )


def _epochs(plan: Plan) -> str:
    """``8 epochs``, or ``2 to 8 epochs`` if the backbones differ."""
    low, high = min(plan.epochs), max(plan.epochs)
    return counted(low, "epoch") if low == high else f"{low} to {high} epochs"
