from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from robustbench_tin.data import download, open_dataset
from robustbench_tin.errors import DataError


@dataclass
class Site:
    """A server on this machine: its content, its behaviour, and the requests that it got."""

    content: bytes
    address: str = ""
    honours_range: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes sent before it hangs up, an answer each
    status: int = 200
    ranges: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        asked = self.headers.get("Range")
        site.ranges.append(asked)
        start = int(re.findall(r"\d+", asked)[0]) if asked and site.honours_range else 0
        if site.status != 200:
            self.send_error(site.status)
            return
        if start >= len(site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = site.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: site.cut_after.pop(0)] if site.cut_after else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tiny_zip: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server that has the drawn set's zip, in place of the official one."""
    offered = Site(tiny_zip.read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": offered}))
    offered.address = f"http://127.0.0.1:{server.server_port}/tiny-imagenet-200.zip"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "ADDRESS", offered.address)
    monkeypatch.setattr(download, "MD5", hashlib.md5(offered.content, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(download, "_PIECE_BYTES", 100)
    monkeypatch.setattr(download, "EXPECTED", {"train": 15, "val": 12, "test": 3})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield offered
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "downloads").glob("*") if path.suffix != ".lock")


def test_it_is_fetched_once(site: Site, cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    dataset = open_dataset("tiny-imagenet", cache_dir=cache, progress=lambda *news: told.append(news))
    assert len(dataset.train) == 15
    total = len(site.content)
    assert ("downloading Tiny ImageNet", total, total) in told
    open_dataset("tiny-imagenet", cache_dir=cache)
    assert site.ranges == [None]
    assert fetched(cache) == ["tiny-imagenet-200.zip"]
    assert (cache / "downloads/tiny-imagenet-200.zip").read_bytes() == site.content


def test_a_lost_connection_is_taken_up_again(site: Site, cache: Path) -> None:
    site.cut_after = [1000, 0, 2000]
    assert len(open_dataset("tiny-imagenet", cache_dir=cache).val) == 12
    assert site.ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=3000-"]


def test_another_process_goes_on_where_one_stopped(site: Site, cache: Path) -> None:
    site.cut_after = [1000] + [0] * (download.ATTEMPTS - 1)
    with pytest.raises(DataError, match=r"0\.0 MB are kept, repeat the command to continue"):
        open_dataset("tiny-imagenet", cache_dir=cache)
    assert fetched(cache) == ["tiny-imagenet-200.zip.part"]
    assert len(open_dataset("tiny-imagenet", cache_dir=cache).val) == 12
    assert site.ranges[-1] == "bytes=1000-"


def test_a_server_that_ignores_ranges_sends_it_all_again(site: Site, cache: Path) -> None:
    site.honours_range = False
    site.cut_after = [1000]
    assert len(open_dataset("tiny-imagenet", cache_dir=cache).val) == 12
    assert site.ranges == [None, "bytes=1000-"]
    assert (cache / "downloads/tiny-imagenet-200.zip").read_bytes() == site.content


def test_another_archive_is_refused_and_removed(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = download.MD5
    monkeypatch.setattr(download, "MD5", "0" * 32)
    with pytest.raises(DataError, match=f"MD5 {here}, expected 00000000"):
        open_dataset("tiny-imagenet", cache_dir=cache)
    assert fetched(cache) == []


@pytest.mark.parametrize("surplus", [b"", b"more than there is"])
def test_a_range_behind_the_end(site: Site, cache: Path, surplus: bytes) -> None:
    part = cache / "downloads/tiny-imagenet-200.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(site.content + surplus)
    assert len(open_dataset("tiny-imagenet", cache_dir=cache).val) == 12
    assert site.ranges == [f"bytes={len(site.content + surplus)}-"] + ([None] if surplus else [])


def test_what_is_not_the_whole_set_is_refused_and_removed(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "EXPECTED", {"train": 16, "val": 12, "test": 3})
    with pytest.raises(DataError, match=r"\(it has 15 train \+ 12 val \+ 3 test images, expected 16 \+ "):
        open_dataset("tiny-imagenet", cache_dir=cache)
    assert fetched(cache) == []
    site.content = b"<html>moved</html>"
    with pytest.raises(DataError, match=r"is not Tiny ImageNet \(it has 0 train"):
        open_dataset("tiny-imagenet", cache_dir=cache)
    assert fetched(cache) == []


def test_a_refusal_names_the_address_and_the_other_ways(site: Site, cache: Path) -> None:
    site.status = 404
    with pytest.raises(DataError, match=r"the server responded 404") as caught:
        open_dataset("tiny-imagenet", cache_dir=cache)
    text = str(caught.value)
    assert site.address in text
    assert "--data DIR" in text
    assert "--data FILE.zip" in text
    assert "\n" not in text


def test_offline_names_the_address_and_the_other_ways(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        address = f"http://127.0.0.1:{closed.server_port}/tiny-imagenet-200.zip"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "ADDRESS", address)
    with pytest.raises(DataError, match="no connection to the server") as caught:
        open_dataset("tiny-imagenet", cache_dir=cache)
    assert address in str(caught.value)
    assert "--data DIR (unpacked) or --data FILE.zip" in str(caught.value)


def test_a_directory_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"download directory '.*' cannot be written"):
        open_dataset("tiny-imagenet", cache_dir=tmp_path / "file")
