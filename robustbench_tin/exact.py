"""Float32 computed as float32: what an attack verifies must not have been rounded to TF32 or bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, matrix products and convolutions of float32 are float32; afterwards all is as it was.

    torch has two interfaces for this and refuses to read the older one where the newer was used, so
    each is put back if it could be read.
    """
    newer = [(place, place.fp32_precision) for place in _places() if hasattr(place, "fp32_precision")]
    matmul = cudnn = None
    with suppress(RuntimeError):
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for place, _ in newer:
        if place.fp32_precision not in ("none", "ieee"):
            place.fp32_precision = "ieee"
    try:
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for place, precision in newer:
            place.fp32_precision = precision


def _places() -> list[Any]:
    """Where torch 2.9 and later keep how float32 is computed, by library and operation."""
    libraries = torch.backends.cudnn, torch.backends.mkldnn
    operations = [getattr(library, name, None) for library in libraries for name in ("matmul", "conv", "rnn")]
    return [torch.backends.cuda.matmul, *operations]
