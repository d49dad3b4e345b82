"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_tin import atomic
from robustbench_tin.atomic import remove_abandoned, replacing, write_text
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
    with pytest.raises(RunError, match=r"^cannot write '.*c\.txt': .*; free some space") as caught:
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

    with pytest.raises(RunError, match="No space left on device; free some space"):
        fill()
    assert list(tmp_path.iterdir()) == []


def leave_behind(directory: Path, process: int, *, host: str | None = None) -> Path:
    """A temporary file of ``notes.txt`` as another process left it."""
    with replacing(directory / "notes.txt") as temporary:
        name = temporary.name
    name = name.replace(f"-{os.getpid()}.tmp", f"-{process}.tmp")
    if host is not None:
        name = name.replace(name.split(".")[-2].split("-")[0], host)
    left = directory / name
    left.write_text("half")
    return left


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


@pytest.mark.skipif(os.name != "posix", reason="asks POSIX for a process")
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    dead = leave_behind(tmp_path, dead_process())
    others = [
        leave_behind(tmp_path, os.getppid()),
        leave_behind(tmp_path, dead_process(), host="01234567"),
        tmp_path / ".notes.txt.settings.tmp",
        tmp_path / ".other.txt.abcd1234.01234567-1.tmp",
    ]
    for file in others[2:]:
        file.write_text("")
    write_text(tmp_path / "notes.txt", "new")
    assert not dead.exists()
    assert all(file.exists() for file in others)


@pytest.mark.skipif(os.name != "posix", reason="asks POSIX for a process")
def test_under_a_lock_all_goes_that_no_living_process_writes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    gone = [
        leave_behind(tmp_path / "a", dead_process()),
        leave_behind(tmp_path / "a", dead_process(), host="01234567"),
        leave_behind(tmp_path / "a" / "b", os.getpid()),
        tmp_path / ".plan.json.abcd1234",
    ]
    gone[-1].write_text("")
    kept = [leave_behind(tmp_path, os.getppid()), tmp_path / ".hidden", tmp_path / ".my.settings"]
    for file in kept[1:]:
        file.write_text("")
    remove_abandoned(tmp_path)
    assert not any(file.exists() for file in gone)
    assert all(file.exists() for file in kept)


def test_a_long_name_has_room_for_what_is_put_around_it(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 100 + ".json")
    write_text(path, "text")
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_no_encoding_could_read_are_escaped(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "file \udcff.png")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "file \\udcff.png"


def test_a_failure_that_passes_is_tried_again_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, tried = Path.replace, []

    def fails(errors: list[int]):
        def act(self: Path, target: Path) -> Path:
            tried.append(target)
            if errors:
                number = errors.pop(0)
                raise OSError(number, os.strerror(number))
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", act)

    monkeypatch.setattr(atomic, "_PAUSES", (0.0, 0.0, 0.0))
    fails([errno.ESTALE, errno.ETIMEDOUT])
    write_text(tmp_path / "x", "1")
    assert (tmp_path / "x").read_text() == "1"
    assert len(tried) == 3
    for number, tries in ((errno.ENOSPC, 1), (errno.EIO, 1), (errno.ESTALE, 4)):
        tried.clear()
        fails([number] * 9)
        with pytest.raises(RunError, match="cannot write"):
            write_text(tmp_path / "x", "2")
        assert len(tried) == tries
    assert (tmp_path / "x").read_text() == "1"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
