"""The accuracies of ``evaluate`` beside those that other libraries report, on the same model and images.

``python perf/same_figures.py --weights WEIGHTS/mobilenetv3_small_100.safetensors --data DATA`` measures a
network of timm on images of Tiny ImageNet, clean and under the attacks that each library has too: FGSM, and
PGD without a random start, each with the same steps. Each library's own call gives its accuracy. A plain
torch loop of a few lines stands beside them. Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin import evaluate
from robustbench_tin.data import in_class_order, open_dataset, subset
from robustbench_tin.models import backbones, build_classifier

EPS = 1 / 1020
STEPS = 10
STEP = EPS / 4
BATCH = 50
Figures = tuple[float, float, float]


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels in batches."""
    return zip(images.split(BATCH), labels.split(BATCH), strict=True)


def by_robust_tin(model: nn.Module, images: Tensor, labels: Tensor) -> Figures:
    """The figures that ``evaluate`` returns."""
    attacks = ["fgsm", f"pgd:steps={STEPS},alpha={STEP},random_start=false"]
    records = evaluate(model, images, labels, attacks, EPS, batch_size=BATCH).records
    clean, fgsm, pgd = records["top1"]
    return clean, fgsm, pgd


def by_loop(model: nn.Module, images: Tensor, labels: Tensor) -> Figures:
    """A plain torch loop."""
    right = [0, 0, 0]
    for batch, truth in batches(images, labels):
        moved = [batch, batch + EPS * _sign(model, batch, truth), batch]
        for _ in range(STEPS):
            moved[2] = moved[2] + STEP * _sign(model, moved[2], truth)
            moved[2] = torch.min(torch.max(moved[2], batch - EPS), batch + EPS).clamp(0, 1)
        for index, shown in enumerate(moved):
            right[index] += int((model(shown.clamp(0, 1)).argmax(1) == truth).sum())
    clean, fgsm, pgd = (count / len(images) for count in right)
    return clean, fgsm, pgd


def _sign(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        functional.cross_entropy(model(images), labels, reduction="sum"), images
    )
    return gradient.sign()


def by_foolbox(model: nn.Module, images: Tensor, labels: Tensor) -> Figures:
    """foolbox's ``accuracy``, and its attacks' ``is_adv``."""
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attacks = (
        foolbox.attacks.LinfFastGradientAttack(random_start=False),
        foolbox.attacks.LinfProjectedGradientDescentAttack(
            steps=STEPS, abs_stepsize=STEP, random_start=False
        ),
    )
    clean, adversarial = 0.0, [0, 0]
    for batch, truth in batches(images, labels):
        clean += foolbox.utils.accuracy(wrapped, batch, truth) * len(batch)
        for index, attack in enumerate(attacks):
            adversarial[index] += int(attack(wrapped, batch, truth, epsilons=EPS)[2].sum())
    fgsm, pgd = (1 - count / len(images) for count in adversarial)
    return clean / len(images), fgsm, pgd


def by_torchattacks(model: nn.Module, images: Tensor, labels: Tensor) -> Figures:
    """torchattacks' images, and its ``clean_accuracy``."""
    import torchattacks

    from robustbench_tin.metrics import in_top

    def accuracy(attack: Callable[[Tensor, Tensor], Tensor]) -> float:
        right = [in_top(model(attack(batch, truth)), truth, 1) for batch, truth in batches(images, labels)]
        return float(torch.cat(right).float().mean())

    attacks = (
        torchattacks.FGSM(model, eps=EPS),
        torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=False),
    )
    fgsm, pgd = map(accuracy, attacks)
    return accuracy(lambda batch, _: batch), fgsm, pgd


def by_art(model: nn.Module, images: Tensor, labels: Tensor) -> Figures:
    """ART's ``compute_accuracy`` on its attacks' images."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier
    from art.utils import compute_accuracy

    outputs = int(model(images[:1]).shape[1])
    wrapped = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(images.shape[1:]), outputs, clip_values=(0, 1), device_type="cpu"
    )
    pixels, truth = images.numpy(), np.eye(outputs)[labels.numpy()]
    attacks = (
        FastGradientMethod(wrapped, eps=EPS, batch_size=BATCH),
        ProjectedGradientDescent(
            wrapped, eps=EPS, eps_step=STEP, max_iter=STEPS, batch_size=BATCH, verbose=False
        ),
    )

    def accuracy(shown: object) -> float:
        return float(compute_accuracy(wrapped.predict(shown, batch_size=BATCH), truth)[0])

    fgsm, pgd = (accuracy(attack.generate(pixels, truth)) for attack in attacks)
    return accuracy(pixels), fgsm, pgd


CONTENDERS = {
    "robust-tin, `evaluate(...)`": by_robust_tin,
    "a plain torch loop": by_loop,
    "foolbox, `accuracy`, `is_adv`": by_foolbox,
    "torchattacks, its images": by_torchattacks,
    "ART, `compute_accuracy`": by_art,
}


def main() -> None:
    """Print a table of accuracies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="timm:mobilenetv3_small_100")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, default=224, help="pixels that the network sees")
    given = parser.parse_args()
    backbone = backbones.get(given.network)
    model = build_classifier(
        backbone, 1000, image_size=64, resize_to=given.size, weights=given.weights, seed=0
    ).eval()
    model.requires_grad_(False)
    part = subset(open_dataset(given.data), eval_images=given.images)
    val = in_class_order(part, "imagenet", 1000).val
    images = torch.from_numpy(val.images.copy()).float() / 255
    labels = torch.from_numpy(val.labels.copy()).long()
    print(f"{given.network}, {len(images)} images, linf, eps {EPS:.5f}, PGD with {STEPS} steps\n")
    print("| accuracy in % by | clean | FGSM | PGD |\n|---|---:|---:|---:|")
    for name, measure in CONTENDERS.items():
        try:
            figures = measure(model, images, labels)
        except ImportError as error:
            print(f"| {name} | not installed ({error.name}) | | |")
            continue
        print(f"| {name} | " + " | ".join(f"{100 * figure:.1f}" for figure in figures) + " |", flush=True)


if __name__ == "__main__":
    main()
