"""The groups of commands that ``robust-tin --help`` shows, in the order of the help."""

from __future__ import annotations

from typing import Final

MEASURE: Final = "Train and measure"
COMPARE: Final = "Read and compare runs"
IMAGES: Final = "Look at images"
GATE: Final = "Gate a CI build"
NAMES: Final = "Look up names and formats"
