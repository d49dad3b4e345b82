"""The transfer measurement: images are made on each cell of a run, and all other cells are measured on them.

Papernot, McDaniel and Goodfellow, 2016, "Transferability in Machine Learning", arXiv 1605.07277. Transferred
images show the success of an attacker without access to the model. If they succeed more often than an attack
with gradients, that attack's figure is unreliable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.cells.pass_times import time_gradients
from robustbench_tin.benchmarks.cells.time_estimate import Estimate, estimate
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.protocol import evaluation_batch_size
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.measurement.transfer import measure_transfer
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.planning.parsed_request import requested_attack
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.benchmarks.runs.records import CLEAN, make_record
from robustbench_tin.benchmarks.runs.remembered import data_options
from robustbench_tin.benchmarks.runs.repair import repair_transfers
from robustbench_tin.benchmarks.runs.same_inputs import load_plugins, require_same_data
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.benchmarks.runs.transfer_records import TransferRecord
from robustbench_tin.benchmarks.trust.transfer_check import doubt_beaten
from robustbench_tin.data import Dataset
from robustbench_tin.devices import images_device
from robustbench_tin.errors import InvalidSettingError, RunError
from robustbench_tin.progress import Reporter, duration
from robustbench_tin.runtime import as_tensor, choose_device, tune_allocator
from robustbench_tin.text import counted
from robustbench_tin.threat import parse_eps_list

# The attack is made for transfer: with momentum it overfits less to the source (Dong et al., 2018,
# arXiv 1710.06081).
DEFAULT_ATTACK = "mi-fgsm"
# The fields that a target's record takes from its clean record.
_FACTS = {
    *("model", "defense", "seed", "norm", "above_chance", "n", "classes", "data", "data_fingerprint"),
    *("image_size", "network_size", "epochs", "train_seconds", "train_precision"),
}


def transfer(
    run: str | Path,
    *,
    attack: str | Attack = DEFAULT_ATTACK,
    eps: str | float | Sequence[float] | None = None,
    device: str | None = None,
    plugins: Sequence[str | Path] = (),
    reporter: Reporter | None = None,
    **data: Any,
) -> Run:
    """Make adversarial images on each finished cell of a run, and measure every other cell on them.

    Every image gets the fixed budget, in the plan's norm, with the source's seed; the plan's ``eot``,
    ``eight_bit`` and ``oblivious`` apply to the source. Existing measurements are not repeated.

    Args:
        run: a run directory.
        attack: an attack with a fixed budget, or its spec.
        eps: budgets; None: the plan's. Only positive ones count: eps 0 is the clean measurement.
        device: the device to compute on; None: the run's.
        plugins: the plug-in files that the run was made with.
        reporter: shows progress; None: silent.
        **data: the data set and the part of it, if the data has moved since the bench: the fields of
            :class:`robustbench_tin.benchmarks.planning.config.DataConfig`.

    Returns:
        The run; ``.transfers.records`` is a DataFrame with one row per measurement, ``.transfers.tables``
        renders it, and ``.tables`` now show the worst source.

    Raises:
        RunError: if fewer than two cells are finished, or plug-ins are missing.
        DataError: if the data is not the run's.
        InvalidSettingError: if the attack, an eps or the device is not usable.
    """
    reporter = reporter or Reporter()
    opened = Run.load(run)
    plan = opened.plan
    load_plugins(plan, plugins)
    chosen = requested_attack(attack)
    chosen.check(plan.norm)
    if chosen.criterion is not None:
        raise InvalidSettingError(
            f"attack '{chosen.spec}' stops on success; expected an attack with a fixed budget, such as"
            " mi-fgsm, pgd or apgd-ce:criterion=none"
        )
    budgets = sorted(
        {value for value in parse_eps_list(plan.eps if eps is None else eps, plan.norm) if value > 0}
    )
    if not budgets:
        raise InvalidSettingError(
            "eps got no value above 0; expected a budget to attack with, such as --eps 0.03"
        )
    cells = _finished(opened, reporter)
    device = choose_device(device or plan.device)
    dataset = open_part(reporter, **data_options(opened.path, data))
    require_same_data(plan, dataset)
    tune_allocator()
    with opened.locked():
        repair_transfers(opened, reporter)
        _TransferMeasurement(opened, dataset, cells, chosen, budgets, device, reporter).run_all()
        for line in doubt_beaten(opened):
            reporter.warn(line)
        opened.write_transfer_tables()
        opened.write_results()
    return opened


def _finished(run: Run, reporter: Reporter) -> list[Cell]:
    """The cells with a training and a clean measurement, failed ones included."""
    cells = list(run.plan.cells())
    finished = [cell for cell in cells if run.trained(cell) and run.record(cell, CLEAN, 0.0)]
    sound = [cell for cell in finished if _is_ok(run.trained(cell))]
    if len(sound) < 2:
        raise RunError(
            f"run '{run.path}' has {len(sound)} of {len(cells)} cells trained and measured; transfer needs"
            " two or more: continue its bench, or give bench more models, defenses or seeds"
        )
    if len(finished) < len(cells):
        left_out = [cell.label for cell in cells if cell not in finished]
        reporter.warn(f"Left out, because they are not finished yet: {'; '.join(left_out)}")
    return finished


def _is_ok(trained: Trained | None) -> bool:
    return trained is not None and trained.status == OK


@dataclass(frozen=True)
class _TransferMeasurement:
    """Completes one source after the other."""

    run: Run
    dataset: Dataset
    cells: Sequence[Cell]
    attack: Attack
    eps: Sequence[float]
    device: str
    reporter: Reporter

    def run_all(self) -> None:
        """Measure every missing target on the images of each source."""
        todo = {source: targets for source in self.cells if (targets := self._targets(source))}
        if not todo:
            self.reporter.say(
                f"Run {self.run.path}: the transfer of {self.attack.spec} is complete already, nothing to do."
            )
            return
        loader = CellLoader(self.run, self.dataset.image_size, self.device)
        costs = self._costs(loader)
        seconds = {source: self._seconds(costs, source, targets) for source, targets in todo.items()}
        self.reporter.say(
            f"Transfer of {self.attack.spec} from {counted(len(todo), 'cell')}, to"
            f" {counted(len(self.cells) - 1, 'other')} each; about {duration(sum(seconds.values()))}."
        )
        batches = self._batches()
        with self.reporter.overall(sum(seconds.values())):
            for source, targets in todo.items():
                self._run_source(loader, batches, source, targets, seconds[source])

    def _batches(self) -> ImageBatches:
        val = self.dataset.val
        size = evaluation_batch_size(self.device)
        return ImageBatches(as_tensor(val.images), as_tensor(val.labels), size, images_device(self.device))

    def _run_source(
        self,
        loader: CellLoader,
        batches: ImageBatches,
        source: Cell,
        targets: Sequence[Cell],
        seconds: float,
    ) -> None:
        """Make images on one source and measure its targets on them."""
        what = f"{self.attack.spec} on {source.label}"
        with self.reporter.stage(what, len(batches), seconds) as advance:
            measured = measure_transfer(
                loader, self.run.plan, batches, self.attack, self.eps, source, targets, on_images=advance
            )
        for target, of_target in measured.items():
            for outcomes in of_target:
                self._save(source, target, outcomes)
            if of_target[0].status != OK:
                self.reporter.warn(f"{what}, for {target.label}: {of_target[0].status}")
        self.reporter.finished(f"{what}: measured on {counted(len(targets), 'other cell')}")

    def _targets(self, source: Cell) -> list[Cell]:
        """The other cells that lack a budget; all budgets are then measured, because they share gradients."""
        return [
            target
            for target in self.cells
            if target != source and not all(self._is_done(source, target, eps) for eps in self.eps)
        ]

    def _is_done(self, source: Cell, target: Cell, eps: float) -> bool:
        record = self.run.transfers.record(self.attack.spec, source, target, eps)
        if record is None:
            return False
        # A cell without weights would fail again.
        return record.status == OK or not all(_is_ok(self.run.trained(cell)) for cell in (source, target))

    def _costs(self, loader: CellLoader) -> Estimate:
        plan = self.run.plan.model_copy(update={"eps": tuple(self.eps), "device": self.device})
        size = self.dataset.image_size
        if not plan.given:
            return estimate(plan, size)
        # If a model is missing or has changed, this is an error, not a failed measurement.
        models = {cell.model: loader.load(cell).model for cell in self.cells}
        return Estimate(
            {name: time_gradients(each, size, self.device) for name, each in models.items()}, plan
        )

    def _seconds(self, costs: Estimate, source: Cell, targets: Sequence[Cell]) -> float:
        measuring = sum(costs.clean(target.model) for target in targets)
        return costs.attack(source.model, self.attack) + len(self.eps) * measuring

    def _save(self, source: Cell, target: Cell, outcomes: Measurement) -> None:
        plan = self.run.plan
        clean = self.run.record(target, CLEAN, 0.0)
        assert clean is not None
        record = make_record(
            outcomes,
            **clean.model_dump(include=_FACTS),
            attack=self.attack.spec,
            eot=plan.eot,
            oblivious=plan.oblivious,
            eight_bit=plan.eight_bit,
            device=self.device,
        )
        known = TransferRecord(
            **record.model_dump(),
            source_model=source.model,
            source_defense=source.defense,
            source_seed=source.seed,
        )
        self.run.transfers.save(known, outcomes)
