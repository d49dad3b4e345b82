"""Trackers themselves: a real MLflow server on this machine, and wandb offline; each if it is installed."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

from robustbench_tin import bench
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.progress import LinesReporter
from robustbench_tin.training.checkpoint import Checkpoint
from robustbench_tin.training.curves import read_curves

EPS = 8 / 255
# The blocks of a file of wandb, and the bytes before the first.
BLOCK, HEADER = 32768, 7


class Stop(BaseException):
    """Ends a run as a kill would."""


@pytest.fixture
def quick(small: dict, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves this machine
    return {**small, "attacks": "fgsm", "eps": "0,8/255", "checkpoint_minutes": 0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server with a store of its own."""
    missing = [name for name in ("mlflow", "sqlalchemy", "uvicorn") if find_spec(name) is None]
    if missing:
        pytest.skip(f"no MLflow server: {', '.join(missing)} is not installed (pip install mlflow)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/runs.db", "--artifacts-destination", "artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        try:
            _wait_for(f"http://127.0.0.1:{port}", process, tmp_path / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            if requests.get(f"{address}/health", timeout=1).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    pytest.fail(f"the MLflow server does not answer: {log.read_text()}")


def interrupted(options: dict, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that is stopped after its third epoch, and continued."""
    save, saved = Checkpoint.save, []

    def stopping(self: Checkpoint, what: object) -> None:
        if len(saved) == 5:
            raise Stop
        saved.append(save(self, what))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", stopping)
        with pytest.raises(Stop):
            bench(**options)
    return bench(**options)


def expected_figures(run: Run) -> dict[str, float]:
    (cell,) = run.plan.cells()
    records = {"clean": run.record(cell, "clean", 0.0), "fgsm/eps-8-255": run.record(cell, "fgsm", EPS)}
    return {
        f"{prefix}/{name}{end}": getattr(record, f"{name}{end}")
        for prefix, record in records.items()
        for name in ("top1", "top5")
        for end in ("", "_low", "_high")
    }


def expected_curve(run: Run) -> list[tuple[int, float | None]]:
    (cell,) = run.plan.cells()
    return [(point.epoch, point.train_loss) for point in read_curves(run.curves_file(cell))]


def test_mlflow_has_an_interrupted_run_once(
    server: str, quick: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    warned = LinesReporter()
    run = interrupted({**quick, "trust": True, "mlflow": server, "reporter": warned}, monkeypatch)
    assert not [line for line in warned.warnings if "mlflow" in line]
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("robust-tin")
    whole, cell = sorted(
        client.search_runs([experiment.experiment_id]),
        key=lambda run: run.data.tags["robust-tin.kind"] != "run",
    )
    assert cell.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert (whole.info.status, cell.info.status) == ("FINISHED", "FINISHED")
    history = client.get_metric_history(cell.info.run_id, "loss/train_loss")
    assert [(point.step, point.value) for point in history] == expected_curve(run)
    known = cell.data.metrics
    assert {name: known[name] for name in expected_figures(run)} == expected_figures(run)
    assert len(client.get_metric_history(cell.info.run_id, "clean/top1")) == 1
    (planned,) = run.plan.cells()
    verdict = run.record(planned, "fgsm", EPS).verdict
    assert cell.data.tags["fgsm/eps-8-255/trust"] == str(verdict)
    assert cell.data.tags["trust"] == verdict.state.value
    assert (cell.data.params["model"], cell.data.params["eps"]) == ("timm:test_resnet", "0,8/255")
    folder = Path(client.download_artifacts(whole.info.run_id, "", str(quick["out"].parent)))
    for name in ("results.md", "results.csv", "results.json"):
        assert (folder / name).read_bytes() == (run.path / name).read_bytes()


def test_a_server_that_is_not_there_costs_one_warning(quick: dict) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    warned = LinesReporter()
    assert bench(**quick, mlflow=address, reporter=warned).complete
    (line,) = warned.warnings
    assert line.startswith(f"warning: --mlflow {address}: ")
    assert line.endswith("The run continues; to send the missing data later, run the same command again.")


def written_offline(file: Path) -> Iterator[Any]:
    """The records in a file of wandb: pieces with a checksum, a length and a kind, in blocks."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content, at, pieces = file.read_bytes(), HEADER, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        pieces += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = messages.Record()
            record.ParseFromString(pieces)
            pieces = b""
            yield record


def of_kind(records: list[Any], kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def values_of(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def test_wandb_offline_has_an_interrupted_run_once(
    quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
    warned = LinesReporter()
    run = interrupted({**quick, "wandb": "project", "reporter": warned}, monkeypatch)
    assert not warned.warnings
    files = sorted(
        (run.path / "tracking" / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.parent
    )
    parts = [list(written_offline(file)) for file in files]
    begun = [of_kind(part, "run")[0] for part in parts]
    assert {(one.project, one.run_group) for one in begun} == {("project", "run")}
    # Each was continued: another part, and the same name.
    assert sorted(one.job_type for one in begun) == ["cell", "cell", "run", "run"]
    assert len({one.run_id for one in begun}) == 2
    cells = [part for part, one in zip(parts, begun, strict=True) if one.job_type == "cell"]
    history = [values_of(point.item) for part in cells for point in of_kind(part, "history")]
    assert [(point["_step"], point["loss/train_loss"]) for point in history] == expected_curve(run)
    summary: dict[str, Any] = {}
    for update in of_kind(cells[-1], "summary"):
        summary |= values_of(update.update)
    assert {name: summary[name] for name in expected_figures(run)} == expected_figures(run)
    assert of_kind(cells[-1], "run")[-1].tags == ["status: ok"]
    settings = values_of(begun[1].config.update)
    assert (settings["model"], settings["plan_digest"]) == ("timm:test_resnet", run.plan.digest)
    artifacts = [each for part in parts for each in of_kind(part, "artifact")]
    assert [entry.path for each in artifacts for entry in each.manifest.contents] == [
        "results.csv",
        "results.json",
        "results.md",
    ]


def test_wandb_without_a_key_asks_nothing(quick: dict, tmp_path: Path) -> None:
    """wandb would ask for a key on a terminal; here it waits for no answer."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    ours, theirs = pty.openpty()
    words = [f"--{name}={quick[name]}" for name in ("models", "data", "eps", "epochs", "device", "out")]
    try:
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "robustbench_tin",
                "bench",
                *words,
                "--attacks=fgsm",
                "--no-trust",
                "--wandb",
            ],
            env={**environment, "NETRC": str(tmp_path / "netrc"), "WANDB_CONFIG_DIR": str(tmp_path)},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=240,
            text=True,
            check=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("warning:")]
    assert line.startswith("warning: --wandb robust-tin: ")
    assert line.endswith("The run continues; to send the missing data later, run the same command again.")
    assert Run.load(quick["out"]).complete
