"""Writing of a data set in Tiny ImageNet's layout, as PNG; reading it back gives the same pixels."""

from __future__ import annotations

import os
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustbench_tin.atomic import write_text
from robustbench_tin.data.base import Dataset, Split
from robustbench_tin.errors import DataError, RunError

SIZE = 64
"""Height and width of the layout's images in pixels."""

_NO_BOX = (-1, -1, -1, -1)
# A search for repetitions finds none in the noise of adversarial images: without it, files are smaller
# sooner.
_QUICK = {"compress_level": 1, "compress_type": zlib.Z_HUFFMAN_ONLY}


def require_size(dataset: Dataset) -> None:
    """Check that a data set's images can be written in this layout.

    Raises:
        DataError: if they have another size.
    """
    if dataset.image_size != SIZE:
        raise DataError(
            f"'{dataset.name}' has images of {dataset.image_size} px; expected {SIZE}, the size in Tiny"
            " ImageNet's layout"
        )


class TinyImageNetWriter:
    """Writes the images of a data set a batch at a time, encoded by threads beside the caller.

    Use it as a context manager. Files keep their names if these are unique; otherwise they are numbered. If
    the process is killed while it writes an image, that image is broken until it is written again; so mark a
    batch as done only in its ``then``. :meth:`finish` writes the other files of the data set, ``wnids.txt``
    last: before that, nothing reads the directory.

    Args:
        root: directory to write.
        dataset: gives the classes.
        splits: labels, boxes and names of the images to write, in ``train`` and ``val``; the images in them
            are not used.
        workers: number of threads; None for one per core.

    Raises:
        DataError: if the images are not 64 px, the size of the layout.
    """

    def __init__(
        self, root: Path, dataset: Dataset, splits: Mapping[str, Split], *, workers: int | None = None
    ) -> None:
        require_size(dataset)
        self._root = root
        self._dataset = dataset
        self._splits = splits
        self._names = {name: _names(name, split, dataset.classes) for name, split in splits.items()}
        workers = workers or min(16, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="encode")
        self._room = 2 * workers
        self._pending: deque[Future[None]] = deque()
        self._folders: set[Path] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def name(self, split: str, row: int) -> str:
        """The path of an image, relative to the root: ``train/n01443537/images/n01443537_0.png``."""
        return self._names[split][row]

    def add(
        self, split: str, start: int, images: npt.NDArray[np.uint8], then: Callable[[], None] | None = None
    ) -> None:
        """Write the images of the rows from ``start`` on; waits only if too many are in progress.

        Args:
            split: ``train`` or ``val``.
            start: row of the first image.
            images: uint8 ``(n, 3, 64, 64)``.
            then: called in a thread after all are written.

        Raises:
            RunError: if an earlier batch could not be written.
        """
        while len(self._pending) >= self._room:
            self._wait()
        self._pending.append(self._threads.submit(self._write, split, start, images, then))

    def finish(self) -> None:
        """Wait for all images, then write classes, boxes and annotations.

        Raises:
            RunError: if a file could not be written.
        """
        while self._pending:
            self._wait()
        train, val = self._splits["train"], self._splits["val"]
        by_class: dict[int, list[str]] = {label: [] for label in range(len(self._dataset.classes))}
        for row, label in enumerate(train.labels.tolist() if train.boxes is not None else ()):
            by_class[label].append("\t".join(map(str, (_file(self.name("train", row)), *_box(train, row)))))
        for label, lines in by_class.items():
            wnid = self._dataset.classes[label]
            if lines:
                write_text(self._root / "train" / wnid / f"{wnid}_boxes.txt", _text(lines))
        annotations = [
            "\t".join(map(str, (_file(self.name("val", row)), self._dataset.classes[label], *_box(val, row))))
            for row, label in enumerate(val.labels.tolist())
        ]
        words = zip(self._dataset.classes, self._dataset.class_names, strict=True)
        write_text(self._root / "words.txt", _text(["\t".join(pair) for pair in words]))
        write_text(self._root / "val" / "val_annotations.txt", _text(annotations))
        write_text(self._root / "wnids.txt", _text(self._dataset.classes))

    def _wait(self) -> None:
        try:
            self._pending.popleft().result()
        except OSError as error:
            raise RunError(
                f"cannot write '{error.filename or self._root}': {error.strerror or error}; free some space"
                " or choose another --out, then repeat the same command"
            ) from error

    def _write(
        self, split: str, start: int, images: npt.NDArray[np.uint8], then: Callable[[], None] | None
    ) -> None:
        for row, image in enumerate(images.transpose(0, 2, 3, 1), start):
            path = self._root / self.name(split, row)
            if path.parent not in self._folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(path.parent)
            Image.fromarray(np.ascontiguousarray(image)).save(path, "PNG", **_QUICK)
        if then is not None:
            then()


def _names(split_name: str, split: Split, classes: tuple[str, ...]) -> list[str]:
    """A path for each image; no two paths below one folder are the same."""
    wnids = [classes[label] for label in split.labels.tolist()]
    folders = [f"train/{wnid}/images" if split_name == "train" else "val/images" for wnid in wnids]
    stems = [PurePosixPath(name).stem for name in split.ids] if split.ids is not None else []
    paths = [f"{folder}/{stem}.png" for folder, stem in zip(folders, stems, strict=False)]
    if len({path.lower() for path in paths}) == len(split):
        return paths
    count: Counter[str] = Counter()
    numbered = []
    for folder, wnid in zip(folders, wnids, strict=True):
        numbered.append(f"{folder}/{wnid if split_name == 'train' else 'val'}_{count[folder]}.png")
        count[folder] += 1
    return numbered


def _box(split: Split, row: int) -> tuple[int, ...]:
    return _NO_BOX if split.boxes is None else tuple(split.boxes[row].tolist())


def _file(name: str) -> str:
    return name.rpartition("/")[2]


def _text(lines: list[str] | tuple[str, ...]) -> str:
    return "".join(f"{line}\n" for line in lines)
