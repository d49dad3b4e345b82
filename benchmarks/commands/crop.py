"""``robust-tin crop``: write a data set's images cropped to their boxes, as files."""

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
    """The result of ``crop``.

    Attributes:
        path: its directory, which ``--data`` accepts.
        images: number of crops.
        skipped: number of training images that were left out, because they have no usable box.
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
    """Write a data set in Tiny ImageNet's layout whose training images are cropped to their boxes.

    Validation images are copied unchanged, since images to classify come without boxes. Crops are PNG files
    without boxes of their own; training images without a usable box are left out. After an interruption, the
    same call continues; until it has finished, no command accepts the directory as a data set.

    Args:
        out: output directory; empty, missing, or begun by the same call, which then continues.
        fill: enlarge the box to the image's size; else pad it with black.
        reporter: shows progress; None: silent.
        **data: the data set and the part of it, as ``bench`` takes them: the fields of
            :class:`robustbench_tin.benchmarks.planning.config.DataConfig`.

    Raises:
        DataError: if the data set has no boxes, a class has no usable one, or images are not 64 px.
        RunError: if ``out`` contains something else or cannot be written.
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
                f"class '{wnid}' of '{dataset.name}' has no usable box; leave the class out with --classes"
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
