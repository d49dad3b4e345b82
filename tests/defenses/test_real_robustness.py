"""The promise of each adversarial defense, on real Tiny ImageNet classes: it beats ``none`` under PGD-20."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from robustbench_tin import evaluate
from robustbench_tin.data import Dataset, open_dataset, subset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.runtime import Runtime, tune_allocator
from robustbench_tin.training.loop import Recipe, train

DATA, WEIGHTS = os.environ.get("ROBUST_TIN_DATA"), os.environ.get("ROBUST_TIN_WEIGHTS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (DATA and WEIGHTS), reason="set ROBUST_TIN_DATA and ROBUST_TIN_WEIGHTS to run on real data"
    ),
]

BACKBONE, CLASSES = "tf_efficientnet_lite0", 5
ATTACK, EPS = "pgd:criterion=top1,steps=20", 2 / 255
# A few quick epochs; at half of the rate, or a larger eps, less is learnt of robustness in them.
RECIPE = Recipe(4, 25, 2e-3, head_rate=4)

DEFENSES = (
    f"fgsm-at:eps={EPS}",
    f"n-fgsm:eps={EPS}",
    f"free-at:eps={EPS},replays=3",
    f"pgd-at:eps={EPS},steps=3",
    f"trades:eps={EPS},steps=3",
    f"mart:eps={EPS},steps=3",
    f"awp+pgd-at:eps={EPS},steps=3",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    tune_allocator()
    whole = open_dataset(str(DATA), cache_dir=tmp_path_factory.mktemp("cache"))
    return subset(whole, classes=CLASSES, train_per_class=100, eval_images=None)


def kept(dataset: Dataset, defense: str) -> tuple[int, int]:
    """How many images are right when clean, and under PGD-20."""
    classifier = build_classifier(
        backbones.get(f"timm:{BACKBONE}"),
        CLASSES,
        image_size=64,
        resize_to=None,
        weights=Path(str(WEIGHTS)) / f"{BACKBONE}.safetensors",
        seed=0,
    )
    train(
        classifier,
        dataset.train,
        parse_defense(defense),
        # An epoch of free-at is a third of a pass over the images here.
        replace(RECIPE, epochs=12) if defense.startswith("free-at") else RECIPE,
        Runtime("cpu"),
        num_classes=CLASSES,
        seed=0,
    )
    images = torch.from_numpy(np.array(dataset.val.images)).float() / 255
    labels = torch.from_numpy(np.array(dataset.val.labels))
    frame = evaluate(classifier, images, labels, ATTACK, EPS).records.set_index("attack")
    clean, attacked = (round(frame["top1"][name] * len(labels)) for name in ("clean", ATTACK))
    return clean, attacked


@pytest.fixture(scope="module")
def undefended(dataset: Dataset) -> tuple[int, int]:
    return kept(dataset, "none")


@pytest.mark.parametrize("defense", DEFENSES)
def test_it_beats_none_under_pgd_20(dataset: Dataset, undefended: tuple[int, int], defense: str) -> None:
    images = len(dataset.val)
    clean, attacked = kept(dataset, defense)
    print(f"{defense}: {clean} clean, {attacked} under PGD-20 of {images}; none: {undefended}")
    assert attacked <= clean
    # One-sided, at 1 in 1000. A network that always guesses one class keeps a fifth under any attack.
    assert binomtest(clean, images, 1 / CLASSES, alternative="greater").pvalue < 1e-3
    assert clean > 2 * images / CLASSES
    highest = binomtest(undefended[1], images).proportion_ci(0.999).high
    assert binomtest(attacked, images, highest, alternative="greater").pvalue < 1e-3
