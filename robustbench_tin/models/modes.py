"""Eval mode for every kind of module."""

from __future__ import annotations

from torch import nn


def to_eval_mode(model: nn.Module) -> None:
    """Put a model and its parts into eval mode, even if a part has no modes.

    An exported program refuses to change its mode, which it was exported in; the modules around it do not.
    """
    try:
        model.eval()
    except NotImplementedError:
        for part in model.children():
            to_eval_mode(part)
        model.training = False
