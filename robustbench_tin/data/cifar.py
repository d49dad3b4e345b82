"""CIFAR-10 and CIFAR-100, in the files published by torchvision and the authors.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", University of Toronto, 2009.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robustbench_tin.data.array_cache import Arrays, open_arrays
from robustbench_tin.data.base import Dataset, Split
from robustbench_tin.data.download import fetch
from robustbench_tin.data.plain_pickle import load_plain
from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.errors import DataError, one_line
from robustbench_tin.files import read_bytes

SIDE = 32
_MOST = 256 << 20  # bytes; the largest file has 155 MB


@dataclass(frozen=True)
class _Form:
    """The files of one of the two sets, as listed by torchvision.

    Attributes:
        folder: the directory within the archive.
        archive: file name of the archive.
        address: the address of the archive.
        archive_md5: MD5 of the archive.
        train: name and MD5 of each training file.
        test: name and MD5 of each test file.
        meta: name and MD5 of the file with the classes.
        names: key of the class names in that file.
        labels: key of the labels in the others.
    """

    folder: str
    archive: str
    address: str
    archive_md5: str
    train: Sequence[tuple[str, str]]
    test: Sequence[tuple[str, str]]
    meta: tuple[str, str]
    names: str
    labels: str

    @classmethod
    def of(cls, name: str) -> _Form:
        """The files that torchvision's class of that name lists."""
        from torchvision import datasets

        listed: Any = getattr(datasets, name)
        return cls(
            folder=listed.base_folder,
            archive=listed.filename,
            address=listed.url,
            archive_md5=listed.tgz_md5,
            train=[(file, md5) for file, md5 in listed.train_list],
            test=[(file, md5) for file, md5 in listed.test_list],
            meta=(listed.meta["filename"], listed.meta["md5"]),
            names=listed.meta["key"],
            labels="labels" if name == "CIFAR10" else "fine_labels",
        )

    @property
    def files(self) -> list[str]:
        """The names of all files."""
        return [name for name, _ in (*self.train, *self.test, self.meta)]


@dataclass(frozen=True)
class _Cifar(Source):
    """The common part of the two sets."""

    takes_path: ClassVar[bool] = True
    path_setting: ClassVar[str] = "root"
    listed_as: ClassVar[str] = ""

    def open(self, options: OpenOptions) -> Dataset:
        """Open it; download and read it first if it is not in the cache.

        Raises:
            DataError: if it is missing, damaged or cannot be downloaded.
        """
        form = _Form.of(self.listed_as)
        place = self.path or _fetched(self.name, form, options)
        files = _Files(self.name, place, form)
        decoded = open_arrays(self.name, files.location, files.stamp, files.read, options)
        return decoded.as_dataset(
            self.name,
            place,
        )


@dataclass(frozen=True)
class Cifar10(_Cifar):
    """CIFAR-10 (10 classes, 32×32): downloaded, or as cifar10:root=DIR, torchvision's root or the archive.

    ``DIR`` contains ``cifar-10-batches-py`` or ``cifar-10-python.tar.gz``, or is one of them. The test images
    form the validation split. Each file's MD5 must be the published one.
    """

    listed_as: ClassVar[str] = "CIFAR10"


@dataclass(frozen=True)
class Cifar100(_Cifar):
    """CIFAR-100 (100 fine classes, 32×32): downloaded, or as cifar100:root=DIR, as for cifar10.

    ``DIR`` contains ``cifar-100-python`` or ``cifar-100-python.tar.gz``, or is one of them. The test images
    form the validation split.
    """

    listed_as: ClassVar[str] = "CIFAR100"


class _Files:
    """The files of a set in a directory or in the archive.

    Args:
        name: name of the data set, for messages.
        place: the path that the user gave.
        form: the files that belong there.

    Raises:
        DataError: if they are missing.
    """

    def __init__(self, name: str, place: Path, form: _Form) -> None:
        self.name = name
        self.form = form
        folders = [folder for folder in (place / form.folder, place) if (folder / form.meta[0]).is_file()]
        archives = [file for file in (place / form.archive, place) if file.is_file()]
        if not folders and not archives:
            raise DataError(
                f"no {name} at '{place}'; expected {form.folder}/ ({', '.join(form.files)}) or"
                f" {form.archive} in that directory"
            )
        self.location = [*folders, *archives][0]

    @property
    def stamp(self) -> str:
        """A text that changes if a file changes: names, sizes and times."""
        files = [self.location] if self.location.is_file() else [self.location / x for x in self.form.files]
        stamps = [file.stat() for file in files if file.is_file()]
        lines = [self.form.folder, *(f"{each.st_size} {each.st_mtime_ns}" for each in stamps)]
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    def read(self) -> Arrays:
        """All images and labels, checked."""
        meta = self._load(*self.form.meta)
        classes = tuple(str(name) for name in meta[self.form.names])
        return Arrays(classes, {"train": self._split(self.form.train), "val": self._split(self.form.test)})

    def _split(self, files: Sequence[tuple[str, str]]) -> Split:
        parts = [self._load(*file) for file in files]
        images = np.concatenate([np.asarray(part["data"], np.uint8) for part in parts])
        labels = [int(label) for part in parts for label in part[self.form.labels]]
        ids = [str(name) for part in parts for name in part["filenames"]]
        return Split(images.reshape(-1, 3, SIDE, SIDE), np.array(labels, np.int64), ids=ids)

    def _load(self, name: str, md5: str) -> Any:
        place = f"{self.name} file '{self.location}/{name}'"
        try:
            content = self._bytes(name)
        except (OSError, KeyError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "it is missing"
            raise DataError(f"{place} cannot be read: {why}; unpack {self.form.archive} again") from error
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise DataError(
                f"{place} has the MD5 {found}; expected {md5}, the published one: download"
                f" {self.form.address} again"
            )
        try:
            return load_plain(content)
        except Exception as error:  # a damaged pickle raises anything
            raise DataError(f"{place} cannot be read ({one_line(error)}); download it again") from error

    def _bytes(self, name: str) -> bytes:
        if self.location.is_dir():
            return read_bytes(self.location / name, _MOST)
        return self._members[name]

    @cached_property
    def _members(self) -> dict[str, bytes]:
        """The content of the archive's files, read in one pass, because it is compressed as a whole."""
        wanted = {f"{self.form.folder}/{name}": name for name in self.form.files}
        members = {}
        try:
            with tarfile.open(self.location) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.name in wanted else None
                    if file is not None and member.size <= _MOST:
                        members[wanted[member.name]] = file.read()
        except Exception as error:  # a damaged archive raises anything
            raise DataError(
                f"'{self.location}' is not a complete {self.form.archive} ({one_line(error)}); download it"
                " again"
            ) from error
        return members


def _fetched(name: str, form: _Form, options: OpenOptions) -> Path:
    other = f"or put {form.archive}, or its {form.folder}/, into a directory and give {name}:root=DIR"

    def check(part: Path) -> None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != form.archive_md5:
            part.unlink()
            raise DataError(
                f"the file from {form.address} is not {name} (its MD5 is {found}, expected"
                f" {form.archive_md5}); try again, {other}"
            )

    return fetch(form.address, name, other, check, options)
