"""Variants of a model: equivalent, faster copies that attacks search with.

A search needs gradients and comparisons, not the last bit. The model itself, in float32, verifies each
result. Any variant that agrees with the model will therefore do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.agreement import FLOAT32_LIMIT
from robustbench_tin.attacks.acceleration.fuse_batchnorm import fuse_batchnorm
from robustbench_tin.attacks.acceleration.module_surgery import independent_copy
from robustbench_tin.attacks.acceleration.small_map_conv import replace_small_map_convs
from robustbench_tin.attacks.acceleration.strided_conv_gradient import replace_strided_convs
from robustbench_tin.attacks.acceleration.variant_label import MODEL, Precision, VariantLabel
from robustbench_tin.attacks.engine.call_model import call_model
from robustbench_tin.models.modes import to_eval_mode
from robustbench_tin.models.small_maps import use_products
from robustbench_tin.strict_float32 import tf32


@dataclass(frozen=True)
class ModelVariant:
    """A model, or a copy of it, that attacks can search with.

    Attributes:
        module: pixels to logits; frozen and in eval mode.
        label: the kind of copy; by default, the module is the model itself.
        limit: largest distance allowed between its logits and the model's; see
            :func:`robustbench_tin.attacks.acceleration.agreement.distance`.
    """

    module: nn.Module
    label: VariantLabel = MODEL
    limit: float = FLOAT32_LIMIT

    @property
    def is_model(self) -> bool:
        """True if the module is the model itself, so that its logits need no verification."""
        return not self.label.fused

    @property
    def precision(self) -> Precision:
        """``float32``, ``tf32``, ``bfloat16`` or ``float16``."""
        return self.label.precision

    def logits(self, images: Tensor) -> object:
        """The module's output for float32 images."""
        with self._autocast(images.device.type):
            return call_model(self.module, images, channels_last=self.label.channels_last)

    def laid_out(self, images: Tensor) -> Tensor:
        """The images in the variant's memory layout."""
        if self.label.channels_last:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def arithmetic(self) -> AbstractContextManager[object]:
        """The context for its forward and backward passes: it allows TF32 if the label says so."""
        return tf32() if self.precision == "tf32" else nullcontext()

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if not self.label.autocasts:
            return nullcontext()
        return torch.autocast(device, getattr(torch, self.precision))


@dataclass(frozen=True)
class Rewrite:
    """A change of a model's layers that keeps its function.

    Attributes:
        apply: changes a module in place and returns it, given the module, frozen and in eval mode, and some
            images, float32 ``(N, C, H, W)``. If it raises, the module is discarded.
        cpu_only: used on CPUs alone.
    """

    apply: Callable[[nn.Module, Tensor], nn.Module]
    cpu_only: bool = True


def take_products(model: nn.Module, images: Tensor) -> nn.Module:
    """The model, whose layers take small maps as products from now on; ``images`` are not used."""
    use_products(model)
    return model


def keep_inputs(model: nn.Module, images: Tensor) -> nn.Module:
    """The model, whose layers do not overwrite their inputs from now on; ``images`` are not used.

    A product's result is a view, and autograd copies the gradient of a view that is overwritten.
    """
    for layer in model.modules():
        if vars(layer).get("inplace") is True:
            vars(layer)["inplace"] = False
    return model


REWRITES = (
    Rewrite(fuse_batchnorm, cpu_only=False),
    Rewrite(replace_strided_convs),
    Rewrite(replace_small_map_convs),
    Rewrite(take_products),
    Rewrite(keep_inputs),
)
"""All rewrites, in the order in which they are applied."""


def make_variant(model: nn.Module, images: Tensor, label: VariantLabel) -> ModelVariant | None:
    """The variant of a model with this label; None if the model cannot be copied or rewritten.

    Args:
        model: frozen and in eval mode.
        images: a few images that the model accepts, float32 ``(N, C, H, W)``.
        label: the kind of copy.
    """
    if not label.fused:
        return ModelVariant(model)
    try:
        module = _rewritten(independent_copy(model), images)
        if label.channels_last:
            module = module.to(memory_format=torch.channels_last)
        if label.autocasts:
            # Autocast would cast the weights again in every pass.
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.to(getattr(torch, label.precision))
    except Exception:  # noqa: BLE001 - any model may come; attacks search with the model itself instead
        return None
    to_eval_mode(module)
    # One by one: a script refuses to have all of its parameters frozen at once.
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return ModelVariant(module, label)


def _rewritten(module: nn.Module, images: Tensor) -> nn.Module:
    on_cpu = images.device.type == "cpu"
    for rewrite in REWRITES:
        if on_cpu or not rewrite.cpu_only:
            module = rewrite.apply(module, images)
    return module
