"""The runtime of a training: device, precision and memory layout, chosen once and recorded.

Nothing here is chosen by timing: the same machine always makes the same choice, so the same command gives the
same table.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.devices import images_device, taking_images
from robustbench_tin.errors import InvalidSettingError

# glibc's names for the parameters of mallopt.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


@dataclass(frozen=True)
class Runtime:
    """Device, training precision and layout.

    Attacks and measurements always compute in float32; the precision applies to training.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``float32`` or ``bfloat16``; below float32 means autocast.
        channels_last: store activations with the channels innermost.
    """

    device: str
    precision: str = "float32"
    channels_last: bool = True

    @property
    def torch_device(self) -> torch.device:
        """The device of images, labels and results: the network's, or the CPU if that one lacks float64."""
        return images_device(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which forward passes run in the training precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.torch_device.type, getattr(torch, self.precision))

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device in this layout; it then takes images on :attr:`torch_device`."""
        if self.channels_last:
            model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        else:
            model.to(self.device)
        return taking_images(model)


def choose_device(name: str | None) -> str:
    """The given device, or the best available one: cuda, else mps, else cpu.

    Raises:
        InvalidSettingError: if it is not available.
    """
    if name is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name, dtype=torch.float32).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise InvalidSettingError(
            f"device got '{name}', which is not available here; expected cpu, cuda, cuda:N or mps"
        ) from None
    return str(torch.device(name))


def choose_precision(device: str, model: nn.Module, image_size: int) -> str:
    """The training precision that is fastest for this model on this device without loss of correctness.

    bfloat16 if the device computes in it. There are two exceptions on a CPU. bfloat16 slows down depthwise
    convolutions. And if a convolution wider than one pixel meets a map of a single pixel, the weight
    gradients of PyTorch's CPU kernels contain uninitialised memory (seen in 2.15 with kernels of 3 at stride
    2 and of 5): training then ends in NaN or, worse, in wrong weights.

    Args:
        device: device of the training.
        model: maps pixels ``(N, 3, image_size, image_size)`` to logits, on the CPU or on torch's meta device.
        image_size: side of the images in pixels.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = kind == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if native and not _has_awkward_convolution(model, image_size) else "float32"


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """The array as a tensor without a copy, so that a memory map stays one; do not write to it."""
    with warnings.catch_warnings():
        # torch warns that writing to a read-only memory map would fail, and nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def is_asynchronous(device: torch.device) -> bool:
    """True if the host must wait for this device before it can read a value: for all except a CPU."""
    return device.type != "cpu"


@contextmanager
def float32_default() -> Iterator[None]:
    """Give layers created inside float32 weights, whichever default ``torch.set_default_dtype`` has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error means that memory ran out; torch has no class for this error on a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def tune_allocator() -> None:
    """Let the C library keep large buffers between steps instead of requesting each again.

    On Linux, freed activations return to the system at once, and fetching their pages again costs up to a
    third of a training step. Set ``ROBUST_TIN_MALLOC=system`` to leave the allocator unchanged.
    """
    if sys.platform != "linux" or os.environ.get("ROBUST_TIN_MALLOC") == "system":
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _has_awkward_convolution(model: nn.Module, image_size: int) -> bool:
    found = False

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal found
        assert isinstance(layer, nn.Conv2d)
        depthwise = layer.groups > 1 and layer.groups == layer.in_channels
        found |= depthwise or (max(layer.kernel_size) > 1 and min(inputs[0].shape[-2:]) == 1)

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(
                torch.zeros(
                    1, 3, image_size, image_size, device=next(model.parameters()).device, dtype=torch.float32
                )
            )
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found
