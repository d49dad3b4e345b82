"""The smallest eps of a ladder at which each image is adversarial, from the results per image of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.benchmarks.runs.same_measurement import counted_rank
from robustbench_tin.errors import RunError

if TYPE_CHECKING:
    import numpy.typing as npt

    from robustbench_tin.benchmarks.planning.plan import Cell
    from robustbench_tin.benchmarks.runs.run_directory import RunDirectory


def minimum_eps(run: RunDirectory, cell: Cell, attack: str) -> npt.NDArray[np.float64]:
    """The smallest successful eps of each image, in the data set's order.

    Args:
        run: a run with ``--curve``.
        cell: a cell of the run.
        attack: canonical spec.

    Returns:
        float64 ``(N,)`` in units of the pixel range: 0 for an image misclassified when clean, infinite for
        an image that survives the largest eps.

    Raises:
        RunError: if the attack was not measured on a ladder, or a rung failed.
    """
    records = [run.record(cell, attack, eps) for eps in run.plan.attacked_eps]
    rungs = [record for record in records if record is not None and record.curve]
    if not rungs or len(rungs) < len(records):
        raise RunError(
            f"run '{run.path}' has no ladder of eps for {cell.label} under {attack}; measure it with --curve"
        )
    rank = counted_rank(rungs[0])
    right = run.outcomes(cell, CLEAN, 0.0)[rank].to_numpy(dtype=bool)
    smallest = np.where(right, math.inf, 0.0)
    for record in reversed(rungs):
        left = run.outcomes(cell, attack, record.eps)[rank].to_numpy(dtype=bool)
        smallest[right & ~left] = record.eps
    return smallest
