"""Presets: TOML files of options, read and checked up to the plan."""

from __future__ import annotations

import atexit
import os
import re
import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

from drawn_sets import draw_tiny_imagenet

from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.resolve import resolve
from robustbench_tin.benchmarks.runs.trained_model import find_trained
from robustbench_tin.presets import load_preset, preset_names, with_preset
from robustbench_tin.progress import Reporter

_EVERY_KIND = """summary = "An option of every kind."

[bench]
models = "timm:test_resnet"
defenses = "none,fgsm-at:eps=0.02,jpeg:quality=75"
attacks = ["fgsm", "pgd:steps=20,restarts=2"]
eps = "0.0, 4/255"
norm = "linf"
seeds = [0, 1]
classes = 3
train-per-class = 4
eval-images = 3
epochs = 2
batch-size = 8
lr = 1e-3
train = "head:epochs=1,all:rate=0.1"
head-rate = 2.0
early-stop = 3
curves = "robust"
image-size = 64
worst-case = true
eot = 2
"""


def seeds() -> list[dict[str, bytes]]:
    """Those that are built in, for a backbone that is planned at once, and one with every kind of option."""
    built_in = [load_preset(name).text for name in preset_names()]
    quick = [re.sub("(?m)^models = .*$", 'models = "timm:test_resnet"', text) for text in built_in]
    return [{"mine.toml": text.encode()} for text in (*quick, *[_EVERY_KIND] * len(quick))]


def read(folder: Path) -> None:
    """As ``bench --preset FILE --dry-run`` reads them, but on a few images, and without published weights."""
    images = Path(_place().name)
    given = {
        "data": str(images / "data"),
        "train_per_class": None,
        "pretrained": False,
        "head": "new",
    }
    with mock.patch.dict(os.environ, {"ROBUST_TIN_CACHE": str(images / "cache")}):
        for path in sorted(folder.iterdir()):
            options = with_preset(path, given, BenchConfig)
            resolve(BenchConfig(**options), Reporter(), find_trained)


@cache
def _place() -> tempfile.TemporaryDirectory[str]:
    """A few images with boxes, in a directory that goes with the process."""
    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    draw_tiny_imagenet(Path(made.name, "data"))
    return made
