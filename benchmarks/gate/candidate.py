"""What the gate looks at: trained models and their measures, from a run or measured on the spot."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.codes.verdict import Reason, Trust
from robustbench_tin.benchmarks.planning.given_models import given_summary
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.records import CLEAN, Record, versions
from robustbench_tin.benchmarks.runs.same_measurement import counted_rank, settings_of
from robustbench_tin.errors import RunError
from robustbench_tin.specs import eps_text, number_text, short_numbers

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.planning.plan import Cell, Plan
    from robustbench_tin.benchmarks.trust.probe import Hits


@dataclass(frozen=True)
class MeasurementKey:
    """What names a measure within a backbone and defense."""

    attack: str
    norm: str
    eps: float

    @property
    def label(self) -> str:
        """For people: ``pgd@0.03``, ``clean``."""
        return CLEAN if self.attack == CLEAN else f"{self.attack}@{eps_text(self.eps)}"

    @property
    def order(self) -> tuple[bool, str, str, float]:
        """Sorts measures, the clean one first."""
        return (self.attack != CLEAN, self.attack, self.norm, self.eps)


@dataclass(frozen=True)
class CandidateMeasurement:
    """One measure with its outcomes.

    Attributes:
        record: of the measure.
        hits: was each image's label in the top 1, bool ``(N,)``; in the top 5 where the attack's criterion
            was that; None where the measure failed.
    """

    record: Record
    hits: Hits | None

    @property
    def key(self) -> MeasurementKey:
        """Its name."""
        return MeasurementKey(short_numbers(self.record.attack), self.record.norm, self.record.eps)

    @property
    def right(self) -> int:
        """Images that count as right; only of a measure that did not fail."""
        assert self.hits is not None
        return int(self.hits.sum())

    @property
    def rank(self) -> str:
        """``top1``, or ``top5`` where only that was measured."""
        return counted_rank(self.record)

    @property
    def doubts(self) -> tuple[Reason, ...]:
        """Why not to believe it."""
        verdict = self.record.verdict
        return () if verdict is None else verdict.doubts

    @property
    def unchecked(self) -> tuple[Reason, ...]:
        """Why the trust checks could not judge it in full."""
        verdict = self.record.verdict
        return () if verdict is None else verdict.unchecked

    @property
    def checked(self) -> bool:
        """Whether the trust checks judged it."""
        verdict = self.record.verdict
        return verdict is not None and verdict.state is not Trust.unchecked

    @property
    def settings(self) -> Mapping[str, str]:
        """Under what it was measured; two figures can only be compared where all of this is the same."""
        return settings_of(self.record)


@dataclass(frozen=True)
class CandidateModel:
    """One trained model and its figures.

    Attributes:
        model: the backbone, or what a model of the user's own is called.
        defense: canonical spec.
        seed: that it was trained and attacked with.
        weights: digest of its tensors; None where they are not at hand.
        figures: its measures.
    """

    model: str
    defense: str
    seed: int
    weights: str | None
    figures: tuple[CandidateMeasurement, ...]

    @property
    def label(self) -> str:
        """Without the seed: ``resnet50 + fgsm-at``."""
        return f"{self.model} + {self.defense}"

    def figure(self, key: MeasurementKey) -> CandidateMeasurement | None:
        """The measure of this name, if it is there."""
        return next((figure for figure in self.figures if figure.key == key), None)


@dataclass(frozen=True)
class Candidate:
    """All that a check or a baseline is about.

    Attributes:
        name: for people: the run's path.
        models: in the plan's order.
        settings: everything that decided the figures, as texts; differences from it lead to a cause.
        versions: of what computed them.
        command: what names it on a command line.
        own: whether it is one model of the user's own, whatever it is called.
        notes: what must be known of the files that it was read from, a sentence each.
    """

    name: str
    models: tuple[CandidateModel, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    versions: str = ""
    command: str = ""
    own: bool = False
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[tuple[str, str], list[CandidateModel]]:
        """The trainings of each backbone and defense."""
        groups: dict[tuple[str, str], list[CandidateModel]] = {}
        for model in self.models:
            groups.setdefault((model.model, model.defense), []).append(model)
        return groups

    @property
    def figures(self) -> Iterator[tuple[CandidateModel, CandidateMeasurement]]:
        """Every figure with its model."""
        for model in self.models:
            for figure in model.figures:
                yield model, figure


def from_run(path: str | Path) -> Candidate:
    """Read a run with all its outcomes.

    Raises:
        RunError: where no run lies there, it is damaged, or it has no measures yet.
    """
    run = Run.load(path)
    return candidate_of(run, run.plan.cells(), run.plan)


def candidate_of(run: Run, cells: Iterable[Cell], plan: Plan) -> Candidate:
    """Some cells of a run with all their outcomes.

    Args:
        run: the run.
        cells: of it.
        plan: gives the settings.

    Raises:
        RunError: if it is damaged, or has no measures of them yet.
    """
    models = tuple(_model(run, cell) for cell in cells)
    if not any(model.figures for model in models):
        raise RunError(f"run '{run.path}' has no measures yet; give its command again to continue")
    settings = {
        key: ",".join(map(_setting, value)) if isinstance(value, tuple | list) else _setting(value)
        for key, value in plan.model_dump().items()
        if key not in ("seeds", "given")
    }
    if plan.given:
        settings["given"] = given_summary(plan.given)
    said = {figure.record.versions for model in models for figure in model.figures}
    return Candidate(
        str(run.path),
        models,
        settings,
        "; ".join(sorted(said)) or versions(),
        shlex.quote(str(run.path)),
        notes=tuple(run.notes),
    )


def _setting(value: object) -> str:
    return number_text(value) if isinstance(value, float) else short_numbers(str(value))


def _model(run: Run, cell: Cell) -> CandidateModel:
    figures = []
    for attack, eps in run.measures(cell):
        record = run.record(cell, attack, eps)
        if record is None or (record.status != OK and run.is_settled(record)):
            continue  # nobody can measure it
        figures.append(CandidateMeasurement(record, _hits(run, cell, record)))
    return CandidateModel(
        cell.model, short_numbers(cell.defense), cell.seed, _digest(run, cell), tuple(figures)
    )


def _hits(run: Run, cell: Cell, record: Record) -> Hits | None:
    if record.status != OK:
        return None
    hits: Hits = run.outcomes(cell, record.attack, record.eps)[counted_rank(record)].to_numpy(dtype=bool)
    return hits


def _digest(run: Run, cell: Cell) -> str | None:
    """The digest of a cell's tensors; None if it has no weights any more, or never had."""
    from robustbench_tin.models.weights_file import read_weights_file, tensors_digest

    given = run.plan.given_model(cell.model)
    if given is not None:
        return given.weights or None
    if not run.weights_file(cell).exists():
        return None
    return tensors_digest(read_weights_file(run.checked_weights(cell)).state)
