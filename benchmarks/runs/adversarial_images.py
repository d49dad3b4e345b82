"""The adversarial images that a run keeps of a measurement: one safetensors file beside its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_tin.atomic import replacing
from robustbench_tin.benchmarks.runs.files import DamagedError, file_digest
from robustbench_tin.errors import one_line


@dataclass(frozen=True)
class AdversarialImages:
    """Adversarial images of one measurement.

    Attributes:
        rows: their numbers among the run's evaluated images, int64 ``(M,)``, each once.
        images: float32 ``(M, C, H, W)`` in [0, 1], exactly as the model misclassified them.
        draws: number of the draw under which a model that is random at test time repeats the stored results,
            int64 ``(M,)``; 0 for others.
    """

    rows: npt.NDArray[np.int64]
    images: npt.NDArray[np.float32]
    draws: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> AdversarialImages:
        """Some of them: a mask, or places in the order wanted."""
        return AdversarialImages(self.rows[chosen], self.images[chosen], self.draws[chosen])

    def with_more(self, others: AdversarialImages) -> AdversarialImages:
        """These, then others."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return AdversarialImages(*(np.concatenate(pair) for pair in pairs))


def write_adversarial(file: Path, kept: AdversarialImages) -> str:
    """Write adversarial images; returns the digest of the file.

    Raises:
        RunError: if the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(file) as temporary:
        try:
            save_file({name: np.ascontiguousarray(each) for name, each in vars(kept).items()}, temporary)
        except SafetensorError as error:  # a full disk, for one
            raise OSError(str(error)) from error
        return file_digest(temporary)


def require_digest(file: Path, digest: str) -> None:
    """Check that a file of adversarial images is the one that its record tells of.

    Raises:
        DamagedError: if it is missing, damaged, or of another measurement.
        RunError: if it cannot be read.
    """
    if not file.exists():
        raise DamagedError(f"'{file}' is missing, but its record exists")
    if file_digest(file) != digest:
        raise DamagedError(
            f"'{file}' is damaged or of another measurement (digest differs from the record's)"
        )


def read_adversarial(file: Path, digest: str, count: int) -> AdversarialImages:
    """Read adversarial images; nothing in the file is run.

    Args:
        file: safetensors with the fields of :class:`AdversarialImages`.
        digest: of the file, as the record of the measurement has it.
        count: number of images that the run evaluates.

    Raises:
        DamagedError: if the file is missing, damaged, of another measurement, or holds something else.
        RunError: if it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    require_digest(file, digest)
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"'{file}' is damaged ({one_line(error)[:120]})") from error
    if set(tensors) != {"rows", "images", "draws"} or not _are_images(**tensors, count=count):
        raise DamagedError(f"'{file}' holds no adversarial images of {count} evaluated images")
    return AdversarialImages(**tensors)


def _are_images(
    rows: npt.NDArray[Any], images: npt.NDArray[Any], draws: npt.NDArray[Any], count: int
) -> bool:
    return (
        rows.dtype == draws.dtype == np.int64
        and rows.ndim == draws.ndim == 1
        and images.dtype == np.float32
        and images.ndim == 4
        and len(rows) == len(images) == len(draws) == len(np.unique(rows))
        and bool(((rows >= 0) & (rows < count)).all())
        and bool((draws >= 0).all())
        and bool(((images >= 0) & (images <= 1)).all())
    )
