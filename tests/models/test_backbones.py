"""The contract of every registered backbone: names, sizes, seeds, shapes, gradients."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from robustbench_tin.errors import InvalidSettingError, UnknownNameError
from robustbench_tin.models import ALL, Backbone, Classifier, backbones, build_classifier, select
from robustbench_tin.models.network import create_skeleton

NAMES = backbones.names()
CLASSES = 5
# vgg16's large dense layers take seconds on real tensors; vgg19 differs from it in depth only.
AFFORDABLE = [name for name in NAMES if name != "vgg19"]


def pixels(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=AFFORDABLE)
def built(request: pytest.FixtureRequest) -> tuple[Backbone, Classifier]:
    backbone = backbones.get(request.param)
    size = backbone.smallest
    return backbone, build_classifier(backbone, CLASSES, image_size=size, resize_to=size, seed=0)


def test_smallest_size_trains_and_gives_gradients(built: tuple[Backbone, Classifier]) -> None:
    backbone, classifier = built
    assert classifier.input_size == backbone.smallest
    images = pixels(2, backbone.smallest).requires_grad_()
    for training in (True, False):
        logits = classifier.train(training)(images)
        assert logits.shape == (2, CLASSES)
        assert logits.dtype == torch.float32
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
        assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_bfloat16_and_channels_last_change_only_rounding(built: tuple[Backbone, Classifier]) -> None:
    backbone, classifier = built
    images = pixels(1, backbone.smallest)
    classifier.eval()
    with torch.no_grad():
        expected = classifier(images)
        classifier.to(memory_format=torch.channels_last)
        reordered = classifier(images.contiguous(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = classifier(images.contiguous(memory_format=torch.channels_last))
    scale = expected.abs().max().item() + 1e-3
    assert torch.allclose(reordered, expected, atol=1e-3 * scale, rtol=1e-3)
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, expected, atol=0.3 * scale, rtol=0.1)


def test_eval_mode_sees_each_image_alone(built: tuple[Backbone, Classifier]) -> None:
    backbone, classifier = built
    images = pixels(3, backbone.smallest)
    classifier.eval()
    with torch.no_grad():
        together, alone = classifier(images), classifier(images[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_smallest_is_a_true_bound(name: str) -> None:
    backbone = backbones.get(name)
    network = create_skeleton(backbone, CLASSES, backbone.smallest)
    with torch.no_grad():
        assert network(meta_images(backbone.smallest)).shape == (1, CLASSES)
        if backbone.smallest > 1:
            with pytest.raises(RuntimeError):
                network(meta_images(backbone.smallest - 1))


def meta_images(size: int) -> Tensor:
    return torch.empty(1, 3, size, size, device="meta")


@pytest.mark.parametrize("name", NAMES)
def test_size_is_settled_before_anything_is_built(name: str) -> None:
    backbone = backbones.get(name)
    assert backbone.check_size(64) == (backbone.native or max(64, backbone.smallest))
    assert backbone.check_size(64, 96) == 96
    with pytest.raises(InvalidSettingError, match=f"{backbone.smallest} or more") as caught:
        backbone.check_size(64, backbone.smallest - 1)
    assert str(backbone.smallest - 1) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidSettingError):
        build_classifier(backbone, CLASSES, image_size=64, resize_to=backbone.smallest - 1, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_summary_names_the_paper(name: str) -> None:
    backbone = backbones.get(name)
    assert backbone.name == name
    assert "arXiv:" in backbone.summary
    assert "\n" not in backbone.summary


def test_same_seed_same_weights_and_global_generator_untouched() -> None:
    backbone = backbones.get("mobilenet")
    before = torch.get_rng_state()
    first, again, other = (
        build_classifier(backbone, CLASSES, image_size=8, seed=seed).state_dict() for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_seed_does_not_depend_on_the_global_generator() -> None:
    backbone = backbones.get("timm:test_resnet")
    torch.manual_seed(1)
    first = build_classifier(backbone, CLASSES, image_size=8, seed=0).state_dict()
    torch.manual_seed(2)
    again = build_classifier(backbone, CLASSES, image_size=8, seed=0).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_class_count_must_be_positive(num_classes: int) -> None:
    with pytest.raises(InvalidSettingError, match="classes"):
        build_classifier(backbones.get("mobilenet"), num_classes, image_size=8, seed=0)


def test_image_size_must_be_positive() -> None:
    with pytest.raises(InvalidSettingError, match="0"):
        backbones.get("mobilenet").check_size(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vgg16", ["vgg16"]),
        (" resnet50 , vgg16,resnet50", ["resnet50", "vgg16"]),
        ("vgg*", ["vgg16", "vgg19"]),
        ("all", list(ALL)),
        ("densenet169,all", ["densenet169", *(name for name in ALL if name != "densenet169")]),
        ("timm:test_resnet,mobilenet", ["timm:test_resnet", "mobilenet"]),
    ],
)
def test_select_keeps_order_and_drops_duplicates(text: str, expected: list[str]) -> None:
    assert select(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("densnet169", "'densenet169'"),
        ("vgg16,resnet18", "'timm:resnet18'"),
        ("timm:resnet1", "'timm:resnet18'"),
        ("timm:resnet18.no_such_tag", "'timm:resnet18'"),
        ("timm:qqqqzzzz", "timm:resnet18"),
        ("x*", "known: "),
    ],
)
def test_select_refuses_unknown_names_in_one_line(text: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        select(text)
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_select_refuses_an_empty_item() -> None:
    with pytest.raises(InvalidSettingError, match="has an empty item"):
        select("vgg16, ,resnet50")


def test_importing_and_sizing_the_builtin_ones_loads_no_torch() -> None:
    code = (
        "import sys; from robustbench_tin.models import backbones, select;"
        "[backbones.get(name).check_size(64) for name in select('all,densenet*')];"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
