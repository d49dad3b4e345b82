"""A VGG's head for a last map of one pixel, against timm's own network."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from robustbench_tin.errors import WeightsError
from robustbench_tin.models import Backbone, build_classifier, load_weights, save_weights
from robustbench_tin.models.network import create_skeleton
from robustbench_tin.models.one_pixel_head import use_one_pixel_head, with_head_of

vgg = Backbone("small-vgg", "a small VGG", "vgg11", smallest=32)


@pytest.fixture(autouse=True)
def small_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG-11 with 16 hidden features instead of 4096."""
    made = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **given: made(name, **{"mlp_ratio": 1 / 256} | given)
    )


def network(size: int) -> nn.Module:
    torch.manual_seed(0)
    made = timm.create_model("vgg11", num_classes=3).double().eval()
    use_one_pixel_head(made, size)
    return made


@pytest.mark.parametrize("size", [32, 48, 63])
def test_it_gives_the_same_logits(size: int) -> None:
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    narrow, wide = network(size), network(64)
    kernels = [made.get_parameter("pre_logits.fc1.weight").shape[2:] for made in (narrow, wide)]
    assert kernels == [(1, 1), (7, 7)]
    torch.testing.assert_close(narrow(images), wide(images))


def test_other_networks_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    resnet = timm.create_model("test_resnet")
    before = resnet.state_dict()
    use_one_pixel_head(resnet, 32)
    assert before.keys() == resnet.state_dict().keys()


@pytest.mark.parametrize(("there", "here"), [(32, 64), (64, 32), (32, 32)])
def test_weights_of_another_size_give_the_same_logits(there: int, here: int) -> None:
    source, target = network(there), network(here)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    target.load_state_dict(dict(with_head_of(source.state_dict(), target)))
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(target(images), source(images))


def test_a_run_at_64_pixels_starts_from_weights_of_32(tmp_path: Path) -> None:
    small = build_classifier(vgg, 3, image_size=32, seed=0).eval()
    save_weights(small, tmp_path / "weights.safetensors")
    large = build_classifier(vgg, 3, image_size=64, weights=tmp_path / "weights.safetensors", seed=1).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(large.network(images), small.network(images), rtol=1e-3, atol=1e-5)


def test_weights_of_earlier_versions_load(tmp_path: Path) -> None:
    whole = build_classifier(vgg, 3, image_size=64, seed=0).eval()
    save_weights(whole, tmp_path / "weights.safetensors")
    small = build_classifier(vgg, 3, image_size=32, seed=1).eval()
    load_weights(small, tmp_path / "weights.safetensors")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(small.network(images), whole.network(images), rtol=1e-3, atol=1e-5)


def test_a_head_of_another_width_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = build_classifier(vgg, 3, image_size=32, seed=0)
    save_weights(small, tmp_path / "weights.safetensors")
    made = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **given: made(name, **given | {"mlp_ratio": 1 / 512})
    )
    with pytest.raises(WeightsError, match="fc1"):
        load_weights(build_classifier(vgg, 3, image_size=32, seed=0), tmp_path / "weights.safetensors")


def test_a_skeleton_has_the_same_shapes() -> None:
    built = build_classifier(vgg, 3, image_size=32, seed=0).network.state_dict()
    skeleton = create_skeleton(vgg, 3, 32).state_dict()
    assert {key: value.shape for key, value in built.items()} == {
        key: value.shape for key, value in skeleton.items()
    }
