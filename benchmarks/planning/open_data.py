"""Open the requested data set, and choose the requested part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustbench_tin.benchmarks.planning.config import DataConfig
from robustbench_tin.data import Dataset, open_dataset, subset
from robustbench_tin.progress import Reporter


def open_part(reporter: Reporter, **options: Any) -> Dataset:
    """Open a data set, choose the requested part of it, and show its banner and notes.

    Args:
        reporter: shows the banner and the notes.
        **options: the fields of :class:`robustbench_tin.benchmarks.planning.config.DataConfig`.

    Raises:
        RobustTinError: if there is no such data set, or it is too small.
    """
    asked = DataConfig(**options)
    with reporter.preparing() as progress:
        dataset = open_dataset(asked.data, skip_broken=asked.skip_broken, progress=progress)
    eval_images = asked.eval_images
    if eval_images is None and asked.classes is None:
        eval_images = dataset.default_eval_images
    part = subset(
        dataset,
        classes=_classes(asked.classes),
        train_per_class=asked.train_per_class,
        eval_images=eval_images,
    )
    if part.banner is not None:
        reporter.warn(part.banner)
    for note in part.notes:
        reporter.say(note)
    return part


def _classes(classes: int | str | Sequence[str] | None) -> int | Sequence[str] | None:
    if not isinstance(classes, str):
        return classes
    return (
        int(classes)
        if classes.strip().lstrip("-").isdigit()
        else [item.strip() for item in classes.split(",")]
    )
