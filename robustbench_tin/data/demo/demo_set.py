"""The demo set: small scenes that robust-tin draws itself, so that everything runs without a download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robustbench_tin.data.base import Dataset, Split
from robustbench_tin.data.demo import cache
from robustbench_tin.data.demo.drawing import SIZE
from robustbench_tin.data.demo.scenes import box_of, draw_scene
from robustbench_tin.data.demo.things import THINGS
from robustbench_tin.data.source import OpenOptions, Source

SEED = 0
TRAIN_PER_CLASS = 100
VAL_PER_CLASS = 40
EPOCHS = 8
# With this number, the seven backbones of the benchmark's table take minutes on two cores.
EVAL_IMAGES = 200
BANNER = "DEMO SET: 64x64 scenes drawn by robust-tin itself, not photographs; use --data for real images"

_SPLITS = {"train": 0, "val": 1}


def draw_split(split: str, count: int, *, seed: int = SEED, options: OpenOptions | None = None) -> Split:
    """Draw the first ``count`` images of ``train`` or ``val``; the classes alternate.

    Image ``i`` depends on ``(seed, split, i)`` alone, so a larger count only adds images.
    """
    labels = np.arange(count, dtype=np.int64) % len(THINGS)
    images = np.empty((count, 3, SIZE, SIZE), dtype=np.uint8)
    boxes = np.empty((count, 4), dtype=np.int32)
    for index, label in enumerate(labels.tolist()):
        images[index], mask = draw_scene(seed, _SPLITS[split], index, label)
        boxes[index] = box_of(mask)
        if options is not None and index % 100 == 0:
            options.report(f"drawing the demo set ({split})", index, count)
    return Split(images, labels, boxes, [f"{split}-{index}" for index in range(count)])


@dataclass(frozen=True)
class Demo(Source):
    """Scenes of ten drawn things, made by robust-tin: no download, no photographs."""

    def open(self, options: OpenOptions) -> Dataset:
        """Open it; the first time it is drawn, which takes about three seconds on one core."""
        wanted = {"train": TRAIN_PER_CLASS * len(THINGS), "val": VAL_PER_CLASS * len(THINGS)}
        file = cache.cache_file(options.cache_dir)
        splits = cache.load(file, wanted)
        if splits is None:
            splits = {name: draw_split(name, count, options=options) for name, count in wanted.items()}
            cache.save(file, splits)
        return Dataset(
            name="demo",
            source=f"drawn from seed {SEED}",
            classes=tuple(thing.name for thing in THINGS),
            class_names=tuple(thing.name for thing in THINGS),
            train=splits["train"],
            val=splits["val"],
            fingerprint=cache.digest(splits),
            default_epochs=EPOCHS,
            quick=True,
            default_eval_images=EVAL_IMAGES,
            banner=BANNER,
        )
