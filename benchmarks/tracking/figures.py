"""What a tracker is told: curves, figures, tags and settings, by names that every tracker takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.codes.verdict import Trust
from robustbench_tin.benchmarks.planning.plan import Cell, Plan, eps_slug
from robustbench_tin.benchmarks.reporting.tensorboard import TAGS
from robustbench_tin.benchmarks.runs.records import CLEAN, Record
from robustbench_tin.benchmarks.tracking.tracker import Description
from robustbench_tin.training.curves import Point

_FIGURES = (
    *(f"{top}{end}" for top in ("top1", "top5") for end in ("", "_low", "_high")),
    *(f"median_eps{end}" for end in ("", "_low", "_high")),
    "seconds",
)
# A cell has its own value of these.
_OF_CELLS = ("models", "defenses", "seeds", "epochs", "sizes", "given")


def describe_run(plan: Plan, name: str) -> Description:
    """A whole run: its settings are the plan's."""
    return Description(name, name, "run", _settings(plan))


def describe_cell(plan: Plan, name: str, cell: Cell) -> Description:
    """A cell of a run: the plan's settings that hold for it, and its own."""
    shared = {key: value for key, value in _settings(plan).items() if key not in _OF_CELLS}
    own = {"model": cell.model, "defense": cell.defense, "seed": str(cell.seed)}
    if not plan.given:
        own["epochs"] = str(plan.epochs_of(cell.model))
    return Description(cell.label, name, "cell", {**own, **shared})


def _settings(plan: Plan) -> dict[str, str]:
    """Those that have a value."""
    given = {key: text for key, text in plan.settings.items() if getattr(plan, key) not in (None, (), "")}
    return {**given, "plan_digest": plan.digest}


def curve_values(point: Point) -> dict[str, float]:
    """The measures of an epoch, by the names that TensorBoard gets."""
    values = {tag: getattr(point, name) for name, tag in TAGS.items()}
    return {tag: value for tag, value in values.items() if value is not None}


def measure_name(record: Record) -> str:
    """A measurement in letters that each tracker takes: ``clean``, ``fgsm/eps-8-255``."""
    attack = re.sub(r"[^\w.-]", "_", record.attack)
    return attack if record.attack == CLEAN else f"{attack}/eps-{eps_slug(record.eps)}"


def figures_of(record: Record) -> dict[str, float]:
    """Accuracies and their interval ends (0 to 1), median eps, seconds: ``clean/top1``."""
    values = {f"{measure_name(record)}/{name}": getattr(record, name) for name in _FIGURES}
    return {name: value for name, value in values.items() if value is not None}


def tags_of(record: Record) -> dict[str, str]:
    """Status and trust verdict of a measurement."""
    tags = {"status": str(record.status)}
    if record.verdict is not None:
        tags["trust"] = str(record.verdict)
    return {f"{measure_name(record)}/{name}": text for name, text in tags.items()}


def overall_tags(records: Iterable[Record]) -> dict[str, str]:
    """Status and trust of all measurements of a cell: the worst of each.

    >>> overall_tags([])
    {'status': 'ok'}
    """
    known = list(records)
    codes = Counter(record.status.code.value for record in known if record.status != OK)
    tags = {"status": ", ".join(f"{count} {code}" for code, count in sorted(codes.items())) or "ok"}
    states = [record.verdict.state for record in known if record.verdict is not None]
    if states:
        tags["trust"] = max(states, key=list(Trust).index).value
    return tags
