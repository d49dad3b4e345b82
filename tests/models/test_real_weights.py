"""Real ImageNet weights on real validation images: the whole path from pixels to logits is right."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from robustbench_tin.errors import WeightsError
from robustbench_tin.models import backbones, build_classifier

DATA, WEIGHTS = os.environ.get("ROBUST_TIN_DATA"), os.environ.get("ROBUST_TIN_WEIGHTS")
COUNT = 100

needs_real = pytest.mark.skipif(
    not (DATA and WEIGHTS), reason="set ROBUST_TIN_DATA and ROBUST_TIN_WEIGHTS to run on real data"
)


@needs_real
def test_published_weights_recognise_real_images() -> None:
    images, labels, columns = _validation_images(Path(str(DATA)) / "tiny-imagenet-200")
    classifier = build_classifier(
        backbones.get("timm:tf_efficientnet_lite0"),
        1000,
        image_size=64,
        resize_to=224,
        weights=Path(str(WEIGHTS)) / "tf_efficientnet_lite0.safetensors",
        seed=0,
    )
    classifier.eval()
    with torch.inference_mode():
        logits = torch.cat([classifier(batch) for batch in images.split(20)])
    correct = (logits[:, columns].argmax(1) == labels).sum().item()
    assert correct > 0.4 * COUNT
    assert classifier.notes == ()


@needs_real
def test_builtin_backbone_starts_from_real_weights() -> None:
    weights = Path(str(WEIGHTS)) / "mobilenetv1_100.safetensors"
    classifier = build_classifier(backbones.get("mobilenet"), 200, image_size=64, weights=weights, seed=0)
    (note,) = classifier.notes
    assert "1000 classes" in note
    with pytest.raises(WeightsError, match="do not fit backbone 'resnet50'"):
        build_classifier(backbones.get("resnet50"), 200, image_size=64, weights=weights, seed=0)


def _validation_images(root: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first images, their labels among the 200 classes, and these classes' places in ImageNet's 1000."""
    ids = (root / "wnids.txt").read_text().split()
    info = ImageNetInfo()
    places = {info.index_to_label_name(index): index for index in range(info.num_classes())}
    rows = [line.split("\t")[:2] for line in (root / "val" / "val_annotations.txt").read_text().splitlines()]
    rows = rows[:COUNT]
    pixels = [
        np.asarray(Image.open(root / "val" / "images" / name).convert("RGB"), np.float32) / 255
        for name, _ in rows
    ]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([ids.index(wnid) for _, wnid in rows])
    return images, labels, torch.tensor([places[wnid] for wnid in ids])
