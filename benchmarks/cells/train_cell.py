"""Train one cell of a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from robustbench_tin.attacks.engine.attacked_model import AttackFailure
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.validation_metrics import RobustnessMetrics, ValidationMetrics
from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.planning.defense_sources import is_backbone
from robustbench_tin.benchmarks.planning.plan import NONE, Cell
from robustbench_tin.benchmarks.reporting.tensorboard import TensorBoardWriter, events
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.errors import FOREIGN, RobustTinError, WeightsError, one_line
from robustbench_tin.models import Classifier, load_weights, save_weights, select
from robustbench_tin.progress import Advance, duration
from robustbench_tin.runtime import Runtime, choose_precision
from robustbench_tin.training.compiling import compiled
from robustbench_tin.training.curves import Curves
from robustbench_tin.training.distributed import with_synchronised_statistics
from robustbench_tin.training.loop import Recipe, TrainingFailure, TrainingRecord, train
from robustbench_tin.training.monitor import some

# Number of steps of a training's progress bar.
_SHOWN_STEPS = 1000


def trained_classifier(context: CellContext, cell: Cell) -> tuple[Classifier, Trained]:
    """A cell's classifier: loaded if the run has its weights, else trained and saved.

    Returns:
        The classifier and the facts of its training; measure it only if their ``status`` is ok.
    """
    run = context.run
    trained = run.trained(cell)
    if trained is not None and trained.status == OK:
        classifier = context.build(cell)
        load_weights(classifier, run.checked_weights(cell))
        context.checkpoint(cell).remove()
        context.reporter.finished(f"{cell.label}: already trained")
        return classifier, trained
    classifier, trained = train_cell(context, context.group.broadcast(cell))
    if trained.status == OK:
        save_weights(classifier, run.weights_file(cell))
    run.save_trained(cell, trained)
    if trained.status == OK:
        context.checkpoint(cell).remove()
    return classifier, trained


def train_cell(context: CellContext, cell: Cell) -> tuple[Classifier, Trained]:
    """Train a cell; nothing but its checkpoints is written.

    Raises:
        WeightsError: if the initial weights cannot be loaded, unless the request skips such cells.
    """
    try:
        classifier = context.build(cell, fresh=True)
    except WeightsError as error:
        if not context.request.skip_missing_weights:
            raise
        return _without_weights(context, cell, error)
    for note in classifier.notes:
        context.reporter.say(f"{cell.label}: {note}")
    return _CellTraining(context, cell, classifier).run()


def _without_weights(context: CellContext, cell: Cell, error: WeightsError) -> tuple[Classifier, Trained]:
    """Mark a cell whose initial weights cannot be loaded; the same command tries to load them again."""
    plan = context.plan
    trained = Trained(
        status=Status.of(StatusCode.not_measured, why=str(error)),
        lr=plan.recipe(cell.model).lr,
        precision=plan.precision or "float32",
        network_size=plan.backbone(cell.model).check_size(
            context.dataset.image_size, plan.size_of(cell.model)
        ),
    )
    context.reporter.warn(f"{cell.label}: {trained.status}")
    return context.build(cell), trained


@dataclass(frozen=True)
class _CellTraining:
    """The training of a newly built classifier."""

    context: CellContext
    cell: Cell
    classifier: Classifier

    def run(self) -> tuple[Classifier, Trained]:
        """Train to the end, or until the defense or the backbone fails."""
        if self._synchronised:
            with_synchronised_statistics(self.classifier)
        try:
            record = self._train()
        except (TrainingFailure, AttackFailure) as failure:
            return self.classifier, self._failed(str(failure))
        except RobustTinError:
            raise
        except FOREIGN as error:  # any error of a plugged-in defense or a backbone
            if self.context.group.size > 1:
                raise  # the other processes wait for this one
            return self.classifier, self._failed(one_line(error))
        self._tell(record)
        classifier = self._plain()
        return classifier, self._trained(record, classifier)

    def _train(self) -> TrainingRecord:
        context, cell = self.context, self.cell
        seconds = context.costs.training(cell.model, cell.defense)
        with (
            context.stage(cell, "train", _SHOWN_STEPS, seconds, stops=True) as advance,
            events(self._events_directory) as followed,
            self._compiled(),
        ):
            return train(
                self.classifier,
                context.dataset.train,
                context.plan.defense(cell.defense),
                self.recipe,
                self.runtime,
                num_classes=context.plan.classes,
                seed=cell.seed,
                on_step=_in_thousandths(advance),
                trained=self._source,
                probe=self._probe(),
                checkpoint=context.checkpoint(cell),
                curves=self._curves(followed),
                group=context.group,
            )

    @cached_property
    def runtime(self) -> Runtime:
        """Device and precision of the training."""
        plan, classifier = self.context.plan, self.classifier
        precision = plan.precision or choose_precision(plan.device, classifier, classifier.image_size)
        return Runtime(plan.device, precision)

    @cached_property
    def recipe(self) -> Recipe:
        """The settings of the training loop."""
        return self.context.plan.recipe(self.cell.model)

    @property
    def _facts(self) -> dict[str, Any]:
        """The facts of a training that are known before it begins."""
        return {
            "precision": self.runtime.precision,
            "network_size": self.classifier.input_size,
            "lr": self.recipe.lr,
        }

    @property
    def _synchronised(self) -> bool:
        """Whether several GPUs share the statistics of batch norm."""
        return self.context.group.size > 1 and self.runtime.torch_device.type == "cuda"

    @property
    def _events_directory(self) -> Path | None:
        context = self.context
        return context.run.events_directory(self.cell) if context.request.tensorboard else None

    def _compiled(self) -> AbstractContextManager[None]:
        plan, reporter = self.context.plan, self.context.reporter
        if not plan.compile:
            return nullcontext()
        batch = plan.batch_size // self.context.group.size
        say = reporter.say
        return compiled(self.classifier, self.runtime, batch, lambda line: say(f"{self.cell.label}: {line}"))

    def _source(self, name: str) -> nn.Module:
        """The trained model that the cell's defense asks for by this name, in the form that is attacked.

        Raises:
            TrainingFailure: if the name is a cell of the run that is not trained.
        """
        run, device = self.context.run, self.context.plan.device
        if not is_backbone(name):
            return find_trained(name).load(device).model
        source = Cell(select(name)[0], NONE, self.cell.seed)
        trained = run.trained(source)
        if trained is None or trained.status != OK:
            why = "is not trained" if trained is None else str(trained.status)
            raise TrainingFailure(f"its source {source.label} {why}")
        return CellLoader(run, self.context.dataset.image_size, device).load(source).model

    def _probe(self) -> RobustnessMetrics | None:
        """The attacks that monitor robustness during training; None if the plan has no budget."""
        threat = self.context.plan.watched_threat(self.cell)
        return None if threat is None else RobustnessMetrics(threat, self.cell.seed)

    def _curves(self, followed: TensorBoardWriter | None) -> Curves | None:
        context, kind = self.context, self.context.request.curves
        if kind == "none":
            return None
        # The same images for every cell.
        seen = some(context.dataset.val, 0, len(context.dataset.train))
        probe = self._probe() if kind == "robust" else None
        metrics = ValidationMetrics(seen, context.plan.device, probe)
        return Curves(context.run.curves_file(self.cell), metrics, followed)

    def _plain(self) -> Classifier:
        """The trained classifier in the form that a single process uses."""
        if not self._synchronised:
            return self.classifier
        plain = self.context.build(self.cell)
        plain.load_state_dict(self.classifier.state_dict())
        return plain

    def _tell(self, record: TrainingRecord) -> None:
        label, finished = self.cell.label, self.context.reporter.finished
        for note in record.notes:
            finished(f"{label}: {note}")
        finished(f"{label}: trained in {duration(record.seconds)}, loss {record.loss:.3f}")

    def _failed(self, why: str) -> Trained:
        trained = Trained(status=Status.of(StatusCode.failed, why=why), **self._facts)
        self.context.reporter.warn(f"{self.cell.label}: {trained.status}")
        return trained

    def _trained(self, record: TrainingRecord, classifier: Classifier) -> Trained:
        return Trained(
            images=record.images,
            steps=record.steps,
            seconds=record.seconds,
            loss=record.loss,
            notes=(*classifier.notes, *record.notes),
            **self._facts,
        )


def _in_thousandths(advance: Advance) -> Callable[[int, int], None]:
    """A callback that advances a progress bar by the optimiser steps done."""
    shown = 0

    def on_step(step: int, steps: int) -> None:
        nonlocal shown
        now = _SHOWN_STEPS * step // steps
        advance(now - shown)
        shown = now

    return on_step
