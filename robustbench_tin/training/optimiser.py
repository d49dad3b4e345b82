"""Optimisers, and the groups of parameters that they treat alike."""

from __future__ import annotations

import torch
from torch import nn

from robustbench_tin.training.recipe import Recipe
from robustbench_tin.training.schedule import SCHEDULES
from robustbench_tin.training.stages import Stage, head_parameters


def build_optimizer(classifier: nn.Module, recipe: Recipe, stage: Stage) -> torch.optim.Optimizer:
    """The recipe's optimiser of what is trained now."""
    groups = parameter_groups(classifier, recipe, stage)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.lr, fused=True)


def parameter_groups(classifier: nn.Module, recipe: Recipe, stage: Stage) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels, none for biases and normalisation; the head at its own rate.

    ``peak`` is the group's highest learning rate.
    """
    head = head_parameters(classifier)
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = []
    for in_head, rate in ((False, 1.0), (True, recipe.head_rate)):
        for decays in (True, False):
            chosen = [p for p in trained if (p in head) == in_head and (p.ndim >= 2) == decays]
            if chosen:
                decay = recipe.decay if decays else 0.0
                groups.append(
                    {"params": chosen, "weight_decay": decay, "peak": recipe.lr * stage.rate * rate}
                )
    return groups


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> None:
    """Give each group its learning rate at a step of its stage."""
    factor = SCHEDULES[recipe.schedule](step, steps, recipe.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
