"""Records as a DataFrame that still accepts the column names of earlier versions."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

RENAMED = {"learned": "above_chance", "late": "late_successes", "disputed": "unverified"}


class RecordFrame(pd.DataFrame):
    """One row per measurement; a renamed column can be read by its old name, with a warning."""

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
            f"column '{name}' was renamed to '{RENAMED[name]}'; the next version removes the old name",
            DeprecationWarning,
            stacklevel=3,
        )
        return RENAMED[name]
