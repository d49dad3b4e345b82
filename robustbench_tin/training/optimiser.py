"""Optimisers, and the groups of parameters that share a learning rate and weight decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from robustbench_tin.training.recipe import Recipe
from robustbench_tin.training.schedule import SCHEDULES
from robustbench_tin.training.stages import Stage, head_parameters


def build_optimizer(classifier: nn.Module, recipe: Recipe, stage: Stage) -> torch.optim.Optimizer:
    """The recipe's optimiser for the parameters that the stage trains."""
    groups = parameter_groups(classifier, recipe, stage)
    views = _take_contiguous(groups)
    optimizer = _of_groups(groups, recipe)
    if views:
        optimizer.register_step_pre_hook(lambda *_: _hand_over_gradients(views))
        optimizer.register_step_post_hook(lambda *_: _forget_gradients(views))
    return optimizer


def _of_groups(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.lr, fused=True)


Views = list[tuple[nn.Parameter, nn.Parameter]]


def _take_contiguous(groups: list[dict[str, Any]]) -> Views:
    """On a CPU, replace kernels in the groups by contiguous views.

    Fused optimisers copy kernels in channels-last layout at each step, which triples their time. They also
    pair the numbers of a kernel and of its gradient by position in memory, even if their layouts differ (seen
    in torch 2.14).

    Returns:
        Each kernel with its view.
    """
    views: Views = []
    for group in groups:
        for number, kernel in enumerate(group["params"]):
            if kernel.device.type == "cpu" and kernel.ndim == 4:
                innermost = not kernel.is_contiguous()
                view = nn.Parameter(kernel.detach().permute(0, 2, 3, 1) if innermost else kernel.detach())
                if view.is_contiguous():
                    group["params"][number] = view
                    views.append((kernel, view))
    return views


def _hand_over_gradients(views: Views) -> None:
    for kernel, view in views:
        gradient = kernel.grad
        if gradient is not None:
            innermost = view.shape != kernel.shape or view.stride() != kernel.stride()
            view.grad = (gradient.permute(0, 2, 3, 1) if innermost else gradient).contiguous()


def _forget_gradients(views: Views) -> None:
    """Release the gradients that the classifier has released."""
    for _, view in views:
        view.grad = None


def parameter_groups(classifier: nn.Module, recipe: Recipe, stage: Stage) -> list[dict[str, Any]]:
    """Groups: weight decay for matrices and kernels, none for biases and norms; the head has its own rate.

    ``peak`` is the group's highest learning rate.
    """
    head = head_parameters(classifier)
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
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
    """Set each group's learning rate for a step of its stage."""
    factor = SCHEDULES[recipe.schedule](step, steps, recipe.warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
