"""Where a data set's files lie: a directory, or a zip file that is read without unpacking.

Both answer the same few questions, so a layout is written once and read from either.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, KeysView
from functools import cached_property
from pathlib import Path
from typing import Protocol

from robustbench_tin.errors import DataError

_DEPTH = 3  # train/CLASS/images/FILE


class Files(Protocol):
    """Named files below one place; names are relative, with forward slashes."""

    @property
    def location(self) -> Path:
        """The directory or zip file, for people."""

    @property
    def stamp(self) -> str:
        """Changes when a file is added, removed or changed; must be quick for 100,000 files."""

    @property
    def names(self) -> KeysView[str]:
        """All files."""

    def read(self, name: str) -> bytes:
        """The content of one file; may be called from several threads.

        Raises:
            OSError: where it cannot be read.
        """


class Directory:
    """Files in a directory, three levels deep; what starts with a dot is left out.

    The stamp is made of names, sizes and modification times, as in ``make``: hashing the contents of
    110,000 images at every start would take longer than opening their cache may.

    Args:
        location: the directory.
        tops: the only names directly in it that are looked at.
    """

    def __init__(self, location: Path, tops: Collection[str]) -> None:
        self.location = location
        self._tops = tops

    @cached_property
    def stamp(self) -> str:
        """A digest of where the files lie, their names, sizes and times."""
        lines = [os.fspath(self.location.resolve())]
        lines += sorted([f"{name} {status}" for name, status in self._found.items()])
        return hashlib.blake2b(os.fsencode("\n".join(lines)), digest_size=16).hexdigest()

    @property
    def names(self) -> KeysView[str]:
        """All files found."""
        return self._found.keys()

    def read(self, name: str) -> bytes:
        """The content of one file."""
        with open(f"{self.location}/{name}", "rb", buffering=0) as file:  # noqa: PTH123  twice as fast
            return file.readall()

    @cached_property
    def _found(self) -> dict[str, str]:
        """Size and time by file name; one plain loop, as it runs over 110,000 files at every start."""
        found: dict[str, str] = {}
        folders = [f"{name}/" for name in self._tops if (self.location / name).is_dir()]
        try:
            for name in self._tops:
                if (self.location / name).is_file():
                    found[name] = _size_and_time((self.location / name).stat())
            for folder in folders:  # which grows on the way
                with os.scandir(f"{self.location}/{folder}") as entries:
                    for entry in entries:
                        name = folder + entry.name
                        if entry.name[0] == ".":
                            continue
                        if not entry.is_dir():
                            found[name] = _size_and_time(entry.stat()) if entry.is_file() else "missing"
                        elif folder.count("/") < _DEPTH:
                            folders.append(name + "/")
        except OSError as error:
            raise DataError(
                f"directory '{error.filename or self.location}' cannot be read: {error.strerror};"
                " expected a readable data set"
            ) from error
        return found


def _size_and_time(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


class Zip:
    """Files in a zip file, named from the folder in it that holds ``marker``.

    The stamp is made of the zip's central directory (names, sizes, CRCs), whatever the file's own time.
    """

    def __init__(self, location: Path, marker: str) -> None:
        self.location = location
        self._marker = marker

    @cached_property
    def stamp(self) -> str:
        """A digest of the zip's central directory."""
        try:
            return hashlib.blake2b(_central_directory(self.location), digest_size=16).hexdigest()
        except OSError as error:
            raise DataError(f"zip file '{self.location}' cannot be read: {error.strerror}") from error

    @property
    def names(self) -> KeysView[str]:
        """All files below the folder of the marker."""
        return self._members.keys()

    def read(self, name: str) -> bytes:
        """The content of one file, its CRC checked."""
        try:
            return self._zip.read(self._members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"damaged in the zip file ({error})") from error

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.location)
        except (zipfile.BadZipFile, OSError) as error:
            raise _no_zip(self.location) from error

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        members = [member for member in self._zip.infolist() if not member.is_dir()]
        markers = [m.filename for m in members if m.filename.split("/")[-1] == self._marker]
        if not markers:
            raise DataError(
                f"zip file '{self.location}' holds no {self._marker}; expected tiny-imagenet-200.zip"
            )
        folder = min(markers, key=len).removesuffix(self._marker)
        return {
            member.filename.removeprefix(folder): member
            for member in members
            if member.filename.startswith(folder)
        }


def _no_zip(path: Path) -> DataError:
    return DataError(
        f"'{path}' is no complete zip file; fetch it again, or name a directory that holds what it should"
    )


def _central_directory(path: Path) -> bytes:
    """The raw bytes that list a zip's files; reading 120,000 entries one by one takes a second."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 66_000))
        tail = file.read()
        end = tail.rfind(b"PK\5\6")
        if end < 0 or len(tail) < end + 22:
            raise _no_zip(path)
        size, offset = struct.unpack_from("<LL", tail, end + 12)
        if 0xFFFFFFFF in (size, offset) and tail[max(0, end - 20) :].startswith(b"PK\6\7"):
            (record,) = struct.unpack_from("<Q", tail, end - 12)
            file.seek(record)
            size, offset = struct.unpack("<40xQQ", file.read(56).ljust(56, b"\0"))
        if offset + size > length:
            raise _no_zip(path)
        file.seek(offset)
        return file.read(size)
