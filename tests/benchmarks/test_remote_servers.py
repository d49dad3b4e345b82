"""Runs on real servers on this machine: OpenSSH's for ``sftp://``, and moto's, a process of its own, for ``s3://``."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from robustbench_tin.benchmarks.runs import mirror, store
from robustbench_tin.benchmarks.runs.mirror import local_run, mirrored
from robustbench_tin.progress import Reporter

SSHD = os.environ.get("ROBUST_TIN_SSHD") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
SFTP = os.environ.get("ROBUST_TIN_SFTP_SERVER") or "/usr/lib/openssh/sftp-server"
MOTO = os.environ.get("ROBUST_TIN_MOTO") or shutil.which("moto_server")


def lacks(*packages: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in packages)


@contextmanager
def served(words: list[str], port: int, environment: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, f"{words[0]} ended with code {process.returncode}"
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "here"))
    monkeypatch.setattr(store, "PAUSES", (0.1, 0.2))
    monkeypatch.setattr(mirror, "INTERVAL", 0.2)
    monkeypatch.setattr(mirror, "LEASE", 1.0)


@pytest.mark.skipif(SSHD is None or not Path(SFTP).exists(), reason="OpenSSH's server is not installed")
@pytest.mark.skipif(lacks("fsspec", "paramiko"), reason="the extra 'remote' is not installed")
def test_a_run_on_an_sftp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(words, check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {tmp_path / 'host'}",
        f"AuthorizedKeysFile {tmp_path / 'authorized'}",
        f"PidFile {tmp_path / 'pid'}",
        "StrictModes no",
        "UsePAM no",
        f"Subsystem sftp {SFTP}",
    ]
    (tmp_path / "config").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("FSSPEC_SFTP_KEY_FILENAME", str(tmp_path / "user"))
    import fsspec.config

    monkeypatch.setitem(fsspec.config.conf, "sftp", {"key_filename": str(tmp_path / "user")})
    with served([str(SSHD), "-D", "-f", str(tmp_path / "config")], port):
        address = f"sftp://{getpass.getuser()}@127.0.0.1:{port}{tmp_path / 'store' / 'run'}"
        _continue_elsewhere(address, tmp_path, monkeypatch)
    assert (tmp_path / "store/run/cells/a/x.json").read_text() == "2"


@pytest.mark.skipif(MOTO is None, reason="moto's server is not installed")
@pytest.mark.skipif(lacks("fsspec", "s3fs"), reason="the extra 'remote' is not installed")
def test_a_run_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    port = free_port()
    known = {"key": "key", "secret": "secret", "client_kwargs": {"region_name": "eu-west-1"}}
    settings = {**known, "endpoint_url": f"http://127.0.0.1:{port}"}
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)
    environment = {**os.environ, "PYTHONPATH": os.environ.get("ROBUST_TIN_MOTO_PATH", "")}
    words = [sys.executable, str(MOTO), "-H", "127.0.0.1", "-p", str(port)]
    with served(words, port, environment):
        fsspec.filesystem("s3").mkdir("bucket")
        _continue_elsewhere("s3://bucket/run", tmp_path, monkeypatch)


def _continue_elsewhere(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is begun here, continued and changed on another machine, and read here."""
    with mirrored(address, Reporter()) as copy:
        (copy / "cells" / "a").mkdir(parents=True)
        (copy / "plan.json").write_text("{}")
        (copy / "cells/a/x.json").write_text("1")
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "there"))
    with mirrored(address, Reporter()) as copy:
        assert (copy / "cells/a/x.json").read_text() == "1"
        (copy / "cells/a/x.json").write_text("2")
        (copy / "cells/a/y.json").write_text("3")
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "here"))
    found = local_run(address)
    assert [(found / f"cells/a/{name}.json").read_text() for name in "xy"] == ["2", "3"]
    names = store.Store(address).names()
    assert sorted(names) == ["cells/a/x.json", "cells/a/y.json", "digests.json", "plan.json"]
