"""Losses that attacks maximise, ``(N,)``, from logits ``(N, C)``; a higher loss is worse for the model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_tin.attacks.criterion import Criterion


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image; it is never averaged, so the batch size does not change a gradient.

    Args:
        logits: float ``(N, C)``.
        labels: int64 ``(N,)``.

    Returns:
        float ``(N,)``.

    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor([1.3863, 1.3863])
    """
    return functional.cross_entropy(logits, labels, reduction="none")


def targeted_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean log-probability of the targets ``(N, k)``, ``(N,)``."""
    return functional.log_softmax(logits, dim=1).gather(1, targets).mean(dim=1)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Lowest logit of the targets ``(N, k)`` minus the label's; above 0 the label is outside the top k."""
    weakest = logits.gather(1, targets).amin(dim=1)
    return weakest - logits.gather(1, labels.view(-1, 1)).squeeze(1)


def dlr(logits: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
    """Difference of logits ratio: the margin in units of the spread of the largest logits.

    It does not change if all logits are scaled or shifted, so a very confident model cannot hide its
    gradient. For ``k = 1`` it is the loss of Croce and Hein, 2020, "Reliable Evaluation of Adversarial
    Robustness with an Ensemble of Diverse Parameter-free Attacks", arXiv 2003.01690.

    Args:
        logits: float ``(N, C)``, with at least ``k + 2`` classes.
        labels: int64 ``(N,)``.
        criterion: the criterion of success, with its ``k``.

    Returns:
        float ``(N,)``; 0 or more if the image is adversarial.

    >>> dlr(torch.tensor([[4.0, 1.0, 0.0]]), torch.tensor([0]), Criterion(1))
    tensor([-0.7500])
    """
    largest = _largest(logits, criterion.k + 2)
    return criterion.margin(logits, labels) / (largest[:, 0] - largest[:, -1] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The difference of logits ratio toward targets ``(N, k)``; same paper. Needs four classes for k = 1."""
    k = targets.shape[1]
    largest = _largest(logits, k + 3)
    spread = largest[:, 0] - (largest[:, -1] + largest[:, -2]) / 2
    return targeted_margin(logits, labels, targets) / (spread + 1e-12)


def _largest(logits: Tensor, count: int) -> Tensor:
    return torch.topk(logits, min(count, logits.shape[1]), dim=1).values
