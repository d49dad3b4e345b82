"""Peak memory of attacks beside that of one forward and backward pass of the same batch.

``python perf/memory.py [--model timm:resnet18]`` counts the bytes of the tensors that are alive at once, on a
backbone with random weights and random images: the model, copies of it that are searched with, and all that
passes and attacks hold. The table shows each attack's peak over that of the model and one pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from robustbench_tin import evaluate
from robustbench_tin.models import backbones, build_classifier

ATTACKS = (
    "fgsm",
    "pgd:steps=4",
    "mi-fgsm:steps=4",
    "apgd-ce:criterion=none,steps=6",
    "apgd-t:steps=6,targets=2",
    "fab-t:steps=3,targets=2",
    "square:queries=8",
    "autoattack:queries=8,steps=6,targets=2",
    "fast",
)


class Peak(TorchDispatchMode):
    """Counts the bytes of a model and of the storages made inside that are alive."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._given = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
        self._weights = sum(value.nbytes for value in model.state_dict().values())
        self.peak = 0
        self._alive: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if not isinstance(leaf, torch.Tensor):
                continue
            if leaf.untyped_storage().data_ptr() not in self._given:
                self._alive[leaf.untyped_storage()] = leaf.untyped_storage().nbytes()
        self.peak = max(self.peak, self._weights + sum(self._alive.values()))
        return result


def peak(model: nn.Module, work: Callable[[], Any]) -> int:
    with Peak(model) as counter:
        work()
    return counter.peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="timm:resnet18")
    parser.add_argument("--batch-size", type=int, default=50)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model: nn.Module = build_classifier(
        backbones.get(arguments.model),
        10,
        image_size=64,
        resize_to=None,
        pretrained=False,
        weights=None,
        seed=0,
    )
    model.eval().requires_grad_(False)
    images = torch.rand(arguments.batch_size, 3, 64, 64)
    labels = model(images).argmax(dim=1)

    def one_pass() -> None:
        variable = images.clone().requires_grad_()
        torch.autograd.grad(functional.cross_entropy(model(variable), labels), variable)

    limit = peak(model, one_pass)
    print(
        f"{arguments.model}, {arguments.batch_size} images: the model and one pass {limit / 2**20:.0f} MiB\n"
    )
    print("| attack | search=exact | search=fixed | search=fastest |\n|---|---:|---:|---:|")
    for attack in ATTACKS:
        ratios = [
            peak(model, lambda: evaluate(model, images, labels, attack, 1e-4, search=search).records) / limit  # noqa: B023
            for search in ("exact", "fixed", "fastest")
        ]
        print(f"| `{attack}` | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)


if __name__ == "__main__":
    main()
