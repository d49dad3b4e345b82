"""``robust-tin fool`` beside the passes that it needs, interleaved in one process.

``python perf/fool.py --data DATA`` takes for each backbone, with random weights, some training images of a
data set and times

- ``passes``: the forward and backward passes that fooling needs, and nothing else: one forward and backward
  pass for the step, one forward pass for the model's answer to the moved images; in batches of the
  command's size, on images that lie in memory, with frozen parameters and channels last, as plain torch has
  them;
- ``passes, folded``: the same on the variant of the model that the command searches with (batch norm folded)
  for the step, and on the model itself for the answer;
- ``robust-tin fool``: the whole call, from opening the data (its decoded cache is there) over the rounding
  into the ball to PNG files with their manifest.

Each runs in turn, ``--rounds`` times; the table shows the median of the ratios to ``passes, folded`` within a
round, with their range. The first round is a warm-up and does not count. On one CPU thread, time is the
processor time of all threads, so that the encoding of files beside the passes counts in full.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.commands.fool import fool
from robustbench_tin.benchmarks.measurement.protocol import evaluation_batch_size
from robustbench_tin.data import Dataset, open_dataset, subset
from robustbench_tin.models import backbones, build_classifier, save_weights
from robustbench_tin.runtime import Runtime, as_tensor, choose_device, tune_allocator

EPS = 0.03
CLASSES = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="Tiny ImageNet")
    parser.add_argument("--models", default="timm:resnet18,mobilenet")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--device", help="the best there is")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    device = choose_device(arguments.device)
    # One validation image a class: they are written too, but not moved.
    part = {"classes": CLASSES, "train_per_class": arguments.images // CLASSES, "eval_images": CLASSES}
    dataset = subset(open_dataset(arguments.data), **part)
    print(f"{device}, {arguments.threads} threads, {len(dataset.train)} images, {arguments.rounds} rounds\n")
    print("| model | work | time ÷ passes | range | images/s |\n|---|---|---:|---|---:|")
    with tempfile.TemporaryDirectory() as place:
        for name in arguments.models.split(","):
            contenders = contenders_of(name, dataset, Path(place), device, arguments.data, part)
            compare(name, contenders, len(dataset.train), arguments.rounds)


def contenders_of(
    name: str, dataset: Dataset, place: Path, device: str, data: str, part: dict[str, int]
) -> dict[str, Callable[[], None]]:
    """The contenders that are timed for a backbone; the one that the others are compared with comes first."""
    classifier = build_classifier(
        backbones.get(name), CLASSES, image_size=dataset.image_size, resize_to=None, seed=0
    )
    weights, out = place / "weights.safetensors", place / "out"
    save_weights(classifier, weights)
    model = Runtime(device).place(classifier).eval().requires_grad_(False)
    train = dataset.train
    batches = ImageBatches(
        as_tensor(train.images),
        as_tensor(train.labels),
        evaluation_batch_size(device),
        torch.device(device),
    )
    search = VariantCache().choose("fixed", model, batches.at(0)[0]).variant()

    def whole() -> None:
        shutil.rmtree(out, ignore_errors=True)
        fool(weights, out=out, eps=EPS, data=data, device=device, **part)

    return {
        "passes, folded": lambda: passes(search.logits, model, batches),
        "passes": lambda: passes(model, model, batches),
        "**robust-tin fool**": whole,
    }


def passes(search: Callable[[Tensor], object], model: nn.Module, batches: ImageBatches) -> None:
    """A gradient of each image by ``search``, and the answer of ``model`` to the moved image."""
    for start in batches.starts():
        images, labels = batches.at(start)
        asked = images.requires_grad_()
        logits = search(asked)
        assert isinstance(logits, Tensor)
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), asked)
        with torch.no_grad():
            model(asked + EPS * gradient.sign())


def compare(name: str, contenders: dict[str, Callable[[], None]], images: int, rounds: int) -> None:
    """Print each contender's time over the first one's, round by round."""
    times: dict[str, list[float]] = {work: [] for work in contenders}
    for number in range(rounds + 1):
        for work, contender in contenders.items():
            begun = clock()
            contender()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            if number > 0:
                times[work].append(clock() - begun)
    baseline = next(iter(times.values()))
    for work, seconds in times.items():
        ratios = sorted(mine / base for mine, base in zip(seconds, baseline, strict=True))
        print(
            f"| {name} | {work} | {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f}"
            f" | {images / statistics.median(seconds):,.0f} |",
            flush=True,
        )


def clock() -> float:
    """Seconds of processor time if one torch thread works alone, else of wall-clock time."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_initialized()
    return time.process_time() if alone else time.perf_counter()


if __name__ == "__main__":
    main()
