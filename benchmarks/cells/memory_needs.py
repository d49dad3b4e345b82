"""The memory that a cell needs, roughly."""

from __future__ import annotations

from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.network import create_skeleton

# Bytes per parameter during training: weight, gradient, two moments, checkpoint, variant.
_BYTES_PER_PARAMETER = 28
# Bytes per process besides the parameters: libraries, activations, images.
_BYTES_PER_PROCESS = 2 * 2**30


def needed_memory(backbone: Backbone, classes: int) -> int:
    """Bytes of a process that trains and attacks a network.

    Args:
        backbone: the network.
        classes: number of its logits.
    """
    skeleton = create_skeleton(backbone, classes, backbone.check_size(backbone.smallest))
    return _BYTES_PER_PROCESS + _BYTES_PER_PARAMETER * sum(each.numel() for each in skeleton.parameters())
