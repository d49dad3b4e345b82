"""Folding batch norm into the convolution before it: the same function in eval mode, for less work."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from robustbench_tin.attacks.acceleration.module_surgery import put
from robustbench_tin.attacks.engine.calling import asked


def folded(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy of the model, in eval mode, whose batch norms that directly follow a convolution are folded.

    Which norm follows which convolution is seen by watching one forward pass, so it works for any module. A
    convolution whose output goes elsewhere as well would be folded wrongly: the caller compares the
    copy with the model, and drops it where they differ.

    Args:
        model: in eval mode.
        images: a few images that it takes.

    Raises:
        TypeError: for a model whose copies share parts with it: they would be changed with the copy.
    """
    twin = copy.deepcopy(model)
    if not _parts(twin).isdisjoint(_parts(model)):
        raise TypeError("the model's copy shares modules or weights with it")
    for convolution, norm in _pairs(twin, images):
        _fold(twin, convolution, norm)
    return twin


def _parts(model: nn.Module) -> set[int]:
    return {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}


def _pairs(model: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the norms that take their output, each called once."""
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
            asked(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return [(conv, norm) for conv, norm in pairs if calls[conv] == 1 and calls[norm] == 1]


def _fold(model: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = model.get_submodule(convolution), model.get_submodule(norm)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    conv.weight, conv.bias = weight, bias
    # timm's norms hold the activation that follows; what is left of a norm is that.
    rest = [getattr(bn, part) for part in ("drop", "act") if isinstance(getattr(bn, part, None), nn.Module)]
    put(model, norm, nn.Sequential(*rest) if rest else nn.Identity())
