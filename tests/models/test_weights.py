"""Weights files: ours come back, those of others are read, and a broken one gives one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustbench_tin.errors import InvalidSettingError, RunError, WeightsError
from robustbench_tin.models import Classifier, backbones, build_classifier, load_weights, save_weights

TINY = "timm:test_resnet"


def build(num_classes: int = 5, *, name: str = TINY, seed: int = 0, **settings: Any) -> Classifier:
    settings.setdefault("image_size", 16)
    return build_classifier(backbones.get(name), num_classes, seed=seed, **settings)


def network_state(classifier: Classifier) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in classifier.network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def trained() -> Classifier:
    """A classifier whose every tensor differs from a fresh one's."""
    classifier = build(seed=7)
    with torch.no_grad():
        for value in classifier.network.state_dict().values():
            value.add_(1)
    return classifier


@pytest.fixture
def saved(trained: Classifier, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(trained, path)
    return path


def test_saved_weights_come_back_exactly(trained: Classifier, saved: Path) -> None:
    resumed = build()
    load_weights(resumed, saved)
    assert same(network_state(resumed), network_state(trained))
    started = build(weights=saved)
    assert same(network_state(started), network_state(trained))
    assert started.notes == ()


def test_saved_file_says_what_it_is_and_leaves_nothing_beside(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        assert file.metadata() == {
            "backbone": TINY,
            "num_classes": "5",
            "image_size": "16",
            "resize_to": "16",
        }
    assert list(saved.parent.iterdir()) == [saved]


def test_channels_last_weights_are_saved(trained: Classifier, tmp_path: Path) -> None:
    before = network_state(trained)
    save_weights(trained.to(memory_format=torch.channels_last), tmp_path / "last.safetensors")
    resumed = build().to(memory_format=torch.channels_last)
    load_weights(resumed, tmp_path / "last.safetensors")
    assert same(network_state(resumed), before)


def test_unwritable_place_is_one_line(trained: Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        save_weights(trained, tmp_path / "file" / "tiny.safetensors")


def test_failed_save_leaves_the_old_file(
    trained: Classifier, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def no_room(*_: object) -> None:
        raise SafetensorError("no room")

    monkeypatch.setattr("robustbench_tin.models.weights.save_file", no_room)
    with pytest.raises(RunError, match="no room"):
        save_weights(trained, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"network.{key}": value for key, value in state.items()},
    ],
    ids=["plain", "state_dict", "model", "parallel", "classifier"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_and_their_wrappers(
    trained: Classifier, tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any], legacy: bool
) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(wrap(network_state(trained)), path, _use_new_zipfile_serialization=not legacy)
    assert same(network_state(build(weights=path)), network_state(trained))


def test_torch_file_is_known_by_its_content(trained: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    torch.save(network_state(trained), path)
    assert same(network_state(build(weights=path)), network_state(trained))


def test_half_precision_becomes_float32_and_counters_may_lack(trained: Classifier, tmp_path: Path) -> None:
    state = {key: value.half() for key, value in network_state(trained).items() if value.is_floating_point()}
    save_file(state, tmp_path / "half.safetensors")
    started = network_state(build(weights=tmp_path / "half.safetensors"))
    for key, value in state.items():
        assert started[key].dtype == torch.float32
        assert torch.equal(started[key], value.float())


def test_head_of_another_class_count_is_replaced_and_said(trained: Classifier, saved: Path) -> None:
    started = build(9, weights=saved, seed=3)
    fresh, old, new = network_state(build(9, seed=3)), network_state(trained), network_state(started)
    assert torch.equal(new["fc.weight"], fresh["fc.weight"])
    assert torch.equal(new["conv1.0.weight"], old["conv1.0.weight"])
    (note,) = started.notes
    assert "has 5 classes" in note
    assert "for 9" in note
    with pytest.raises(WeightsError, match="2 keys differ"):
        load_weights(build(9), saved)


def test_position_embeddings_follow_the_image_size(tmp_path: Path) -> None:
    large = build(name="timm:vit_tiny_patch16_224", image_size=48)
    save_weights(large, tmp_path / "vit.safetensors")
    small = build(name="timm:vit_tiny_patch16_224", image_size=32, weights=tmp_path / "vit.safetensors")
    state = network_state(small)
    assert state["pos_embed"].shape != large.network.state_dict()["pos_embed"].shape
    assert torch.equal(state["head.weight"], large.network.state_dict()["head.weight"])


def test_second_head_of_inception_files_is_ignored(tmp_path: Path) -> None:
    classifier = build(name="inceptionv3")
    state = network_state(classifier)
    state["AuxLogits.conv0.conv.weight"] = torch.zeros(128, 768, 1, 1)
    save_file(state, tmp_path / "inception.safetensors")
    started = build(name="inceptionv3", weights=tmp_path / "inception.safetensors", seed=1)
    assert same(network_state(started), network_state(classifier))


def first_conv_of_one_channel(path: Path) -> None:
    state = load_file(path)
    state["conv1.0.weight"] = state["conv1.0.weight"][:, :1].contiguous()
    save_file(state, path)


def without_a_key(path: Path) -> None:
    state = load_file(path)
    del state["conv1.0.weight"]
    save_file(state, path)


def with_a_key_more(path: Path) -> None:
    save_file({**load_file(path), "extra.weight": torch.zeros(1)}, path)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (first_conv_of_one_channel, "1 keys differ, first 'conv1.0.weight' is (16, 1, 3, 3) instead of"),
        (without_a_key, "1 keys differ, first 'conv1.0.weight' is missing"),
        (with_a_key_more, "1 keys differ, first 'extra.weight' is unknown"),
    ],
)
def test_misfit_names_file_backbone_count_and_first_key(
    saved: Path, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(saved)
    with pytest.raises(WeightsError) as caught:
        build(weights=saved)
    message = str(caught.value)
    assert told in message
    assert str(saved) in message
    assert TINY in message
    assert "\n" not in message


def test_another_architecture_says_whose_file_it_is(saved: Path) -> None:
    with pytest.raises(WeightsError, match=rf"written for '{TINY}'.*do not fit backbone 'mobilenet'"):
        build(name="mobilenet", weights=saved)
    with pytest.raises(WeightsError, match="mobilenet"):
        load_weights(build(name="mobilenet"), saved)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pickle_an_object(path: Path) -> None:
    torch.save({"state_dict": {}, "arguments": Path("x")}, path)


def pickle_by_hand(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Path("x")}))


def truncate_torch(path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, path)
    truncate(path)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("missing.safetensors", lambda path: None),
        ("directory.safetensors", Path.mkdir),
        ("empty.safetensors", Path.touch),
        ("empty.pth", Path.touch),
        ("text.safetensors", lambda path: path.write_text("not weights at all")),
        ("cut.safetensors", lambda path: (save_file({"weight": torch.zeros(1000)}, path), truncate(path))),
        ("cut.pth", truncate_torch),
        ("objects.pth", pickle_an_object),
        ("objects.pt", pickle_by_hand),
        ("objects.data", pickle_by_hand),
        ("list.pth", lambda path: torch.save([torch.zeros(1)], path)),
        ("numbers.pth", lambda path: torch.save({"lr": 0.1}, path)),
        ("nothing.pth", lambda path: torch.save({}, path)),
    ],
)
def test_unreadable_files_are_one_line(tmp_path: Path, name: str, make: Callable[[Path], Any]) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(WeightsError) as caught:
        build(weights=path)
    assert str(path) in str(caught.value)
    assert "expected safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_and_pretrained_exclude_each_other(saved: Path) -> None:
    with pytest.raises(InvalidSettingError, match="give one of them"):
        build(weights=saved, pretrained=True)


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    """The package that writes them orders its metadata at random."""
    classifier = build(seed=0)
    written = set()
    for number in range(6):
        save_weights(classifier, tmp_path / f"{number}.safetensors")
        written.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(written) == 1
    again = build(seed=1)
    load_weights(again, tmp_path / "0.safetensors")
    for key, value in classifier.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value)
