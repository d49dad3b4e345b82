"""Training curves as TensorBoard events, written during training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_tin.training.curves import MEASURES, Point

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TAGS = {
    name: f"{'top-1' if kind in ('fgsm', 'pgd5') else kind.replace('top', 'top-')}/{name}"
    for name in MEASURES
    for kind in [name.partition("_")[2]]
}
"""TensorBoard names of the measures, such as ``loss/train_loss``; the part before the slash is the panel."""


class TensorBoardWriter:
    """Writes the points of :class:`robustbench_tin.training.curves.Curves` into a directory of events.

    Args:
        directory: directory of one training; earlier events are replaced, since the curves hold every point.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: SummaryWriter | None = None

    def restart(self, points: Sequence[Point]) -> None:
        """Delete earlier events and write these points."""
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._writer = SummaryWriter(str(self._directory))
        for point in points:
            self.add(point)

    def add(self, point: Point) -> None:
        """Write the next point."""
        assert self._writer is not None
        for name in MEASURES:
            value = getattr(point, name)
            if value is not None:
                self._writer.add_scalar(TAGS[name], value, point.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextmanager
def events(directory: Path | None) -> Iterator[TensorBoardWriter | None]:
    """A writer of events into a directory, open while the block runs; None without a directory."""
    if directory is None:
        yield None
        return
    opened = TensorBoardWriter(directory)
    try:
        yield opened
    finally:
        opened.close()
