"""Training curves as TensorBoard events, while they grow."""

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
"""Measures by what they are: ``loss/train_loss``; what stands before the slash shares a panel."""


class TensorBoardWriter:
    """Follows :class:`robustbench_tin.training.curves.Curves` with a directory of events.

    Args:
        directory: of one training; what was there is replaced, since the curves bring all that counts.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: SummaryWriter | None = None

    def restart(self, points: Sequence[Point]) -> None:
        """Begin anew with these."""
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._writer = SummaryWriter(str(self._directory))
        for point in points:
            self.add(point)

    def add(self, point: Point) -> None:
        """Go on with the next."""
        assert self._writer is not None
        for name in MEASURES:
            value = getattr(point, name)
            if value is not None:
                self._writer.add_scalar(TAGS[name], value, point.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextmanager
def events(directory: Path | None) -> Iterator[TensorBoardWriter | None]:
    """Events in a directory for as long as the block lasts; none where there is no directory."""
    if directory is None:
        yield None
        return
    opened = TensorBoardWriter(directory)
    try:
        yield opened
    finally:
        opened.close()
