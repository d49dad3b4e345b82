"""The worst case: images that are right under every attack."""

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
    """What survives every one of several attacks at the same budget, image by image.

    An attack that stops on success says nothing about the other criterion: that figure is of the rest, and
    the remarks say so.

    Args:
        measures: each attack's record and its outcomes; None where it failed, and then the whole has.
        eps: their budget.
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
            remarks.append(f"worst case: {shown} is of {', '.join(hits)} alone, not of {', '.join(missing)}")
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
    """The images that all of the attacks attacked anew, if each stands on a ladder."""
    if left is None or not all("sampled" in frame and "top1" in frame for frame in frames):
        return None
    sampled = np.logical_and.reduce([frame["sampled"] for frame in frames])
    alone = np.logical_and.reduce([frame["alone"] for frame in frames])
    return LadderStep(0, sampled, alone & sampled, None)
