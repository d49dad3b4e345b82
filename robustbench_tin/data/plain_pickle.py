"""Reading of pickles of NumPy arrays, dicts, lists, texts and numbers; no other object is ever built."""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

# NumPy's function that rebuilds an array; its module differs from version to version.
_RECONSTRUCT = np.empty(0).__reduce__()[0]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # bytes, as Python 3 writes them for Python 2
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] | None = _ALLOWED.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"contains {module}.{name}, expected arrays, lists and texts only")
        return found


def load_plain(content: bytes) -> Any:
    """The content of a pickle of plain data; texts of Python 2 are read as Latin-1.

    Raises:
        Exception: for a damaged pickle, or one that names any other class or function.
    """
    return _Unpickler(io.BytesIO(content), encoding="latin1").load()
