"""What one image costs, counted from shapes alone, for estimates before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What a classifier costs.

    Attributes:
        flops_per_image: floating-point operations of one image's forward pass (a multiply-add is two);
            a backward pass costs about twice as much again.
        parameters: how many numbers are trained.
    """

    flops_per_image: int
    parameters: int


def cost(skeleton: nn.Module, size: int) -> Cost:
    """Count a network's cost at a size in pixels, without memory or arithmetic.

    Args:
        skeleton: the network on torch's meta device; resizing and normalisation are not counted.
        size: height and width at which it sees images.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        skeleton(torch.empty(1, 3, size, size, device="meta"))
    return Cost(
        flops_per_image=int(counter.get_total_flops()),
        parameters=sum(parameter.numel() for parameter in skeleton.parameters()),
    )
