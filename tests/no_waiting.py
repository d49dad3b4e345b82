"""A GPU that computes nothing and on which every wait is an error, for tests on machines without one.

PyTorch's fake tensors have a device, a shape and a type, but no values. So whatever needs a value on the
host (``.item()``, ``.cpu()``, ``bool(tensor)``, a boolean mask as an index) fails, and copies between the
devices are looked at one by one: only those that the host does not wait for pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("cuda", 0)


class Waited(AssertionError):  # noqa: N818 - what happened
    """The host waited for the device."""


class _Watch(TorchDispatchMode):
    """Refuses copies between host and device that the host waits for."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name == "_to_copy":
            target = kwargs.get("device") or args[0].device
            self._copy(args[0].device, torch.device(target), bool(kwargs.get("non_blocking")))
        elif name == "copy_" and isinstance(args[1], Tensor):
            self._copy(args[1].device, args[0].device, bool(args[2] if len(args) > 2 else False))
        elif name == "lift_fresh_copy" and args[0].device.type == "cuda":
            raise Waited("a tensor was made of Python's numbers on the device")
        return function(*args, **kwargs)

    @staticmethod
    def _copy(source: torch.device, target: torch.device, non_blocking: bool) -> None:
        if source.type != target.type and not non_blocking:
            raise Waited(f"copied from {source.type} to {target.type}, and waited for it")


class _HostGenerator(torch.Generator):
    """Stands in for a generator on the device."""

    def __new__(cls, device: Any = None) -> _HostGenerator:
        return super().__new__(cls)


def _nothing_to_fork(*_: Any, **__: Any) -> nullcontext[None]:
    return nullcontext()


@contextmanager
def device_without_values() -> Iterator[FakeTensorMode]:
    """Inside, tensors on :data:`DEVICE` can be made; generators for it are those of the host."""
    with (
        mock.patch("torch.Generator", _HostGenerator),
        mock.patch("torch.random.fork_rng", _nothing_to_fork),
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
    ):
        yield mode


@contextmanager
def no_waiting() -> Iterator[None]:
    """Inside, waiting for the device fails; to be entered inside :func:`device_without_values`."""
    with _Watch():
        yield
