"""Find the layer that Grad-CAM explains: the last feature map of a network."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_tin.errors import InvalidSettingError


def last_feature_map(model: nn.Module, image: Tensor) -> tuple[str, nn.Module, tuple[int, int]]:
    """The module at the end of the last convolutional layer: its name, the module, the size of its map.

    A forward pass shows which modules return maps of more than one pixel. The search starts at the network
    and descends: it takes the last module that contains or follows a convolution, so that batch norm,
    activation and the joining of parallel branches belong to it. A convolution on pooled features does not
    count, nor do parts of a block whose output is a single pixel.

    Args:
        model: maps pixels to logits; in eval mode.
        image: float32 ``(1, C, H, H)``.

    Raises:
        InvalidSettingError: if there is no such module.
    """
    outputs = _Outputs(model, image)
    last = outputs.last_map(model)
    if last is None:
        raise InvalidSettingError(
            "grad-cam finds no convolutional layer with a map of more than one pixel; choose another layer"
            " with --layer, give bench a larger --image-size, or choose --method saliency"
        )
    name = next(name for name, module in model.named_modules() if module is last)
    return name, last, outputs.sizes[last]


class _Outputs:
    """The outputs of a model's modules in one forward pass.

    Attributes:
        order: modules in the order in which they end.
        sizes: height and width of each module's map; ``(1, 1)`` for a single pixel.
    """

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        self.order: dict[nn.Module, None] = {}
        self.sizes: dict[nn.Module, tuple[int, int]] = {}
        self._calls: Counter[nn.Module] = Counter()
        hooks = [module.register_forward_hook(self._note) for module in model.modules()]
        try:
            with torch.no_grad():
                model(image)
        finally:
            for hook in hooks:
                hook.remove()

    def last_map(self, module: nn.Module) -> nn.Module | None:
        """The last part of a module that returns a map and contains or follows a convolution that does."""
        parts = set(module.children())
        pixels = []
        for part in reversed([each for each in self.order if each in parts]):
            if self._is_map(part):
                return part
            if not any(isinstance(each, nn.Conv2d) and self._is_map(each) for each in part.modules()):
                continue
            if part in self.sizes:
                pixels.append(part)  # its output is one pixel
                continue
            return self.last_map(part)
        return next((found for part in pixels if (found := self.last_map(part)) is not None), None)

    def _is_map(self, module: nn.Module) -> bool:
        # A module that is used more than once in a pass has more than one output.
        return min(self.sizes.get(module, (0, 0))) > 1 and self._calls[module] == 1

    def _note(self, module: nn.Module, _: Any, output: object) -> None:
        self._calls[module] += 1
        self.order.pop(module, None)
        self.order[module] = None
        # Images are square and so are their maps, which distinguishes maps from the tokens of a transformer.
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]:
            self.sizes[module] = output.shape[2], output.shape[3]


def named_layer(model: nn.Module, name: str) -> nn.Module:
    """The module with a name, such as ``network.layer4``.

    Raises:
        InvalidSettingError: if the network has no such layer; the message lists similar names.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if not name or name not in modules:
        known = [each for each in modules if each]
        close = get_close_matches(name, known, n=5, cutoff=0.3) or known[-5:]
        raise InvalidSettingError(
            f"layer got '{name}', which the model does not have; similar names: {', '.join(close)}"
        )
    return modules[name]
