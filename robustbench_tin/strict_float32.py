"""The arithmetic of float32: exact for verification, TF32 if allowed during a search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 matrix products and convolutions in float32 inside; restore the settings on exit.

    torch has two interfaces for this setting and refuses to read the older one after the newer was used.
    Therefore each is restored only if it could be read.
    """
    newer = [(place, place.fp32_precision) for place in _places() if hasattr(place, "fp32_precision")]
    matmul = cudnn = None
    with suppress(RuntimeError):
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = torch.backends.cudnn.allow_tf32
    _be_exact()
    try:
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for place, precision in newer:
            place.fp32_precision = precision


@contextmanager
def tf32() -> Iterator[None]:
    """Inside :func:`exact_float32`: let the GPU round the factors of float32 products to TF32 (10 bits)."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        _be_exact()


def has_tf32(device: torch.device) -> bool:
    """True if a device computes in TF32: NVIDIA's from compute capability 8.0 on."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _be_exact() -> None:
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for place in _places():
        if getattr(place, "fp32_precision", "none") not in ("none", "ieee"):
            place.fp32_precision = "ieee"


def _places() -> list[Any]:
    """The settings in torch 2.9 and later for float32 arithmetic, by library and operation."""
    libraries = torch.backends.cudnn, torch.backends.mkldnn
    operations = [getattr(library, name, None) for library in libraries for name in ("matmul", "conv", "rnn")]
    return [torch.backends.cuda.matmul, *operations]
