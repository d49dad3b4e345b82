"""What training minimises of logits and labels, before any defense changes it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def classification_loss(classifier: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss that a classifier is trained with, a scalar.

    Cross-entropy, mean over the images; of a classifier with ``one_vs_rest`` the binary cross-entropy of each
    class under its own sigmoid, summed over the classes, mean over the images.

    Args:
        classifier: whose logits these are.
        logits: float32 ``(N, C)``.
        labels: int64 ``(N,)``, or probabilities float32 ``(N, C)``.
    """
    if not getattr(classifier, "one_vs_rest", False):
        return functional.cross_entropy(logits, labels)
    if labels.ndim == 1:
        labels = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(logits)
