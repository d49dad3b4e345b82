"""Decoded images on disk: written once, memory-mapped from then on.

An entry is a directory ``CACHE/decoded/KIND-PLACE-KEY``: for each split the images as ``.npy``, labels,
boxes and names, and ``meta.json``. It is written beside its place and renamed into it, under a lock;
once there it never changes. A source that changed gets a new key, and its old entry goes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from robustbench_tin.data.base import Split
from robustbench_tin.data.decode import decode_all
from robustbench_tin.data.files import Files
from robustbench_tin.data.listing import Listing, SplitListing
from robustbench_tin.data.skipped_files import Summary, left_out_note, summarise
from robustbench_tin.data.source import OpenOptions
from robustbench_tin.errors import DataError
from robustbench_tin.text import printable

FORMAT = 2
"""Part of every key; raised when entries written before cannot be used any more."""

Broken = Mapping[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Decoded:
    """An open cache entry.

    Attributes:
        classes: class ids in label order.
        class_names: a readable name a class.
        splits: by name, the images memory-mapped.
        broken: by split, name and reason of each image that was left out.
        left_out: the files that no split has.
        remarks: what the layout says about itself.
        fingerprint: of the content of train and val, wherever and whenever it was decoded.
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
        """The layout's remarks, and a line on all files that are left out."""
        unreadable = {split: [name for name, _ in broken] for split, broken in self.broken.items()}
        note = left_out_note(unreadable, self.left_out)
        return [*self.remarks, *([] if note is None else [note])]


def open_decoded(kind: str, files: Files, find: Callable[[Files], Listing], options: OpenOptions) -> Decoded:
    """Open the cache entry of a source, decoding its images first where there is none.

    Args:
        kind: the source's name, first part of the entry's.
        files: where its images lie.
        find: lists them; called only where they have to be decoded.
        options: cache directory, workers, whether to skip broken images.

    Raises:
        DataError: for a broken source, an image that cannot be read, or a cache that cannot be written.
    """
    place = _digest(os.fsencode(files.location.resolve()), options.skip_broken)
    key = _digest(files.stamp, FORMAT, options.skip_broken)
    entry = options.cache_dir / "decoded" / f"{kind}-{place}-{key}"
    decoded = _open_entry(entry)
    if decoded is not None:
        return decoded
    with _writable(options.cache_dir), _locked(entry.parent / f"{kind}-{place}.lock", options):
        decoded = _open_entry(entry)
        if decoded is None:
            _build(entry, files, find(files), options)
            _remove_others(entry, f"{kind}-{place}-")
            decoded = _open_entry(entry)
    if decoded is None:
        raise DataError(f"cache entry '{entry}' cannot be read back; set ROBUST_TIN_CACHE to another disk")
    return decoded


def _open_entry(entry: Path) -> Decoded | None:
    """The entry, or None where it is missing or not whole."""
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
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is made again
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
        raise ValueError(f"{name} has not {count} rows everywhere")
    return split


def _build(entry: Path, files: Files, listing: Listing, options: OpenOptions) -> None:
    partial = entry.with_name(entry.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: we hold the lock
    partial.mkdir(parents=True)
    try:
        _write_entry(partial, files, listing, options)
        shutil.rmtree(entry, ignore_errors=True)
        partial.rename(entry)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_entry(directory: Path, files: Files, listing: Listing, options: OpenOptions) -> None:
    content = hashlib.blake2b(json.dumps([listing.size, *listing.classes]).encode(), digest_size=8)
    counts: dict[str, int] = {}
    broken: dict[str, list[tuple[str, str]]] = {}
    # Train and val make the fingerprint, in this order; a test split has no part in any result.
    for name in ("train", "val", *sorted(listing.splits.keys() - {"train", "val"})):
        digest = content if name in ("train", "val") else hashlib.blake2b()
        kept, broken[name] = _write_split(directory, name, files, listing, digest, options)
        counts[name] = len(kept)
        _check_classes(name, listing.splits[name], kept, listing.classes, files)
    meta: dict[str, Any] = {
        "classes": listing.classes,
        "class_names": listing.class_names,
        "counts": {name: count for name, count in counts.items() if count},
        "boxed": [name for name, split in listing.splits.items() if split.boxes is not None],
        "broken": broken,
        "left_out": summarise(listing.left_out),
        "remarks": listing.notes,
        "fingerprint": content.hexdigest(),
    }
    (directory / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _write_split(
    directory: Path, name: str, files: Files, listing: Listing, digest: Any, options: OpenOptions
) -> tuple[list[int], list[tuple[str, str]]]:
    """Decode one split into ``directory``; which of its rows are good, and what is wrong with the others."""
    split, size = listing.splits[name], listing.size
    what = f"decoding {name} images"
    kept: list[int] = []
    broken: list[tuple[str, str]] = []
    options.report(what, 0, len(split.names))
    with (directory / f"{name}-images.npy").open("wb") as file:
        # Written, not mapped: a full disk is then an error to report, not a signal that kills.
        file.write(_npy_header(0, size))
        decoding = decode_all(files.read, split.names, size, exact=listing.exact, workers=options.workers)
        with closing(decoding) as chunks:
            for chunk in chunks:
                if chunk.broken and not (options.skip_broken or split.optional):
                    raise _broken(files, *chunk.broken[0])
                file.write(chunk.images.data)
                digest.update(chunk.images.data)
                kept += chunk.rows
                broken += chunk.broken
                options.report(what, chunk.done, len(split.names))
        file.seek(0)
        file.write(_npy_header(len(kept), size))
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave an entry with holes in it
    labels = np.array(split.labels, np.int64)[kept]
    digest.update(labels.data)
    np.save(directory / f"{name}-labels.npy", labels)
    if split.boxes is not None:
        boxes = np.array(split.boxes, np.int32).reshape(-1, 4)[kept]
        digest.update(boxes.data)
        np.save(directory / f"{name}-boxes.npy", boxes)
    ids = [split.names[row] for row in kept]
    (directory / f"{name}-ids.json").write_text(json.dumps(ids), encoding="utf-8")
    return kept, broken


def _check_classes(
    name: str, split: SplitListing, kept: list[int], classes: tuple[str, ...], files: Files
) -> None:
    """Refuse a split whose classes lost all their images to ``skip_broken``."""
    if split.optional:
        return
    left = {split.labels[row] for row in kept}
    for label in sorted(set(split.labels) - left):
        raise DataError(
            f"class '{printable(classes[label])}' has no readable {name} image in '{files.location}';"
            " mend its images"
        )


def _broken(files: Files, name: str, reason: str) -> DataError:
    return DataError(
        f"image '{printable(str(files.location / name))}' {reason};"
        " mend or remove it, or leave such images out with --skip-broken"
    )


def _npy_header(count: int, size: int) -> bytes:
    """A header of fixed length, so that the count can be filled in at the end."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": (count, 3, size, size)})
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"


def _remove_others(entry: Path, prefix: str) -> None:
    """Remove entries of the same source as it was before; a gigabyte each."""
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
    """Say in one line that the cache cannot be written."""
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
