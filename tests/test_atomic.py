"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robustbench_tin.atomic import replacing, write_text
from robustbench_tin.errors import RunError


def test_the_file_is_old_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_after_an_error_all_is_as_before(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_directories_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "ä\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "ä\n".encode()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^cannot write '.*c\.txt': .*; make room") as caught:
        write_text(tmp_path / "file" / "c.txt", "")
    assert "\n" not in str(caught.value)


def test_a_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    with pytest.raises(RunError, match="cannot write"):
        write_text(tmp_path / "place", "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "place"]


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    def fill() -> None:
        with replacing(tmp_path / "big.bin"):
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left on device; make room"):
        fill()
    assert list(tmp_path.iterdir()) == []
