from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from robustbench_tin.data import Dataset, OpenOptions, Source, datasets, open_dataset, register
from robustbench_tin.errors import DataError

LIGHT = """
import sys
import robustbench_tin.data as data
data.datasets.names()
print(sorted({"numpy", "PIL", "torch", "requests", "filelock"} & set(sys.modules)))
assert data.Split and data.open_dataset and data.subset
"""


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Path:
    """The folder of a data set of the user's own, registered as ``mine`` for one test."""
    monkeypatch.setattr(datasets, "_entries", dict(datasets._entries))

    @register("mine")
    @dataclass(frozen=True)
    class Mine(Source):
        """A set of my own."""

        takes_path: ClassVar[bool] = True

        @classmethod
        def recognises(cls, path: Path) -> bool:
            return (path / "mine.txt").exists()

        def open(self, options: OpenOptions) -> Dataset:
            opened = open_dataset(str(tiny), cache_dir=options.cache_dir)
            return opened.with_note(f"{self.name} at {self.path}")

    place = tiny.parent.parent / "place"
    place.mkdir()
    (place / "mine.txt").touch()
    return place


def test_importing_the_package_is_light() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_registered_set_by_name_by_place_and_by_its_looks(mine: Path, cache: Path) -> None:
    assert open_dataset("mine", cache_dir=cache).notes[-1] == "mine at None"
    assert open_dataset(f"mine:{mine}", cache_dir=cache).notes[-1] == f"mine at {mine}"
    assert open_dataset(str(mine), cache_dir=cache).notes[-1] == f"mine at {mine}"


def test_a_name_wins_over_a_path_of_the_same_name(
    mine: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert open_dataset("mine", cache_dir=cache).notes[-1] == "mine at None"
    with pytest.raises(DataError, match=r"'\./mine' is empty"):
        open_dataset("./mine", cache_dir=cache)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("tiny-imagnet", r"unknown data set 'tiny-imagnet'; did you mean 'tiny-imagenet' or 'imagenet'\?"),
        ("{root}/nowhere", r"there is no path '.*nowhere' either"),
        ("", r"unknown data set ''"),
        ("{root}/empty", r"empty' is empty; expected an unpacked tiny-imagenet-200, its zip file, or"),
        ("{root}/other", r"other' has no known layout; expected"),
        ("{root}/other/readme.txt", r"readme\.txt' is not a zip file; expected"),
        ("demo:{root}", r"data set 'demo' takes no path"),
        ("tiny-imagenet:", r"empty path; expected tiny-imagenet:PATH"),
    ],
)
def test_what_is_no_data_set_is_one_line(tmp_path: Path, cache: Path, data: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/readme.txt").write_text("hello")
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(data.format(root=tmp_path), cache_dir=cache)
    assert "\n" not in str(caught.value)


def test_every_registered_set_says_what_it_is() -> None:
    for entry in datasets.entries():
        kind = entry.load()
        assert issubclass(kind, Source)
        assert kind.name == entry.name
        assert kind.__doc__
        assert not kind.recognises(Path("nowhere"))
