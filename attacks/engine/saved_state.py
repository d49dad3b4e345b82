"""Freezing models and restoring them: modes, flags and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustbench_tin.models.modes import to_eval_mode


class SavedState:
    """Models in eval mode with frozen parameters; on exit, they are restored.

    Changes by forward passes are undone too: running statistics, counters, weights that adapt to the images.
    Only tensors are restored; a number in a Python attribute of a module is not.

    Args:
        models: the models; they may share modules and tensors.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._models = models

    def __enter__(self) -> Self:
        parts = list({id(part): part for model in self._models for part in model.modules()}.values())
        self._modes = [(part, part.training) for part in parts if hasattr(part, "training")]
        self._held = [_Held(part, name, tensor, tensor.detach().clone()) for part, name, tensor in _of(parts)]
        self._gradients: list[tuple[nn.Parameter, Tensor | None, Tensor | None]] = []
        self._frozen: list[nn.Parameter] = []
        try:
            self._start()
        except BaseException:
            self._put_back()
            raise
        return self

    def _start(self) -> None:
        for held in self._held:
            held.lend()
        for model in self._models:
            to_eval_mode(model)
        for parameter in (parameter for model in self._models for parameter in model.parameters()):
            # Lazy modules create their parameters in the first pass.
            if parameter.requires_grad and not is_lazy(parameter):
                parameter.requires_grad_(False)
                self._frozen.append(parameter)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    def thaw(self) -> bool:
        """Let parameters learn again, for models that adapt themselves in a pass.

        Returns:
            False if none was frozen.
        """
        if not self._frozen:
            return False
        self._gradients = [
            (parameter, parameter.grad, None if parameter.grad is None else parameter.grad.clone())
            for parameter in self._frozen
        ]
        self._unfreeze()
        return True

    def _unfreeze(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []

    def _put_back(self) -> None:
        for held in self._held:
            held.put_back()
        for parameter, gradient, values in self._gradients:
            parameter.grad = gradient
            if gradient is not None and values is not None:
                gradient.copy_(values)
        for part, training in self._modes:
            part.training = training
        self._unfreeze()


@dataclass(frozen=True)
class _Held:
    """A tensor of a module.

    Attributes:
        part: the module.
        name: the name of its attribute.
        tensor: the module's own tensor.
        values: a copy of its values at the start.
    """

    part: nn.Module
    name: str
    tensor: Tensor
    values: Tensor

    def lend(self) -> None:
        """Replace a tensor that was made in inference mode by a copy: autograd refuses such tensors."""
        if not self.tensor.is_inference() or isinstance(self.part, torch.jit.ScriptModule):
            return
        copy = self.tensor.clone()
        if isinstance(self.tensor, nn.Parameter):
            copy = nn.Parameter(copy, requires_grad=False)
        setattr(self.part, self.name, copy)

    def put_back(self) -> None:
        """Restore tensor and values, unless the module replaced it by one of another kind (a cache)."""
        now = getattr(self.part, self.name, None)
        if now is not self.tensor:
            if not isinstance(now, Tensor) or _kind(now) != _kind(self.tensor):
                return
            setattr(self.part, self.name, self.tensor)
        # Only then: a copy would also tell a caller's graph that its weights have changed.
        if not _same(self.tensor, self.values):
            with torch.inference_mode(self.tensor.is_inference()), torch.no_grad():
                self.tensor.copy_(self.values)


def _of(parts: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Parameters, buffers and other tensors of modules, without lazy ones and those without values."""
    for part in parts:
        own = {} if isinstance(part, torch.jit.ScriptModule) else vars(part)
        named = [
            *part.named_parameters(recurse=False),
            *part.named_buffers(recurse=False),
            *((name, value) for name, value in own.items() if isinstance(value, Tensor)),
        ]
        for name, tensor in named:
            if not is_lazy(tensor) and not tensor.is_meta:
                yield part, name, tensor


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _same(tensor: Tensor, values: Tensor) -> bool:
    try:
        return torch.equal(tensor, values)
    except RuntimeError:  # kinds that cannot be compared, such as sparse ones
        return False
