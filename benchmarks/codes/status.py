"""Statuses: whether a measurement or a training succeeded, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

from robustbench_tin.messages import Message


class StatusCode(StrEnum):
    """The codes that programs decide on; their texts are for people."""

    ok = "ok"
    failed = "failed"
    failed_at_source = "failed-at-source"
    failed_at_target = "failed-at-target"
    not_measured = "not-measured"

    @property
    def figure(self) -> str:
        """The word that a table shows instead of an accuracy; empty if there is an accuracy."""
        if self is StatusCode.ok:
            return ""
        return "not measured" if self is StatusCode.not_measured else "failed"


class Status(Message):
    """Whether a measurement succeeded, and if not, why.

    >>> str(Status.of(StatusCode.failed, why="no luck"))
    'failed: no luck'
    """

    code: StatusCode
    TEXTS: ClassVar[Mapping[StatusCode, str]] = {
        StatusCode.ok: "ok",
        StatusCode.failed: "failed: {why}",
        StatusCode.failed_at_source: "failed at the source: {why}",
        StatusCode.failed_at_target: "failed at the target: {why}",
        # Not attempted, for example because weights or gradients are missing: no fault of this run.
        StatusCode.not_measured: "not measured: {why}",
    }


OK = Status.of(StatusCode.ok)
