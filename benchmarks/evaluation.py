"""The result of ``evaluate``: records, their table, and the results per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.measurement.results import LadderStep, Measurement
from robustbench_tin.benchmarks.planning.given_models import GivenModel
from robustbench_tin.benchmarks.planning.plan import NONE, Plan
from robustbench_tin.benchmarks.reporting.html import tables_html
from robustbench_tin.benchmarks.reporting.results_table import tables
from robustbench_tin.benchmarks.reporting.table import Table
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.image_labels import write_labels
from robustbench_tin.benchmarks.runs.records import CLEAN, to_frame
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.benchmarks.trust.measured import Measured

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """The measurements of one model. A notebook shows their table, and so does ``print``.

    Columns, rows and methods of :attr:`records` also work on this object: ``found["top1"]``.

    Attributes:
        measures: the measurements with their results per image, the clean one first.
        labels: true labels of the images, int64 ``(N,)``.
        search: the model variant that attacks were asked to search with.
        weights: digest of the model's tensors; empty if they cannot be read.
        notes: remarks on the data set, shown below the table.
    """

    measures: Sequence[Measured]
    labels: npt.NDArray[np.int64]
    search: str
    weights: str
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row per measurement; its columns are the fields of a run's records."""
        return to_frame(measure.record for measure in self.measures)

    @property
    def images(self) -> pd.DataFrame:
        """One row per image and measurement: ``attack``, ``eps``, ``image``, ``label``, ``top1``, ``top5``.

        ``top1`` tells if the true label has the largest logit, ``top5`` if it is among the five largest; None
        if this was not measured.
        """
        import pandas as pd

        parts = [self._images_of(measure) for measure in self.measures]
        return pd.concat(parts, ignore_index=True)

    def table(self, *, intervals: bool = False) -> Table:
        """The table that a run with these records has.

        Args:
            intervals: show the 95 % interval of each figure.
        """
        return self.tables(intervals=intervals)[0]

    def tables(self, *, intervals: bool = False) -> list[Table]:
        """The table of accuracies; with a ladder of eps, also the table of the median minimum eps.

        Args:
            intervals: show the 95 % interval of each figure.
        """
        first, *others = tables(self.records, intervals=intervals)
        return [replace(first, notes=(*first.notes, *self.notes)), *others]

    def save(self, directory: str | Path) -> Path:
        """Write a run directory, which ``robust-tin show`` reads: records, results per image and tables.

        Args:
            directory: missing, empty, or an earlier copy of the same measurements, which is replaced.

        Raises:
            RunError: if the directory contains something else, or cannot be written.
            RunError: if the directory holds something else, or cannot be written.
        """
        path = Path(directory).expanduser()
        plan = self._plan
        (cell,) = plan.cells()
        with Run.begun(path, plan) as run:
            write_labels(
                path, plan, self.labels.tolist(), {str(each): str(each) for each in range(plan.classes)}
            )
            run.save_trained(cell, Trained(seconds=None))
            for measure in self.measures:
                run.save_measure(cell, measure.record, _as_measurement(measure))
            run.write_results()
        return path

    @property
    def _plan(self) -> Plan:
        """The plan of a run with these measurements; the model is known by its name only."""
        clean = self.measures[0].record
        attacked = [measure.record for measure in self.measures if measure.record.attack != CLEAN]
        return Plan(
            **{
                name: getattr(clean, name)
                for name in ("data", "data_fingerprint", "norm", "eot", "eight_bit")
            },
            classes=clean.classes,
            train_images=0,
            eval_images=clean.n,
            models=(clean.model,),
            defenses=(NONE,),
            seeds=(clean.seed,),
            attacks=tuple(dict.fromkeys(record.attack for record in attacked)),
            eps=tuple(sorted({measure.record.eps for measure in self.measures})),
            search=self.search,
            curve=any(record.curve for record in attacked),
            trust=any(record.trust is not None for record in attacked),
            epochs=(0,),
            batch_size=0,
            weights=None,
            device=clean.device,
            plugins=(),
            given=(
                GivenModel(
                    name=clean.model,
                    spec=clean.model,
                    weights=self.weights,
                    outputs=clean.classes,
                    image_size=clean.image_size,
                ),
            ),
        )

    def __repr__(self) -> str:
        """The table in the form of a terminal."""
        from robustbench_tin.benchmarks.reporting.terminal import tables_text

        return tables_text(self.tables())

    def _repr_html_(self) -> str:
        return tables_html(self.tables())

    # Earlier versions returned the records themselves: the records still answer for this object.

    def __getitem__(self, key: Any) -> Any:
        return self.records[key]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "records" or not hasattr(self.records, name):
            raise AttributeError(f"an Evaluation has no attribute '{name}'")
        return getattr(self.records, name)

    def _images_of(self, measure: Measured) -> pd.DataFrame:
        import pandas as pd

        count = len(self.labels)
        hits = {"top1": measure.top1, "top5": measure.top5}
        return pd.DataFrame(
            {
                "attack": measure.record.attack,
                "eps": measure.record.eps,
                "image": np.arange(count),
                "label": self.labels,
                **{
                    name: pd.array([None] * count if hit is None else hit.tolist(), dtype="boolean")
                    for name, hit in hits.items()
                },
            }
        )


def _as_measurement(measure: Measured) -> Measurement:
    record = measure.record
    return Measurement(
        record.eps,
        measure.top1,
        measure.top5,
        record.status,
        record.seconds,
        record.forward_passes,
        record.backward_passes,
        ladder=_ladder(measure),
    )


def _ladder(measure: Measured) -> LadderStep | None:
    if measure.sampled is None or measure.alone is None:
        return None
    return LadderStep(measure.record.carried or 0, measure.sampled, measure.alone, None)
