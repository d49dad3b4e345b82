"""Downloads of data sets: resumed after an interruption, checked for completeness, renamed into place."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from robustbench_tin.data.source import OpenOptions
from robustbench_tin.errors import DataError

if TYPE_CHECKING:
    import requests

ADDRESS = "https://cs231n.stanford.edu/tiny-imagenet-200.zip"
# Stanford publishes no digest; this one is in the loaders of many projects, for example Avalanche's.
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
EXPECTED = {"train": 100_000, "val": 10_000, "test": 10_000}
ATTEMPTS = 5
_TIMEOUT_S = (10, 60)  # seconds to connect, and between two pieces
_PIECE_BYTES = 1 << 16  # largest loss when a connection breaks
_OTHER_WAYS = "or give your own copy: --data DIR (unpacked) or --data FILE.zip"


class _CutShortError(Exception):
    """The connection ended before the file was complete."""


def fetch_tiny_imagenet(options: OpenOptions) -> Path:
    """Path of the official zip file in the cache directory; downloads it first if it is missing.

    Raises:
        DataError: if it cannot be downloaded; names the address and the alternatives.
    """
    return fetch(ADDRESS, "Tiny ImageNet", _OTHER_WAYS, _check_whole, options)


def fetch(
    address: str, what: str, other_ways: str, check: Callable[[Path], None], options: OpenOptions
) -> Path:
    """Path of a file in the cache directory; downloads it first if it is missing.

    Args:
        address: the file's address; its last part is the file's name.
        what: the data set, for the user.
        other_ways: alternatives, the end of each error message: ``or put FILE into DIR``.
        check: refuses a downloaded file with wrong content.
        options: cache directory and progress.

    Raises:
        DataError: if it cannot be downloaded; names the address and the alternatives.
    """
    target = options.cache_dir / "downloads" / address.rpartition("/")[2]
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if not target.is_file():
                part = download(address, target, what, other_ways, options)
                check(part)
                part.rename(target)
    except OSError as error:
        raise DataError(
            f"download directory '{target.parent}' cannot be written: {error.strerror or error};"
            f" free some space, set ROBUST_TIN_CACHE to another directory, {other_ways}"
        ) from error
    return target


def download(address: str, target: Path, what: str, other_ways: str, options: OpenOptions) -> Path:
    """Download ``address`` to ``TARGET.part``; continues from an earlier attempt.

    Args:
        address: the address of a file.
        target: the path of the complete file.
        what: as in :func:`fetch`.
        other_ways: as in :func:`fetch`.
        options: progress.

    Returns:
        The path of the complete ``.part`` file; the caller checks and renames it.

    Raises:
        DataError: if the server cannot be reached, refuses, or stops several times in a row.
        OSError: if the file cannot be written.
    """
    import requests

    part = target.with_name(target.name + ".part")
    failure: Exception | None = None
    with requests.Session() as session:
        for _ in range(ATTEMPTS):
            try:
                _fetch_rest(session, address, part, what, options)
                return part
            except (_CutShortError, requests.exceptions.ChunkedEncodingError) as error:
                failure = error
            except requests.RequestException as error:
                failure = error
                break
    so_far = part.stat().st_size if part.exists() else 0
    resume = f"; {so_far / 1e6:.1f} MB are kept, repeat the command to continue" if so_far else ""
    raise DataError(
        f"cannot download {address} ({_reason(failure)}){resume}; connect to the internet, {other_ways}"
    ) from failure


def _fetch_rest(session: requests.Session, address: str, part: Path, what: str, options: OpenOptions) -> None:
    have = part.stat().st_size if part.exists() else 0
    # Without "identity", the length could be that of a compressed body.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(address, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        if response.status_code == 416:
            if _total(response) != have:
                part.unlink()
                raise _CutShortError("the server does not continue from the last attempt")
            return
        response.raise_for_status()
        if response.status_code != 206 or _start(response) != have:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else 0
        with part.open("ab" if have else "wb") as file:
            for piece in response.iter_content(_PIECE_BYTES):
                file.write(piece)
                have += len(piece)
                options.report(f"downloading {what}", have, total)
    if have < total:
        raise _CutShortError(f"the connection ended after {have:,} of {total:,} bytes")


def _start(response: requests.Response) -> int | None:
    """The first byte of a partial answer: ``bytes 100-199/200``."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _total(response: requests.Response) -> int | None:
    """The length of the file, from the refusal of a range: ``bytes */200``."""
    match = re.match(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _reason(failure: Exception | None) -> str:
    """A failure in a few words; the message of ``requests`` for a lost connection fills a screen."""
    import requests

    if isinstance(failure, requests.HTTPError) and failure.response is not None:
        return f"the server responded {failure.response.status_code} {failure.response.reason}"
    if isinstance(failure, requests.Timeout):
        return "the server does not respond"
    if isinstance(failure, requests.exceptions.ChunkedEncodingError):
        return "the connection ended too early"
    if isinstance(failure, requests.ConnectionError):
        return "no connection to the server"
    return str(failure)


def _check_whole(part: Path) -> None:
    """Refuse, and remove, a download that is not the archive of Tiny ImageNet, by its images and its digest.

    Each image's CRC is checked when it is read.
    """
    try:
        with zipfile.ZipFile(part) as archive:
            found = Counter(
                match[1]
                for name in archive.namelist()
                if (match := re.match(r"[^/]+/(train|val|test)/.*\.JPEG$", name))
            )
    except Exception:  # noqa: BLE001 - whichever fault it has, it is not the data set
        found = Counter()
    if found != EXPECTED:
        part.unlink()
        counts = " + ".join(f"{found[split]:,} {split}" for split in EXPECTED)
        raise DataError(
            f"the file from {ADDRESS} is not Tiny ImageNet (it has {counts} images, expected"
            f" {' + '.join(f'{count:,}' for count in EXPECTED.values())}); try again, {_OTHER_WAYS}"
        )
    digest = _md5(part)
    if digest != MD5:
        part.unlink()
        raise DataError(
            f"{ADDRESS} sent another archive than Tiny ImageNet's (MD5 {digest}, expected {MD5}); try again,"
            f" {_OTHER_WAYS}"
        )


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
