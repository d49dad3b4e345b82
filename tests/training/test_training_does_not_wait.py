"""Within an epoch of training, the host never waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from no_waiting import DEVICE, Waited, generators_of_the_host, no_waiting
from torch import Tensor
from toys import TOY_CLASSES, build_toy_model, draw_toy_images

from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense, registry
from robustbench_tin.defenses.none import NoDefense
from robustbench_tin.runtime import Runtime
from robustbench_tin.training import loop, optimiser
from robustbench_tin.training.loss_log import Losses
from robustbench_tin.training.recipe import Recipe, TrainingFailure

# The first makes its images before the first epoch. In the second it is torchvision that waits: it copies the
# matrix of each turn and shear to the device.
SPECS = sorted(set(registry.names()) - {"fgsm-static", "randaugment"})
EVERYTHING = "bbox-crop+augment+mixup+cutmix+random-erasing+awp+trades:norm=l2,steps=2"


def train_an_epoch(spec: str, recipe: Recipe) -> int:
    """An epoch of four steps on a device that fails when it is waited for; returns the steps taken."""
    images, labels = draw_toy_images(48, seed=5)
    boxes = np.tile(np.array([2, 3, 12, 10], np.int32), (48, 1))
    split = Split((images * 255).round().byte().numpy(), labels.numpy(), boxes)
    runtime, options = Runtime(str(DEVICE)), {"num_classes": TOY_CLASSES, "seed": 0}

    def watched_epoch(run: loop._Run, epoch: loop.Epoch, on_step: object) -> None:
        with no_waiting():
            begun_epoch(run, epoch, None)

    def end(run: loop._Run, epoch: loop.Epoch) -> None:
        run.ended = True

    begun_epoch = loop._Run.train_epoch
    # The device has no fused kernels.
    adamw = partial(torch.optim.AdamW, fused=False)
    with (
        generators_of_the_host(),
        mock.patch.object(loop._Run, "train_epoch", watched_epoch),
        mock.patch.object(loop._Run, "end_epoch", end),
        mock.patch.object(loop._Run, "record", lambda run: run.context.step),
        mock.patch.object(optimiser.torch.optim, "AdamW", lambda groups, lr, fused: adamw(groups, lr=lr)),
        mock.patch.object(loop, "LOSS_CHECK_INTERVAL", 1),
    ):
        with DEVICE:
            model = build_toy_model()
        return loop.train(model, split, parse_defense(spec), recipe, runtime, **options)


@pytest.mark.parametrize("spec", [*SPECS, EVERYTHING])
def test_an_epoch_waits_for_nothing(spec: str) -> None:
    recipe = Recipe(epochs=1, batch_size=12, lr=1e-2, label_smoothing=0.1, average="ema")
    assert train_an_epoch(spec, recipe) >= 4


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (lambda images: float(images.mean()), "item"),
        (lambda images: images.cpu(), "copy from meta to cpu"),
        (lambda images: images[images > 0.5], "nonzero"),
        (lambda images: torch.zeros(3).to(images.device), "copy from cpu to meta"),
        (lambda images: torch.tensor([1.0], device=images.device), "tensor on meta"),
        (lambda images: images.tolist(), "copy from meta to cpu"),
    ],
)
def test_a_defense_that_waits_is_noticed(look: Callable[[Tensor], object], why: str) -> None:
    noticed = []

    def augment(defense: NoDefense, images: Tensor, labels: Tensor, context: object) -> tuple[Tensor, Tensor]:
        torch.zeros(3).to(images.device, non_blocking=True)  # this is no waiting
        with pytest.raises((Waited, RuntimeError, NotImplementedError), match=why):
            look(images)
        noticed.append(why)
        return images, labels

    with mock.patch.object(NoDefense, "augment", augment):
        assert train_an_epoch("none", Recipe(epochs=1, batch_size=12, lr=1e-2)) == 4
    assert noticed == [why] * 4


def test_a_glance_sees_what_is_there_and_a_look_sees_it_all() -> None:
    losses = Losses(4, torch.device("cpu"))
    losses.record(0, torch.tensor(1.5), torch.tensor(0.5), torch.zeros(2))
    losses.glance(1, epoch=0, lr=0.1)
    losses.record(1, torch.tensor(torch.nan), torch.tensor(0.5), torch.zeros(2))
    with pytest.raises(
        TrainingFailure, match=r"training loss .* step 2 of epoch 1 after losses .* 1.5 \(0.5\)"
    ):
        losses.glance(2, epoch=0, lr=0.1)
