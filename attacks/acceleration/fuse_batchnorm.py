"""Fusing batch norm into the convolution before it: the same function in eval mode, for less work."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from robustbench_tin.attacks.acceleration.module_surgery import put
from robustbench_tin.attacks.engine.call_model import call_model


def fuse_batchnorm(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with each batch norm that directly follows a convolution fused into it, in place.

    One forward pass shows which norm follows which convolution, so this works for any module. If a
    convolution's output is used elsewhere too, the fused model differs: the caller must compare them.

    Args:
        model: a copy, in eval mode.
        images: a few images that the model accepts, float32 ``(N, C, H, W)``.
    """
    for convolution, norm in _pairs(model, images):
        _fuse(model, convolution, norm)
    return model


def _pairs(model: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the norms that read their output, each called once."""
    outputs: dict[int, tuple[Tensor, str]] = {}
    pairs: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()
    handles = []

    def after_convolution(name: str, output: Tensor) -> None:
        calls[name] += 1
        outputs[id(output)] = (output, name)

    def after_norm(name: str, taken: Tensor) -> None:
        calls[name] += 1
        if id(taken) in outputs:
            pairs.append((outputs[id(taken)][1], name))

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(
                module.register_forward_hook(lambda _, __, out, name=name: after_convolution(name, out))
            )
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            handles.append(
                module.register_forward_hook(lambda _, given, __, name=name: after_norm(name, given[0]))
            )
    try:
        # No inference mode: the copy keeps no inference tensors that way.
        with torch.no_grad():
            call_model(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return [(conv, norm) for conv, norm in pairs if calls[conv] == 1 and calls[norm] == 1]


def _fuse(model: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = model.get_submodule(convolution), model.get_submodule(norm)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    conv.weight, conv.bias = weight, bias
    # timm's norms contain the activation that follows: it stays.
    rest = [getattr(bn, part) for part in ("drop", "act") if isinstance(getattr(bn, part, None), nn.Module)]
    put(model, norm, nn.Sequential(*rest) if rest else nn.Identity())
