"""Time a network's passes on this machine, with a short trial and weights of zero."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.errors import FOREIGN
from robustbench_tin.models.small_maps import use_products
from robustbench_tin.runtime import Runtime

# Two batch sizes separate the cost of a pass from the cost of an image.
_FEW, _MORE = 4, 12


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
        training: a gradient of the weights, in the precision of training.
        parameters: number of trained weights.
    """

    attack: PassTime
    training: PassTime
    parameters: int


def time_passes(skeleton: nn.Module, size: int, runtime: Runtime) -> PassTimes:
    """Time a network's passes.

    If the network fails, its passes count as 0 seconds.

    Args:
        skeleton: the network on torch's meta device; this function fills it.
        size: height and width, in pixels, of the network's input.
        runtime: device, precision and memory layout of its training.
    """
    network = skeleton.to_empty(device=runtime.torch_device)
    with torch.no_grad():
        # Uninitialised memory may hold denormal numbers, which make arithmetic slow.
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.zero_()
    network = runtime.place(network)
    parameters = sum(parameter.numel() for parameter in network.parameters())

    def train(images: Tensor) -> None:
        network.train()
        with runtime.autocast():
            loss = functional.cross_entropy(network(images).float(), _labels(images))
        torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)

    def attack(images: Tensor) -> None:
        network.eval()
        loss = functional.cross_entropy(network(images.requires_grad_()), _labels(images))
        torch.autograd.grad(loss, images)

    use_products(network)
    try:
        training = _timed(train, size, runtime)
        network.requires_grad_(False)
        return PassTimes(_timed(attack, size, runtime), training, parameters)
    except FOREIGN:
        # The network will fail again as a cell, and the cell's row gives the reason.
        return PassTimes(_NONE, _NONE, parameters)


def time_gradients(model: nn.Module, size: int, device: str) -> PassTimes:
    """Time the pixel gradients of a trained model; if it has no gradients, its forward passes.

    Args:
        model: maps pixels in [0, 1] to logits; in eval mode, on the device.
        size: height and width of the images in pixels.
        device: the model's device.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def attack(images: Tensor) -> None:
        logits = model(images.requires_grad_())
        if logits.requires_grad:
            torch.autograd.grad(functional.cross_entropy(logits, _labels(images)), images)

    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        return PassTimes(_timed(attack, size, Runtime(device)), _NONE, parameters)
    except FOREIGN:
        return PassTimes(_NONE, _NONE, parameters)  # its measurements will give the reason
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.long, device=images.device)


def _timed(work: Callable[[Tensor], None], size: int, runtime: Runtime) -> PassTime:
    device = runtime.torch_device
    seconds = []
    # The first pass of all is a warm-up.
    for count in (_FEW, _FEW, _MORE):
        images = torch.zeros(count, 3, size, size, device=device, dtype=torch.float32)
        if runtime.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        _wait(device)
        started = time.perf_counter()
        work(images)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    _, few, more = seconds
    image = max(more - few, 0.1 * more) / (_MORE - _FEW)
    return PassTime(max(0.0, few - _FEW * image), image)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
