"""A directory that one call fills part by part, and that the same call, stopped, goes on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustbench_tin.atomic import write_text
from robustbench_tin.errors import RunError

MANIFEST = "manifest.json"
"""Says what a directory was made with and, once it is complete, what came of it."""
_PARTS = ".parts"


class Claim:
    """A directory, held by this process.

    Attributes:
        path: the directory.
        result: what came of it; None while it is not complete.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], result: dict[str, Any] | None) -> None:
        self.path = path
        self.result = result
        self._settings = settings

    def is_done(self, part: str) -> bool:
        """Whether a part was written, now or before."""
        return self._part(part).exists()

    def note(self, part: str, text: str = "") -> None:
        """Note that a part is written; :meth:`noted` gives the text back."""
        write_text(self._part(part), text)

    def noted(self, part: str) -> str:
        """The text of a part that is done."""
        return self._part(part).read_text(encoding="utf-8")

    def complete(self, result: dict[str, Any]) -> None:
        """Mark the directory as complete."""
        write_text(self.path / MANIFEST, json.dumps({**self._settings, **result}, indent=2) + "\n")
        shutil.rmtree(self.path / _PARTS, ignore_errors=True)
        self.result = result

    def _part(self, part: str) -> Path:
        return self.path / _PARTS / f"{part}.csv"


@contextmanager
def claimed(
    path: Path, settings: Mapping[str, Any], results: tuple[str, ...], *, told: tuple[str, ...] = ()
) -> Iterator[Claim]:
    """Begin in a directory, or go on there, alone.

    Args:
        path: missing, empty, or of a call with the same settings.
        settings: all that decides what it will hold, as JSON has it.
        results: the keys of what :meth:`Claim.complete` will be given.
        told: the keys of settings that people are told and that decide nothing.

    Raises:
        RunError: where something else lies there or another process works on it.
    """
    from filelock import FileLock, Timeout

    file = path / MANIFEST
    if path.exists() and not file.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"'{path}' is not empty and was not begun by this command; choose another --out")
    result = None
    if file.exists():
        there = _read(file)
        differences = [
            f"{key}: {there.get(key)} there, {value} here"
            for key, value in settings.items()
            if key not in told and there.get(key) != value
        ]
        if differences:
            raise RunError(
                f"'{path}' holds images made otherwise ({'; '.join(differences)}); choose another --out"
            )
        if all(key in there for key in results):
            result = {key: there[key] for key in results}
    else:
        write_text(file, json.dumps(settings, indent=2) + "\n")
    try:
        with FileLock(path / ".lock", timeout=0):
            yield Claim(path, settings, result)
    except Timeout:
        raise RunError(
            f"another process is writing to '{path}'; wait for it or choose another --out"
        ) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        there = None
    if not isinstance(there, dict):
        raise RunError(f"'{file}' is damaged; choose another --out")
    return there
