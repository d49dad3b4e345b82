"""Top-k results, confidence intervals, and a test against guessing."""

from __future__ import annotations

from torch import Tensor

CONFIDENCE = 0.95
CHANCE_LEVEL = 0.001


def in_top(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """True if the true label is among the ``k`` largest logits.

    Ties count against the classifier: a label that shares its value with others ranks after them. A network
    with equal outputs must not gain robust accuracy.

    Args:
        logits: float ``(N, C)``.
        labels: int64 ``(N,)``, from 0 to C - 1.
        k: at least 1; with ``k >= C`` the result is True for every image.

    Returns:
        bool ``(N,)``.

    >>> import torch
    >>> in_top(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([2]), k=2)
    tensor([True])
    >>> in_top(torch.zeros(1, 3), torch.tensor([0]), k=1)
    tensor([False])
    """
    own = logits.gather(1, labels.view(-1, 1))
    # "not less" rather than "at least": NaN also counts against the label.
    ranked_before = (~(logits < own)).sum(dim=1) - 1
    return ranked_before < k


def predictions(logits: Tensor) -> Tensor:
    """The class with the largest logit; any one of them for equal logits.

    Args:
        logits: float ``(N, C)``.

    Returns:
        int32 ``(N,)``.

    >>> import torch
    >>> predictions(torch.tensor([[3.0, 1.0], [0.0, 2.0]]))
    tensor([0, 1], dtype=torch.int32)
    """
    return logits.argmax(dim=1).int()


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's interval for an accuracy, both ends in [0, 1], at 95 % (Wilson, 1927).

    >>> low, high = interval(50, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    from scipy.stats import binomtest

    bounds = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(bounds.low), float(bounds.high)


def above_chance(successes: int, trials: int, classes: int) -> bool:
    """True if a clean accuracy is better than guessing, by a one-sided exact binomial test at 0.001.

    >>> above_chance(30, 100, classes=10), above_chance(15, 100, classes=10)
    (True, False)
    """
    from scipy.stats import binomtest

    return bool(binomtest(successes, trials, 1 / classes, alternative="greater").pvalue < CHANCE_LEVEL)
