from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_sets import WNIDS, picture, save

from robustbench_tin.data import cache as decoded_cache
from robustbench_tin.data import open_dataset
from robustbench_tin.data.decode import decode_all
from robustbench_tin.errors import DataError


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "decoded").iterdir() if path.is_dir())


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each decoding was asked for."""
    counts: list[int] = []

    def counted(read: Any, names: Any, *args: Any, **settings: Any) -> Any:
        counts.append(len(names))
        return decode_all(read, names, *args, **settings)

    monkeypatch.setattr(decoded_cache, "decode_all", counted)
    return counts


def test_the_second_opening_decodes_nothing(tiny: Path, cache: Path, decodings: list[int]) -> None:
    first = open_dataset(str(tiny), cache_dir=cache)
    assert decodings == [15, 12, 3]
    second = open_dataset(str(tiny), cache_dir=cache)
    assert decodings == [15, 12, 3]
    assert second.fingerprint == first.fingerprint
    assert second.notes == first.notes
    np.testing.assert_array_equal(second.train.images, first.train.images)
    assert isinstance(second.train.images, np.memmap)
    assert not second.train.images.flags.writeable
    assert second.train.images.flags.c_contiguous


def test_the_cache_directory_comes_from_the_environment(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "elsewhere"))
    open_dataset(str(tiny))
    assert len(entries(tmp_path / "elsewhere")) == 1


def test_a_changed_source_is_decoded_again_and_its_old_entry_goes(tiny: Path, cache: Path) -> None:
    fingerprints = {open_dataset(str(tiny), cache_dir=cache).fingerprint}
    save(tiny / "val/images/val_3.JPEG", picture(77))
    fingerprints.add(open_dataset(str(tiny), cache_dir=cache).fingerprint)
    boxes = tiny / "train/n01/n01_boxes.txt"
    boxes.write_text(boxes.read_text().replace("\t60\n", "\t61\n"))
    fingerprints.add(open_dataset(str(tiny), cache_dir=cache).fingerprint)
    (tiny / "wnids.txt").write_text("n01\nn02\nn03\n")
    fingerprints.add(open_dataset(str(tiny), cache_dir=cache).fingerprint)
    (tiny / "train/n01/images/n01_4.JPEG").unlink()
    fingerprints.add(open_dataset(str(tiny), cache_dir=cache).fingerprint)
    assert len(fingerprints) == 5
    assert len(entries(cache)) == 1


def test_the_fingerprint_is_of_the_content_not_of_place_and_time(tiny: Path, tmp_path: Path) -> None:
    here = open_dataset(str(tiny), cache_dir=tmp_path / "a")
    moved = tiny.rename(tmp_path / "moved")
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    shutil.rmtree(moved / "test")
    assert open_dataset(str(moved), cache_dir=tmp_path / "b").fingerprint == here.fingerprint


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "train-images.npy").unlink(),
        lambda entry: os.truncate(entry / "train-images.npy", 5000),
        lambda entry: os.truncate(entry / "val-images.npy", 0),
        lambda entry: os.truncate(entry / "val-labels.npy", 150),
        lambda entry: (entry / "train-boxes.npy").unlink(),
        lambda entry: (entry / "train-ids.json").write_text("["),
        lambda entry: (entry / "val-ids.json").write_text("[]"),
        lambda entry: (entry / "meta.json").write_text("{}"),
        lambda entry: (entry / "meta.json").unlink(),
    ],
)
def test_a_damaged_entry_is_made_again(tiny: Path, cache: Path, decodings: list[int], damage: Any) -> None:
    before = open_dataset(str(tiny), cache_dir=cache)
    images = np.array(before.train.images)
    damage(*entries(cache))
    after = open_dataset(str(tiny), cache_dir=cache)
    assert decodings == [15, 12, 3] * 2
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(after.train.images, images)


def test_an_interruption_leaves_nothing(tiny: Path, cache: Path, decodings: list[int]) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if "val" in what and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset(str(tiny), cache_dir=cache, progress=interrupt)
    assert entries(cache) == []
    assert len(open_dataset(str(tiny), cache_dir=cache).train) == 15
    assert decodings == [15, 12, 15, 12, 3]


OPEN = "from robustbench_tin.data import open_dataset; import sys, os, signal;"


def python(script: str, *args: str, **settings: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, *(("-c", script) if script else ("-",)), *args],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        **settings,
    )


def test_a_killed_process_leaves_nothing_that_is_used(tiny: Path, cache: Path) -> None:
    script = OPEN + (
        "stop = lambda part, done, total: os.kill(os.getpid(), signal.SIGKILL) if 'val' in part else None;"
        "open_dataset(sys.argv[1], cache_dir=sys.argv[2], progress=stop)"
    )
    with python(script, str(tiny), str(cache)) as process:
        assert process.wait() == -signal.SIGKILL
    assert [path.suffix for path in entries(cache)] == [".partial"]
    dataset = open_dataset(str(tiny), cache_dir=cache)
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert [path.suffix for path in entries(cache)] == [""]


def test_two_processes_at_once_make_one_entry(tiny: Path, cache: Path) -> None:
    script = OPEN + "print(open_dataset(sys.argv[1], cache_dir=sys.argv[2]).fingerprint)"
    processes = [python(script, str(tiny), str(cache)) for _ in range(2)]
    printed = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert printed == {open_dataset(str(tiny), cache_dir=cache).fingerprint + "\n"}
    assert len(entries(cache)) == 1


def test_a_script_from_standard_input_can_decode(tiny: Path, cache: Path) -> None:
    process = python("", str(tiny), str(cache), stdin=subprocess.PIPE)
    printed, _ = process.communicate(
        OPEN + "\nprint(len(open_dataset(sys.argv[1], cache_dir=sys.argv[2]).train))"
    )
    assert (process.returncode, printed) == (0, "15\n")


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="No space left on device; free some space or set ROBUST_TIN_CACHE"):
        open_dataset(str(tiny), cache_dir=cache)
    assert entries(cache) == []


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """As on a full disk, a write of more than 100 kB fails; by the system, not by a stand-in."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files_only")
def test_a_write_that_the_system_refuses_is_one_line_and_leaves_nothing(tiny: Path, cache: Path) -> None:
    with pytest.raises(DataError, match="cannot be written: File too large") as caught:
        open_dataset(str(tiny), cache_dir=cache)
    assert "\n" not in str(caught.value)
    assert entries(cache) == []


def test_a_cache_directory_that_cannot_be_made(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cache directory '.*file' cannot be written: .* set ROBUST_"):
        open_dataset(str(tiny), cache_dir=tmp_path / "file")


def test_broken_images_are_left_out_everywhere_alike(tiny: Path, cache: Path) -> None:
    whole = open_dataset(str(tiny), cache_dir=cache)
    for name in ("n03_1", "n03_3"):
        (tiny / f"train/n03/images/{name}.JPEG").write_bytes(b"broken")
    for _ in range(2):  # decoded, then from the cache
        dataset = open_dataset(str(tiny), cache_dir=cache, skip_broken=True)
        kept = np.array([0, 2, *range(4, 15)])
        np.testing.assert_array_equal(dataset.train.labels, whole.train.labels[kept])
        np.testing.assert_array_equal(dataset.train.images, whole.train.images[kept])
        np.testing.assert_array_equal(dataset.train.boxes, whole.train.boxes[kept])  # type: ignore[index]
        assert list(dataset.train.ids or ()) == [whole.train.ids[row] for row in kept]  # type: ignore[index]
        assert (
            "left out 2 unreadable train images: train/n03/images/n03_1.JPEG, train/n03/images/n03_3.JPEG"
            in dataset.notes
        )
        assert dataset.fingerprint != whole.fingerprint
    with pytest.raises(DataError, match="--skip-broken"):  # that choice is not remembered
        open_dataset(str(tiny), cache_dir=cache)


def test_progress_is_told_from_nothing_to_all(tiny: Path, cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    open_dataset(str(tiny), cache_dir=cache, progress=lambda *news: told.append(news), workers=1)
    assert told[0] == ("decoding train images", 0, 15)
    assert ("decoding train images", 15, 15) in told
    assert ("decoding val images", len(WNIDS) * 4, 12) in told
