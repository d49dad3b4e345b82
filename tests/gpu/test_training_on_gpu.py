"""Training on a GPU: each defense learns as on the CPU, repeats itself, and waits for nothing."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from toys import TOY_CLASSES, Toy, build_toy_model, draw_toy_images

from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense, registry
from robustbench_tin.defenses.adversarial_training import BallTraining
from robustbench_tin.metrics import in_top
from robustbench_tin.models import build_classifier
from robustbench_tin.runtime import Runtime, choose_precision
from robustbench_tin.training import loop
from robustbench_tin.training.loss_log import Losses
from robustbench_tin.training.recipe import Recipe, TrainingFailure

pytestmark = pytest.mark.gpu

# Torchvision copies a matrix to the device for each turn and shear, and waits.
WAITING = {"randaugment"}
RECIPE = Recipe(epochs=6, batch_size=20, lr=1e-2)


def split() -> Split:
    images, labels = draw_toy_images(320, seed=5)
    boxes = np.tile(np.array([2, 3, 12, 10], np.int32), (320, 1))
    return Split((images * 255).round().byte().numpy(), labels.numpy(), boxes)


def trained(spec: str, runtime: Runtime, recipe: Recipe = RECIPE, **options: Any) -> tuple[nn.Module, float]:
    model = build_toy_model()
    record = loop.train(
        model,
        split(),
        parse_defense(spec),
        recipe,
        runtime,
        num_classes=TOY_CLASSES,
        seed=0,
        trained=lambda name: build_toy_model(7).to(runtime.torch_device),
        **options,
    )
    return model, record.loss


def learnable(name: str) -> str:
    """The defense with a budget at which the toy network learns with every seed."""
    return f"{name}:eps=2/255" if issubclass(registry.get(name), BallTraining) else name


@pytest.mark.parametrize(
    "spec", [*map(learnable, registry.names()), "augment+mixup+awp+trades:steps=2,eps=2/255"]
)
def test_a_defense_learns_what_it_does_on_the_cpu(device: torch.device, spec: str) -> None:
    images, labels = draw_toy_images(200, seed=6)
    right = []
    for runtime in (Runtime("cpu"), Runtime(str(device))):
        model, loss = trained(spec, runtime)
        assert loss == loss  # a number
        with torch.no_grad():
            logits = model(images.to(runtime.torch_device)).cpu()
        right.append(float(in_top(logits, labels, 1).float().mean()))
    # Draws differ between devices; 200 images leave a deviation of 0.035.
    assert right[1] == pytest.approx(right[0], abs=0.15)


@pytest.mark.parametrize("spec", registry.names())
def test_what_a_defense_wraps_answers_as_on_the_cpu(network: Toy, there: Toy, spec: str) -> None:
    defense = parse_defense(spec)
    if defense.wrap(network.model) is network.model:
        pytest.skip(f"{spec} changes training only")
    if spec in ("smoothing", "random-resize"):
        pytest.skip(f"{spec} draws at random")
    here, found = (defense.wrap(toy.model).eval()(toy.images[:16]).cpu() for toy in (network, there))
    assert float((found - here).norm() / here.norm()) < 0.02  # JPEG rounds to levels


def test_the_same_training_gives_the_same_loss(device: torch.device) -> None:
    runtime = Runtime(str(device))
    one, other = (trained("augment+fgsm-at", runtime)[1] for _ in range(2))
    # Some of a GPU's kernels add in no fixed order.
    assert one == pytest.approx(other, rel=0 if device.type == "cpu" else 0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_in_each_precision(device: torch.device, precision: str) -> None:
    assert trained("none", Runtime(str(device), precision))[1] < 1


def test_a_gpu_trains_in_bfloat16(gpu: torch.device) -> None:
    assert choose_precision(str(gpu), build_toy_model(), 16) == "bfloat16"


@pytest.mark.parametrize("spec", sorted(set(registry.names()) - WAITING - {"fgsm-static"}))
def test_an_epoch_waits_for_nothing(gpu: torch.device, spec: str) -> None:
    batches = loop._Run.train_batches

    def watched(run: loop._Run, epoch: loop.Epoch, on_step: Any) -> None:
        if run.epoch == 0:  # kernels are loaded, constants copied
            return batches(run, epoch, on_step)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return batches(run, epoch, on_step)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with mock.patch.object(loop._Run, "train_batches", watched):
        trained(spec, Runtime(str(gpu), "bfloat16"))


def test_a_loss_that_is_no_number_is_seen_within_the_epoch(gpu: torch.device) -> None:
    losses = Losses(100, gpu)
    losses.record(
        0, torch.tensor(torch.nan, device=gpu), torch.ones((), device=gpu), torch.zeros(2, device=gpu)
    )
    losses.glance(1, epoch=0, lr=0.1)
    torch.cuda.synchronize(gpu)
    with pytest.raises(TrainingFailure, match=r"training loss .* step 1 of epoch 1"):
        losses.glance(2, epoch=0, lr=0.1)


def test_progressive_training_and_channels_last(device: torch.device) -> None:
    from robustbench_tin.models import backbones

    classifier = build_classifier(
        backbones.get("timm:test_resnet"), TOY_CLASSES, image_size=16, resize_to=None, seed=0
    )
    runtime = Runtime(str(device), "bfloat16" if device.type == "cuda" else "float32")
    record = loop.train(
        classifier,
        split(),
        parse_defense("n-fgsm"),
        Recipe(epochs=4, batch_size=40, lr=1e-3, progressive=0.5, average="ema"),
        runtime,
        num_classes=TOY_CLASSES,
        seed=0,
    )
    assert record.steps == 32
    assert classifier.input_size == 16
