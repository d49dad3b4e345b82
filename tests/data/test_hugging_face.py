from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_sets import picture

from robustbench_tin.data import open_dataset
from robustbench_tin.errors import DataError

hub = pytest.importorskip("datasets", reason="needs the extra hf")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the Hub, and none shows a progress bar."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.disable_progress_bars()


def table(count: int, start: int = 0, side: int = 16, labels: Any = None, **columns: Any) -> Any:
    """Rows with an image and a label of two classes."""
    held = {
        "img": [picture(start + row, (side, side)) for row in range(count)],
        "label": [row % 2 for row in range(count)] if labels is None else labels,
        **{name: values for name, (values, _) in columns.items()},
    }
    features = {
        "img": hub.Image(),
        "label": hub.ClassLabel(names=["cat", "dog"]),
        **{name: feature for name, (_, feature) in columns.items()},
    }
    return hub.Dataset.from_dict(held, features=hub.Features(features))


def saved(path: Path, **splits: Any) -> Path:
    hub.DatasetDict(splits).save_to_disk(path)
    return path


def test_a_saved_set_is_read_by_the_types_of_its_columns(tmp_path: Path, cache: Path) -> None:
    path = saved(tmp_path / "set", train=table(4), test=table(3, start=10))
    dataset = open_dataset(f"hf:{path}", cache_dir=cache)
    assert dataset.classes == ("cat", "dog")
    assert (len(dataset.train), len(dataset.val), dataset.image_size) == (4, 3, 16)
    assert dataset.val.labels.tolist() == [0, 1, 0]
    for row in range(3):
        expected = np.asarray(picture(10 + row, (16, 16))).transpose(2, 0, 1)
        np.testing.assert_array_equal(dataset.val.images[row], expected)
    assert dataset.val.ids == ["val/0", "val/1", "val/2"]
    assert open_dataset(str(path), cache_dir=cache).fingerprint == dataset.fingerprint  # by its looks


def test_the_split_that_is_measured(tmp_path: Path, cache: Path) -> None:
    path = saved(
        tmp_path / "set", train=table(4), validation=table(3, 10), test=table(2, 20, labels=[-1, -1])
    )
    assert len(open_dataset(f"hf:{path}", cache_dir=cache).val) == 3
    other = open_dataset(f"hf:{path},split=train", cache_dir=cache)
    assert (len(other.val), len(other.train)) == (4, 0)
    with pytest.raises(DataError, match="2 of 2 rows without a label"):
        open_dataset(f"hf:{path},split=test", cache_dir=cache)
    with pytest.raises(DataError, match="has the splits train, validation, test, but not split=dev"):
        open_dataset(f"hf:{path},split=dev", cache_dir=cache)


def test_a_split_without_labels_is_passed_over(tmp_path: Path, cache: Path) -> None:
    path = saved(tmp_path / "set", validation=table(2, labels=[-1, -1]), test=table(3))
    dataset = open_dataset(f"hf:{path}", cache_dir=cache)
    assert len(dataset.val) == 3
    with pytest.raises(DataError, match=r"no training images here.* name a data set that has a split train"):
        dataset.require_train()


def test_a_single_table_and_train_false(tmp_path: Path, cache: Path) -> None:
    table(3).save_to_disk(tmp_path / "one")
    with pytest.raises(DataError, match=r"name the evaluation split: hf:.*only,split=NAME"):
        open_dataset(f"hf:{saved(tmp_path / 'only', train=table(3))}", cache_dir=cache)
    assert len(open_dataset(f"hf:{tmp_path / 'one'}", cache_dir=cache).val) == 3
    both = saved(tmp_path / "both", train=table(4), test=table(3))
    assert len(open_dataset(f"hf:{both},train=false", cache_dir=cache).train) == 0


def test_several_columns_of_a_type_have_to_be_named(tmp_path: Path, cache: Path) -> None:
    coarse = hub.ClassLabel(names=["pet", "wild", "other"])
    path = saved(tmp_path / "set", test=table(3, coarse=([2, 1, 0], coarse)))
    with pytest.raises(DataError, match=r"has the columns label, coarse of the type ClassLabel; name one"):
        open_dataset(f"hf:{path}", cache_dir=cache)
    dataset = open_dataset(f"hf:{path},label=coarse", cache_dir=cache)
    assert dataset.classes == ("pet", "wild", "other")
    assert dataset.val.labels.tolist() == [2, 1, 0]
    with pytest.raises(DataError, match="no column label=fine; expected one of img, label, coarse"):
        open_dataset(f"hf:{path},label=fine", cache_dir=cache)
    with pytest.raises(DataError, match=r"column 'label' of .* holds no images"):
        open_dataset(f"hf:{path},image=label,label=label", cache_dir=cache)


def test_labels_that_are_texts_or_numbers(tmp_path: Path, cache: Path) -> None:
    kinds = {"word": (["owl", "ant", "owl"], hub.Value("string")), "code": ([7, 3, 7], hub.Value("int64"))}
    path = saved(tmp_path / "set", test=table(3, **kinds))
    words = open_dataset(f"hf:{path},label=word", cache_dir=cache)
    assert (words.classes, words.val.labels.tolist()) == (("ant", "owl"), [1, 0, 1])
    codes = open_dataset(f"hf:{path},label=code", cache_dir=cache)
    assert (codes.classes, codes.val.labels.tolist()) == (("3", "7"), [1, 0, 1])


def test_images_of_several_sizes_are_scaled_and_told(tmp_path: Path, cache: Path) -> None:
    mixed = hub.concatenate_datasets([table(1, side=16), table(1, side=40)])
    path = saved(tmp_path / "set", test=mixed)
    dataset = open_dataset(f"hf:{path}", cache_dir=cache)
    assert dataset.image_size == 64
    assert dataset.notes[0].startswith("images differ in size or are not square: each is scaled to 64 pixels")
    assert open_dataset(f"hf:{path},size=32,crop=28", cache_dir=cache).image_size == 28
    assert open_dataset(f"hf:{path},crop=24", cache_dir=cache).image_size == 24


def test_a_broken_image_is_named_or_left_out(tmp_path: Path, cache: Path) -> None:
    rows = table(4).cast_column("img", hub.Image(decode=False)).to_list()
    rows[1]["img"]["bytes"] = b"broken"
    held = {name: [row[name] for row in rows] for name in ("img", "label")}
    path = saved(tmp_path / "set", test=hub.Dataset.from_dict(held, features=table(1).features))
    with pytest.raises(DataError, match=r"val/1' is not a JPEG"):
        open_dataset(f"hf:{path}", cache_dir=cache)
    dataset = open_dataset(f"hf:{path}", cache_dir=cache, skip_broken=True)
    assert dataset.val.labels.tolist() == [0, 0, 1]


def test_what_the_hub_does_not_give_is_one_line(cache: Path) -> None:
    expected = r"'hf:no/such' cannot be loaded .*save_to_disk\('DIR'\), then hf:DIR"
    with pytest.raises(DataError, match=expected) as caught:
        open_dataset("hf:no/such", cache_dir=cache)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="expected hf:NAME of the Hub, or hf:DIR"):
        open_dataset("hf", cache_dir=cache)


def test_without_the_library_one_line_says_what_to_install(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"install it with pip install 'robustbench-tin\[hf\]'"):
        open_dataset("hf:cifar10", cache_dir=cache)
