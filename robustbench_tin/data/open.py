"""From the text that a user writes for a data set to the data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from robustbench_tin.data import datasets
from robustbench_tin.data.base import Dataset
from robustbench_tin.data.place import source_at
from robustbench_tin.data.source import OpenOptions, Source, default_cache_dir
from robustbench_tin.errors import FOREIGN, DataError, RobustTinWarning, UnknownNameError, one_line
from robustbench_tin.registry import Entry


def open_dataset(
    data: str,
    *,
    skip_broken: bool = False,
    cache_dir: str | Path | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Dataset:
    """Open a data set; the first call decodes its images, later ones memory-map them.

    Args:
        data: a registered name (``demo``, ``tiny-imagenet``), a name with its place and settings
            (``folder:PATH``, ``imagenet:PATH,size=256``), or a path, whose layout is recognised. A registered
            name takes precedence; ``./demo`` is the path.
        skip_broken: leave unreadable images out and count them, instead of refusing the data set.
        cache_dir: directory for downloads and decoded images; None for ``ROBUST_TIN_CACHE``, or else the
            user's cache directory.
        workers: number of images decoded at a time; None for one per core.
        progress: called as ``progress(what, done, total)`` during slow work; total 0 means unknown.

    Returns:
        The data set: uint8 images ``(N, 3, H, W)`` and int64 labels ``(N,)`` in its splits ``train`` and
        ``val``.

    Raises:
        DataError: if there is no such data set, or it is empty, broken or cannot be downloaded.

    >>> data = open_dataset("demo")
    >>> data.train.images.shape, data.val.images.shape, str(data.val.images.dtype)
    ((1000, 3, 64, 64), (400, 3, 64, 64), 'uint8')
    >>> data.classes[:3]
    ('fish', 'mushroom', 'house')
    """
    options = OpenOptions(
        cache_dir=Path(cache_dir).expanduser() if cache_dir else default_cache_dir(),
        skip_broken=skip_broken,
        workers=workers,
        progress=progress,
    )
    return find_source(data).open(options)


def find_source(data: str) -> Source:
    """The source that ``data`` names, not opened yet.

    Raises:
        DataError: if there is no data set of that name and no known layout at that path.
    """
    name, colon, place = data.partition(":")
    if name in datasets.names():
        return _named(name, place if colon else None)
    return _recognised(data)


def _named(name: str, place: str | None) -> Source:
    kind = datasets.get(name)
    return kind() if place is None else source_at(kind, name, place)


def _recognised(data: str) -> Source:
    path = Path(data).expanduser()
    if not data or not path.exists():
        unknown = UnknownNameError("data set", data, datasets.names())
        raise DataError(f"{unknown}; there is no path '{data}' either")
    for entry, kind in datasets.usable():
        if _recognises(entry, kind, path):
            return kind(path=path)
    raise DataError(
        f"'{data}' {_what_is_wrong(path)}; expected an unpacked tiny-imagenet-200, its zip file,"
        " or a directory with train/CLASS/* and val/CLASS/*, or with CLASS/* for evaluation only; for"
        " another kind, name it: imagenet:DIR, npz:FILE"
    )


def _recognises(entry: Entry[type[Source]], kind: type[Source], path: Path) -> bool:
    if not entry.of_package:
        return kind.recognises(path)
    try:
        return bool(kind.recognises(path))
    except FOREIGN as error:
        told = f"data set '{entry.name}' of {entry.origin} is ignored: {one_line(error)}"
        warnings.warn(told, RobustTinWarning, stacklevel=2)
        return False


def _what_is_wrong(path: Path) -> str:
    if not path.is_dir():
        return "is not a zip file"
    try:
        return "has no known layout" if any(path.iterdir()) else "is empty"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
