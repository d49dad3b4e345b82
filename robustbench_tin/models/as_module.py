"""Models of every kind as modules: plain functions, and programs that accept only one batch size."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from robustbench_tin.devices import MovedImages, taking_images
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.outputs import output_hint


class Called(nn.Module):
    """A callable as a module.

    The modules that the callable refers to (in its closure, its globals, as the object of a method) become
    submodules, so that they are measured in eval mode on their device, and restored afterwards.

    Args:
        function: maps pixels in [0, 1] to logits.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(dict.fromkeys(_modules(function)))
        self.function = function

    def forward(self, images: Any) -> Any:
        """The function's output."""
        return self.function(images)

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("a function cannot be copied: its copy would call the same modules")


class FixedBatch(nn.Module):
    """A program that accepts only one batch size, wrapped to accept any.

    Batches are split, and the last one is filled up with its first image. The outputs for the filled rows are
    dropped, so they contribute no gradient.

    Args:
        program: maps images ``(size, C, H, W)`` to logits.
        size: number of images in a batch.
        pad: fill the last batch up; False if ``size`` is only the largest number that the program accepts.
    """

    def __init__(self, program: nn.Module, size: int, *, pad: bool = True) -> None:
        super().__init__()
        self.program = program
        self.size = size
        self.pad = pad

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Raises:
            InvalidSettingError: if the program's output has parts.
        """
        return torch.cat([self._answer(batch) for batch in torch.split(images, self.size)])

    def _answer(self, batch: Tensor) -> Tensor:
        missing = self.size - len(batch) if self.pad else 0
        whole = torch.cat([batch, batch[:1].expand(missing, -1, -1, -1)]) if missing else batch
        logits: Tensor = self.program(whole)
        hint = output_hint(logits)
        if hint is not None:
            raise InvalidSettingError(hint)
        return logits[: len(batch)]


def as_module(model: object) -> nn.Module:
    """The model as a torch module that accepts batches of any size, wrapped if needed.

    Raises:
        InvalidSettingError: if it is neither a module nor a callable.
    """
    if isinstance(model, nn.Module):
        size = _only_batch(model)
        return taking_images(model if size is None else FixedBatch(model, size))
    if isinstance(model, type) or not callable(model):
        got = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise InvalidSettingError(
            f"model got {got}; expected a torch module or a function that maps float32 images (N, C, H, W) in"
            " [0, 1] to logits (N, classes)"
        )
    return taking_images(Called(model))


def name_of(model: object) -> str:
    """A model's name in records: its class, or the name of its function."""
    if isinstance(model, Called):
        return name_of(model.function)
    if isinstance(model, FixedBatch):
        return name_of(model.program)
    if isinstance(model, MovedImages):
        return name_of(model.model)
    if isinstance(model, functools.partial):
        return name_of(model.func)
    if isinstance(model, nn.Module):
        return type(model).__name__
    return str(getattr(model, "__name__", type(model).__name__)).strip("<>")


def _only_batch(model: nn.Module) -> int | None:
    """The only batch size that an exported program accepts; None for any size, or for other modules."""
    if not isinstance(model, fx.GraphModule):
        return None
    inputs = [node.meta.get("val") for node in model.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4:
        return None
    size = inputs[0].shape[0]
    return size if isinstance(size, int) else None  # a symbol stands for any size


def _modules(function: Any) -> Iterator[nn.Module]:
    """The modules that a callable refers to, as far as can be seen without a call."""
    if isinstance(function, nn.Module):
        yield function
    elif isinstance(function, functools.partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            yield from _modules(part)
    elif inspect.ismethod(function):
        yield from _modules(function.__self__)
    elif inspect.isfunction(function):
        inner = inspect.unwrap(function)
        seen = inspect.getclosurevars(inner)
        named = (*seen.nonlocals.values(), *seen.globals.values(), *(inner.__defaults__ or ()))
        yield from (each for each in named if isinstance(each, nn.Module))
    else:
        yield from (
            each for each in getattr(function, "__dict__", {}).values() if isinstance(each, nn.Module)
        )
