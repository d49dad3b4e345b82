"""Statuses: whether a measure was taken, or a cell trained, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

from robustbench_tin.messages import Message


class StatusCode(StrEnum):
    """Code decides on these alone."""

    ok = "ok"
    failed = "failed"
    failed_at_source = "failed-at-source"
    failed_at_target = "failed-at-target"
    not_measured = "not-measured"

    @property
    def figure(self) -> str:
        """In the place of a figure in a table; empty if there is one."""
        if self is StatusCode.ok:
            return ""
        return "not measured" if self is StatusCode.not_measured else "failed"


class Status(Message):
    """Whether a measure was taken, and why not.

    >>> str(Status.of(StatusCode.failed, why="no luck"))
    'failed: no luck'
    """

    code: StatusCode
    TEXTS: ClassVar[Mapping[StatusCode, str]] = {
        StatusCode.ok: "ok",
        StatusCode.failed: "failed: {why}",
        StatusCode.failed_at_source: "failed at the source: {why}",
        StatusCode.failed_at_target: "failed at the target: {why}",
        # Nobody tried, for want of weights or of gradients, say: no fault of this run.
        StatusCode.not_measured: "not measured: {why}",
    }


OK = Status.of(StatusCode.ok)
