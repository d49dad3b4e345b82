"""Catastrophic overfitting on real Tiny ImageNet classes: it is noticed, and good weights are kept."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from robustbench_tin import evaluate
from robustbench_tin.benchmarks.cells.validation_metrics import RobustnessMetrics
from robustbench_tin.data import Dataset, open_dataset, subset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.runtime import Runtime, tune_allocator
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training.loop import Recipe, train

DATA = os.environ.get("ROBUST_TIN_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="set ROBUST_TIN_DATA to run on real data"),
]

CLASSES, PER_CLASS, EPS = 10, 500, 16 / 255


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    tune_allocator()
    whole = open_dataset(str(DATA), cache_dir=tmp_path_factory.mktemp("cache"))
    part = subset(whole, classes=CLASSES)
    if len(part.train) < CLASSES * PER_CLASS:
        pytest.skip(f"ROBUST_TIN_DATA holds fewer than {PER_CLASS} training images a class; give all of them")
    return part


def test_catastrophic_overfitting_is_noticed_and_good_weights_are_kept(dataset: Dataset) -> None:
    """FGSM without a random start, the classical case; once more without the monitor, to the end."""
    images = torch.from_numpy(np.array(dataset.val.images)).float() / 255
    labels = torch.from_numpy(np.array(dataset.val.labels))

    def trained(probe: RobustnessMetrics | None) -> tuple[dict[str, int], tuple[str, ...]]:
        classifier = build_classifier(backbones.get("timm:test_resnet"), CLASSES, image_size=64, seed=0)
        record = train(
            classifier,
            dataset.train,
            parse_defense(f"n-fgsm:noise=0,eps={EPS}"),
            Recipe(40, 48, 1e-2),
            Runtime("cpu", "bfloat16"),
            num_classes=CLASSES,
            seed=0,
            probe=probe,
        )
        frame = evaluate(classifier, images, labels, ["fgsm", "pgd:steps=20"], EPS).records.set_index(
            "attack"
        )
        return {name: round(top1 * len(labels)) for name, top1 in frame["top1"].items()}, record.notes

    kept, notes = trained(RobustnessMetrics(ThreatModel("linf", EPS), seed=0))
    left, silence = trained(None)
    print(f"of {len(labels)} images right: kept {kept}, without the monitor {left}; {notes}")
    assert any("catastrophic overfitting" in note for note in notes)
    assert silence == ()
    assert left["fgsm"] > 2 * kept["fgsm"], "FGSM alone says that it got better"
    attack = "pgd:steps=20"
    highest = binomtest(left[attack], len(labels)).proportion_ci(0.999).high
    assert binomtest(kept[attack], len(labels), highest, alternative="greater").pvalue < 1e-3
