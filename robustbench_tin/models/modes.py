"""Eval mode for every kind of module."""

from __future__ import annotations

from torch import nn


def to_eval_mode(model: nn.Module) -> None:
    """Eval mode for a model and its parts, also where some have no modes.

    An exported program refuses to change its mode, which it was exported in; what is around it does not.
    """
    try:
        model.eval()
    except NotImplementedError:
        for part in model.children():
            to_eval_mode(part)
        model.training = False
