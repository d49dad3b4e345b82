"""Reading pickles of NumPy arrays, dicts, lists, texts and numbers; nothing else in them is ever run."""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

# How NumPy builds an array again; its place in NumPy differs from version to version.
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
            raise pickle.UnpicklingError(f"holds {module}.{name}, expected arrays, lists and texts only")
        return found


def load_plain(content: bytes) -> Any:
    """What a pickle of plain data holds; texts of Python 2 are read as Latin-1.

    Raises:
        Exception: for a damaged pickle, or one that names any class or function of its own.
    """
    return _Unpickler(io.BytesIO(content), encoding="latin1").load()
