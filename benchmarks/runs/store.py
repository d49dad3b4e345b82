"""A run directory at an address, such as ``s3://bucket/run``: files by name, with bounded retries."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from robustbench_tin.atomic import replacing
from robustbench_tin.errors import InvalidSettingError, RunError, one_line

T = TypeVar("T")

_ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/{1,2}(.+)", re.DOTALL)
# Seconds before each further try if a store refuses.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
# On these a file is there as a whole or not at all; elsewhere it is renamed into its place.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az"})


def address_of(place: str | Path) -> str | None:
    """The address that a text or a path names; None for a path of this machine.

    A path has lost a slash of it.

    >>> address_of(Path("s3://bucket/run")), address_of("runs/demo")
    ('s3://bucket/run', None)
    """
    found = _ADDRESS.fullmatch(str(place))
    return None if found is None else f"{found[1]}://{found[2].rstrip('/')}"


class Store:
    """The files below an address.

    Args:
        address: of a directory; it is made if it is missing.

    Raises:
        InvalidSettingError: if no installed package knows its protocol.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._protocol = address.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise InvalidSettingError(
                f"address '{address}' cannot be opened ({one_line(error)}); install the extra:"
                " pip install 'robustbench-tin[remote]'"
            ) from None
        except Exception as error:  # a server that refuses, in the words of its package
            raise RunError(
                f"store '{address}' cannot be reached ({one_line(error)}); try again later"
            ) from error

    def names(self) -> list[str]:
        """The names of all files, relative to the address.

        Raises:
            RunError: if the store refuses, after several tries.
        """

        def listed() -> list[str]:
            self._files.invalidate_cache()
            root = self._root.rstrip("/")
            return [name[len(root) :].lstrip("/") for name in self._files.find(root)]

        with suppress(FileNotFoundError):
            return self._tried(listed, "list")
        return []

    def send(self, name: str, content: bytes) -> None:
        """Write a file, which others see as a whole or not at all.

        Raises:
            RunError: if the store refuses, after several tries.
        """
        place = self._place(name)

        def written() -> None:
            if self._protocol in _WHOLE:
                self._files.pipe_file(place, content)
                return
            folder, _, last = place.rpartition("/")
            self._files.makedirs(folder, exist_ok=True)
            beside = f"{folder}/.{last}.tmp"
            self._files.pipe_file(beside, content)
            self._remove(place)  # a rename on SFTP does not replace
            self._files.mv(beside, place)

        self._tried(written, "write")

    def fetch(self, name: str) -> bytes | None:
        """The content of a file; None if the file does not exist.

        Raises:
            RunError: if the store refuses, after several tries.
        """
        with suppress(FileNotFoundError):
            return self._tried(lambda: bytes(self._files.cat_file(self._place(name))), "read")
        return None

    def fetch_into(self, name: str, file: Path) -> str:
        """Write a file of the store to the disk, whole; returns its digest, empty if it is gone."""
        content = self.fetch(name)
        if content is None:
            return ""
        with replacing(file) as beside:
            beside.write_bytes(content)
        return digest_of(content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            RunError: if the store refuses, after several tries.
        """
        self._tried(lambda: self._remove(self._place(name)), "write")

    def _remove(self, place: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(place)

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _tried(self, act: Callable[[], T], what: str) -> T:
        for pause in (*PAUSES, None):
            try:
                return act()
            except FileNotFoundError:
                raise
            except Exception as error:  # each protocol's package has its own
                if pause is None:
                    tries = f"{len(PAUSES) + 1} times"
                    raise RunError(
                        f"store '{self.address}' refuses to {what}, {tries} ({one_line(error)})"
                    ) from error
            time.sleep(pause)
        raise AssertionError  # the last try returns or raises


def digest_of(content: bytes) -> str:
    """A digest that identifies a version of a file: 32 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:32]


def opened_store(address: str) -> Any:
    """The store at an address; tests put another in its place."""
    return Store(address)
