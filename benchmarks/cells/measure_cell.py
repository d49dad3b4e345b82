"""Measure one trained cell of a run: clean, attacked, worst case, certified, trust-checked."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_progress import is_ok, misled_attacks, summary
from robustbench_tin.benchmarks.cells.cell_records import CellRecords
from robustbench_tin.benchmarks.cells.divided_cell import DividedCell
from robustbench_tin.benchmarks.cells.judge_cell import judge_cell
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.black_box_stand_in import (
    lacks_gradients,
    not_measured,
    stood_in,
)
from robustbench_tin.benchmarks.measurement.certified import measure_certified
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.first_successes import confirmed
from robustbench_tin.benchmarks.measurement.fixed_budget import measure_from_clean, with_clean_gradients
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol, evaluation_batch_size
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.measurement.shards import Shard
from robustbench_tin.benchmarks.measurement.worst_case import worst_case
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN, WORST_CASE, Record
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.defenses.base import NoiseVote
from robustbench_tin.errors import FOREIGN, one_line
from robustbench_tin.progress import Advance
from robustbench_tin.runtime import Runtime, as_tensor
from robustbench_tin.specs import eps_text


def measure_cell(
    context: CellContext,
    cell: Cell,
    classifier: nn.Module,
    trained: Trained,
    shortest_shard: float | None = None,
) -> list[Shard]:
    """Take the measurements of a trained cell that its run lacks.

    Args:
        context: the run and its data.
        cell: the cell.
        classifier: the trained classifier, without its defense.
        trained: the facts of its training.
        shortest_shard: least number of seconds of a shard; None: nothing is divided.

    Returns:
        Shards for others to measure before the cell is completed; empty if it is complete.
    """
    # A given model is on the device already, in the memory layout that it supports.
    bare = classifier if context.plan.given else Runtime(context.plan.device, "float32").place(classifier)
    records = CellRecords(context, cell, trained)
    shards = _CellMeasurement(context, cell, bare, evaluated_batches(context), records).run(shortest_shard)
    if not shards:
        context.reporter.finished(f"{cell.label}: {summary(context.run, cell)}")
    return shards


def evaluated_batches(context: CellContext) -> ImageBatches:
    """The images that a run measures its cells on, in batches."""
    val, device = context.dataset.val, context.plan.device
    return ImageBatches(
        as_tensor(val.images),
        as_tensor(val.labels),
        evaluation_batch_size(device),
        Runtime(device, "float32").torch_device,
    )


@dataclass(frozen=True)
class _CellMeasurement:
    """The measurements of one cell.

    Attributes:
        context: the run and its data.
        cell: the cell.
        bare: the cell's classifier without its defense, on the device.
        batches: the images.
        records: writes the measurements.
    """

    context: CellContext
    cell: Cell
    bare: nn.Module
    batches: ImageBatches
    records: CellRecords

    def run(self, shortest_shard: float | None) -> list[Shard]:
        """Take every measurement that the run lacks; returns shards for others to measure first."""
        plan = self.plan
        attacks = [plan.attack(spec) for spec in plan.attacks_of(self.cell) if plan.attacked_eps]
        first = with_clean_gradients(attacks, self.protocol)
        clean, clean_logits = self._clean(first)
        # All budgets or none: they share gradients, and a record's passes must not depend on a stop.
        left = [attack for attack in attacks if attack != first and not self._is_attacked(attack)]
        divided = DividedCell(self.context, self.cell)
        if shortest_shard is not None and clean.status == OK:
            shards = divided.shards(left, shortest_shard)
            if shards:
                divided.prepare(self.model, self.batches, self.protocol, clean_logits)
                return shards
        for attack in left:
            self._attack(attack, clean, clean_logits, divided.measured(attack))
        # A variant that an attack found to be wrong may have misled earlier attacks: they are repeated.
        for spec in misled_attacks(self._run, self.cell, self.protocol.variants):
            self._attack(plan.attack(spec), clean, clean_logits)
        if plan.worst_case:
            for eps in plan.attacked_eps:
                self.records.save(WORST_CASE, self._worst_case(eps), clean.above_chance)
        if self.cell.defense in plan.certified:
            self._certify(clean.above_chance)
        if plan.trust:
            judge_cell(self.context, self.cell, self.model, self.batches, self.protocol)
        divided.files.remove()
        return []

    @property
    def plan(self) -> Plan:
        """The run's plan."""
        return self.context.plan

    @property
    def _run(self) -> RunDirectory:
        return self.context.run

    @cached_property
    def model(self) -> nn.Module:
        """The classifier with its defense."""
        return self.plan.defense(self.cell.defense).wrap(self.bare)

    @cached_property
    def protocol(self) -> AttackProtocol:
        """The plan's attack protocol, with the variants that an interrupted run had chosen."""
        chosen = self._run.search_variants(self.cell)
        return AttackProtocol.of_cell(self.plan, self.cell, self.bare, chosen)

    def _clean(self, first: Attack | None) -> tuple[Record, Tensor | None]:
        """The clean record, and its logits if they were computed in this call.

        The attack that shares its gradients is measured here, too. If an interrupted run left only the clean
        record, both are measured again: the attack's passes must not depend on an interruption.
        """
        clean = self._run.record(self.cell, CLEAN, 0.0)
        if first is not None and not self._is_attacked(first):
            return self._clean_with(first, clean)
        if is_ok(clean):
            return clean, None
        seconds = self.context.costs.clean(self.cell.model)
        with self._stage("clean", seconds) as advance:
            found, logits = measure_clean(self.model, self.batches, seed=self.cell.seed, on_images=advance)
        return self.records.save(CLEAN, found, None), logits

    def _clean_with(self, first: Attack, clean: Record | None) -> tuple[Record, Tensor | None]:
        costs, model = self.context.costs, self.cell.model
        with self._stage(f"clean, {first}", costs.clean(model) + costs.attack(model, first)) as advance:
            found, logits, attacked = measure_from_clean(
                self.model, self.batches, first, self.plan.attacked_eps, self.protocol, on_images=advance
            )
        if not is_ok(clean):
            clean = self.records.save(CLEAN, found, None)
        self._save_attack(first, attacked, clean)
        return clean, logits

    def _is_attacked(self, attack: Attack) -> bool:
        """Whether the attack is finished on this cell: measured at all budgets, or impossible."""
        records = (self._run.record(self.cell, attack.spec, eps) for eps in self.plan.attacked_eps)
        return all(record is not None and self._run.is_settled(record) for record in records)

    def _attack(
        self,
        attack: Attack,
        clean: Record,
        clean_logits: Tensor | None,
        known: list[Measurement] | None = None,
    ) -> None:
        """Measure the cell under one attack at all budgets, unless its shards did."""
        if known is not None:
            self._save_attack(attack, known, clean)
            return
        with self._stage(attack.spec, self.context.costs.attack(self.cell.model, attack)) as advance:
            found = measure_attack(
                self.model,
                self.batches,
                attack,
                self.plan.attacked_eps,
                self.protocol,
                clean_logits=clean_logits,
                on_images=advance,
            )
        self._save_attack(attack, found, clean)

    def _save_attack(self, attack: Attack, found: Iterable[Measurement], clean: Record) -> None:
        self._run.save_search_variants(self.cell, self.protocol.variants.labels)
        kept = [self._confirmed(attack, each) for each in found]
        self._save_all(attack.spec, self._without_gradients(attack, kept), clean.above_chance)

    def _confirmed(self, attack: Attack, found: Measurement) -> Measurement:
        """A measurement with the adversarial images that the run keeps of it."""
        if found.adversarial is None:
            return found
        where = f"{self.cell.label}, {attack.spec} at {eps_text(found.eps)}"
        try:
            with self.protocol.attacked(self.model) as attacked:
                kept = confirmed(
                    found.adversarial,
                    attacked,
                    self.batches,
                    count=self.plan.keep_adversarial,
                    k=attack.goal.k,
                    seed=self.cell.seed,
                    predicted=found.predicted,
                )
        except FOREIGN as error:  # a model may not accept a single image
            why = one_line(error)
            self.context.reporter.warn(f"{where}: no adversarial image is kept, because {why}")
            return replace(found, adversarial=None)
        return replace(found, adversarial=kept)

    def _without_gradients(self, attack: Attack, found: list[Measurement]) -> list[Measurement]:
        """The measurements; if the model has no gradients, their status says so."""
        plan, why = self.plan, self._lacks_gradients
        if why is None:
            return found
        stand_in = plan.attack(plan.stand_in) if plan.stand_in else None
        if attack != stand_in:
            return not_measured(attack, found, why, stand_in)
        others = map(plan.attack, plan.attacks)
        return stood_in(found, attack, [other for other in others if other.needs_gradients])

    @cached_property
    def _lacks_gradients(self) -> str | None:
        """The reason why the model has no gradients, if the plan says that it has none; None: it has."""
        if not self.plan.lacks_gradients(self.cell.model):
            return None
        return lacks_gradients(self.model, self.batches)

    def _certify(self, above_chance: bool | None) -> None:
        """The certified accuracy at each radius of the plan; all or none, because they share their passes."""
        radii = self.plan.attacked_eps
        vote = self.plan.defense(self.cell.defense).noise_vote(self.bare)
        if vote is None or all(is_ok(self._run.record(self.cell, CERTIFIED, eps)) for eps in radii):
            return
        self._save_all(CERTIFIED, self._certified(vote), above_chance)

    def _certified(self, vote: NoiseVote) -> list[Measurement]:
        seconds = self.context.costs.certifying(self.cell.model, vote.n0 + vote.n)
        with self._stage("certify", seconds) as advance:
            return measure_certified(
                vote, self.batches, self.plan.attacked_eps, seed=self.cell.seed, on_images=advance
            )

    def _worst_case(self, eps: float) -> Measurement:
        """The worst case at one budget: images classified correctly under every attack of the plan."""
        run, cell = self._run, self.cell
        measures = []
        for spec in self.plan.attacks_of(cell):
            record = run.record(cell, spec, eps)
            assert record is not None
            if record.status != OK and run.is_settled(record):
                continue  # the attack needs gradients, which the model lacks
            measures.append((record, run.outcomes(cell, spec, eps) if record.status == OK else None))
        return worst_case(measures, eps)

    def _save_all(self, attack: str, found: Iterable[Measurement], above_chance: bool | None) -> None:
        """Save one measurement per budget, and warn about those that failed."""
        for each in found:
            record = self.records.save(attack, each, above_chance)
            if record.status != OK:
                where = f"{self.cell.label}, {attack} at {eps_text(record.eps)}"
                self.context.reporter.warn(f"{where}: {record.status}")

    def _stage(self, what: str, seconds: float) -> AbstractContextManager[Advance]:
        return self.context.stage(self.cell, what, len(self.batches), seconds)
