"""A directory that a command fills part by part; the same command continues it after an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustbench_tin.atomic import is_temporary, remove_abandoned, write_text
from robustbench_tin.benchmarks.runs.files import read_bytes
from robustbench_tin.errors import RunError

MANIFEST = "manifest.json"
"""File with the settings of a directory and, once it is complete, the result."""
LOCK = ".lock"
_PARTS = ".parts"
# Seconds to wait for a lock: a process that tests it with is_locked holds it for a moment.
_LOOKED_AT = 0.3


class ResumableOutput:
    """An output directory, locked by this process.

    Attributes:
        path: the directory.
        result: the final counts; None while the directory is incomplete.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], result: dict[str, Any] | None) -> None:
        self.path = path
        self.result = result
        self._settings = settings

    def is_done(self, part: str) -> bool:
        """Whether a part is written, by this process or an earlier one."""
        return self._part(part).exists()

    def note(self, part: str, text: str = "") -> None:
        """Mark a part as written; :meth:`noted` returns the text."""
        write_text(self._part(part), text)

    def noted(self, part: str) -> str:
        """The text noted for a written part."""
        return self._part(part).read_text(encoding="utf-8")

    def complete(self, result: dict[str, Any]) -> None:
        """Mark the directory as complete."""
        write_text(self.path / MANIFEST, json.dumps({**self._settings, **result}, indent=2) + "\n")
        shutil.rmtree(self.path / _PARTS, ignore_errors=True)
        self.result = result

    def _part(self, part: str) -> Path:
        return self.path / _PARTS / f"{part}.csv"


@contextmanager
def begun_output(
    path: Path, settings: Mapping[str, Any], results: tuple[str, ...], *, told: tuple[str, ...] = ()
) -> Iterator[ResumableOutput]:
    """Lock a directory; begin in it, or continue there.

    Args:
        path: a directory that is missing, empty, or was begun with the same settings.
        settings: every setting that decides the content, as JSON values.
        results: the keys of the result that :meth:`ResumableOutput.complete` gets.
        told: the keys of settings that are for information and do not decide the content.

    Raises:
        RunError: if the directory holds something else, or another process works on it.
    """
    file = path / MANIFEST
    if not file.exists() and holds_something(path):
        raise RunError(f"'{path}' is not empty, and this command did not begin it; choose another --out")
    with locked(path, f"another process is writing to '{path}'"):
        remove_abandoned(path)
        result = None
        if file.exists():
            result = _result(file, settings, results, told)
        else:
            write_text(file, json.dumps(settings, indent=2) + "\n")
        yield ResumableOutput(path, settings, result)


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Create a directory and keep other processes from working on it.

    Args:
        path: the directory.
        busy: the beginning of the message if another process works on it.

    Raises:
        RunError: if another process works on it, or it cannot be created.
    """
    from filelock import FileLock, Timeout

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK, timeout=_LOOKED_AT)
        lock.acquire()
    except Timeout:
        raise RunError(f"{busy}; wait until it ends, or choose another --out") from None
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"directory '{path}' cannot be written: {reason}; choose another --out") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process works on a directory; False if unknown."""
    from filelock import FileLock, Timeout

    if not (path / LOCK).exists():
        return False
    try:
        with FileLock(path / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def holds_something(path: Path) -> bool:
    """Whether a path is a file, or a directory with more than locks and temporary files of robust-tin.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        if not path.is_dir():
            return path.exists()
        return any(entry.name != LOCK and not is_temporary(entry.name) for entry in path.iterdir())
    except OSError as error:
        raise RunError(
            f"directory '{path}' cannot be read: {error.strerror}; expected a readable directory"
        ) from error


def _result(
    file: Path, settings: Mapping[str, Any], results: tuple[str, ...], told: tuple[str, ...]
) -> dict[str, Any] | None:
    """The result of an earlier call with the same settings; None if it was not completed."""
    there = _read(file)
    differences = [
        f"{key}: {there.get(key)} there, {value} here"
        for key, value in settings.items()
        if key not in told and there.get(key) != value
    ]
    if differences:
        raise RunError(
            f"'{file.parent}' was made with other settings ({'; '.join(differences)}); choose another --out"
        )
    if not all(key in there for key in results):
        return None
    result = {key: there[key] for key in results}
    if not all(type(value) is int and value >= 0 for value in result.values()):
        raise RunError(f"'{file}' is damaged; choose another --out")
    return result


def _read(file: Path) -> dict[str, Any]:
    try:
        there = json.loads(read_bytes(file))
    except (ValueError, RecursionError):
        there = None
    if not isinstance(there, dict):
        raise RunError(f"'{file}' is damaged; choose another --out")
    return there
