"""The files of a data set: in a directory, or in a zip file that is read without unpacking.

Both have the same interface, so a layout is written once and read from either.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from collections.abc import Callable, Collection, KeysView
from functools import cached_property
from pathlib import Path
from typing import Protocol

from robustbench_tin.data.listing import LeftOut, Reason
from robustbench_tin.errors import DataError, one_line
from robustbench_tin.files import TooLargeError, open_regular, read_bytes

MOST_IMAGE = 256 << 20
"""Size of the largest image file that is read, in bytes: three times a camera's largest uncompressed one."""

_MOST_FOLDERS = 200_000
_MOST_MEMBERS = 2_000_000
# Other methods can expand a few bytes to gigabytes before they can be stopped.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class Files(Protocol):
    """Named files below one place; names are relative, with forward slashes."""

    @property
    def location(self) -> Path:
        """The directory or zip file, for the user."""

    @property
    def stamp(self) -> str:
        """A text that changes if a file is added, removed or changed; must be quick for 100,000 files."""

    @property
    def names(self) -> KeysView[str]:
        """All files."""

    @property
    def left_out(self) -> LeftOut:
        """Files that are not among the names, because they are hidden or cannot be reached."""

    def read(self, name: str, most: int = MOST_IMAGE) -> bytes:
        """The content of one file; may be called from several threads.

        Raises:
            TooLargeError: if it is larger than ``most`` bytes.
            OSError: if it cannot be read, or is not a regular file.
        """


class Directory:
    """Files in a directory, at any depth, through links; names that start with a dot are left out.

    The stamp is made of names, sizes and modification times, as in ``make``: hashing the contents of 110,000
    images at every start would take longer than opening their cache may.

    Args:
        location: the directory.
        tops: the only names directly in it that are used; None for all.
    """

    def __init__(self, location: Path, tops: Collection[str] | None) -> None:
        self.location = location
        self._tops = tops
        self._left_out: dict[Reason, list[str]] = {}

    @cached_property
    def stamp(self) -> str:
        """A digest of the files' place, names, sizes and times."""
        lines = [os.fspath(self.location.resolve())]
        lines += sorted([f"{name} {status}" for name, status in self._found.items()])
        lines += [f"{name} left out" for names in self.left_out.values() for name in sorted(names)]
        return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    @property
    def names(self) -> KeysView[str]:
        """All files found."""
        return self._found.keys()

    @property
    def left_out(self) -> LeftOut:
        """Hidden files, and links that form a loop."""
        _ = self._found
        return self._left_out

    def read(self, name: str, most: int = MOST_IMAGE) -> bytes:
        """The content of one file."""
        return read_bytes(f"{self.location}/{name}", most)

    @cached_property
    def _found(self) -> dict[str, str]:
        """Size and time by file name; one plain loop, because it runs over 110,000 files at every start."""
        found: dict[str, str] = {}
        hidden: list[str] = []
        loops: list[str] = []
        tops = self._tops
        folders = [_Folder("", os.path.realpath(self.location))]  # grows during the loop
        try:
            for folder in folders:
                prefix = folder.name
                with os.scandir(f"{self.location}/{prefix}") as entries:
                    looked_at = entries if prefix or tops is None else [e for e in entries if e.name in tops]
                    for entry in looked_at:
                        name = prefix + entry.name
                        if entry.name[0] == ".":
                            hidden.append(name)
                            continue
                        try:
                            if entry.is_file():
                                status = entry.stat()
                                found[name] = f"{status.st_size} {status.st_mtime_ns}"
                                continue
                            is_folder = entry.is_dir()
                        except OSError:  # a link to itself, or a file removed just now
                            is_folder = False
                        if not is_folder:
                            found[name] = "missing"
                        elif (below := folder.below(entry)) is not None:
                            folders.append(below)
                        else:
                            loops.append(name)
                if len(folders) > _MOST_FOLDERS:
                    raise DataError(
                        f"directory '{self.location}' has more than {_MOST_FOLDERS:,} folders; expected a"
                        " data set without links that multiply its folders"
                    )
        except OSError as error:
            raise DataError(
                f"directory '{error.filename or self.location}' cannot be read: {error.strerror};"
                " expected a readable data set"
            ) from error
        self._left_out = {Reason.HIDDEN: hidden, Reason.LOOP: loops}
        return found


class _Folder:
    """A folder found during the search.

    Attributes:
        name: path from the location, with a slash at its end; empty for the location itself.
        real: its path without links.
        trail: real paths of the folders whose links led here.
    """

    __slots__ = ("name", "real", "trail")

    def __init__(self, name: str, real: str, trail: tuple[str, ...] = ()) -> None:
        self.name = name
        self.real = real
        self.trail = trail

    def below(self, entry: os.DirEntry[str]) -> _Folder | None:
        """A folder in this one; None for a link back to a folder above."""
        name = f"{self.name}{entry.name}/"
        if not entry.is_symlink():
            return _Folder(name, f"{self.real}/{entry.name}", self.trail)
        real = os.path.realpath(entry.path)
        trail = (*self.trail, self.real)
        above = real.rstrip("/") + "/"
        return None if any(f"{path}/".startswith(above) for path in trail) else _Folder(name, real, trail)


class Zip:
    """Files in a zip file, named relative to the folder in it that holds the data set.

    The stamp is made of the zip's central directory (names, sizes, CRCs), whichever time the file has.

    Args:
        location: the zip file.
        find_root: finds the prefix of the data set's folder among the members' names, or None.
        tops: the only names directly in that folder that are used.
        expected: the expected content of the zip, for the user.
    """

    def __init__(
        self,
        location: Path,
        find_root: Callable[[Collection[str]], str | None],
        tops: Collection[str],
        expected: str,
    ) -> None:
        self.location = location
        self._find_root = find_root
        self._tops = tops
        self._expected = expected
        self._left_out: dict[Reason, list[str]] = {}

    @cached_property
    def stamp(self) -> str:
        """A digest of the zip's central directory."""
        return hashlib.blake2b(central_directory(self.location), digest_size=16).hexdigest()

    @property
    def names(self) -> KeysView[str]:
        """All files below the data set's folder."""
        return self._members.keys()

    @property
    def left_out(self) -> LeftOut:
        """Hidden files, and files that macOS adds."""
        _ = self._members
        return self._left_out

    def read(self, name: str, most: int = MOST_IMAGE) -> bytes:
        """The content of one file; its CRC is checked."""
        member = self._members[name]
        if member.file_size > most:
            raise TooLargeError(most)
        if member.compress_type not in _METHODS:
            raise OSError(f"compressed by method {member.compress_type}, expected deflate; compress it again")
        try:
            with self._zip.open(member) as file:
                return file.read()
        except Exception as error:  # a foreign parser's error about damaged data
            raise OSError(f"damaged in the zip file ({one_line(error)})") from error

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        central_directory(self.location)  # refuses a pipe and a list of millions
        try:
            return zipfile.ZipFile(self.location)
        except Exception as error:
            raise _no_zip(self.location) from error

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        members = {_slashed(member.filename): member for member in self._zip.infolist()}
        files = {name: member for name, member in members.items() if not name.endswith("/")}
        visible = {name: member for name, member in files.items() if not _is_hidden(name)}
        root = self._find_root(visible.keys())
        if root is None:
            raise DataError(f"zip file '{self.location}' holds {self._expected}")
        own = {root + top for top in self._tops}
        below = tuple(f"{name}/" for name in own)
        self._left_out = {
            Reason.HIDDEN: [
                name.removeprefix(root)
                for name in files.keys() - visible.keys()
                if name.startswith((*below, "__MACOSX/"))
            ]
        }
        return {
            name.removeprefix(root): member
            for name, member in visible.items()
            if name in own or name.startswith(below)
        }


def _slashed(name: str) -> str:
    """A member's name with forward slashes: some programs for Windows write backslashes."""
    return name if "/" in name else name.replace("\\", "/")


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX/")) or "/." in name


def _no_zip(path: Path) -> DataError:
    return DataError(
        f"'{path}' is not a complete zip file; download it again, or name a directory with its content"
    )


def central_directory(path: Path) -> bytes:
    """The raw bytes that list a zip's files; reading 120,000 entries one by one takes a second.

    Raises:
        DataError: if it cannot be read, is not a complete zip file, or lists too many files.
    """
    try:
        raw = _list_of_members(path)
    except OSError as error:
        raise DataError(f"zip file '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError, struct.error) as error:  # invalid offsets
        raise _no_zip(path) from error
    if raw.count(b"PK\1\2") > _MOST_MEMBERS:
        raise DataError(
            f"zip file '{path}' lists more than {_MOST_MEMBERS:,} files; unpack it and name the directory"
        )
    return raw


def _list_of_members(path: Path) -> bytes:
    with open_regular(path) as file:
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
