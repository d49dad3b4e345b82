"""The time that each rewrite of a model saves an attack, one rewrite at a time, on a CPU.

``python perf/acceleration.py`` builds each network with random weights for images of 64 px and times, in
float32 on one thread:

- a forward and a backward pass to the pixels, as attacks with gradients ask for them;
- a forward pass alone, as Square asks for it.

Each rewrite is timed twice: on the model as it is (``alone``), and within the variant that attacks search
with, against the same variant without it (``in the form``). That variant has batch norm folded, quick stems,
tiny maps as matrix products, layers that keep their inputs and channels last; bfloat16 comes on top of it.
The numbers are the time with the rewrite divided by the time without it: the median of the rounds and, in
brackets, the first and third quartiles. Both run in turn, in changing order, and time is processor time. A
dash means that the rewrite finds nothing to change.

A last table counts the networks on which a rewrite saves 5 % or more in the variant.

``--compared "in the form"`` leaves out the other half; ``--rewrites "quick stems" "tiny maps"`` times these
only.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.fuse_batchnorm import fuse_batchnorm
from robustbench_tin.attacks.acceleration.small_map_conv import replace_small_map_convs
from robustbench_tin.attacks.acceleration.strided_conv_gradient import replace_strided_convs
from robustbench_tin.attacks.acceleration.variant_label import VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant, keep_inputs
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.runtime import tune_allocator

SIZE, CLASSES = 64, 200
NETWORKS = (
    "vgg16,vgg19,mobilenet,resnet50,inceptionv3,nasnetlarge,densenet121,densenet169,densenet201,"
    "timm:resnet18,timm:vit_tiny_patch16_224,timm:convnext_tiny"
)
FOLDING, STEMS, TINY_MAPS, KEPT = "folding", "quick stems", "tiny maps", "kept inputs"
CHANNELS_LAST, BFLOAT16 = "channels last", "bfloat16"
LAYERS = {
    FOLDING: fuse_batchnorm,
    STEMS: replace_strided_convs,
    TINY_MAPS: replace_small_map_convs,
    KEPT: keep_inputs,
}
FORM = frozenset({*LAYERS, CHANNELS_LAST})
REWRITES = (*LAYERS, CHANNELS_LAST, BFLOAT16)
PASSES = ("forward and backward", "forward")
COMPARED = {"alone": frozenset[str](), "in the form": FORM}
# A rewrite that saves less than this on all networks but one is not worth its code.
WORTH = 0.05
# Passes before the first that counts, and seconds of passes that count as one.
WARM_UP, LEAST = 2, 0.1

Rewrites = frozenset[str]


@dataclass(frozen=True)
class Ratio:
    """Time with a rewrite ÷ time without it: the median of the rounds and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=NETWORKS, help="comma list of backbones")
    parser.add_argument("--batch", type=int, default=4, help="images a pass")
    parser.add_argument("--compared", nargs="+", choices=COMPARED, default=[*COMPARED])
    parser.add_argument("--rewrites", nargs="+", choices=REWRITES, default=[*REWRITES])
    parser.add_argument("--rounds", type=int, default=7, help="3 or more")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    rewrites = [each for each in arguments.rewrites if each != BFLOAT16 or has_bfloat16()]
    print(f"| network | passes | compared | {' | '.join(rewrites)} |")
    print("|---|---|---|" + "---:|" * len(rewrites))
    saves: Counter[tuple[str, str]] = Counter()
    for name in arguments.networks.split(","):
        model = built(name)
        images = torch.rand(arguments.batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        for passes in PASSES:
            for compared in arguments.compared:
                found = {
                    each: timed(model, images, COMPARED[compared] - {each}, each, passes, arguments.rounds)
                    for each in rewrites
                }
                cells = " | ".join(str(found.get(each) or "—") for each in rewrites)
                print(f"| {name} | {passes} | {compared} | {cells} |", flush=True)
                for each, ratio in found.items():
                    worth_it = ratio is not None and ratio.median <= 1 - WORTH
                    saves[passes, each] += worth_it and compared == "in the form"
    print("\n| rewrite | " + " | ".join(f"{passes}: networks it saves 5 % on" for passes in PASSES) + " |")
    print("|---|---:|---:|")
    for each in rewrites:
        print(f"| {each} | {' | '.join(str(saves[passes, each]) for passes in PASSES)} |")


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 itself; the engine tries it only then."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def built(name: str) -> nn.Module:
    """A network with random weights, in eval mode; batch norm has the statistics of random images.

    Without these the activations of a deep network would vanish, and numbers near zero are slow.
    """
    model: nn.Module = build_classifier(backbones.get(name), CLASSES, image_size=SIZE, seed=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average of all batches, here of one
    with torch.no_grad():
        model.train()(torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))
    return model.eval().requires_grad_(False)


def timed(
    model: nn.Module, images: Tensor, others: Rewrites, rewrite: str, passes: str, rounds: int
) -> Ratio | None:
    """How much of its time a model keeps with a rewrite, beside others; None if there is nothing to time."""
    without, rewritten = made(model, images, others), made(model, images, others | {rewrite})
    if rewrite in LAYERS and kinds(without) == kinds(rewritten):
        return None
    pair = (without, rewritten)
    warm = min(seconds(variant, images, passes) for _ in range(WARM_UP) for variant in pair)
    repeats = max(1, round(LEAST / warm))
    ratios = []
    for number in range(rounds):
        took = [0.0, 0.0]
        for _ in range(repeats):
            for index in (0, 1) if number % 2 else (1, 0):
                took[index] += seconds(pair[index], images, passes)
        ratios.append(took[1] / took[0])
    return Ratio.of(ratios)


def made(model: nn.Module, images: Tensor, rewrites: Rewrites) -> ModelVariant:
    """A copy of the model with these rewrites, made as the engine makes its variants."""
    module = copy.deepcopy(model)
    for name, rewrite in LAYERS.items():
        if name in rewrites:
            module = rewrite(module, images[:2])
    if CHANNELS_LAST in rewrites:
        module = module.to(memory_format=torch.channels_last)
    if BFLOAT16 in rewrites:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(torch.bfloat16)
    return ModelVariant(
        module.requires_grad_(False),
        VariantLabel(
            precision="bfloat16" if BFLOAT16 in rewrites else "float32",
            layout="channels-last" if CHANNELS_LAST in rewrites else "contiguous",
            fused=True,
        ),
    )


def kinds(variant: ModelVariant) -> dict[str, tuple[type[nn.Module], bool]]:
    """The class of each module of a variant, and whether it overwrites its input, by its name."""
    return {
        name: (type(module), bool(vars(module).get("inplace")))
        for name, module in variant.module.named_modules()
    }


def seconds(variant: ModelVariant, images: Tensor, passes: str) -> float:
    """Processor time of one pass over the images."""
    started = time.process_time()
    if passes == "forward":
        with torch.no_grad():
            variant.logits(images)
    else:
        points = images.clone().requires_grad_()
        logits = variant.logits(points)
        assert isinstance(logits, Tensor)
        labels = torch.zeros(len(images), dtype=torch.int64)
        torch.autograd.grad(cross_entropy(logits.float(), labels).sum(), points)
    return time.process_time() - started


if __name__ == "__main__":
    main()
