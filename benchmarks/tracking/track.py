"""Tracking beside a run: a thread for each tracker, which no failure of can reach the run."""

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

# Seconds between two looks; the same after a failure; and that a tracker gets for the last look.
_PAUSE, _PAUSE_AFTER_FAILURE, _LAST = 2.0, 60.0, 60.0
# A look takes a fiftieth of a core, which it shares with training; but none is longer ago than this.
_SHARE, _LONGEST_PAUSE = 50, 30.0


@contextmanager
def tracked(path: Path, asked: TrackingConfig, reporter: Reporter) -> Iterator[None]:
    """Let the trackers that are asked for follow a run while the block lasts.

    Args:
        path: the run directory, begun.
        asked: names the trackers.
        reporter: gets one warning of each tracker that fails.
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
    """Those that are asked for; none of them is reached yet."""
    found: list[Tracker] = []
    if asked.mlflow is not None:
        found.append(MlflowTracker(asked.mlflow))
    if asked.wandb is not None:
        found.append(WandbTracker(asked.wandb, path / "tracking"))
    return found


class _TrackerThread:
    """Looks for something new from time to time, and tells one tracker."""

    def __init__(self, path: Path, tracker: Tracker, reporter: Reporter) -> None:
        self._path = path
        self._tracker = tracker
        self._reporter = reporter
        self._follower: Follower | None = None
        self._over = Event()
        self._how = End.stopped
        self._warned = False
        # A daemon: one that hangs does not keep the program from its end.
        self._thread = Thread(target=self._work, name=f"tracking-{tracker.name}", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, how: End) -> None:
        """Ask for the last look."""
        self._how = how
        self._over.set()

    def wait(self, seconds: float) -> None:
        """Wait for the last look, no longer than this."""
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive():
            self._warn("it does not answer")

    def _work(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # a client's own processes outlive Ctrl-C, to be told the rest
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        pause = 0.0
        while not self._over.wait(pause):
            pause = self._looked()
        self._attempt(lambda follower: follower.end(self._how), last=True)

    def _looked(self) -> float:
        """Look once; returns the seconds until the next time."""
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
            # A file that is just replaced is whole at the next look.
            if last:
                self._warn(str(error))
        except FOREIGN as error:  # whatever a tracker's client raises
            self._warn(one_line(error))
            return False
        return True

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            where = f"--{self._tracker.name} {self._tracker.place}"
            self._reporter.warn(
                f"warning: {where}: {why.rstrip('.')}. The run continues; the same command sends later what"
                " is missing."
            )
