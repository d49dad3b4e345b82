"""Layers on small maps as products: passes of a network with them ÷ without, interleaved, on one thread.

``python perf/small_maps.py`` times the seven backbones as the demo set shows them; ``--models``, ``--size``
and ``--batch`` choose others. ``--compare onednn`` times products by oneDNN ÷ by MKL instead, on a processor
on which robust-tin uses oneDNN.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.models import backbones, build_classifier, linear_product, select

CLASSES, IMAGE_SIZE = 10, 64


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", choices=BASELINES, default="products")
    parser.add_argument("--models", default="all")
    parser.add_argument("--size", type=int, help="side in pixels that networks see; default: the demo set's")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.compare == "onednn" and not linear_product.ONEDNN_IS_FASTER:
        parser.error("robust-tin multiplies with MKL on this processor")
    torch.set_num_threads(1)
    print("| network | pixels | gradient of the pixels | gradient of the weights |")
    print("| --- | ---: | ---: | ---: |")
    for name in select(options.models):
        backbone = backbones.get(name)
        size = options.size or backbone.quick_size
        built = build_classifier(backbone, CLASSES, image_size=IMAGE_SIZE, resize_to=size, seed=0)
        built = built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.rand(options.batch, 3, IMAGE_SIZE, IMAGE_SIZE)
        baseline = BASELINES[options.compare](built)
        cells = [ratio(work, built, baseline, images, options.rounds) for work in (of_pixels, of_weights)]
        print(f"| {name} | {built.input_size} | {' | '.join(cells)} |", flush=True)


def without_products(built: nn.Module) -> nn.Module:
    """A copy whose layers compute small maps as PyTorch does."""
    plain = copy.deepcopy(built)
    for layer in plain.modules():
        vars(layer).pop("forward", None)
    return plain


class ByMkl(nn.Module):
    """The network, whose products MKL computes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        linear_product.ONEDNN_IS_FASTER = False
        try:
            logits: Tensor = self.network(images)
            return logits
        finally:
            linear_product.ONEDNN_IS_FASTER = True


BASELINES: dict[str, Callable[[nn.Module], nn.Module]] = {"products": without_products, "onednn": ByMkl}


def ratio(
    work: Callable[[nn.Module, Tensor], None],
    built: nn.Module,
    baseline: nn.Module,
    images: Tensor,
    rounds: int,
) -> str:
    """The median of the rounds' quotients, and their range."""
    quotients = []
    for number in range(rounds + 1):
        seconds, plain_seconds = (timed(work, network, images) for network in (built, baseline))
        if number > 0:  # the first prepares
            quotients.append(seconds / plain_seconds)
    return f"{statistics.median(quotients):.2f} ({min(quotients):.2f} to {max(quotients):.2f})"


def timed(work: Callable[[nn.Module, Tensor], None], network: nn.Module, images: Tensor) -> float:
    """Seconds of processor time."""
    started = time.process_time()
    work(network, images)
    return time.process_time() - started


def of_pixels(network: nn.Module, images: Tensor) -> None:
    """A gradient as an attack takes it."""
    network.eval().requires_grad_(False)
    images = images.clone().requires_grad_()
    torch.autograd.grad(_loss(network, images), images)


def of_weights(network: nn.Module, images: Tensor) -> None:
    """A gradient as training takes it, in float32."""
    network.train().requires_grad_(True)
    torch.autograd.grad(_loss(network, images), list(network.parameters()))


def _loss(network: nn.Module, images: Tensor) -> Tensor:
    return functional.cross_entropy(network(images), torch.arange(len(images)) % CLASSES)


if __name__ == "__main__":
    main()
