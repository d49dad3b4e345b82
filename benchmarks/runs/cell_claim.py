"""A cell is written by one process at a time, even if two believe that it is theirs.

A process on a machine that is taken for lost may live on, while another was given the same cell. The claim is
a lock on a file in the cell's directory; it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustbench_tin.benchmarks.runs.resumable_output import LOCK
from robustbench_tin.errors import RunError

# Seconds between two attempts: on a file system of several machines each one is a message.
_PAUSE = 0.5


class ClaimedError(RunError):
    """Another process works on the cell."""


@contextmanager
def claimed(directory: Path, patience: float) -> Iterator[None]:
    """Keep other processes from writing a cell's files while the block lasts.

    Args:
        directory: of the cell; it is made if it is missing.
        patience: seconds to wait for another process.

    Raises:
        ClaimedError: if another process still has the cell after that.
        RunError: if the directory cannot be written, or its file system has no locks.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(directory / LOCK)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience, poll_interval=_PAUSE)
    except Timeout:
        raise ClaimedError(
            f"another process works on '{directory}' and did not end within {patience:.0f} s; end it, or wait"
            " for it, then give the same command again"
        ) from None
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"'{directory}' cannot be locked: {reason}; choose another --out") from error
    try:
        yield
    finally:
        lock.release()
