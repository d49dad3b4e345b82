"""A check that a model's logits depend differentiably on its pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustbench_tin.attacks.engine.model_passes import leaf
from robustbench_tin.errors import one_line
from robustbench_tin.runtime import is_out_of_memory

_CUT = "its logits do not lead back to its pixels"


def missing_gradient(model: Callable[[Tensor], object], images: Tensor) -> str | None:
    """The reason why a model has no gradients with respect to its pixels; None if it has.

    Args:
        model: from images to logits.
        images: a few images that it accepts, float32 ``(N, C, H, W)``.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            variable = leaf(images)
            logits = model(variable)
            if not isinstance(logits, Tensor) or not logits.requires_grad:
                return _CUT
            (gradient,) = torch.autograd.grad(logits.float().sum(), variable, allow_unused=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return one_line(error)
    return _CUT if gradient is None else None
