"""The base of all kinds of data sets: recognise one at a path, and open it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from robustbench_tin.data.base import Dataset

Progress = Callable[[str, int, int], None]
"""Called with the current work, the amount done, and the total (0 if unknown)."""


def default_cache_dir() -> Path:
    """Directory for downloads and decoded images: ``ROBUST_TIN_CACHE``, or the user's cache directory."""
    chosen = os.environ.get("ROBUST_TIN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("robust-tin"))


@dataclass(frozen=True)
class OpenOptions:
    """Options for opening a data set.

    Attributes:
        cache_dir: directory for downloads and decoded images; created if missing.
        skip_broken: leave unreadable images out and count them, instead of refusing the data set.
        workers: number of images decoded at a time; None for one per core.
        progress: called from time to time during slow work.
    """

    cache_dir: Path = field(default_factory=default_cache_dir)
    skip_broken: bool = False
    workers: int | None = None
    progress: Progress | None = None

    def report(self, what: str, done: int, total: int) -> None:
        """Report the progress to the caller, if it asked for it."""
        if self.progress is not None:
            self.progress(what, done, total)


@dataclass(frozen=True)
class Source:
    """A kind of data set, and its place; a subclass is registered under its name.

    ``robust-tin list datasets`` shows the first line of a subclass's docstring.

    Attributes:
        name: the name it is registered under.
        takes_path: True if ``NAME:PATH`` is allowed.
        path_setting: another way to give the path: ``root`` for ``NAME:root=PATH``; empty for no other way.
        by_name: True if the path may be a name that is looked up elsewhere, so that it need not exist.
        path: the data set's path; None if the name is enough.

    Further fields of a subclass are its settings: ``NAME:PATH,key=value``.
    """

    name: ClassVar[str] = ""
    takes_path: ClassVar[bool] = False
    path_setting: ClassVar[str] = ""
    by_name: ClassVar[bool] = False

    path: Path | None = None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """True if this kind of data set lies at ``path``; must be quick and must not raise."""
        return False

    def open(self, options: OpenOptions) -> Dataset:
        """Open it; download or decode it first if it is not in the cache.

        Raises:
            DataError: if it is missing, broken or cannot be downloaded.
        """
        raise NotImplementedError(f"data set '{self.name}' has no open()")
