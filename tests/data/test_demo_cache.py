"""The demo set is drawn once on a machine; a file that has changed since is drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustbench_tin.data import open_dataset
from robustbench_tin.data.demo import cache, demo_set


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that were drawn so far; the set is small."""
    names: list[str] = []

    def draw(split: str, count: int, **more: object) -> object:
        names.append(split)
        return real(split, count)

    real = demo_set.draw_split
    monkeypatch.setattr(demo_set, "draw_split", draw)
    monkeypatch.setattr(demo_set, "TRAIN_PER_CLASS", 2)
    monkeypatch.setattr(demo_set, "VAL_PER_CLASS", 1)
    return names


def test_the_second_time_it_is_read(tmp_path: Path, drawn: list[str]) -> None:
    first, second = (open_dataset("demo", cache_dir=tmp_path) for _ in range(2))
    assert drawn == ["train", "val"]
    assert first.fingerprint == second.fingerprint
    for name in ("train", "val"):
        one, other = getattr(first, name), getattr(second, name)
        for array in ("images", "labels", "boxes"):
            np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
            assert getattr(one, array).dtype == getattr(other, array).dtype
        assert one.ids == other.ids


@pytest.mark.parametrize("damage", ["cut", "changed", "text", "fewer"])
def test_a_damaged_file_is_drawn_again(tmp_path: Path, drawn: list[str], damage: str) -> None:
    whole = open_dataset("demo", cache_dir=tmp_path)
    file = cache.cache_file(tmp_path)
    content = file.read_bytes()
    if damage == "fewer":
        fewer = {"train": demo_set.draw_split("train", 10), "val": demo_set.draw_split("val", 10)}
        cache.save(file, fewer)  # type: ignore[arg-type]
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"cut": content[:middle], "changed": changed, "text": b"text"}[damage])
    drawn.clear()
    again = open_dataset("demo", cache_dir=tmp_path)
    assert drawn == ["train", "val"]
    assert again.fingerprint == whole.fingerprint
    assert file.read_bytes() == content


def test_without_a_cache_it_is_drawn_each_time(tmp_path: Path, drawn: list[str]) -> None:
    (tmp_path / "file").write_text("no directory")
    for _ in range(2):
        assert len(open_dataset("demo", cache_dir=tmp_path / "file").val) == 10
    assert drawn == ["train", "val"] * 2


def test_code_that_draws_otherwise_has_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.cache_file(tmp_path)
    changed = tmp_path / "drawing.py"
    changed.write_text("# other code")
    monkeypatch.setattr(cache.drawing, "__file__", str(changed))
    assert cache.cache_file(tmp_path) != before
