"""Published weights: from the cache without a network, and one quick line if there are none."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants

from robustbench_tin.errors import WeightsError
from robustbench_tin.models import backbones, build_classifier, save_weights

TINY = "timm:test_resnet"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub at a port of this machine that nothing listens on."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path


def test_unreachable_host_is_one_line_without_retries(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("the hub's client was asked, which retries for a minute")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", never)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", never)
    with pytest.raises(WeightsError) as caught:
        build_classifier(backbones.get(TINY), 5, image_size=16, pretrained=True, seed=0)
    message = str(caught.value)
    assert "http://127.0.0.1:9 cannot be reached" in message
    assert "--weights FILE" in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_offline_mode_asks_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        build_classifier(backbones.get(TINY), 5, image_size=16, pretrained=True, seed=0)


def test_failing_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("connection\nlost")

    monkeypatch.setattr("robustbench_tin.models.pretrained.requests.head", lambda *_, **__: _Answer())
    monkeypatch.setattr("timm.models._hub.hf_hub_download", fail)
    with pytest.raises(WeightsError, match="connection lost"):
        build_classifier(backbones.get(TINY), 5, image_size=16, pretrained=True, seed=0)


class _Answer:
    def close(self) -> None:
        pass


@pytest.mark.parametrize("num_classes", [1000, 5])
def test_cached_weights_need_no_network(cache: Path, num_classes: int) -> None:
    backbone = backbones.get(TINY)
    published = build_classifier(backbone, 1000, image_size=16, seed=11)
    repository = timm.models.get_pretrained_cfg(backbone.timm_name).hf_hub_id
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_weights(published, snapshot / "model.safetensors")

    started = build_classifier(backbone, num_classes, image_size=16, pretrained=True, seed=0)
    own, expected = started.network.state_dict(), published.network.state_dict()
    fresh = {key for key in own if not torch.equal(own[key], expected[key])} if num_classes == 1000 else set()
    assert fresh == set()
    assert torch.equal(own["conv1.0.weight"], expected["conv1.0.weight"])
    assert own["fc.weight"].shape[0] == num_classes
    assert len(started.notes) == (0 if num_classes == 1000 else 1)
    rows = build_classifier(backbone, 2, image_size=16, pretrained=True, head_rows=(7, 3), seed=0)
    assert torch.equal(rows.network.state_dict()["fc.weight"], expected["fc.weight"][[7, 3]])
    assert torch.equal(rows.network.state_dict()["conv1.0.weight"], expected["conv1.0.weight"])


def test_network_without_published_weights_says_so() -> None:
    name = next(name for name in timm.list_models("resnet*") if not timm.models.is_model_pretrained(name))
    with pytest.raises(WeightsError, match="timm publishes none"):
        build_classifier(backbones.get(f"timm:{name}"), 5, image_size=64, pretrained=True, seed=0)
