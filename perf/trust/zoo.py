"""A zoo of honest networks, trained on real images, for measurements of the trust checks.

``perf/trust/zoo --data DATA --weights WEIGHTS --out FOLDER`` trains the networks that FOLDER lacks, one after
the other, and prints the clean accuracy of each and its accuracy under PGD-20. WEIGHTS is a folder that holds
ImageNet weights of ``tf_efficientnet_lite0``; without it, the network that needs them is left out.
:func:`load` gives the networks back. The same seed and machine give the same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from perf.attacks import clock
from perf.trust import networks
from robustbench_tin import evaluate
from robustbench_tin.data import Dataset, Split, open_dataset, subset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models.network import seeded
from robustbench_tin.runtime import Runtime, choose_precision, tune_allocator
from robustbench_tin.training.loop import Recipe, train

Builder = Callable[[int, int], nn.Module]
LoadedCell = tuple[nn.Module, Tensor, Tensor, int]

SEED = 0
# Ten classes that look different, so that a network of 0.3 million weights tells most of them apart.
TEN = {
    "n01443537": "goldfish",
    "n01910747": "jellyfish",
    "n01917289": "brain coral",
    "n02056570": "king penguin",
    "n02124075": "Egyptian cat",
    "n02279972": "monarch",
    "n03837869": "obelisk",
    "n04146614": "school bus",
    "n07753592": "banana",
    "n09193705": "alp",
}
TWO = {"n02124075": "Egyptian cat", "n02099601": "golden retriever"}


@dataclass(frozen=True)
class Task:
    """Classes to tell apart, and the images that are kept for evaluation.

    Attributes:
        classes: the class ids; None: all of the data set.
        train_per_class: training images of each class, those held out among them.
        held_out: of these, the last of each class are not trained on but evaluated on.
        images: evaluation images in all, at most.
    """

    classes: tuple[str, ...] | None
    train_per_class: int
    held_out: int
    images: int = 1000


TASKS = {
    "ten": Task(tuple(TEN), 500, 50),
    "two": Task(tuple(TWO), 500, 100),
    "all": Task(None, 50, 0),
}


@dataclass(frozen=True)
class Animal:
    """A network of the zoo and its training.

    Attributes:
        task: a key of :data:`TASKS`.
        build: from the number of classes and the images' side to a network.
        epochs: of training; 0: only a head is fitted, on the features of ImageNet weights.
        defense: the defense of its training.
        norm: of its threat model.
        eps: at which its robust accuracy is printed.
        clean_epochs: epochs without the defense's loss, at the beginning.
        lr: highest learning rate.
    """

    task: str
    build: Builder
    epochs: int
    defense: str = "augment"
    norm: str = "linf"
    eps: float = 2 / 255
    clean_epochs: int = 0
    lr: float = 4e-3


# Images that the printed accuracy under attack is of.
_SHOWN = 250
_FLIPS = "augment:rotation=0,zoom=0,shift=0.06"

ANIMALS = {
    "resnet-std": Animal("ten", networks.resnet, 16),
    "resnet-at-linf": Animal(
        "ten",
        networks.resnet,
        14,
        f"{_FLIPS}+pgd-at:steps=2,alpha=5/255",
        eps=8 / 255,
        clean_epochs=4,
    ),
    "vit": Animal("ten", networks.vit, 16, _FLIPS, lr=1.5e-3),
    "resnet-at-l2": Animal(
        "ten",
        networks.resnet,
        10,
        f"{_FLIPS}+pgd-at:norm=l2,eps=1,steps=2",
        norm="l2",
        eps=1.0,
        clean_epochs=3,
    ),
    "resnet-2-classes": Animal("two", networks.resnet, 25),
    "convnext-layer-norm": Animal("ten", networks.convnext_layer_norm, 16, lr=2e-3),
    "convnext-group-norm": Animal("ten", networks.convnext_group_norm, 16, lr=2e-3),
    "efficientnet-200-classes": Animal("all", networks.efficientnet, 0, eps=0.5 / 255),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="Tiny ImageNet with 500 training images a class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="folder of ImageNet weights")
    parser.add_argument("--only", help="names of networks, with commas between them; default: all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.only.split(",") if arguments.only else list(ANIMALS)
    whole = open_dataset(arguments.data)
    print("| network | classes | training | seconds | clean | under PGD-20 |\n|---|---:|---|---:|---:|---:|")
    for name in names:
        animal = ANIMALS[name]
        if animal.epochs == 0 and arguments.weights is None:
            print(f"| {name} | left out: give --weights |||||")
            continue
        if not _weights(arguments.out, name).exists():
            _make(name, animal, whole, arguments)
        print(_row(arguments.out, name), flush=True)


def load(folder: str | Path, name: str) -> LoadedCell:
    """A network of the zoo and its evaluation images.

    Args:
        folder: that the command was given as ``--out``.
        name: a key of :data:`ANIMALS`.

    Returns:
        The network in eval mode, float32 pixels ``(N, 3, 64, 64)`` in [0, 1] to logits; evaluation images,
        uint8 ``(N, 3, 64, 64)`` in a mixed order; labels, int64 ``(N,)``; the number of classes.
    """
    animal = ANIMALS[name]
    with safe_open(_weights(Path(folder), name), "pt") as file:
        classes = int(file.metadata()["classes"])
    held = load_file(_images(Path(folder), animal.task))
    network = animal.build(classes, int(held["images"].shape[-1]))
    network.load_state_dict(load_file(_weights(Path(folder), name)))
    return network.eval().requires_grad_(False), held["images"], held["labels"], classes


def _make(name: str, animal: Animal, whole: Dataset, arguments: argparse.Namespace) -> None:
    """Train a network, and save it and its images."""
    split, images, labels, classes = divided(whole, TASKS[animal.task])
    held = _images(arguments.out, animal.task)
    if not held.exists():
        save_file({"images": images, "labels": labels}, held)
    started = clock()
    if animal.epochs == 0:
        network = fitted(animal, split, classes, arguments.weights)
    else:
        network = trained(animal, split, classes)
    seconds = f"{clock() - started:.0f}"
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, _weights(arguments.out, name), {"classes": str(classes), "seconds": seconds})


def divided(whole: Dataset, task: Task) -> tuple[Split, Tensor, Tensor, int]:
    """Training images, evaluation images and labels, and the number of classes."""
    part = subset(whole, classes=task.classes, train_per_class=task.train_per_class)
    classes = len(part.classes)
    rows = [np.flatnonzero(part.train.labels == label) for label in range(classes)]
    trained_on = np.concatenate([each[: len(each) - task.held_out] for each in rows])
    held = np.concatenate([each[len(each) - task.held_out :] for each in rows])
    order = np.random.default_rng(SEED)
    chosen = order.permutation(len(part.val))[: task.images]
    more = order.permutation(held)[: task.images - len(chosen)]
    images = np.concatenate([part.val.images[chosen], part.train.images[more]])
    labels = np.concatenate([part.val.labels[chosen], part.train.labels[more]])
    return part.train.take(trained_on), torch.from_numpy(images), torch.from_numpy(labels), classes


def trained(animal: Animal, split: Split, classes: int) -> nn.Module:
    """A network after its training, in eval mode."""
    size = int(split.images.shape[-1])
    with seeded(SEED):
        network = animal.build(classes, size)
    recipe = Recipe(animal.epochs, batch_size=100, lr=animal.lr, clean_epochs=animal.clean_epochs)
    runtime = Runtime("cpu", choose_precision("cpu", network, size))
    train(network, split, parse_defense(animal.defense), recipe, runtime, num_classes=classes, seed=SEED)
    return network.to(memory_format=torch.contiguous_format).eval()


def fitted(animal: Animal, split: Split, classes: int, weights: Path) -> nn.Module:
    """A network with ImageNet weights and a linear head that is fitted on their features, in eval mode."""
    size = int(split.images.shape[-1])
    with seeded(SEED):
        network = animal.build(classes, size)
    body = network.get_submodule("network")
    head = body.get_submodule("classifier")
    assert isinstance(head, nn.Linear)
    state = load_file(weights / f"{networks.EFFICIENTNET}.safetensors")
    body.load_state_dict(
        {key: value.float() for key, value in state.items() if not key.startswith("classifier.")},
        strict=False,
    )
    network.eval()
    features: list[Tensor] = []
    with torch.inference_mode(), head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0])):
        for start in range(0, len(split), 100):
            network(torch.from_numpy(np.array(split.images[start : start + 100])).float() / 255)
    _fit(head, torch.cat(features).clone(), torch.from_numpy(split.labels))
    return network


def _fit(head: nn.Linear, features: Tensor, labels: Tensor) -> None:
    """Logistic regression in full batches, with a penalty on long weights."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3, weight_decay=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        functional.cross_entropy(head(features), labels).backward()
        optimizer.step()


def _row(folder: Path, name: str) -> str:
    animal = ANIMALS[name]
    network, images, labels, classes = load(folder, name)
    with safe_open(_weights(folder, name), "pt") as file:
        seconds = file.metadata().get("seconds", "")
    frame = evaluate(
        network, images[:_SHOWN], labels[:_SHOWN], "pgd:steps=20", animal.eps, animal.norm
    ).records
    clean, attacked = (100 * float(frame["top1"].iloc[row]) for row in (0, 1))
    eps = f"linf {255 * animal.eps:g}/255" if animal.norm == "linf" else f"l2 {animal.eps:g}"
    training = animal.defense if animal.epochs else "head fitted on ImageNet features"
    return f"| {name} | {classes} | {training} | {seconds} | {clean:.1f} | {attacked:.1f} at {eps} |"


def _weights(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _images(folder: Path, task: str) -> Path:
    return folder / f"images-{task}.safetensors"


if __name__ == "__main__":
    main()
