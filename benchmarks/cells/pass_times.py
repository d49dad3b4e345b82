"""Time a network's passes on this machine, with a short trial and weights of zero."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.errors import FOREIGN
from robustbench_tin.models.small_maps import use_products
from robustbench_tin.runtime import Runtime
from robustbench_tin.training.stages import train_only

# Two batch sizes separate the cost of a pass from the cost of an image. Small ones leave a GPU idle.
_SIZES = {"cpu": (4, 12), "cuda": (32, 128)}
# Other work on the machine only adds to a time, so the shortest of several counts. Slow passes repeat less.
_REPEATS, _LONG_ENOUGH = 4, 0.15


@dataclass(frozen=True)
class PassTime:
    """Seconds of a forward and a backward pass.

    Attributes:
        batch: fixed cost of every pass, independent of the images: reading and laying out the weights.
        image: cost per image.
    """

    batch: float
    image: float

    def of(self, images: float, batch_size: int) -> float:
        """Seconds for a number of images, in batches."""
        return images * (self.image + self.batch / max(1, batch_size))


_NONE = PassTime(0.0, 0.0)


@dataclass(frozen=True)
class PassTimes:
    """Timed passes of one network.

    Attributes:
        attack: a gradient of the pixels, in float32.
        training: the step of each trained part, by its name in ``train``.
    """

    attack: PassTime
    training: Mapping[str, StepTime]


@dataclass(frozen=True)
class StepTime:
    """The optimiser step of a trained part of a network.

    Attributes:
        gradient: time of the trained weights' gradient, in the precision of training.
        parameters: number of trained weights.
    """

    gradient: PassTime
    parameters: int


def time_passes(
    skeleton: nn.Module, size: int, runtime: Runtime, parts: Sequence[str] = ("all",)
) -> PassTimes:
    """Time a network's passes.

    If the network fails, its passes count as 0 seconds.

    Args:
        skeleton: the network on torch's meta device; this function fills it.
        size: height and width, in pixels, of the network's input.
        runtime: device, precision and memory layout of its training.
        parts: parts to time: ``head``, ``last:N`` or ``all``.
    """
    network = skeleton.to_empty(device=runtime.torch_device)
    with torch.no_grad():
        # Uninitialised memory may hold denormal numbers, which make arithmetic slow.
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.zero_()
    network = runtime.place(network)

    def train(images: Tensor) -> None:
        with runtime.autocast():
            loss = functional.cross_entropy(network(images).float(), _labels(images))
        torch.autograd.grad(loss, trained_of(network), allow_unused=True)

    def attack(images: Tensor) -> None:
        network.eval()
        loss = functional.cross_entropy(network(images.requires_grad_()), _labels(images))
        torch.autograd.grad(loss, images)

    use_products(network)
    try:
        training = {}
        everything = list(network.parameters())
        for part in dict.fromkeys(parts):
            train_only(network, part, everything)
            count = sum(parameter.numel() for parameter in trained_of(network))
            training[part] = StepTime(_timed(train, size, runtime), count)
        network.requires_grad_(False)
        return PassTimes(_timed(attack, size, runtime), training)
    except FOREIGN:
        # The network will fail again as a cell, and the cell's row gives the reason.
        return PassTimes(_NONE, dict.fromkeys(parts, StepTime(_NONE, 0)))


def trained_of(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are currently trained."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def time_gradients(model: nn.Module, size: int, device: str) -> PassTimes:
    """Time the pixel gradients of a trained model; if it has no gradients, its forward passes.

    Args:
        model: maps pixels in [0, 1] to logits; in eval mode, on the device.
        size: height and width of the images in pixels.
        device: the model's device.
    """
    frozen = trained_of(model)

    def attack(images: Tensor) -> None:
        logits = model(images.requires_grad_())
        if logits.requires_grad:
            torch.autograd.grad(functional.cross_entropy(logits, _labels(images)), images)

    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        return PassTimes(_timed(attack, size, Runtime(device)), {})
    except FOREIGN:
        return PassTimes(_NONE, {})  # its measurements will give the reason
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.long, device=images.device)


def _timed(work: Callable[[Tensor], None], size: int, runtime: Runtime) -> PassTime:
    device = runtime.torch_device
    few, more = _SIZES.get(device.type, _SIZES["cpu"])
    of_few, of_more = _shortest(work, few, size, runtime), _shortest(work, more, size, runtime)
    image = max(of_more - of_few, 0.1 * of_more) / (more - few)
    return PassTime(max(0.0, of_few - few * image), image)


def _shortest(work: Callable[[Tensor], None], count: int, size: int, runtime: Runtime) -> float:
    """Seconds of the fastest of a few passes over this number of images."""
    # The first pass prepares kernels for this number of images.
    _seconds(work, count, size, runtime)
    found = [_seconds(work, count, size, runtime)]
    while len(found) < _REPEATS and sum(found) < _LONG_ENOUGH:
        found.append(_seconds(work, count, size, runtime))
    return min(found)


def _seconds(work: Callable[[Tensor], None], count: int, size: int, runtime: Runtime) -> float:
    device = runtime.torch_device
    images = torch.zeros(count, 3, size, size, device=device, dtype=torch.float32)
    if runtime.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    _wait(device)
    started = time.perf_counter()
    work(images)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
