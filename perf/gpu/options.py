"""The options of every phase."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from robustbench_tin.data import Dataset, open_dataset, subset


@dataclass(frozen=True)
class Options:
    """The options of a phase.

    Attributes:
        out: directory of the results.
        deadline: time at which the phase is ended, in seconds of ``time.monotonic``.
        device: the device to measure on.
        data: a data set, as ``--data`` of the command takes it.
        smoke: everything at toy size, to show that it runs.
    """

    out: Path
    deadline: float
    device: str
    data: str
    smoke: bool

    @property
    def left(self) -> float:
        """Seconds before the end."""
        return self.deadline - time.monotonic()

    def dataset(self, classes: int, train_per_class: int, eval_images: int) -> Dataset:
        """A part of the data set; never more of anything than there is."""
        whole = open_dataset(self.data)
        classes = min(classes, len(whole.classes))
        part = subset(whole, classes=classes, train_per_class=None, eval_images=None)
        return subset(
            whole,
            classes=classes,
            train_per_class=min(train_per_class, len(part.train) // classes),
            eval_images=min(eval_images, len(part.val)),
        )


def parse(arguments: list[str] | None = None) -> Options:
    """The command line of a phase."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    return Options(given.out, time.monotonic() + given.seconds, given.device, given.data, given.smoke)


def command() -> str:
    """How this phase was started, without the places of one machine."""
    words = [word for word in sys.argv[1:] if word == "--smoke"]
    return shlex.join(["perf/gpu/run", "--phases", Path(sys.argv[0]).stem, *words])
