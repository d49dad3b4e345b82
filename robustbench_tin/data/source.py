"""What every kind of data set is asked for: does it lie here, and open it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from robustbench_tin.data.base import Dataset

Progress = Callable[[str, int, int], None]
"""Told what is under way, how much of it is done, and the total (0 where unknown)."""


def default_cache_dir() -> Path:
    """Where downloads and decoded images go: ``ROBUST_TIN_CACHE``, else the user's cache directory."""
    chosen = os.environ.get("ROBUST_TIN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("robust-tin"))


@dataclass(frozen=True)
class OpenOptions:
    """How a data set is opened.

    Attributes:
        cache_dir: directory for downloads and decoded images; made where missing.
        skip_broken: leave unreadable images out and note them, instead of refusing the data set.
        workers: images decoded at a time; None: one a core.
        progress: called now and then while something slow is under way.
    """

    cache_dir: Path = field(default_factory=default_cache_dir)
    skip_broken: bool = False
    workers: int | None = None
    progress: Progress | None = None

    def report(self, what: str, done: int, total: int) -> None:
        """Tell whoever wants to know how far it is."""
        if self.progress is not None:
            self.progress(what, done, total)


@dataclass(frozen=True)
class Source:
    """A kind of data set, and where it lies; a subclass is registered under its name.

    The first line of a subclass's docstring is what ``robust-tin list datasets`` shows.

    Attributes:
        name: the name it is registered under.
        takes_path: whether ``NAME:PATH`` has a meaning.
        path_setting: another way to give the path: ``root`` for ``NAME:root=PATH``; empty: there is none.
        by_name: whether the path may be a name that is looked up elsewhere, so that nothing need lie there.
        path: where it lies; None where the name says it all.

    Further fields of a subclass are its settings: ``NAME:PATH,key=value``.
    """

    name: ClassVar[str] = ""
    takes_path: ClassVar[bool] = False
    path_setting: ClassVar[str] = ""
    by_name: ClassVar[bool] = False

    path: Path | None = None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether this kind of data set lies at ``path``; must be quick and must not raise."""
        return False

    def open(self, options: OpenOptions) -> Dataset:
        """Open it, decoding or downloading what is not in the cache yet.

        Raises:
            DataError: where it is missing, broken or cannot be fetched.
        """
        raise NotImplementedError(f"data set '{self.name}' has no open()")
