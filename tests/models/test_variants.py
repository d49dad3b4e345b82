"""Backbones with settings: sizes, interpolation, cut bases and heads of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError, RobustTinError, UnknownNameError, WeightsError
from robustbench_tin.models import backbones, build_classifier, load_weights, save_weights, select
from robustbench_tin.models.network import create_skeleton
from robustbench_tin.runtime import Runtime
from robustbench_tin.training.loop import Recipe, train
from robustbench_tin.training.objective import classification_loss

TINY = "timm:test_resnet"
# The report's head, narrow enough for a test.
FINAL = "inceptionv3-final:size=75,width=8"


def pixels(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_a_spec_is_a_backbone_whose_name_is_canonical() -> None:
    backbone = backbones.get("densenet169:interpolation=bilinear,size=128,cut=1")
    assert backbone.name == "densenet169:cut=1,size=128"
    assert backbones.get(backbone.name) == backbone
    assert backbone.check_size(64) == backbone.check_size(64, 96) == 128
    assert select(f"{TINY}:size=32,vgg16,{TINY}:size=32") == [f"{TINY}:size=32", "vgg16"]
    assert select("vgg*:size=96") == ["vgg16:size=96", "vgg19:size=96"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("densenet169:sise=3", "did you mean 'size'"),
        ("densenet169:size=0", "expected 1 or more pixels"),
        ("densenet169:size=20", "expected 29 or more"),
        ("densenet169:interpolation=lanczos", "expected nearest, bilinear, bicubic, area"),
        ("densenet169:cut=-1", "expected 0 or more"),
        ("densenet169:cut=5", "has 5 stages; expected cut below 5"),
        ("densenet169:hidden=2", "unknown setting"),
        ("mobilenet:cut=1", "cannot be cut"),
        ("vgg16:stem=3x3", "which only ResNets without cut have"),
        ("resnet50:cut=1,stem=3x3", "which only ResNets without cut have"),
        ("resnet50:stem=4x4", "expected published or 3x3"),
        ("resnet50:output=tanh", "expected sigmoid or softmax"),
        ("inceptionv3-final:output=tanh", "expected sigmoid or softmax"),
        ("densnet169:size=3", "did you mean 'densenet169'"),
    ],
)
def test_what_makes_no_backbone_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(RobustTinError, match=message) as caught:
        build_classifier(backbones.get(spec), 3, image_size=64, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("size", [16, 48])
def test_images_are_resized_as_asked_inside_the_classifier(interpolation: str, size: int) -> None:
    backbone = backbones.get(f"{TINY}:size={size},interpolation={interpolation}")
    classifier = build_classifier(backbone, 3, image_size=32, seed=0).eval()
    assert classifier.input_size == size
    images = pixels(2, 32)
    smooth = interpolation in ("bilinear", "bicubic")
    resized = functional.interpolate(
        images,
        size=(size, size),
        mode="nearest-exact" if interpolation == "nearest" else interpolation,
        **({"align_corners": False, "antialias": size < 32} if smooth else {}),
    )
    seen = classifier.prepare(images)
    assert torch.allclose(seen, (resized - classifier.mean) / classifier.std, atol=1e-5)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(classifier(images).sum(), images)
    assert gradient.abs().sum() > 0


def test_a_cut_base_ends_a_stage_earlier_under_a_new_head() -> None:
    whole = create_skeleton(backbones.get("resnet50"), 5, 64)
    cut = create_skeleton(backbones.get("resnet50:cut=1"), 5, 64)
    own = {key.removeprefix("base.") for key in cut.state_dict() if key.startswith("base.")}
    assert own == {key for key in whole.state_dict() if not key.startswith(("layer4.", "fc."))}
    assert cut.head[-1].in_features == 1024
    with torch.no_grad():
        assert cut(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 5)


def test_a_stem_for_small_images_keeps_their_pixels_until_the_first_block() -> None:
    backbone = backbones.get("timm:resnet18:stem=3x3")
    network = build_classifier(backbone, 5, image_size=32, seed=0).eval().network
    seen: dict[str, Tensor] = {}
    for name in ("maxpool", "layer1"):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output})
        )
    with torch.no_grad():
        assert network(pixels(2, 32)).shape == (2, 5)
    assert seen["maxpool"].shape == seen["layer1"].shape == (2, 64, 32, 32)
    assert float(network.conv1.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    whole = create_skeleton(backbones.get("timm:resnet18"), 5, 32).state_dict()
    own = {key: value.shape for key, value in network.state_dict().items() if key != "conv1.weight"}
    assert own == {key: value.shape for key, value in whole.items() if key != "conv1.weight"}
    with pytest.raises(InvalidSettingError, match="have another stem"):
        build_classifier(backbone, 5, image_size=32, pretrained=True, seed=0)


def test_a_cut_base_computes_what_the_base_does() -> None:
    whole = build_classifier(backbones.get(TINY), 5, image_size=32, seed=0).eval()
    cut = build_classifier(backbones.get(f"{TINY}:cut=1"), 5, image_size=32, seed=1).eval()
    state = whole.network.state_dict()
    cut.network.base.load_state_dict({key: state[key] for key in cut.network.base.state_dict()})
    seen: list[Tensor] = []
    whole.network.layer3.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = pixels(2, 32)
    with torch.no_grad():
        whole(images)
        expected = cut.network.head(seen[0])
        assert torch.allclose(cut(images), expected, atol=1e-5)


def test_the_final_model_is_inception_flattened_under_three_dense_layers_of_4096() -> None:
    backbone = backbones.get("inceptionv3-final")
    assert backbone.check_size(64) == 128
    network = create_skeleton(backbone, 200, 128)
    widths = [
        (layer.in_features, layer.out_features) for layer in network.head if hasattr(layer, "in_features")
    ]
    assert widths == [(2048 * 2 * 2, 4096), (4096, 4096), (4096, 4096), (4096, 200)]
    assert sum(isinstance(layer, torch.nn.ReLU) for layer in network.head) == 3


def test_its_output_is_logits_trained_one_class_against_the_rest_or_softmax() -> None:
    labels = torch.tensor([2, 0])
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    losses = {}
    for output in ("sigmoid", "softmax"):
        hidden = 3 if output == "sigmoid" else 2
        classifier = build_classifier(
            backbones.get(f"{FINAL},output={output},hidden={hidden}"), 3, image_size=16, seed=0
        )
        assert len(classifier.network.head) == 2 + 2 * hidden
        assert classifier.one_vs_rest == (output == "sigmoid")
        assert classifier.eval()(pixels(2, 16)).min() < 0, "logits, not probabilities"
        losses[output] = float(classification_loss(classifier, logits, labels))
        soft = functional.one_hot(labels, 3).float()
        assert float(classification_loss(classifier, logits, soft)) == pytest.approx(losses[output])
        smoothed = classification_loss(classifier, logits, labels, 0.3)
        assert float(smoothed) == pytest.approx(
            float(classification_loss(classifier, logits, 0.7 * soft + 0.1)), rel=1e-5
        )
    right = logits.sigmoid().gather(1, labels[:, None]).squeeze(1)
    rest = -(1 - logits.sigmoid()).log().sum(dim=1) + (1 - right).log()
    assert losses["sigmoid"] == pytest.approx(float((rest - right.log()).mean()), rel=1e-4)
    assert losses["softmax"] == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)


@pytest.mark.parametrize("defense", ["none", "mixup", "fgsm-at"])
def test_one_class_against_the_rest_learns(defense: str) -> None:
    classifier = build_classifier(backbones.get(f"{TINY}:output=sigmoid"), 3, image_size=16, seed=0)
    labels = torch.arange(60) % 3
    images = (0.2 * pixels(60, 16) + 0.3 * labels.view(-1, 1, 1, 1)).clamp(0, 1)
    split = Split((images * 255).byte().numpy(), labels.numpy())
    recipe = Recipe(epochs=8, batch_size=12, lr=3e-3)
    train(classifier, split, parse_defense(defense), recipe, Runtime("cpu"), num_classes=3, seed=0)
    with torch.no_grad():
        logits = classifier(images)
    assert float((logits.argmax(dim=1) == labels).float().mean()) > 0.6
    # A softmax sees differences alone; a sigmoid pulls the logits of wrong classes below zero.
    wrong = functional.one_hot(labels, 3) == 0
    assert float((logits[wrong] < 0).float().mean()) > 0.8


def test_weights_of_the_whole_base_start_the_variant_and_its_own_come_back(tmp_path: Path) -> None:
    whole = build_classifier(backbones.get(TINY), 5, image_size=16, seed=3)
    save_weights(whole, tmp_path / "whole.safetensors")
    variant = backbones.get(f"{TINY}:cut=1")
    started = build_classifier(variant, 4, image_size=16, weights=tmp_path / "whole.safetensors", seed=0)
    assert started.notes == (f"{TINY}:cut=1: a new head for 4 classes starts from scratch",)
    theirs = whole.network.state_dict()
    for key, value in started.network.base.state_dict().items():
        assert torch.equal(value, theirs[key])
    save_weights(started, tmp_path / "own.safetensors")
    again = build_classifier(variant, 4, image_size=16, weights=tmp_path / "own.safetensors", seed=5)
    other = build_classifier(variant, 4, image_size=16, seed=6)
    load_weights(other, tmp_path / "own.safetensors")
    for key, value in started.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
        assert torch.equal(value, other.network.state_dict()[key])
    save_weights(
        build_classifier(backbones.get("timm:test_efficientnet"), 4, image_size=16, seed=0), tmp_path / "x.st"
    )
    with pytest.raises(WeightsError, match="do not fit"):
        build_classifier(variant, 4, image_size=16, weights=tmp_path / "x.st", seed=0)


def test_an_unknown_name_with_settings_lists_the_close_ones() -> None:
    with pytest.raises(UnknownNameError):
        select("vgg61:size=64")
    with pytest.raises(InvalidSettingError):
        select("vgg16:size=many")
