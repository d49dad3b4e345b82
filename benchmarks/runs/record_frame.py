"""Records as a DataFrame that still knows the columns of earlier versions by their old names."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

RENAMED = {"learned": "above_chance", "late": "late_successes", "disputed": "unverified"}


class RecordFrame(pd.DataFrame):
    """One row a measure; a column that was renamed is found under its old name, with a warning."""

    @property
    def _constructor(self) -> type[RecordFrame]:
        return RecordFrame

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self._today(key) if isinstance(key, str) else key)

    def __getattr__(self, name: str) -> Any:  # type: ignore[misc]
        return super().__getattr__(self._today(name) if name in RENAMED else name)

    def _today(self, name: str) -> str:
        if name not in RENAMED or name in self.columns:
            return name
        warnings.warn(
            f"column '{name}' is called '{RENAMED[name]}' now; the old name goes with the next version",
            DeprecationWarning,
            stacklevel=3,
        )
        return RENAMED[name]
