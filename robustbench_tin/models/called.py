"""A plain function from images to logits as a module, with the modules that it calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from torch import nn

from robustbench_tin.errors import InvalidSettingError


class Called(nn.Module):
    """A callable as a module.

    The modules that it refers to (in its closure, its globals, as the object of a method) are submodules, so
    that they are measured in eval mode on their device, and left as they were.

    Args:
        function: pixels in [0, 1] to logits.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(dict.fromkeys(_modules(function)))
        self.function = function

    def forward(self, images: Any) -> Any:
        """What the function returns."""
        return self.function(images)

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("a function's copy would go on calling the same modules")


def as_module(model: object) -> nn.Module:
    """The model as a torch module: itself, or a callable in one.

    Raises:
        InvalidSettingError: for anything else.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, type) or not callable(model):
        got = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise InvalidSettingError(
            f"model got {got}; expected a torch module or a function, from float32 images (N, C, H, W) in"
            " [0, 1] to logits (N, classes)"
        )
    return Called(model)


def name_of(model: object) -> str:
    """What a model is called in records: its class, or the name of its function."""
    if isinstance(model, Called):
        return name_of(model.function)
    if isinstance(model, functools.partial):
        return name_of(model.func)
    if isinstance(model, nn.Module):
        return type(model).__name__
    return str(getattr(model, "__name__", type(model).__name__)).strip("<>")


def _modules(function: Any) -> Iterator[nn.Module]:
    """The modules that a callable refers to, as far as can be seen without calling it."""
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
