"""Decoding of image files into a cache entry, several at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_tin.data.cache_entry import Decoded, content_digest, npy_header, open_entry
from robustbench_tin.data.decode import decode_all
from robustbench_tin.data.files import Files
from robustbench_tin.data.listing import Listing, SplitListing
from robustbench_tin.data.skipped_files import summarise
from robustbench_tin.data.source import OpenOptions
from robustbench_tin.errors import DataError
from robustbench_tin.text import printable


def open_decoded(
    kind: str, files: Files, find: Callable[[Files], Listing], options: OpenOptions, *, variant: str = ""
) -> Decoded:
    """Open the cache entry of a source; decode its images first if there is no entry.

    Args:
        kind: the source's name, and the first part of the entry's name.
        files: the image files.
        find: lists the images; called only if they must be decoded.
        options: cache directory, number of workers, whether to skip broken images.
        variant: settings that ``find`` uses; each variant has its own entry.

    Raises:
        DataError: for a broken source, an image that cannot be read, or a cache that cannot be written.
    """
    return open_entry(
        kind,
        files.location,
        files.stamp,
        options,
        lambda directory: _write_entry(directory, files, find(files), options),
        variant=variant,
    )


def _write_entry(directory: Path, files: Files, listing: Listing, options: OpenOptions) -> dict[str, Any]:
    """Decode all splits into ``directory``; returns the content of ``meta.json``."""
    content = content_digest(listing.size, listing.classes)
    counts: dict[str, int] = {}
    broken: dict[str, list[tuple[str, str]]] = {}
    # The fingerprint covers train and val, in this order; no result depends on a test split.
    for name in ("train", "val", *sorted(listing.splits.keys() - {"train", "val"})):
        digest = content if name in ("train", "val") else hashlib.blake2b()
        kept, broken[name] = _write_split(directory, name, files, listing, digest, options)
        counts[name] = len(kept)
        _check_classes(name, listing.splits[name], kept, listing.classes, files)
    return {
        "classes": listing.classes,
        "class_names": listing.class_names,
        "counts": {name: count for name, count in counts.items() if count},
        "boxed": [name for name, split in listing.splits.items() if split.boxes is not None],
        "broken": broken,
        "left_out": summarise(listing.left_out),
        "remarks": listing.notes,
        "fingerprint": content.hexdigest(),
    }


def _write_split(
    directory: Path, name: str, files: Files, listing: Listing, digest: Any, options: OpenOptions
) -> tuple[list[int], list[tuple[str, str]]]:
    """Decode one split into ``directory``; returns the good rows, and the reasons for the others."""
    split, size = listing.splits[name], listing.size
    what = f"decoding {name} images"
    kept: list[int] = []
    broken: list[tuple[str, str]] = []
    options.report(what, 0, len(split.names))
    with (directory / f"{name}-images.npy").open("wb") as file:
        # Written, not mapped: a full disk then raises an error instead of a signal that kills the process.
        file.write(npy_header(0, size))
        decoding = decode_all(
            files.read,
            split.names,
            size,
            exact=listing.exact,
            shorter=listing.shorter,
            workers=options.workers,
        )
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
        file.write(npy_header(len(kept), size))
        file.flush()
        os.fsync(file.fileno())  # otherwise a power cut could leave an entry with holes in it
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
            " repair its images"
        )


def _broken(files: Files, name: str, reason: str) -> DataError:
    return DataError(
        f"image '{printable(str(files.location / name))}' {reason};"
        " repair or remove it, or leave such images out with --skip-broken"
    )
