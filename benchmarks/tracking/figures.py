"""The data for a tracker: curves, figures, tags and settings, under names that every tracker accepts."""

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
# Each cell has its own values of these settings.
_OF_CELLS = ("models", "defenses", "seeds", "epochs", "sizes", "given")


def describe_run(plan: Plan, name: str) -> Description:
    """The description of a whole run; its settings are the plan's."""
    return Description(name, name, "run", _settings(plan))


def describe_cell(plan: Plan, name: str, cell: Cell) -> Description:
    """The description of a cell: its own settings, and those of the plan that apply to it."""
    shared = {key: value for key, value in _settings(plan).items() if key not in _OF_CELLS}
    own = {"model": cell.model, "defense": cell.defense, "seed": str(cell.seed)}
    if not plan.given:
        own["epochs"] = str(plan.epochs_of(cell.model))
    return Description(cell.label, name, "cell", {**own, **shared})


def _settings(plan: Plan) -> dict[str, str]:
    """The plan's settings that have a value."""
    given = {key: text for key, text in plan.settings.items() if getattr(plan, key) not in (None, (), "")}
    return {**given, "plan_digest": plan.digest}


def curve_values(point: Point) -> dict[str, float]:
    """The measures of an epoch, under their TensorBoard names."""
    values = {tag: getattr(point, name) for name, tag in TAGS.items()}
    return {tag: value for tag, value in values.items() if value is not None}


def measure_name(record: Record) -> str:
    """A measurement's name in characters that every tracker accepts: ``clean``, ``fgsm/eps-8-255``."""
    attack = re.sub(r"[^\w.-]", "_", record.attack)
    return attack if record.attack == CLEAN else f"{attack}/eps-{eps_slug(record.eps)}"


def figures_of(record: Record) -> dict[str, float]:
    """Accuracies and their interval ends (0 to 1), median eps and seconds, by name: ``clean/top1``."""
    values = {f"{measure_name(record)}/{name}": getattr(record, name) for name in _FIGURES}
    return {name: value for name, value in values.items() if value is not None}


def tags_of(record: Record) -> dict[str, str]:
    """Status and trust verdict of a measurement, by name."""
    tags = {"status": str(record.status)}
    if record.verdict is not None:
        tags["trust"] = str(record.verdict)
    return {f"{measure_name(record)}/{name}": text for name, text in tags.items()}


def overall_tags(records: Iterable[Record]) -> dict[str, str]:
    """The worst status and the worst trust verdict of a cell's measurements.

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
