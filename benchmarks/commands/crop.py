"""``robust-tin crop``: a data set's images cropped to their boxes, as files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.runs.resumable_output import begun_output
from robustbench_tin.data import Split
from robustbench_tin.data.boxes import crop as cropped
from robustbench_tin.data.boxes import usable
from robustbench_tin.data.export import TinyImageNetWriter, require_size
from robustbench_tin.errors import DataError
from robustbench_tin.progress import Reporter

_BATCH = 250


@dataclass(frozen=True)
class Cropping:
    """A set of crops that was written.

    Attributes:
        path: its directory, which ``--data`` takes.
        images: how many crops it has.
        skipped: training images without a usable box, which it has not.
    """

    path: Path
    images: int
    skipped: int


def crop(
    *,
    out: str | Path,
    fill: bool = False,
    reporter: Reporter | None = None,
    **data: Any,
) -> Cropping:
    """Write a data set in Tiny ImageNet's layout whose training images are crops of their boxes alone.

    Validation images are written as they are, since images to be classified come without boxes. Crops are PNG
    and have no boxes of their own; training images without a usable box are left out. Stopped at any moment,
    the same call goes on; before it has ended nothing takes the directory for a data set.

    Args:
        out: directory to write into; empty, missing, or of the same call, which then goes on.
        fill: enlarge the box to the image's size; else pad it with black.
        reporter: told how far it is; None: silent.
        **data: the data set and the part of it, as ``bench`` takes them: the fields of
            :class:`robustbench_tin.benchmarks.planning.config.DataConfig`.

    Raises:
        DataError: where the data set has no boxes, a class none that is usable, or images that are not 64 px.
        RunError: where something else lies at ``out``, or it cannot be written.
    """
    reporter = reporter or Reporter()
    out = Path(out)
    dataset = open_part(reporter, **data)
    boxes = dataset.train.boxes
    if boxes is None:
        raise DataError(f"'{dataset.name}' has no bounding boxes; use tiny-imagenet or demo")
    require_size(dataset)
    rows = np.flatnonzero(usable(boxes, dataset.image_size, dataset.image_size))
    for label, wnid in enumerate(dataset.classes):
        if not np.any(dataset.train.labels[rows] == label):
            raise DataError(
                f"class '{wnid}' of '{dataset.name}' has no usable box; leave it out with --classes"
            )
    train = dataset.train.take(rows)
    parts: dict[str, Split] = {"train": replace(train, boxes=None), "val": dataset.val}
    counts = {"images": len(train), "skipped": len(dataset.train) - len(train)}
    settings = {"crops": True, "fill": fill, "data": dataset.name, "data_fingerprint": dataset.fingerprint}
    with begun_output(out, settings, tuple(counts)) as output:
        if output.result is not None:
            reporter.say(f"{out} is complete already: nothing to do.")
            return Cropping(out, **counts)
        with reporter.preparing() as progress, TinyImageNetWriter(out, dataset, parts) as writer:
            for name, split in parts.items():
                for start in range(0, len(split), _BATCH):
                    stop = min(start + _BATCH, len(split))
                    if not output.is_done(f"{name}-{start}"):
                        images = split.images[start:stop]
                        if name == "train":
                            images = cropped(images, boxes[rows[start:stop]], fill=fill)
                        writer.add(name, start, images, partial(output.note, f"{name}-{start}"))
                    progress(f"writing {name} images", stop, len(split))
            writer.finish()
        output.complete(counts)
    return Cropping(out, **counts)
