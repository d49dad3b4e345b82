"""The predicted hours of a plan, for people: by backbone and defense, and in total."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.run_state import CellCosts, ExpectedCosts, last_end
from robustbench_tin.progress import duration
from robustbench_tin.specs import short_numbers
from robustbench_tin.text import counted


def estimate_lines(plan: Plan, costs: ExpectedCosts) -> list[str]:
    """One line per backbone and defense, longest first, then lines on the whole plan.

    Args:
        plan: the plan.
        costs: the expected costs of its cells.
    """
    rows: dict[tuple[str, str], list[CellCosts]] = {}
    for cell in plan.cells():
        rows.setdefault((cell.model, cell.defense), []).append(costs.cells[cell.slug])
    longest = sorted(rows.items(), key=lambda row: -sum(each.total for each in row[1]))
    return [*(_row(model, defense, cells) for (model, defense), cells in longest), *_whole(plan, costs)]


def _row(model: str, defense: str, cells: Sequence[CellCosts]) -> str:
    train, trust = sum(each.train for each in cells), sum(each.trust for each in cells)
    measure = sum(sum(each.measure.values()) for each in cells)
    label = f"{model} + {short_numbers(defense)}, {counted(len(cells), 'seed')}"
    parts = [f"training {duration(train)}", f"measurements {duration(measure)}"]
    parts += [f"trust checks {duration(trust)}"] if trust else []
    return f"{label}: {duration(train + measure + trust)} ({', '.join(parts)})"


def _whole(plan: Plan, costs: ExpectedCosts) -> list[str]:
    seconds = [each.total for each in costs.cells.values()]
    kind = torch.device(plan.device).type
    hours = "GPU-hours" if kind == "cuda" else f"hours of {plan.device}"
    longest = max(plan.cells(), key=lambda cell: costs.cells[cell.slug].total)
    return [
        f"Total: {sum(seconds) / 3600:.3g} {hours}; with {counted(costs.jobs, 'cell')} at a time, done in"
        f" {duration(last_end(seconds, costs.jobs))}",
        f"More devices cannot make it shorter than the longest cell, {_named(longest)}:"
        f" {duration(costs.cells[longest.slug].total)}",
    ]


def _named(cell: Cell) -> str:
    return cell.label
