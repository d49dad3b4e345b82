"""The hours that a run may take: what would not end in time does not begin."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Self

from robustbench_tin.errors import OutOfTimeError

# A part begins if it ends in time with this to spare: a cost is never known exactly.
_SPARE = 1.1


@dataclass
class TimeLimit:
    """When to stop, and how long parts take compared with their estimates.

    In another process, on another machine too, the same number of seconds is left: clocks are not compared.

    Attributes:
        ends: on the monotonic clock of this process.
        expected: seconds that parts were estimated to take which are done; likewise ``taken``.
        taken: seconds that they took.
    """

    ends: float = math.inf
    expected: float = field(default=0.0)
    taken: float = field(default=0.0)

    @classmethod
    def of_hours(cls, hours: float | None) -> Self:
        """A limit that many hours from now; None: no limit."""
        return cls() if hours is None else cls(time.monotonic() + 3600 * hours)

    @property
    def left(self) -> float:
        """Seconds until the limit; negative after it."""
        return self.ends - time.monotonic()

    @property
    def pace(self) -> float:
        """Seconds that a part takes for each second of its estimate; 1 as long as nothing is measured."""
        return self.taken / self.expected if self.expected > 0 else 1.0

    def require(self, seconds: float) -> None:
        """Check that a part ends in time.

        Args:
            seconds: its estimate.

        Raises:
            OutOfTimeError: if it would not.
        """
        needed = _SPARE * seconds * self.pace
        if self.left <= 0 or needed > self.left:
            raise OutOfTimeError(f"{needed:.0f} s are needed and {max(0.0, self.left):.0f} s are left")

    def measured(self, expected: float, taken: float) -> None:
        """Take note of a part that is done."""
        self.expected += expected
        self.taken += taken

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_this_process, (self.left, self.expected, self.taken)


def _in_this_process(left: float, expected: float, taken: float) -> TimeLimit:
    return TimeLimit(time.monotonic() + left, expected, taken)
