"""Attribution maps by captum (Kokhlikyan et al., 2020, arXiv 2009.07896)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.benchmarks.evidence.choices import Method
from robustbench_tin.errors import InvalidSettingError

STEPS = 32
"""Number of points on the path from black to the image over which integrated gradients are averaged."""


def require_captum() -> None:
    """Raise if captum is not installed.

    Raises:
        InvalidSettingError: with the command that installs it.
    """
    if find_spec("captum") is None:
        raise InvalidSettingError(
            "saliency needs captum, which is not installed; run pip install 'robustbench-tin[saliency]'"
        )


def attribution_maps(
    model: nn.Module, images: Tensor, targets: Tensor, method: Method, layer: nn.Module | None = None
) -> Tensor:
    """The contribution of each pixel to the logit of a class.

    ``saliency`` and ``integrated-gradients`` are absolute values, summed over the channels; integrated
    gradients start at a black image. ``grad-cam`` keeps the positive part, enlarged (bilinear) to the image.

    Args:
        model: maps float32 pixels in [0, 1] to logits; in eval mode.
        images: float32 ``(N, C, H, W)``.
        targets: class of each image, int64 ``(N,)``.
        method: the attribution method.
        layer: the module of ``model`` that ``grad-cam`` explains.

    Returns:
        Values of at least 0, float32 ``(N, H, W)`` on the CPU.
    """
    from captum import attr

    # A copy as a new leaf: autograd refuses tensors that were made in inference mode.
    images = images.clone().requires_grad_()
    if method is Method.grad_cam:
        assert layer is not None
        maps = attr.LayerGradCam(model, layer).attribute(images, target=targets, relu_attributions=True)
        maps = functional.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)
    else:
        maps = _pixel_attribution(attr, model, images, targets, method).abs()
    return torch.as_tensor(maps).detach().sum(dim=1).cpu()


def _pixel_attribution(
    attr: Any, model: nn.Module, images: Tensor, targets: Tensor, method: Method
) -> Tensor:
    if method is Method.saliency:
        return torch.as_tensor(attr.Saliency(model).attribute(images, target=targets))
    gradients = attr.IntegratedGradients(model, multiply_by_inputs=True)
    return torch.as_tensor(
        gradients.attribute(images, target=targets, n_steps=STEPS, internal_batch_size=len(images))
    )
