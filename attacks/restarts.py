"""Which of several tries counts, where all of them are made."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.oracle import Oracle


def worst_of(tries: Iterable[Tensor], oracle: Oracle, labels: Tensor, criterion: Criterion) -> Tensor:
    """Of each image the try that is worst for the model, by the criterion's margin.

    Costs one forward pass a try, and none where there is only one.

    Args:
        tries: one or more, each float32 ``(N, C, H, W)``.
        oracle: the model.
        labels: true labels, int64 ``(N,)``.
        criterion: whose margin.
    """
    rest = iter(tries)
    worst = next(rest)
    worst_margin: Tensor | None = None
    for other in rest:
        if worst_margin is None:
            worst_margin = criterion.margin(oracle.logits(worst), labels)
        margin = criterion.margin(oracle.logits(other), labels)
        worst = torch.where((margin > worst_margin).view(-1, 1, 1, 1), other, worst)
        worst_margin = torch.maximum(margin, worst_margin)
    return worst
