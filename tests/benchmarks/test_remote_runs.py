"""Runs at an address: files before records, other machines continue, refusals and locks have a bound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustbench_tin import bench
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs import mirror, store
from robustbench_tin.benchmarks.runs.mirror import local_run, mirrored, working_copy
from robustbench_tin.benchmarks.runs.store import address_of
from robustbench_tin.errors import InvalidSettingError, RunError
from robustbench_tin.progress import LinesReporter, Reporter

fsspec = pytest.importorskip("fsspec", reason="the extra 'remote' is not installed")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "here"))
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(mirror, "INTERVAL", 0.01)
    monkeypatch.setattr(mirror, "LEASE", 0.2)
    yield f"memory://{tmp_path.name}/run"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes this process another machine."""

    def move() -> None:
        monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path / "there"))

    return move


def write(directory: Path, *names: str, text: str = "{}") -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def test_an_address_is_told_from_a_path() -> None:
    assert address_of("s3://bucket/run/") == address_of(Path("s3://bucket/run")) == "s3://bucket/run"
    assert address_of("runs/demo") is address_of("C:/runs") is address_of(Path("/runs")) is None


def test_files_are_sent_before_their_records(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(mirror, "INTERVAL", 1000.0)
    send = store.Store.send
    monkeypatch.setattr(
        store.Store, "send", lambda self, name, content: (sent.append(name), send(self, name, content))
    )
    with mirrored(address, Reporter()) as copy:
        write(copy, "cells/a/measures/x.json", "cells/a/measures/x.parquet", "cells/a/training.json")
        write(copy, "cells/a/weights.safetensors", "plan.json", "results.md", "cells/a/now.json", ".lock")
    order = [name for name in sent if name not in ("lock.json", "digests.json")]
    assert order[0] == "plan.json"
    assert set(order[1:3]) == {"cells/a/measures/x.parquet", "cells/a/weights.safetensors"}
    assert order[3:] == ["cells/a/training.json", "cells/a/measures/x.json", "results.md"]


def test_a_record_goes_before_the_file_that_it_is_of_changes(address: str, elsewhere) -> None:
    with mirrored(address, Reporter()) as copy:
        write(copy, "cells/a/measures/x.json", "cells/a/measures/x.parquet")
    with mirrored(address, Reporter()) as copy:
        write(copy, "cells/a/measures/x.parquet", text="other")
        (copy / "cells/a/measures/x.json").unlink()
    elsewhere()
    found = local_run(address)
    assert (found / "cells/a/measures/x.parquet").read_text() == "other"
    assert not (found / "cells/a/measures/x.json").exists()


def test_another_machine_continues(address: str, elsewhere, small: dict) -> None:
    here = bench(**{**small, "out": address})
    elsewhere()
    assert not working_copy(address).exists()

    said = LinesReporter()
    there = bench(**{**small, "out": address}, reporter=said)
    assert any("is complete already" in line for line in said.lines)
    assert here.path != there.path
    assert there.records.equals(here.records)
    assert Run.load(Path(address)).records.equals(here.records)


def test_a_store_that_refuses_for_a_while_is_asked_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [2]
    memory = type(fsspec.filesystem("memory"))
    pipe = memory.pipe_file

    def refuses(self, *given, **named):
        if left[0]:
            left[0] -= 1
            raise OSError("slow down")
        return pipe(self, *given, **named)

    monkeypatch.setattr(memory, "pipe_file", refuses)
    store.Store(address).send("x", b"1")
    assert store.Store(address).fetch("x") == b"1"
    left[0] = 3
    with pytest.raises(RunError, match=r"refuses to write, 3 times \(OSError: slow down\)"):
        store.Store(address).send("x", b"2")


def test_what_a_store_refuses_to_the_end_is_kept_and_sent_next_time(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = store.Store.send

    def refuses(self, name: str, content: bytes) -> None:
        if name == "plan.json":
            raise RunError("the store is full")
        send(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "send", refuses)
        with pytest.raises(RunError, match=r"full; results are kept in .*, and the same command sends them"):  # noqa: SIM117
            with mirrored(address, Reporter()) as copy:
                write(copy, "plan.json")
    assert store.Store(address).fetch("plan.json") is None
    with mirrored(address, Reporter()):
        pass
    assert store.Store(address).fetch("plan.json") == b"{}"


def test_a_run_that_another_machine_works_on_is_left_alone(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store.Store(address)
    renewals = iter(range(10_000))
    fetch = store.Store.fetch

    def fetched(self, name: str) -> bytes | None:
        known = {"owner": "other", "renewals": next(renewals)}
        return json.dumps(known).encode() if name == "lock.json" else fetch(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "fetch", fetched)
        with (
            pytest.raises(RunError, match=r"another machine \(other\) is working on run"),
            mirrored(address, Reporter()),
        ):
            pass
    # A lock that nobody renews is taken over.
    place.send("lock.json", b'{"owner": "dead", "renewals": 3}')
    with mirrored(address, Reporter()) as copy:
        write(copy, "plan.json")
    assert place.fetch("lock.json") is None


def test_who_lost_the_lock_sends_no_more(address: str) -> None:
    with (
        pytest.raises(RunError, match="another machine took over the run"),
        mirrored(address, Reporter()) as copy,
    ):
        _take_over(address, copy)


def _take_over(address: str, copy: Path) -> None:
    for _ in range(200):
        store.Store(address).send("lock.json", b'{"owner": "other"}')
        write(copy, "plan.json")


def test_a_damaged_file_is_not_taken(address: str, elsewhere) -> None:
    with mirrored(address, Reporter()) as copy:
        write(copy, "plan.json")
    store.Store(address).send("plan.json", b"damaged")
    elsewhere()
    with pytest.raises(RunError, match=r"run/plan.json' is damaged: its digest"):
        local_run(address)


def test_an_address_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(InvalidSettingError, match=r"address 'nosuch://x' cannot be opened .*pip install"):
        local_run("nosuch://x")


def test_an_address_without_a_run_is_one_line(address: str) -> None:
    with pytest.raises(RunError, match="holds no run"):
        Run.load(address)
