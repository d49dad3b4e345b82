"""Atomic writes: a file is written beside its path, then renamed to it."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from robustbench_tin.errors import RunError

# .NAME.RANDOM.HOST-PID.tmp; earlier versions wrote .NAME.RANDOM.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.(?P<host>[0-9a-f]{8})-(?P<process>[0-9]{1,10})\.tmp")
_EARLIER = re.compile(r"\..+\.(json|csv|md|parquet|safetensors|png|svg)\.[a-z0-9_]{8}")
# The additions to a name must leave room within the limit of 255 bytes for a file name.
_LONGEST = 150
# Failures that may pass, and seconds before each further try. No EIO: after it, a second flush may succeed
# though the content is lost.
_PASSING = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT})
_PAUSES = (0.1, 0.5, 2.0)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same directory, which replaces ``path`` after the block.

    The parent directory is created if it is missing. After an error, ``path`` is unchanged. Temporary files
    of the same path from killed processes are removed.

    Raises:
        RunError: if the disk is full or the path cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{_shortened(path.name)}."
        _remove_dead(file for file in path.parent.glob(".*.tmp") if file.name.startswith(prefix))
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=_owner())
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _patiently(partial(_put, temporary, path))
    except OSError as error:
        raise RunError(
            f"cannot write '{path}': {error.strerror or error}; free some space or choose another path, then"
            " repeat the same command"
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _put(temporary: Path, path: Path) -> None:
    """Put a whole file into its place."""
    _flush(temporary)
    temporary.chmod(0o666 & ~_umask())
    temporary.replace(path)


def _patiently(act: Callable[[], None]) -> None:
    """Try again a few times if a file system, such as one on a network, fails for a moment.

    Raises:
        OSError: of the last try, and at once one that will not pass by itself, such as a full disk.
    """
    for pause in _PAUSES:
        try:
            act()
            return
        except OSError as error:
            if error.errno not in _PASSING:
                raise
        time.sleep(pause)
    act()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; bytes of names that have no encoding are escaped.

    Raises:
        RunError: if the disk is full or the path cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def is_temporary(name: str) -> bool:
    """True if a file name is one that :func:`replacing` yields."""
    return bool(_TEMPORARY.fullmatch(name) or _EARLIER.fullmatch(name))


def remove_abandoned(directory: Path) -> None:
    """Remove the temporary files of killed processes in a directory; the caller holds its lock.

    It keeps only temporary files of other running processes of this machine. This process has written none
    yet: a file with its number belongs to an earlier process, for example in a restarted container.
    """
    for parent, _, names in os.walk(directory):
        for name in filter(is_temporary, names):
            process = _process(name)
            if process is None or process == os.getpid() or not _lives(process):
                _remove(Path(parent) / name)


def _remove_dead(files: Iterable[Path]) -> None:
    """Remove temporary files whose processes on this machine have ended."""
    for file in files:
        process = _process(file.name)
        if process is not None and not _lives(process):
            _remove(file)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _process(name: str) -> int | None:
    """The number of the process on this machine that a temporary file belongs to, or None."""
    found = _TEMPORARY.fullmatch(name)
    return int(found["process"]) if found is not None and found["host"] == _host() else None


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # Windows keeps open files anyway, and has no harmless signal.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _owner() -> str:
    return f".{_host()}-{os.getpid()}.tmp"


def _host() -> str:
    return hashlib.blake2b(platform.node().encode(errors="replace"), digest_size=4).hexdigest()


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST])


def _flush(path: Path) -> None:
    """Write the content to the disk before the rename, so that a power cut leaves no empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
