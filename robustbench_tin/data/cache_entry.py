"""A cache entry of decoded images: written once under a lock, then memory-mapped.

An entry is a directory ``CACHE/decoded/KIND-PLACE-KEY``: for each split the images as ``.npy``, labels, boxes
and names, and ``meta.json``. It is written beside its place and renamed to it, under a lock, and never
changes afterwards. If the source changes, its key changes and the old entry is removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from robustbench_tin.data.base import Dataset, Split
from robustbench_tin.data.skipped_files import Summary, left_out_note
from robustbench_tin.data.source import OpenOptions
from robustbench_tin.errors import DataError

FORMAT = 2
"""A part of every key; increased if older entries become unusable."""

Broken = Mapping[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Decoded:
    """An open cache entry.

    Attributes:
        classes: class ids in label order.
        class_names: a readable name for each class.
        splits: the splits by name, with memory-mapped images.
        broken: for each split, name and reason of every image that was left out.
        left_out: the files that belong to no split.
        remarks: notes about the layout.
        fingerprint: digest of the content of train and val, independent of the place and time of decoding.
    """

    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    broken: Broken
    left_out: Summary
    remarks: tuple[str, ...]
    fingerprint: str

    @property
    def notes(self) -> list[str]:
        """The layout's remarks, and a line about all files that are left out."""
        unreadable = {split: [name for name, _ in broken] for split, broken in self.broken.items()}
        note = left_out_note(unreadable, self.left_out)
        return [*self.remarks, *([] if note is None else [note])]

    @property
    def train(self) -> Split:
        """The training images; an empty split if the source has none."""
        return self.splits["train"] if "train" in self.splits else _empty(self.splits["val"])

    def as_dataset(self, name: str, source: object, **more: Any) -> Dataset:
        """The data set with these classes and images.

        Args:
            name: name of the data set.
            source: its place, for the user.
            **more: other fields of :class:`Dataset`.
        """
        return Dataset(
            name=name,
            source=str(source),
            classes=self.classes,
            class_names=self.class_names,
            train=self.train,
            val=self.splits["val"],
            fingerprint=self.fingerprint,
            notes=tuple(self.notes),
            **more,
        )


def open_entry(
    kind: str,
    location: Path,
    stamp: str,
    options: OpenOptions,
    write: Callable[[Path], Mapping[str, Any]],
    *,
    variant: str = "",
) -> Decoded:
    """Open the cache entry of a source; write it first if there is no entry.

    Args:
        kind: the source's name, and the first part of the entry's name.
        location: the place of its images.
        stamp: a text that changes if they change.
        options: cache directory, whether to skip broken images.
        write: fills a new directory with the arrays, and returns the content of ``meta.json``.
        variant: settings that the images are read with; each variant has its own entry.

    Raises:
        DataError: from ``write``, or if the cache cannot be written.
    """
    read_under = [variant] if variant else []
    place = _digest(os.fsencode(location.resolve()), options.skip_broken, *read_under)
    key = _digest(stamp, FORMAT, options.skip_broken, *read_under)
    entry = options.cache_dir / "decoded" / f"{kind}-{place}-{key}"
    decoded = _open_entry(entry)
    if decoded is not None:
        return decoded
    with _writable(options.cache_dir), _locked(entry.parent / f"{kind}-{place}.lock", options):
        decoded = _open_entry(entry)
        if decoded is None:
            _build(entry, write)
            _remove_others(entry, f"{kind}-{place}-")
            decoded = _open_entry(entry)
    if decoded is None:
        raise DataError(f"cache entry '{entry}' cannot be read back; set ROBUST_TIN_CACHE to another disk")
    return decoded


def content_digest(size: int, classes: tuple[str, ...]) -> Any:
    """The start of a fingerprint; images, labels and boxes of train and val follow, in this order."""
    return hashlib.blake2b(json.dumps([size, *classes]).encode(), digest_size=8)


def npy_header(count: int, size: int) -> bytes:
    """The header of an array, of fixed length, so that the count can be written at the end."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": (count, 3, size, size)})
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"


def _empty(like: Split) -> Split:
    return Split(np.empty((0, *like.images.shape[1:]), np.uint8), np.empty(0, np.int64), ids=())


def _open_entry(entry: Path) -> Decoded | None:
    """The entry, or None if it is missing or incomplete."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        splits = {
            name: _open_split(entry, name, count, boxed=name in meta["boxed"])
            for name, count in meta["counts"].items()
        }
        return Decoded(
            classes=tuple(meta["classes"]),
            class_names=tuple(meta["class_names"]),
            splits=splits,
            broken={split: [(name, why) for name, why in lost] for split, lost in meta["broken"].items()},
            left_out={code: (count, names) for code, (count, names) in meta["left_out"].items()},
            remarks=tuple(meta["remarks"]),
            fingerprint=meta["fingerprint"],
        )
    except Exception:  # noqa: BLE001 - any faulty entry is made again
        return None


def _open_split(entry: Path, name: str, count: int, *, boxed: bool) -> Split:
    images = np.load(entry / f"{name}-images.npy", mmap_mode="r")
    split = Split(
        images=images,
        labels=np.load(entry / f"{name}-labels.npy"),
        boxes=np.load(entry / f"{name}-boxes.npy") if boxed else None,
        ids=json.loads((entry / f"{name}-ids.json").read_text(encoding="utf-8")),
    )
    lengths = {
        len(images),
        len(split.labels),
        len(split.ids or ()),
        len(images if split.boxes is None else split.boxes),
    }
    if lengths != {count}:
        raise ValueError(f"{name} does not have {count} rows in every array")
    return split


def _build(entry: Path, write: Callable[[Path], Mapping[str, Any]]) -> None:
    partial = entry.with_name(entry.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed: we hold the lock
    partial.mkdir(parents=True)
    try:
        (partial / "meta.json").write_text(json.dumps(write(partial)), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        partial.rename(entry)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _remove_others(entry: Path, prefix: str) -> None:
    """Remove earlier entries of the same source; each takes about a gigabyte."""
    for other in entry.parent.glob(f"{prefix}*"):
        if other != entry:
            shutil.rmtree(other, ignore_errors=True)


@contextmanager
def _locked(path: Path, options: OpenOptions) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        options.report("waiting for another process that decodes the same images", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writable(directory: Path) -> Iterator[None]:
    """Report in one line that the cache cannot be written."""
    try:
        yield
    except OSError as error:
        do = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
        raise DataError(
            f"cache directory '{directory}' cannot be written: {error.strerror or error};"
            f" {do} or set ROBUST_TIN_CACHE to another directory"
        ) from error


def _digest(*parts: object) -> str:
    content = b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return hashlib.blake2b(content, digest_size=8).hexdigest()
