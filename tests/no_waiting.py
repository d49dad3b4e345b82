"""A device that computes nothing and for which no one may wait, for tests on machines without a GPU.

PyTorch's ``meta`` device gives tensors a shape and a type, but no values. So code that needs a value on the
host (``.item()``, ``.cpu()``, ``bool(tensor)``, a boolean mask as an index) fails there by itself. Copies to
the device are checked one by one: only those pass that the host does not wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")


class Waited(AssertionError):  # noqa: N818 - named after the event
    """The host waited for the device."""


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name == "_to_copy":
            target = kwargs.get("device") or args[0].device
            _allow(args[0].device, torch.device(target), bool(kwargs.get("non_blocking")))
        elif name == "copy_" and isinstance(args[1], Tensor):
            _allow(args[1].device, args[0].device, bool(args[2] if len(args) > 2 else False))
        return function(*args, **kwargs)


class _WatchNumbers(TorchFunctionMode):
    """Refuses tensors made on the device of Python's numbers, which are copied there and waited for."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and result.device == DEVICE:
            raise Waited(f"{function.__name__} on {DEVICE}, which copies from the host and waits for it")
        return result


def _allow(source: torch.device, target: torch.device, non_blocking: bool) -> None:
    if source != target and not non_blocking:
        raise Waited(f"a copy from {source} to {target} that the host waits for")


class _HostGenerator(torch.Generator):
    """Stands in for a generator on the device."""

    def __new__(cls, device: Any = None) -> _HostGenerator:
        return super().__new__(cls)


@contextmanager
def generators_of_the_host() -> Iterator[None]:
    """Inside, a generator for :data:`DEVICE`, which has none, is one of the host."""
    with mock.patch("torch.Generator", _HostGenerator):
        yield


@contextmanager
def no_waiting() -> Iterator[None]:
    """Inside, waiting for :data:`DEVICE` fails."""
    with _Watch(), _WatchNumbers():
        yield
