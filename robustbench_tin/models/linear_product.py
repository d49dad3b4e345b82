"""Linear layers in float32 by oneDNN instead of MKL, on AMD's processors with AVX-512.

PyTorch computes them with MKL, which has no AVX-512 kernels for AMD. oneDNN, which PyTorch uses for
convolutions, has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_tin.resources import processor_maker

# Number of multiplications from which oneDNN saves more time than the call costs.
_LARGE = 2**21


def _is_onednn_faster() -> bool:
    return (
        processor_maker() == "AuthenticAMD"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


ONEDNN_IS_FASTER = _is_onednn_faster()
"""Whether oneDNN multiplies matrices in float32 faster than MKL on this machine."""


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`torch.nn.functional.linear`; the result and the gradients differ from it by rounding at most.

    Args:
        rows: ``(..., in)``.
        weight: ``(out, in)``.
        bias: ``(out,)``; None: none.
    """
    if not _is_for_onednn(rows, weight):
        return functional.linear(rows, weight, bias)
    product: Tensor = _Product.apply(rows.flatten(0, -2), weight)
    return (product if bias is None else product + bias).view(*rows.shape[:-1], len(weight))


def _is_for_onednn(rows: Tensor, weight: Tensor) -> bool:
    return (
        ONEDNN_IS_FASTER
        # A traced or exported network must run on other machines, too.
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch.compiler.is_compiling()
        and rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and rows.dim() > 1
        and rows.numel() * len(weight) >= _LARGE
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
    )


class _Product(torch.autograd.Function):
    """``first @ second.t()`` of two matrices."""

    @staticmethod
    def forward(first: Tensor, second: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(first), _dense(second), None, "none", [], "")
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor | None, Tensor | None]:
        first, second = ctx.saved_tensors
        of_first, of_second = ctx.needs_input_grad
        return (
            _Product.apply(towards, second.t()) if of_first else None,
            _Product.apply(towards.t(), first.t()) if of_second else None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], *pair: Tensor) -> tuple[Tensor, int]:
        first, second = (
            matrix if place is None else matrix.movedim(place, 0)
            for matrix, place in zip(pair, in_dims, strict=True)
        )
        return torch.matmul(first, second.mT), 0


def _dense(matrix: Tensor) -> Tensor:
    """The matrix, or a copy if neither it nor its transpose is contiguous: for others oneDNN is slow."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()
