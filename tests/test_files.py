"""Regular files only, within a limit, in any encoding."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from robustbench_tin.files import TooLargeError, decode_text, open_regular, read_bytes, read_text

TEXT = "n01443537\tgoldfish, Carassius auratus\nn01629819\tEuropean fire salamander\n"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 100_000])
def test_content_up_to_the_limit(tmp_path: Path, size: int) -> None:
    file, content = tmp_path / "a", os.urandom(size)
    file.write_bytes(content)
    assert read_bytes(file, size) == content
    with open_regular(file) as opened:
        assert opened.read() == content
    if size:
        with pytest.raises(TooLargeError, match="larger than"):
            read_bytes(file, size - 1)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 1 << 40)
    with pytest.raises(TooLargeError):
        read_bytes(tmp_path / "a", 1000)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_file_that_holds_more_than_its_size_says() -> None:
    assert read_bytes("/proc/self/status", 100_000).startswith(b"Name:")
    with pytest.raises(TooLargeError):
        read_bytes("/proc/self/status", 10)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listener(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (pipe, "it is a named pipe, not a regular file"),
        (link_to_pipe, "it is a named pipe"),
        (device, "it is a device"),
        (listener, "it is a socket"),
        (Path.mkdir, "it is a directory"),
        (loop, "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, make, reason: str) -> None:
    make(tmp_path / "a")
    for read in (open_regular, read_text):
        with pytest.raises(OSError, match=reason):
            read(tmp_path / "a")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_any_unicode_encoding(encoding: str) -> None:
    assert decode_text(TEXT.encode(encoding)) == TEXT


def test_bytes_that_are_no_utf8_stay_what_they_are() -> None:
    assert decode_text(b"caf\xe9", "surrogateescape") == os.fsdecode(b"caf\xe9")
    assert decode_text(b"a\0b\nc") == "a\0b\nc"
    assert decode_text(b"\xff\xfea", "surrogateescape") == "\ufffd"
    with pytest.raises(UnicodeDecodeError):
        decode_text(b"caf\xe9")
