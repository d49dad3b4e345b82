"""The candidate of the gate: trained models and their measurements, from a run or measured on the spot."""

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
    """The name of a measurement within a backbone and defense.

    Attributes:
        attack: canonical spec, or ``clean``.
        norm: norm of the budget.
        eps: budget in units of the pixel range; 0 for ``clean``.
    """

    attack: str
    norm: str
    eps: float

    @property
    def label(self) -> str:
        """Name for people, such as ``pgd@0.03`` or ``clean``."""
        return CLEAN if self.attack == CLEAN else f"{self.attack}@{eps_text(self.eps)}"

    @property
    def order(self) -> tuple[bool, str, str, float]:
        """Sort key that puts the clean measurement first."""
        return (self.attack != CLEAN, self.attack, self.norm, self.eps)


@dataclass(frozen=True)
class CandidateMeasurement:
    """One measurement with its results per image.

    Attributes:
        record: the record of the measurement.
        hits: whether each image is right, bool ``(N,)``: its label is in the top 1, or in the top 5 if that
            is the attack's criterion. None if the measurement failed.
    """

    record: Record
    hits: Hits | None

    @property
    def key(self) -> MeasurementKey:
        """The name of the measurement."""
        return MeasurementKey(short_numbers(self.record.attack), self.record.norm, self.record.eps)

    @property
    def right(self) -> int:
        """Number of right images; only valid if the measurement did not fail."""
        assert self.hits is not None
        return int(self.hits.sum())

    @property
    def rank(self) -> str:
        """``top1``, or ``top5`` if only that was measured."""
        return counted_rank(self.record)

    @property
    def doubts(self) -> tuple[Reason, ...]:
        """Reasons to doubt the figure."""
        verdict = self.record.verdict
        return () if verdict is None else verdict.doubts

    @property
    def unchecked(self) -> tuple[Reason, ...]:
        """Reasons why the trust checks could not judge the figure completely."""
        verdict = self.record.verdict
        return () if verdict is None else verdict.unchecked

    @property
    def checked(self) -> bool:
        """Whether the trust checks judged the figure."""
        verdict = self.record.verdict
        return verdict is not None and verdict.state is not Trust.unchecked

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings of the measurement; figures are comparable only if all settings are equal."""
        return settings_of(self.record)


@dataclass(frozen=True)
class CandidateModel:
    """One trained model and its figures.

    Attributes:
        model: name of the backbone, or of the user's own model.
        defense: canonical spec of the defense.
        seed: seed of its training and attacks.
        weights: digest of its weights; None if they are not available.
        figures: its measurements.
    """

    model: str
    defense: str
    seed: int
    weights: str | None
    figures: tuple[CandidateMeasurement, ...]

    @property
    def label(self) -> str:
        """Name for people without the seed, such as ``resnet50 + fgsm-at``."""
        return f"{self.model} + {self.defense}"

    def figure(self, key: MeasurementKey) -> CandidateMeasurement | None:
        """The measurement of this name; None if there is no such measurement."""
        return next((figure for figure in self.figures if figure.key == key), None)


@dataclass(frozen=True)
class Candidate:
    """The models that a check judges or that a baseline is made of.

    Attributes:
        name: name for people, such as the run's path.
        models: the trained models, in the plan's order.
        settings: all settings that affect the figures, as texts; differences help to find a cause.
        versions: versions of the software that computed the figures.
        command: the arguments that select it on a command line.
        own: whether it is a single model of the user's own; its name does not matter then.
        notes: remarks on the files that it was read from, one sentence each.
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
        """The trained models of each backbone and defense."""
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
    """Read a run with all its results per image.

    Args:
        path: the run directory.

    Raises:
        RunError: if there is no run at this path, it is damaged, or it has no measurements yet.
    """
    run = Run.load(path)
    return candidate_of(run, run.plan.cells(), run.plan)


def candidate_of(run: Run, cells: Iterable[Cell], plan: Plan) -> Candidate:
    """Read some cells of a run with all their results per image.

    Args:
        run: the run.
        cells: cells of the run.
        plan: the plan that gives the settings.

    Raises:
        RunError: if the run is damaged, or the cells have no measurements yet.
    """
    models = tuple(_model(run, cell) for cell in cells)
    if not any(model.figures for model in models):
        raise RunError(f"run '{run.path}' has no measurements yet; give its command again to continue")
    settings = {
        key: ",".join(map(_setting, value)) if isinstance(value, tuple | list) else _setting(value)
        for key, value in plan.model_dump().items()
        if key not in ("seeds", "given", "keep_adversarial")  # the last changes no figure
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
            continue  # the measurement is impossible
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
    """The digest of a cell's weights; None if they are not available."""
    from robustbench_tin.models.weights_file import read_weights_file, tensors_digest

    given = run.plan.given_model(cell.model)
    if given is not None:
        return given.weights or None
    if not run.weights_file(cell).exists():
        return None
    return tensors_digest(read_weights_file(run.checked_weights(cell)).state)
