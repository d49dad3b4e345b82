"""Track a run in a thread per tracker; a tracker's failure cannot affect the run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from robustbench_tin.benchmarks.planning.config import TrackingConfig
from robustbench_tin.benchmarks.tracking.follow import Follower
from robustbench_tin.benchmarks.tracking.mlflow_tracker import MlflowTracker
from robustbench_tin.benchmarks.tracking.tracker import End, Tracker
from robustbench_tin.benchmarks.tracking.wandb_tracker import WandbTracker
from robustbench_tin.errors import FOREIGN, RunError, one_line
from robustbench_tin.progress import Reporter

# Seconds between two looks; seconds after a failure; seconds that a tracker gets for the last look.
_PAUSE, _PAUSE_AFTER_FAILURE, _LAST = 2.0, 60.0, 60.0
# Looking takes a fiftieth of a core, which training shares; the pause has at most this many seconds.
_SHARE, _LONGEST_PAUSE = 50, 30.0


@contextmanager
def tracked(path: Path, asked: TrackingConfig, reporter: Reporter) -> Iterator[None]:
    """Let the requested trackers follow a run while the block runs.

    Args:
        path: the run directory, already begun.
        asked: the options that name the trackers.
        reporter: shows one warning for each tracker that fails.
    """
    threads = [_TrackerThread(path, tracker, reporter) for tracker in trackers(path, asked)]
    for thread in threads:
        thread.start()
    how = End.stopped
    try:
        yield
        how = End.finished
    finally:
        for thread in threads:
            thread.stop(how)
        latest = time.monotonic() + _LAST
        for thread in threads:
            thread.wait(latest - time.monotonic())


def trackers(path: Path, asked: TrackingConfig) -> list[Tracker]:
    """The requested trackers; none is contacted yet."""
    found: list[Tracker] = []
    if asked.mlflow is not None:
        found.append(MlflowTracker(asked.mlflow))
    if asked.wandb is not None:
        found.append(WandbTracker(asked.wandb, path / "tracking"))
    return found


class _TrackerThread:
    """Looks for new results from time to time, and sends them to one tracker."""

    def __init__(self, path: Path, tracker: Tracker, reporter: Reporter) -> None:
        self._path = path
        self._tracker = tracker
        self._reporter = reporter
        self._follower: Follower | None = None
        self._over = Event()
        self._how = End.stopped
        self._warned = False
        # A daemon thread: if it hangs, the program can still end.
        self._thread = Thread(target=self._work, name=f"tracking-{tracker.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, how: End) -> None:
        """Ask for the last look."""
        self._how = how
        self._over.set()

    def wait(self, seconds: float) -> None:
        """Wait for the last look, at most this long."""
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive():
            self._warn("the tracker does not answer")

    def _work(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # the client's processes survive Ctrl-C and get the rest
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        pause = 0.0
        while not self._over.wait(pause):
            pause = self._looked()
        self._attempt(lambda follower: follower.end(self._how), last=True)

    def _looked(self) -> float:
        """Look once; return the seconds until the next look."""
        began = time.thread_time()
        if not self._attempt(Follower.look, last=False):
            return _PAUSE_AFTER_FAILURE
        return min(max(_PAUSE, _SHARE * (time.thread_time() - began)), _LONGEST_PAUSE)

    def _attempt(self, act: Callable[[Follower], None], *, last: bool) -> bool:
        try:
            if self._follower is None:
                self._follower = Follower(self._path, self._tracker)
            act(self._follower)
        except RunError as error:
            # A file that is being replaced is complete at the next look.
            if last:
                self._warn(str(error))
        except FOREIGN as error:  # any error of a tracker's client
            self._warn(one_line(error))
            return False
        return True

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            where = f"--{self._tracker.name} {self._tracker.place}"
            self._reporter.warn(
                f"warning: {where}: {why.rstrip('.')}. The run continues; to send the missing data later, run"
                " the same command again."
            )
