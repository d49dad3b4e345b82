"""Training accuracy, counted in the passes that training makes anyway, without extra passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Heard:
    """The logits of a classifier's pass.

    Attributes:
        logits: ``(N, C)``, without their graph; None if the classifier was not called.
    """

    logits: Tensor | None = None


@contextmanager
def hearing(classifier: nn.Module) -> Iterator[Heard]:
    """Keep the logits of the classifier's first call inside the block."""
    heard = Heard()

    def hear(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if heard.logits is None:
            heard.logits = logits.detach()

    hook = classifier.register_forward_hook(hear)
    try:
        yield heard
    finally:
        hook.remove()


def right_answers(logits: Tensor | None, labels: Tensor) -> Tensor:
    """The number of images with their label in the top 1, and in the top 5, without waiting for the device.

    For mixed labels it counts the label's weight on the predicted class, and on the five.

    Args:
        logits: ``(N, C)``. The result is NaN if it is None or has another number of images.
        labels: int64 ``(N,)``, or probabilities float32 ``(N, C)``.

    Returns:
        float32 ``(2,)``.

    >>> right_answers(torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 0])).tolist()
    [1.0, 2.0]
    >>> right_answers(torch.tensor([[3.0, 1.0]]), torch.tensor([[0.25, 0.75]])).tolist()
    [0.25, 1.0]
    """
    if logits is None or len(logits) != len(labels):
        return torch.full((2,), torch.nan, device=labels.device, dtype=torch.float32)
    top = logits.topk(min(5, logits.shape[1])).indices
    weights = labels.gather(1, top) if labels.is_floating_point() else (top == labels[:, None]).float()
    return torch.stack([weights[:, 0].sum(), weights.sum()])
