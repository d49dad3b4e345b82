"""The runner: train each cell, attack it, write everything down, go on where it stopped."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor, nn

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.attacked_model import AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.cells.time_estimate import Estimate, estimate
from robustbench_tin.benchmarks.cells.validation_metrics import RobustnessMetrics, ValidationMetrics
from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.codes.verdict import Trust, Verdict
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.certified import measure_certified
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.fixed_budget import measure_from_clean, with_clean_gradients
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol, evaluation_batch_size
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.measurement.worst_case import worst_case
from robustbench_tin.benchmarks.planning.config import BenchConfig, DataConfig
from robustbench_tin.benchmarks.planning.plan import NONE, Cell, Plan
from robustbench_tin.benchmarks.planning.resolve import default_lr, is_backbone, resolve
from robustbench_tin.benchmarks.reporting.tensorboard import TensorBoardWriter, events
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.benchmarks.runs.records import (
    CERTIFIED,
    CLEAN,
    WORST_CASE,
    Record,
    make_record,
)
from robustbench_tin.benchmarks.runs.remembered import remember
from robustbench_tin.benchmarks.runs.repair import repair
from robustbench_tin.benchmarks.runs.run_directory import Trained
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.benchmarks.trust.judge import Measured, gets_verdict, judge, with_cause
from robustbench_tin.data import Dataset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import FOREIGN, RobustTinError, WeightsError, one_line
from robustbench_tin.models import Classifier, backbones, build_classifier, load_weights, save_weights, select
from robustbench_tin.presets import with_preset
from robustbench_tin.progress import Reporter, duration
from robustbench_tin.runtime import Runtime, as_tensor, choose_precision, tune_allocator
from robustbench_tin.specs import eps_text
from robustbench_tin.text import counted
from robustbench_tin.training.checkpoint import Checkpoint
from robustbench_tin.training.compiling import compiled
from robustbench_tin.training.curves import Curves
from robustbench_tin.training.distributed import (
    SINGLE_PROCESS,
    ProcessGroup,
    joined,
    with_synchronised_statistics,
)
from robustbench_tin.training.loop import Recipe, TrainingFailure, TrainingRecord, train
from robustbench_tin.training.monitor import some


def bench(
    *,
    reporter: Reporter | None = None,
    **options: Any,
) -> Run | None:
    """Train every backbone × defense × seed, attack each, and return the run with its records.

    Args:
        reporter: told how far it is; None: silent.
        **options: the fields of :class:`robustbench_tin.benchmarks.planning.config.BenchConfig`, which are
            the options of ``robust-tin bench``; docs/options.md lists them.

    Returns:
        The run; ``.records`` is a DataFrame of one row a measure, ``.tables`` renders it. None for
        a dry run.

    Raises:
        RobustTinError: for anything that cannot be done as asked, before anything is trained.
    """
    reporter = reporter or Reporter()
    if options.get("preset") is not None:
        options = with_preset(options["preset"], options, BenchConfig)
    request = BenchConfig(**options)
    tune_allocator()
    with joined(request.device) as group:
        if not group.is_main:
            _train_along(request, group)
            return None
        run = _lead(request, group, reporter)
        group.broadcast(None)
        return run


def _lead(request: BenchConfig, group: ProcessGroup, reporter: Reporter) -> Run | None:
    plan, dataset = resolve(request, reporter, find_trained)
    path = Path(request.out) if request.out else Path("runs") / f"{plan.data}-{plan.fingerprint}"
    if request.dry_run or request.print_plan:
        _announce(plan, dataset, estimate(plan, dataset.image_size), frozenset(), path, reporter)
        for line in plan.describe() if request.print_plan else ():
            reporter.say(line)
        return None
    with Run.begun(path, plan) as run:
        repair(run, reporter)
        remember(path, DataConfig(**request.of(DataConfig)))
        done = frozenset(cell.slug for cell in plan.cells() if _is_done(run, cell))
        if len(done) == len(list(plan.cells())):
            reporter.say(f"Run {path} is complete already: nothing to do. Another --out runs it again.")
        else:
            costs = estimate(plan, dataset.image_size)
            _announce(plan, dataset, costs, done, path, reporter)
            worker = _Worker(run, dataset, request, costs, reporter, group)
            group.broadcast(path)
            with reporter.overall(costs.total(done)):
                for cell in plan.cells():
                    if cell.slug not in done:
                        worker.work(cell)
        run.write_results()
    return run


def _train_along(request: BenchConfig, group: ProcessGroup) -> None:
    """What every process does but the first: take its share of each training, while there are any."""
    path = group.broadcast()
    if path is None:  # nothing is left to train
        return
    plan, dataset = resolve(request, Reporter(), find_trained)
    worker = _Worker(Run.load(path), dataset, request, estimate(plan, dataset.image_size), Reporter(), group)
    while (cell := group.broadcast()) is not None:
        worker.train(cell)


@dataclass(frozen=True)
class _Worker:
    """Takes one cell after the other to its end."""

    run: Run
    dataset: Dataset
    request: BenchConfig
    costs: Estimate
    reporter: Reporter
    group: ProcessGroup = SINGLE_PROCESS

    def work(self, cell: Cell) -> None:
        trained = self.run.trained(cell)
        if trained is not None and trained.status == OK:
            classifier = self._build(cell)
            load_weights(classifier, self.run.checked_weights(cell))
            self._checkpoint(cell).remove()
            self.reporter.finished(f"{cell.label}: already trained")
        else:
            classifier, trained = self.train(self.group.broadcast(cell))
            if trained.status == OK:
                save_weights(classifier, self.run.weights_file(cell))
            self.run.save_trained(cell, trained)
            if trained.status == OK:
                self._checkpoint(cell).remove()
        if trained.status != OK:
            self._record_failed_cell(cell, trained)
            return
        self._measure(cell, classifier, trained)

    def _build(self, cell: Cell, *, fresh: bool = False) -> Classifier:
        """The cell's network; only a fresh one is filled with the weights that training starts from."""
        plan, request = self.run.plan, self.request
        # A file is of one architecture: a backbone that only defenses need starts without it.
        asked = cell.model in plan.models
        return build_classifier(
            backbones.get(cell.model),
            plan.classes,
            image_size=self.dataset.image_size,
            resize_to=plan.image_size,
            pretrained=plan.pretrained and fresh,
            weights=Path(request.weights) if request.weights is not None and fresh and asked else None,
            seed=cell.seed,
        )

    def _runtime(self, classifier: Classifier) -> Runtime:
        plan = self.run.plan
        precision = plan.precision or choose_precision(plan.device, classifier, classifier.image_size)
        return Runtime(plan.device, precision)

    def train(self, cell: Cell) -> tuple[Classifier, Trained]:
        """Train a cell, and write down no more than its checkpoints."""
        plan = self.run.plan
        try:
            classifier = self._build(cell, fresh=True)
        except WeightsError as error:
            if not self.request.skip_missing_weights:
                raise
            return self._without_weights(cell, error)
        for note in classifier.notes:
            self.reporter.say(f"{cell.label}: {note}")
        runtime = self._runtime(classifier)
        synchronised = self.group.size > 1 and runtime.torch_device.type == "cuda"
        if synchronised:
            with_synchronised_statistics(classifier)
        recipe = self._recipe(cell)
        checkpoint = self._checkpoint(cell)
        facts: dict[str, Any] = {
            "precision": runtime.precision,
            "network_size": classifier.input_size,
            "lr": recipe.lr,
        }
        seconds = self.costs.training(cell.model, cell.defense)
        done = 0
        with (
            self.reporter.stage(f"train {cell.label}", 1000, seconds) as advance,
            events(self.run.events_directory(cell) if self.request.tensorboard else None) as followed,
            self._compiled(cell, classifier, runtime),
        ):

            def on_step(step: int, steps: int) -> None:
                nonlocal done
                advance(1000 * step // steps - done)
                done = 1000 * step // steps

            try:
                record = train(
                    classifier,
                    self.dataset.train,
                    parse_defense(cell.defense),
                    recipe,
                    runtime,
                    num_classes=plan.classes,
                    seed=cell.seed,
                    on_step=on_step,
                    trained=lambda name: self._source(cell, name),
                    probe=self._probe(cell),
                    checkpoint=checkpoint,
                    curves=self._curves(cell, followed),
                    group=self.group,
                )
            except (TrainingFailure, AttackFailure) as failure:
                return classifier, self._untrained(cell, str(failure), facts)
            except RobustTinError:
                raise
            except FOREIGN as error:  # whatever a plugged-in defense or a backbone raises
                if self.group.size > 1:
                    raise  # the other processes wait for this one
                return classifier, self._untrained(cell, one_line(error), facts)
        if synchronised:
            plain = self._build(cell)
            plain.load_state_dict(classifier.state_dict())
            classifier = plain
        for note in record.notes:
            self.reporter.finished(f"{cell.label}: {note}")
        self.reporter.finished(f"{cell.label}: trained in {duration(record.seconds)}, loss {record.loss:.3f}")
        return classifier, _trained(record, classifier, facts)

    def _untrained(self, cell: Cell, why: str, facts: dict[str, Any]) -> Trained:
        trained = Trained(status=Status.of(StatusCode.failed, why=why), **facts)
        self.reporter.warn(f"{cell.label}: {trained.status}")
        return trained

    def _without_weights(self, cell: Cell, error: WeightsError) -> tuple[Classifier, Trained]:
        """A cell whose weights to start from cannot be had; the same command asks for them again."""
        plan = self.run.plan
        backbone = backbones.get(cell.model)
        trained = Trained(
            status=Status.of(StatusCode.not_measured, why=str(error)),
            lr=self._recipe(cell).lr,
            precision=plan.precision or "float32",
            network_size=backbone.check_size(self.dataset.image_size, plan.image_size),
        )
        self.reporter.warn(f"{cell.label}: {trained.status}")
        return self._build(cell), trained

    def _source(self, cell: Cell, name: str) -> nn.Module:
        """What a defense of this cell calls by that name, as it is attacked."""
        device = self.run.plan.device
        if not is_backbone(name):
            return find_trained(name).load(device).model
        source = Cell(select(name)[0], NONE, cell.seed)
        trained = self.run.trained(source)
        if trained is None or trained.status != OK:
            why = "is not trained" if trained is None else str(trained.status)
            raise TrainingFailure(f"its source {source.label} {why}")
        return CellLoader(self.run, self.dataset.image_size, device).load(source).model

    def _compiled(self, cell: Cell, classifier: Classifier, runtime: Runtime) -> AbstractContextManager[None]:
        if not self.run.plan.compile:
            return nullcontext()
        batch = self.run.plan.batch_size // self.group.size
        return compiled(classifier, runtime, batch, lambda line: self.reporter.say(f"{cell.label}: {line}"))

    def _recipe(self, cell: Cell) -> Recipe:
        plan = self.run.plan
        return plan.recipe(cell.model, default_lr(cell.model, plan.optimizer))

    def _checkpoint(self, cell: Cell) -> Checkpoint:
        return Checkpoint(self.run.checkpoint_file(cell), self.request.checkpoint_minutes)

    def _probe(self, cell: Cell) -> RobustnessMetrics | None:
        """What training looks at robustness with."""
        threat = self.run.plan.watched_threat(cell)
        return None if threat is None else RobustnessMetrics(threat, cell.seed)

    def _curves(self, cell: Cell, followed: TensorBoardWriter | None) -> Curves | None:
        if self.request.curves == "none":
            return None
        # The same images for every cell.
        seen = some(self.dataset.val, 0, len(self.dataset.train))
        probe = self._probe(cell) if self.request.curves == "robust" else None
        return Curves(
            self.run.curves_file(cell), ValidationMetrics(seen, self.run.plan.device, probe), followed
        )

    def _measure(self, cell: Cell, classifier: nn.Module, trained: Trained) -> None:
        plan = self.run.plan
        runtime = Runtime(plan.device, "float32")
        bare = runtime.place(classifier)
        model = parse_defense(cell.defense).wrap(bare)
        protocol = AttackProtocol(
            plan.norm,
            cell.seed,
            plan.search,
            plan.eot,
            plan.eight_bit,
            bare if plan.oblivious else None,
            VariantCache(self.run.search_variants(cell)),
        )
        val = self.dataset.val
        batches = ImageBatches(
            as_tensor(val.images),
            as_tensor(val.labels),
            evaluation_batch_size(plan.device),
            runtime.torch_device,
        )
        attacks = {parse_attack(text): text for text in plan.attacks if plan.attacked_eps}
        first = with_clean_gradients(attacks, protocol)
        clean, clean_logits = self._measure_clean(cell, first, model, batches, protocol, trained)
        for attack, text in attacks.items():
            # All budgets or none: they share gradients, and a record's passes must not depend on a stop.
            if attack != first and not self._is_attacked(cell, text):
                self._attack(cell, text, model, batches, protocol, trained, clean, clean_logits)
        # A variant that an attack found to be wrong may have misled those before.
        for text in _misled(self.run, cell, protocol.variants):
            self._attack(cell, text, model, batches, protocol, trained, clean, clean_logits)
        if plan.worst_case:
            for eps in plan.attacked_eps:
                self._save(cell, WORST_CASE, self._worst_case(cell, eps), trained, clean.above_chance)
        if cell.defense in plan.certified:
            self._certify(cell, bare, batches, trained, clean.above_chance)
        if plan.trust:
            self._judge(cell, model, batches, protocol)
        self.reporter.finished(f"{cell.label}: {_summary(self.run, cell)}")

    def _measure_clean(
        self,
        cell: Cell,
        first: Attack | None,
        model: nn.Module,
        batches: ImageBatches,
        protocol: AttackProtocol,
        trained: Trained,
    ) -> tuple[Record, Tensor | None]:
        """The clean record and, if they were worked out now, the logits behind it.

        The attack that shares its gradients is measured here, too. If a stop left the clean record alone, it
        is measured with another clean measure: its passes must not depend on a stop.
        """
        clean = self.run.record(cell, CLEAN, 0.0)
        if first is not None and not self._is_attacked(cell, first.spec):
            seconds = self.costs.clean(cell.model) + self.costs.attack(cell.model, first.spec)
            with self.reporter.stage(f"clean, {first} {cell.label}", len(batches), seconds) as advance:
                outcomes, logits, attacked = measure_from_clean(
                    model, batches, first, self.run.plan.attacked_eps, protocol, on_images=advance
                )
            if not _is_ok(clean):
                clean = self._save(cell, CLEAN, outcomes, trained, None)
            self._save_attack(cell, first.spec, attacked, protocol, trained, clean)
            return clean, logits
        if _is_ok(clean):
            return clean, None
        with self.reporter.stage(
            f"clean {cell.label}", len(batches), self.costs.clean(cell.model)
        ) as advance:
            outcomes, logits = measure_clean(model, batches, seed=cell.seed, on_images=advance)
        return self._save(cell, CLEAN, outcomes, trained, None), logits

    def _is_attacked(self, cell: Cell, text: str) -> bool:
        """Whether a cell is measured under an attack, at all budgets."""
        return all(_is_ok(self.run.record(cell, text, eps)) for eps in self.run.plan.attacked_eps)

    def _attack(
        self,
        cell: Cell,
        text: str,
        model: nn.Module,
        batches: ImageBatches,
        protocol: AttackProtocol,
        trained: Trained,
        clean: Record,
        clean_logits: Tensor | None,
    ) -> None:
        """Measure a cell under one attack, at all budgets."""
        seconds = self.costs.attack(cell.model, text)
        with self.reporter.stage(f"{text} {cell.label}", len(batches), seconds) as advance:
            results = measure_attack(
                model,
                batches,
                parse_attack(text),
                self.run.plan.attacked_eps,
                protocol,
                clean_logits=clean_logits,
                on_images=advance,
            )
        self._save_attack(cell, text, results, protocol, trained, clean)

    def _save_attack(
        self,
        cell: Cell,
        text: str,
        results: Iterable[Measurement],
        protocol: AttackProtocol,
        trained: Trained,
        clean: Record,
    ) -> None:
        self.run.save_search_variants(cell, protocol.variants.labels)
        for outcomes in results:
            record = self._save(cell, text, outcomes, trained, clean.above_chance)
            if record.status != OK:
                self.reporter.warn(f"{cell.label}, {text} at {eps_text(record.eps)}: {record.status}")

    def _certify(
        self, cell: Cell, bare: nn.Module, batches: ImageBatches, trained: Trained, above_chance: bool | None
    ) -> None:
        """The certified accuracy at each radius of the plan; all or none, since they share their passes."""
        radii = self.run.plan.attacked_eps
        vote = parse_defense(cell.defense).noise_vote(bare)
        if vote is None or all(_is_ok(self.run.record(cell, CERTIFIED, eps)) for eps in radii):
            return
        seconds = self.costs.certifying(cell.model, vote.n0 + vote.n)
        with self.reporter.stage(f"certify {cell.label}", len(batches), seconds) as advance:
            results = measure_certified(vote, batches, radii, seed=cell.seed, on_images=advance)
        for outcomes in results:
            record = self._save(cell, CERTIFIED, outcomes, trained, above_chance)
            if record.status != OK:
                self.reporter.warn(f"{cell.label}, certified at {eps_text(record.eps)}: {record.status}")

    def _judge(self, cell: Cell, model: nn.Module, batches: ImageBatches, protocol: AttackProtocol) -> None:
        """Put a verdict into every record; a run that stops meanwhile judges the whole cell again."""
        measures = []
        for attack, eps in self.run.measures(cell):
            record = self.run.record(cell, attack, eps)
            assert record is not None
            hits = self.run.outcomes(cell, attack, eps) if record.status == OK else None
            top1, top5 = (
                None if hits is None or name not in hits else hits[name].to_numpy()
                for name in ("top1", "top5")
            )
            measures.append(Measured(record, top1, top5))
        seconds = self.costs.checking(cell.model)
        with self.reporter.stage(f"trust checks {cell.label}", 1, seconds) as advance:
            judgement = judge(model, batches, measures, protocol)
            advance(1)
        for measured, record in zip(measures, judgement.records, strict=True):
            if record != measured.record:
                self.run.save_record(cell, record)
        if judgement.passes:
            self.reporter.finished(
                f"{cell.label}: trust checks, {judgement.passes:,} passes in {duration(judgement.seconds)}"
            )
        for reasons in dict.fromkeys(record.trust for record in judgement.records if record.trust):
            verdict = Verdict.of(reasons)
            tell = self.reporter.warn if verdict.state is Trust.doubted else self.reporter.say
            tell(f"{cell.label}: {verdict}")

    def _worst_case(self, cell: Cell, eps: float) -> Measurement:
        """What survives every attack of the plan at one budget."""
        measures = []
        for attack in self.run.plan.attacks:
            record = self.run.record(cell, attack, eps)
            assert record is not None
            hits = self.run.outcomes(cell, attack, eps) if record.status == OK else None
            measures.append((record, hits))
        return worst_case(measures, eps)

    def _record_failed_cell(self, cell: Cell, trained: Trained) -> None:
        for attack, eps in self.run.measures(cell):
            failed = Measurement(eps, None, None, trained.status, 0.0, 0, 0)
            self._save(cell, attack, failed, trained, None)

    def _save(
        self, cell: Cell, attack: str, outcomes: Measurement, trained: Trained, above_chance: bool | None
    ) -> Record:
        plan = self.run.plan
        record = make_record(
            outcomes,
            model=cell.model,
            defense=cell.defense,
            seed=cell.seed,
            attack=attack,
            norm=plan.norm,
            eot=plan.eot,
            oblivious=plan.oblivious,
            eight_bit=plan.eight_bit,
            above_chance=above_chance,
            n=plan.eval_images,
            classes=plan.classes,
            data=plan.data,
            data_fingerprint=plan.data_fingerprint,
            measured_on=self.dataset.val.fingerprint,
            image_size=self.dataset.image_size,
            network_size=trained.network_size,
            epochs=plan.epochs_of(cell.model),
            train_seconds=trained.seconds,
            train_precision=trained.precision,
            device=plan.device,
        )
        if plan.trust and record.status != OK:
            record = with_cause(record)
        return self.run.save_measure(cell, record, outcomes)


def _trained(record: TrainingRecord, classifier: Classifier, facts: dict[str, Any]) -> Trained:
    return Trained(
        images=record.images,
        steps=record.steps,
        seconds=record.seconds,
        loss=record.loss,
        notes=(*classifier.notes, *record.notes),
        **facts,
    )


def _is_ok(record: Record | None) -> TypeGuard[Record]:
    return record is not None and record.status == OK


def _is_done(run: Run, cell: Cell) -> bool:
    records = [run.record(cell, attack, eps) for attack, eps in run.measures(cell)]
    return not _misled(run, cell, VariantCache(run.search_variants(cell))) and all(
        record is not None
        and record.status == OK
        and not (run.plan.trust and gets_verdict(record) and record.trust is None)
        for record in records
    )


def _misled(run: Run, cell: Cell, variants: VariantCache) -> list[str]:
    """The attacks that were searched with a variant though one was found to be wrong since."""
    return [
        text
        for text in run.plan.attacks
        if any(
            record is not None and variants.misled(record.search)
            for record in (run.record(cell, text, eps) for eps in run.plan.attacked_eps)
        )
    ]


def _announce(
    plan: Plan, dataset: Dataset, costs: Estimate, done: Iterable[str], path: Path, reporter: Reporter
) -> None:
    cells = len(list(plan.cells()))
    done = frozenset(done)
    reporter.say(
        f"Data: {plan.data} ({dataset.source}), {plan.classes} classes, {plan.train_images:,} training and"
        f" {plan.eval_images:,} evaluated images of {dataset.image_size} px"
    )
    finished = f", {len(done)} done" if done else ""
    reporter.say(
        f"Plan: {counted(cells, 'cell')}{finished}, {counted(plan.measures, 'measure')}, {_epochs(plan)} of"
        f" batches of {plan.batch_size} on {plan.device}; about {duration(costs.total(done))}."
        f" Run directory: {path}"
    )


def _epochs(plan: Plan) -> str:
    """``8 epochs``, or ``2 to 8 epochs`` where backbones differ."""
    low, high = min(plan.epochs), max(plan.epochs)
    return counted(low, "epoch") if low == high else f"{low} to {high} epochs"


def _summary(run: Run, cell: Cell) -> str:
    parts = []
    for attack, eps in run.measures(cell):
        record = run.record(cell, attack, eps)
        if record is not None and record.top1 is not None:
            name = CLEAN if attack == CLEAN else f"{attack}@{eps_text(eps)}"
            parts.append(f"{name} {100 * record.top1:.1f}")
    return "top-1 " + ", ".join(parts) if parts else "nothing measured"
