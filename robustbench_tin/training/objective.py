"""The loss of a batch that a classifier is trained with, before any defense changes it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def classification_loss(
    classifier: nn.Module, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """The classification loss, a scalar: of every defense whose loss is one, and of clean epochs.

    Cross-entropy, mean over the images; of a classifier with ``one_vs_rest`` the binary cross-entropy of each
    class under its own sigmoid, summed over the classes, mean over the images.

    Args:
        classifier: whose logits these are.
        logits: float32 ``(N, C)``.
        labels: int64 ``(N,)``, or probabilities float32 ``(N, C)``.
        label_smoothing: part of the labels' weight that is spread over all classes. What the weights learn is
            smoothed by ``context.label_smoothing``; images are fooled against the labels as they are, so
            without it.
    """
    if not getattr(classifier, "one_vs_rest", False):
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if labels.ndim == 1:
        labels = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    labels = labels * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(logits)
