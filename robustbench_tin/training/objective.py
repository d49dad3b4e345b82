"""The training loss of a batch, before a defense changes it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def classification_loss(
    classifier: nn.Module, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """The classification loss, a scalar, for clean epochs and for each defense with one loss term.

    Cross-entropy, mean over the images. For a classifier with ``one_vs_rest``: the binary cross-entropy of
    each class's sigmoid, summed over the classes, mean over the images.

    Args:
        classifier: the classifier that gave the logits.
        logits: float32 ``(N, C)``.
        labels: int64 ``(N,)``, or probabilities float32 ``(N, C)``.
        label_smoothing: part of a label's weight that is spread over all classes, 0 or more, below 1. The
            training loss uses ``context.label_smoothing``; adversarial images are made without it.

    Returns:
        A scalar, float32.

    >>> import torch
    >>> classification_loss(nn.Identity(), torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor(0.6931)
    """
    if not getattr(classifier, "one_vs_rest", False):
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if labels.ndim == 1:
        labels = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    labels = labels * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(logits)
