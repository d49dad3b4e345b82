"""The error of an attack that went wrong."""

from __future__ import annotations


class AttackFailure(RuntimeError):  # noqa: N818 - a measurement's "failed", in the project's words
    """An attack went wrong: its measurement has failed, and no image of it counts as robust."""
