"""The worst case: only images that are right under every attack count as right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.measurement.results import LadderStep, Measurement

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.runs.records import Record


def worst_case(measures: Sequence[tuple[Record, pd.DataFrame | None]], eps: float) -> Measurement:
    """Join several attacks at the same budget: an image counts as right if it is right under every attack.

    An attack that stops on success measures only its own criterion. The accuracy for the other criterion
    comes from the remaining attacks, and a remark says so.

    Args:
        measures: the record and the results per image of each attack; None instead of the results if the
            attack failed, and then the worst case fails too.
        eps: the budget of all attacks in units of the pixel range.
    """
    failed = [f"{record.attack} {record.status}" for record, hits in measures if hits is None]
    columns: dict[str, npt.NDArray[np.bool_] | None] = {}
    remarks = []
    for name, shown in (("top1", "top-1"), ("top5", "top-5")):
        hits = {
            record.attack: frame[name] for record, frame in measures if frame is not None and name in frame
        }
        columns[name] = np.logical_and.reduce(list(hits.values())) if hits and not failed else None
        missing = [record.attack for record, _ in measures if record.attack not in hits]
        if columns[name] is not None and missing:
            remarks.append(
                f"worst case: {shown} includes only {', '.join(hits)}, without {', '.join(missing)}"
            )
    return Measurement(
        eps=eps,
        top1=columns["top1"],
        top5=columns["top5"],
        status=Status.of(StatusCode.failed, why="; ".join(failed)) if failed else OK,
        seconds=sum(record.seconds for record, _ in measures),
        forward_passes=sum(record.forward_passes for record, _ in measures),
        backward_passes=sum(record.backward_passes for record, _ in measures),
        mode="right under every attack",
        search="; ".join(dict.fromkeys(record.search for record, _ in measures)),
        remarks=tuple(remarks),
        ladder=_ladder([frame for _, frame in measures if frame is not None], columns["top1"]),
    )


def _ladder(frames: Sequence[pd.DataFrame], left: npt.NDArray[np.bool_] | None) -> LadderStep | None:
    """The joint sample of images that all attacks attacked again, if all of them are on a ladder."""
    if left is None or not all("sampled" in frame and "top1" in frame for frame in frames):
        return None
    sampled = np.logical_and.reduce([frame["sampled"] for frame in frames])
    alone = np.logical_and.reduce([frame["alone"] for frame in frames])
    return LadderStep(0, sampled, alone & sampled, None)
