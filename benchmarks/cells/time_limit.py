"""The hours that a run may take: a part begins only if it can end in time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Self

from robustbench_tin.errors import OutOfTimeError

# A part begins if it ends in time with this factor to spare, because a cost is never known exactly.
_SPARE = 1.1


@dataclass
class TimeLimit:
    """The time at which to stop, and the ratio of real to estimated seconds.

    If the object is sent to another process, even on another machine, the same number of seconds is left:
    clocks are not compared.

    Attributes:
        ends: time of the limit, on the monotonic clock of this process.
        expected: estimated seconds of the finished parts.
        taken: real seconds of these parts.
    """

    ends: float = math.inf
    expected: float = field(default=0.0)
    taken: float = field(default=0.0)

    @classmethod
    def of_hours(cls, hours: float | None) -> Self:
        """A limit this number of hours from now; None: no limit."""
        return cls() if hours is None else cls(time.monotonic() + 3600 * hours)

    @property
    def left(self) -> float:
        """Seconds until the limit; negative after it."""
        return self.ends - time.monotonic()

    @property
    def pace(self) -> float:
        """Real seconds of a part per estimated second; 1 before anything is measured."""
        return self.taken / self.expected if self.expected > 0 else 1.0

    def require(self, seconds: float) -> None:
        """Check that a part can end in time.

        Args:
            seconds: its estimated seconds.

        Raises:
            OutOfTimeError: if it cannot.
        """
        needed = _SPARE * seconds * self.pace
        if self.left <= 0 or needed > self.left:
            raise OutOfTimeError(f"{needed:.0f} s are needed and {max(0.0, self.left):.0f} s are left")

    def measured(self, expected: float, taken: float) -> None:
        """Add a finished part to the pace."""
        self.expected += expected
        self.taken += taken

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_this_process, (self.left, self.expected, self.taken)


def _in_this_process(left: float, expected: float, taken: float) -> TimeLimit:
    return TimeLimit(time.monotonic() + left, expected, taken)
