"""Differences of the share inside the box between cells, paired by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robustbench_tin.benchmarks.evidence.saliency import mean_interval
from robustbench_tin.benchmarks.evidence.saliency_files import SaliencyResult
from robustbench_tin.benchmarks.reporting.table import Table


@dataclass(frozen=True)
class ShareDifference:
    """The mean difference of the shares of two cells on the same images.

    Attributes:
        first: cell that the other is compared with, MODEL/DEFENSE/SEED.
        cell: the other cell.
        method: attribution method.
        kind: kind of image.
        images: number of images with a share in both cells.
        mean: mean of ``cell`` minus ``first``, in [-1, 1].
        low: lower end of its 95 % interval (Student's t over the images), in [-1, 1].
        high: upper end of that interval.
    """

    first: str
    cell: str
    method: str
    kind: str
    images: int
    mean: float
    low: float
    high: float


def differences(results: Sequence[SaliencyResult]) -> list[ShareDifference]:
    """Compare each cell with the first, kind by kind.

    Args:
        results: one for each cell, of the same method and images.
    """
    return [found for other in results[1:] for found in _differences(results[0], other)]


def differences_table(found: Sequence[ShareDifference]) -> Table:
    """The differences in points, one row per cell and kind of image; at least one.

    Args:
        found: differences to the same first cell.
    """
    return Table(
        title=f"Difference of the share to {found[0].first} on the same images, in points",
        columns=("cell", "method", "images", "n", "difference"),
        rows=tuple((each.cell, each.method, each.kind, f"{each.images:,}", _points(each)) for each in found),
        label_columns=3,
        notes=("[ ] 95 % interval (Student's t over the images, paired).",),
    )


def _differences(first: SaliencyResult, other: SaliencyResult) -> Iterator[ShareDifference]:
    here, there = _shares(first), _shares(other)
    for kind in dict.fromkeys(kind for kind, _ in here):
        pairs = [there[key] - share for key, share in here.items() if key[0] == kind and key in there]
        if pairs:
            mean, low, high = mean_interval(pairs)
            yield ShareDifference(
                first.cell, other.cell, other.method, kind, len(pairs), mean, max(-1.0, low), min(1.0, high)
            )


def _shares(result: SaliencyResult) -> dict[tuple[str, int], float]:
    """The share of each image that has one, by kind and number."""
    return {(each.kind, each.index): each.share for each in result.image_shares if each.share is not None}


def _points(each: ShareDifference) -> str:
    return f"{100 * each.mean:+.1f} [{100 * each.low:+.1f}, {100 * each.high:+.1f}]"
