"""The head of a VGG whose last map is one pixel: the same function with 1/49 of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.models.vgg import VGG, ConvMlp
from torch import Tensor, nn

# A VGG halves its images five times.
_STRIDE = 32


def use_one_pixel_head(network: nn.Module, size: int) -> None:
    """Sum the head's first kernel over its positions, in place, if they all see the same pixel.

    timm repeats a last map of one pixel 7 × 7 times and convolves that with a 7 × 7 kernel. The sum of the
    kernel over its positions gives the same logits, and a training step need not update 100 million weights.

    Args:
        network: a network of timm; any except a VGG stays unchanged.
        size: height and width of the network's input in pixels.
    """
    if not isinstance(network, VGG) or not isinstance(network.pre_logits, ConvMlp) or size // _STRIDE > 1:
        return
    head = network.pre_logits
    wide = head.fc1
    assert isinstance(wide, nn.Conv2d)
    narrow = nn.Conv2d(wide.in_channels, wide.out_channels, 1, device="meta", dtype=wide.weight.dtype)
    with torch.no_grad():
        narrow.weight = nn.Parameter(_summed(wide.weight))
    narrow.bias = wide.bias
    head.fc1 = narrow
    head.input_kernel_size = 1


def with_head_of(state: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    """A VGG's weights, with the head's first kernel in the network's form: 1 × 1 or 7 × 7.

    Args:
        state: weights by the network's keys.
        network: any network; the weights of one that is not a VGG stay unchanged.
    """
    own = network.state_dict()
    changed = {key: _as_in(state[key], own[key]) for key in head_kernels(network) if key in state}
    return {**state, **changed}


def head_kernels(network: nn.Module) -> list[str]:
    """The keys of kernels that :func:`with_head_of` may change."""
    return [f"{name}.fc1.weight" for name, module in network.named_modules() if isinstance(module, ConvMlp)]


def _as_in(kernel: Tensor, own: Tensor) -> Tensor:
    if kernel.ndim != 4 or kernel.shape[:2] != own.shape[:2]:
        return kernel
    if own.shape[2:].numel() == 1:
        return _summed(kernel)
    if kernel.shape[2:].numel() == 1:
        return (kernel / own.shape[2:].numel()).expand_as(own).contiguous()
    return kernel


def _summed(kernel: Tensor) -> Tensor:
    """The sum of a kernel ``(out, in, height, width)`` over its positions, ``(out, in, 1, 1)``."""
    return kernel.sum((2, 3), keepdim=True)
