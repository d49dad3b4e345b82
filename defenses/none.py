"""No defense: the baseline of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robustbench_tin.defenses.base import Defense


@dataclass(frozen=True)
class NoDefense(Defense):
    """Plain training on unchanged images."""

    name: ClassVar[str] = "none"
