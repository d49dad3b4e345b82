"""What one image costs, counted from shapes alone, for estimates before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.network import create_skeleton


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


def cost(backbone: Backbone, num_classes: int, image_size: int, resize_to: int | None = None) -> Cost:
    """Count a backbone's cost at a size, without memory or arithmetic.

    Args:
        backbone: whose network is counted; resizing and normalisation are not.
        num_classes: C of its logits.
        image_size: height and width in pixels of the data set's images.
        resize_to: the size that the network sees, see :meth:`Backbone.check_size`.

    Raises:
        InvalidSettingError: where the network does not work at that size.
    """
    size = backbone.check_size(image_size, resize_to)
    network = create_skeleton(backbone, num_classes, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, size, size, device="meta"))
    return Cost(
        flops_per_image=int(counter.get_total_flops()),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
