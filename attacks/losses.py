"""What attacks climb: a loss an image, ``(N,)``, from logits ``(N, C)``; higher is worse for the model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_tin.attacks.criterion import Criterion


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image, ``(N,)``: never averaged, so a batch's size moves no gradient."""
    return functional.cross_entropy(logits, labels, reduction="none")


def targeted_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """How likely the targets ``(N, k)`` are: the mean of their log-probabilities, ``(N,)``."""
    return functional.log_softmax(logits, dim=1).gather(1, targets).mean(dim=1)


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The lowest logit of the targets ``(N, k)`` less the label's: above 0, the label is out of the top k."""
    weakest = logits.gather(1, targets).amin(dim=1)
    return weakest - logits.gather(1, labels.view(-1, 1)).squeeze(1)


def dlr(logits: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
    """Difference of logits ratio: the margin in units of the spread of the largest logits.

    It does not change when all logits are scaled or shifted, so a model that is very sure of itself
    cannot hide its gradient. For ``k = 1`` it is that of Croce and Hein, 2020, "Reliable Evaluation of
    Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks", arXiv 2003.01690. Needs three
    classes.
    """
    largest = _largest(logits, criterion.k + 2)
    return criterion.margin(logits, labels) / (largest[:, 0] - largest[:, -1] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The difference of logits ratio toward given targets ``(N, k)``; same paper. Needs four classes."""
    k = targets.shape[1]
    largest = _largest(logits, k + 3)
    spread = largest[:, 0] - (largest[:, -1] + largest[:, -2]) / 2
    return targeted_margin(logits, labels, targets) / (spread + 1e-12)


def _largest(logits: Tensor, count: int) -> Tensor:
    return torch.topk(logits, min(count, logits.shape[1]), dim=1).values
