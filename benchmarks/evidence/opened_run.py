"""A finished run with its data and its models, opened to examine its images again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.protocol import evaluation_batch_size
from robustbench_tin.benchmarks.planning.cell_names import select_cells
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.benchmarks.runs.remembered import data_options
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.benchmarks.runs.same_inputs import load_plugins, require_same_data
from robustbench_tin.data import Dataset
from robustbench_tin.devices import images_device
from robustbench_tin.errors import InvalidSettingError, RunError
from robustbench_tin.progress import Reporter
from robustbench_tin.runtime import as_tensor, choose_device, tune_allocator
from robustbench_tin.specs import eps_text
from robustbench_tin.threat import Budgets, parse_eps_list


@dataclass(frozen=True)
class OpenedRun:
    """A run, its data and its models.

    Attributes:
        run: the run directory.
        dataset: the data set of the run.
        loader: loads its models.
        batches: its evaluated images in the batches of its measurements, on the device.
        reporter: shows progress.
    """

    run: RunDirectory
    dataset: Dataset
    loader: CellLoader
    batches: ImageBatches
    reporter: Reporter

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        plugins: Sequence[str | Path] = (),
        reporter: Reporter | None = None,
        **data: Any,
    ) -> Self:
        """Open a run to examine its images.

        Args:
            path: the run directory.
            device: the device to compute on; None: the run's.
            plugins: the plug-in files that the run was made with.
            reporter: shows progress; None: silent.
            **data: the data set and its part, if the data has moved since the bench: the fields of
                :class:`robustbench_tin.benchmarks.planning.config.DataConfig`.

        Raises:
            RunError: if there is no run, or plug-ins are missing.
            DataError: if the data is not the run's.
            InvalidSettingError: if the device is not usable here.
        """
        reporter = reporter or Reporter()
        run = RunDirectory.load(path)
        load_plugins(run.plan, plugins)
        chosen = choose_device(device or run.plan.device)
        dataset = open_part(reporter, **data_options(run.path, data))
        require_same_data(run.plan, dataset)
        tune_allocator()
        val = dataset.val
        # An attack's randomness depends on the batches, which follow the device that measured.
        size = evaluation_batch_size(run.plan.device)
        batches = ImageBatches(as_tensor(val.images), as_tensor(val.labels), size, images_device(chosen))
        return cls(run, dataset, CellLoader(run, dataset.image_size, chosen), batches, reporter)

    @property
    def plan(self) -> Plan:
        """The run's plan."""
        return self.run.plan

    def cells(self, pattern: str | None) -> list[Cell]:
        """The measured cells that match a pattern; None: all.

        Raises:
            RunError: if no measured cell matches.
        """
        named = select_cells(self.plan.cells(), pattern or "*", str(self.run.path))
        found = [cell for cell in named if self._is_measured(cell)]
        if not found:
            raise RunError(
                f"run '{self.run.path}' has no measured cell '{pattern or '*'}'; run its bench command again"
            )
        for cell in named:
            if cell not in found:
                self.reporter.warn(f"{cell.label} is not measured and is left out.")
        return found

    def eps(self, eps: Budgets | None) -> tuple[float, ...]:
        """The requested budgets of the plan, without duplicates; None: its largest.

        Raises:
            InvalidSettingError: if the plan has no such budget.
        """
        known = self.plan.attacked_eps
        if not known:
            raise InvalidSettingError(
                f"run '{self.run.path}' has no eps above 0; expected one, such as bench --eps 0,0.03"
            )
        if eps is None:
            return (max(known),)
        asked = tuple(dict.fromkeys(parse_eps_list(eps, self.plan.norm)))
        for value in asked:
            if value not in known:
                raise InvalidSettingError(
                    f"eps got {eps_text(value)}, but run '{self.run.path}' does not measure it; expected"
                    f" {' or '.join(map(eps_text, known))}"
                )
        return asked

    def _is_measured(self, cell: Cell) -> bool:
        clean = self.run.record(cell, CLEAN, 0.0)
        return clean is not None and clean.status == OK
