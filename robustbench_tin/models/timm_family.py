"""``timm:NAME``: any network of timm; trials without arithmetic find the sizes that it accepts."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import warnings

import timm
import torch

from robustbench_tin.errors import InvalidSettingError, UnknownNameError
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.network import create_skeleton

# Candidate steps between a network's sizes: 1, then those of strides, patches and windows.
_STEPS = (1, 2, 4, 7, 8, 14, 16, 32, 64)
# Errors that a network raises at a size that it does not accept, or if it has no size setting (TypeError).
_REFUSALS = (RuntimeError, AssertionError, ValueError, TypeError, LookupError, ZeroDivisionError)


class TimmBackbone(Backbone):
    """A backbone of timm; a size that its rule allows is still tried before it is accepted."""

    def check_size(self, image_size: int, resize_to: int | None = None) -> int:
        """See :meth:`Backbone.check_size`."""
        size = super().check_size(image_size, resize_to)
        if not _works(self, size):
            raise InvalidSettingError(
                f"backbone '{self.name}' does not work at image size {size};"
                f" choose another size with --image-size, for example {_native_size(self.timm_name)}"
            )
        return size


def require_timm_name(name: str) -> None:
    """Check that timm has a network of this name, with a published tag or without one.

    Raises:
        UnknownNameError: if it has none; the message lists the close names.
    """
    if timm.is_model(name) and (name in timm.list_models() or name in timm.list_pretrained()):
        return
    known = timm.list_models() + (timm.list_pretrained(f"{name.partition('.')[0]}.*") if "." in name else [])
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    raise UnknownNameError("backbone", f"timm:{name}", [f"timm:{found}" for found in close or _EXAMPLES])


_EXAMPLES = ("resnet18", "convnext_tiny", "vit_tiny_patch16_224")


@functools.cache
def timm_backbone(name: str) -> Backbone:
    """The backbone ``timm:name``, with the sizes that it accepts.

    Raises:
        UnknownNameError: if timm has no such network.
        InvalidSettingError: if it does not classify square RGB images.
    """
    require_timm_name(name)
    native = _native_size(name)
    backbone = TimmBackbone(
        f"timm:{name}", "a network of timm (Wightman, 2019)", name, smallest=native, fixed=True
    )
    if not _works(backbone, native):
        raise InvalidSettingError(
            f"'timm:{name}' returns no logits for an RGB image of {native} px;"
            " choose an image classifier of timm"
        )
    return _with_sizes(backbone, native)


def _with_sizes(backbone: Backbone, native: int) -> Backbone:
    """The backbone with the sizes that it accepts below its native one; unchanged if there are none.

    The finest step that reaches down to half the native size is chosen. Networks that round up or attend over
    windows accept a few pixels less at a fine step, and small sizes only at a coarse one.
    """
    best = backbone
    for sized in (False, True):
        for step in _STEPS:
            candidate = dataclasses.replace(backbone, fixed=False, sized=sized, multiple=step)
            if native % step == 0 and native > step and _works(candidate, native - step):
                found = dataclasses.replace(candidate, smallest=_smallest(candidate, native - step))
                best = min(best, found, key=lambda backbone: backbone.smallest)
            if best.smallest <= native // 2:
                return best
    return best


def _smallest(backbone: Backbone, working: int) -> int:
    """The smallest multiple that works, by bisection below a size that works."""
    low, high = 0, working // backbone.multiple
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _works(backbone, middle * backbone.multiple) else (middle, high)
    return high * backbone.multiple


@functools.lru_cache(maxsize=256)
def _works(backbone: Backbone, size: int) -> bool:
    classes = 7
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about layers without elements, which are refused below
            network = create_skeleton(backbone, classes, size)
            logits = network(torch.empty(2, 3, size, size, device="meta"))
    except _REFUSALS:
        return False
    complete = all(parameter.numel() > 0 for parameter in network.parameters())
    return complete and isinstance(logits, torch.Tensor) and logits.shape == (2, classes)


def _native_size(name: str) -> int:
    published = timm.models.get_pretrained_cfg(name)
    return int(published.input_size[-1]) if published is not None else 224
