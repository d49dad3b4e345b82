"""Any ``timm:NAME``: its sizes are found, and hold on real tensors."""

from __future__ import annotations

import pytest
import torch

from robustbench_tin.errors import InvalidSettingError, UnknownNameError
from robustbench_tin.models import backbones, build_classifier


@pytest.mark.parametrize(
    ("name", "smallest", "multiple", "sized"),
    [
        ("test_resnet", 1, 1, False),
        ("test_efficientnet", 1, 1, False),
        ("vit_tiny_patch16_224", 16, 1, True),
        ("test_vit", 16, 16, False),
    ],
)
def test_sizes_are_found_by_trying(name: str, smallest: int, multiple: int, sized: bool) -> None:
    backbone = backbones.get(f"timm:{name}")
    assert (backbone.smallest, backbone.multiple, backbone.sized) == (smallest, multiple, sized)
    assert backbone.check_size(33) == -(-33 // multiple) * multiple


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("training", [True, False])
def test_smallest_size_works_on_real_tensors(name: str, training: bool) -> None:
    backbone = backbones.get(f"timm:{name}")
    classifier = build_classifier(backbone, 5, image_size=backbone.smallest, seed=0).train(training)
    images = torch.rand(2, 3, backbone.smallest, backbone.smallest).requires_grad_()
    logits = classifier(images)
    assert logits.shape == (2, 5)
    (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    assert gradient.isfinite().all()


def test_size_between_multiples_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="a multiple of 16"):
        backbones.get("timm:test_vit").check_size(64, 65)


def test_network_of_one_size_takes_no_other() -> None:
    from robustbench_tin.models.backbone import Backbone

    backbone = Backbone("one", "one size", "test_vit", smallest=160, fixed=True)
    assert backbone.check_size(64) == backbone.check_size(256) == backbone.check_size(64, 160) == 160
    with pytest.raises(InvalidSettingError, match="exactly 160"):
        backbone.check_size(64, 192)


def test_a_known_tag_is_part_of_the_name() -> None:
    assert backbones.get("timm:test_resnet.r160_in1k").timm_name == "test_resnet.r160_in1k"


def test_a_hub_is_no_family() -> None:
    with pytest.raises(InvalidSettingError, match="someone/something"):
        backbones.get("timm:hf-hub:someone/something")


@pytest.mark.parametrize("name", ["no_such_network_at_all", "hf-hub", "a/b"])
def test_unknown_networks_are_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown backbone"):
        backbones.get(f"timm:{name}")
