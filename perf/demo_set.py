"""Does the demo set show what it is there to show? Trains a mobilenet on it with three defenses.

``python perf/demo_set.py`` prints, as mean ± standard deviation over the seeds, clean top-1 and top-1
under PGD (linf, eps 0.03, 10 steps of 2.5·eps/steps, one random start) for: standard training; boxes
cut out of every training image and added to the set (as many epochs, and as many steps); FGSM
adversarial training with a random start (Wong, Rice and Kolter 2020, arXiv 2001.03994).
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import numpy as np
import numpy.typing as npt
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from robustbench_tin.data.demo import EPOCHS, Demo
from robustbench_tin.data.source import OpenOptions

BATCH = 24
PEAK = 4e-3
EPS, STEPS = 0.03, 10
TRAIN_EPS = 8 / 255
# name → (adds crops, trains on FGSM, epochs as a part of the standard ones, whether PGD is measured)
DEFENSES = {
    "none": (False, False, 1.0, True),
    "bbox-crop": (True, False, 1.0, False),
    "bbox-crop, as many steps": (True, False, 0.5, False),
    "fgsm training": (False, True, 1.0, True),
}


class Normalise(nn.Module):
    """From [0, 1] to about [-2, 2]."""

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5) * 4.0


def crops(images: npt.NDArray[np.uint8], boxes: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Each image's box alone, at its own scale, in the middle of a black image."""
    size = images.shape[-1]
    cropped = np.zeros_like(images)
    for canvas, image, (x0, y0, x1, y1) in zip(cropped, images, boxes.tolist(), strict=True):
        height, width = y1 - y0 + 1, x1 - x0 + 1
        top, left = (size - height) // 2, (size - width) // 2
        canvas[:, top : top + height, left : left + width] = image[:, y0 : y1 + 1, x0 : x1 + 1]
    return cropped


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(images), labels), images)[0]


def into_ball(adversarial: Tensor, images: Tensor, eps: float) -> Tensor:
    return (images + (adversarial - images).clamp(-eps, eps)).clamp(0, 1)


def fgsm(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    start = into_ball(images + torch.empty_like(images).uniform_(-TRAIN_EPS, TRAIN_EPS), images, TRAIN_EPS)
    moved = start + 1.25 * TRAIN_EPS * gradient(model, start, labels).sign()
    return into_ball(moved, images, TRAIN_EPS)


def pgd(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    adversarial = into_ball(images + torch.empty_like(images).uniform_(-EPS, EPS), images, EPS)
    for _ in range(STEPS):
        moved = adversarial + 2.5 * EPS / STEPS * gradient(model, adversarial, labels).sign()
        adversarial = into_ball(moved, images, EPS)
    return adversarial


def tensors(images: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).float().div(255).contiguous(memory_format=torch.channels_last)


def train(defense: str, seed: int, images: Tensor, labels: Tensor, epochs: int, backbone: str) -> nn.Module:
    """A network from scratch: AdamW, one cycle, mirrored and shifted by up to 4 pixels."""
    torch.manual_seed(seed)
    adversarial = DEFENSES[defense][1]
    model = timm.create_model(backbone, num_classes=int(labels.max()) + 1)
    model = nn.Sequential(Normalise(), model).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    per_epoch = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=epochs * per_epoch)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for step in range(per_epoch):
            rows = order[step * BATCH : (step + 1) * BATCH]
            batch, target = augment(images[rows]), labels[rows]
            if adversarial:
                batch = fgsm(model, batch, target)
            loss = F.cross_entropy(model(batch), target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def augment(images: Tensor) -> Tensor:
    mirrored = torch.where((torch.rand(len(images)) < 0.5)[:, None, None, None], images.flip(-1), images)
    padded = F.pad(mirrored, (4, 4, 4, 4), mode="reflect")
    down, right = torch.randint(0, 9, (2,)).tolist()
    size = images.shape[-1]
    shifted = padded[:, :, down : down + size, right : right + size]
    return shifted.contiguous(memory_format=torch.channels_last)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, *, attacked: bool) -> float:
    right = 0
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for batch, target in zip(torch.split(images, 100), torch.split(labels, 100), strict=True):
        shown = pgd(model, batch, target) if attacked else batch
        with torch.no_grad():
            right += int((model(shown).argmax(1) == target).sum())
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--images", type=int, default=None, help="train on the first so many")
    parser.add_argument("--backbone", default="mobilenetv1_100", help="a name of timm's")
    parser.add_argument("--defenses", nargs="*", default=list(DEFENSES), choices=list(DEFENSES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    began = time.perf_counter()
    dataset = Demo().open(OpenOptions())
    print(f"drawn in {time.perf_counter() - began:.1f} s, fingerprint {dataset.fingerprint}", flush=True)
    part = dataset.train.take(np.arange(arguments.images or len(dataset.train), dtype=np.int64))
    images, labels = tensors(part.images), torch.from_numpy(part.labels)
    assert part.boxes is not None  # the demo set has them
    boxes = tensors(crops(part.images, part.boxes))
    held_out, truth = tensors(dataset.val.images), torch.from_numpy(dataset.val.labels)

    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in arguments.defenses}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for defense in arguments.defenses:
            cropped, _, share, attacked = DEFENSES[defense]
            x, y = (torch.cat([images, boxes]), labels.repeat(2)) if cropped else (images, labels)
            began = time.perf_counter()
            model = train(defense, seed, x, y, int(arguments.epochs * share), arguments.backbone)
            seconds = time.perf_counter() - began
            clean = accuracy(model, held_out, truth, attacked=False)
            robust = accuracy(model, held_out, truth, attacked=True) if attacked else math.nan
            found[defense].append((clean, robust, seconds))
            shown = f"{spread([clean])}, {spread([robust])}"
            print(f"seed {seed}  {defense:<26} {shown}  {seconds:.0f} s", flush=True)
    print(f"\n{'defense':<26} {'clean top-1':>14} {'PGD top-1':>14} {'seconds':>8}")
    for defense, rows in found.items():
        cleans, robusts, times = ([row[column] for row in rows] for column in range(3))
        print(f"{defense:<26} {spread(cleans):>14} {spread(robusts):>14} {statistics.mean(times):>8.0f}")


def spread(values: list[float]) -> str:
    if math.isnan(values[0]):
        return "not measured"
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
