"""Two processes, over gloo on the CPU, take the steps that one takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import started
from loop_toys import assert_same_weights, trained_full
from torch import distributed, multiprocessing, nn
from toys import TOY_CLASSES

from robustbench_tin.benchmarks.run import Run
from robustbench_tin.defenses import Defense
from robustbench_tin.training.checkpoint import Checkpoint
from robustbench_tin.training.distributed import ProcessGroup, group_size
from robustbench_tin.training.loop import Recipe, TrainingFailure

# 66 images in batches of 17, 17, 16, 16: shares are not all of one size.
IMAGES, RECIPE = 66, Recipe(3, 16, 3e-2)


class Stop(BaseException):
    """Ends a training as a kill would."""


def plain_model() -> nn.Module:
    """Neither batch norm nor dropout: the network depends on the batch only through its gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(TOY_CLASSES)
        )


def built() -> nn.Module:
    model = plain_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model(torch.zeros(1, 3, 16, 16))
    return model


def failure_of_both(group: ProcessGroup) -> str:
    """The error of a process if only the second one has a loss that is no number, in an epoch's last step."""

    class Losing(Defense):
        name = "losing"

        def loss(self, classifier, images, labels, context):
            usual = super().loss(classifier, images, labels, context)
            return usual * float("nan") if context.step == 3 and not group.is_main else usual

    try:
        trained_full(RECIPE, Losing(), images=IMAGES, model=built(), group=group)
    except TrainingFailure as failure:
        return str(failure)
    return "continued"


def train_as_one_of_two(rank: int, meeting: str, out: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    group = ProcessGroup(rank, 2)
    for defense in ("none", "pgd-at:steps=2,eps=0.02", "awp:gamma=0.01+trades:steps=2", "free-at:replays=2"):
        model, record = trained_full(RECIPE, defense, images=IMAGES, model=built(), group=group)
        torch.save((model.state_dict(), record.loss), out / f"{defense.partition(':')[0]}-{rank}.pt")

    recipe = Recipe(3, 16, 3e-2, train="last:1:epochs=1,all", average="swa", clip_norm=0.1)
    model, record = trained_full(recipe, images=IMAGES, model=built(), group=group)
    torch.save((model.state_dict(), record.loss), out / f"stages-{rank}.pt")

    (out / f"lost-{rank}.txt").write_text(failure_of_both(group))
    augmented = "augment+pgd-at:steps=1"
    whole, _ = trained_full(RECIPE, augmented, images=IMAGES, group=group)
    checkpoint = Checkpoint(out / "checkpoint.safetensors", minutes=0)

    def stop(step: int, steps: int) -> None:
        if step == 6:
            raise Stop

    with pytest.raises(Stop):
        trained_full(RECIPE, augmented, images=IMAGES, group=group, checkpoint=checkpoint, on_step=stop)
    distributed.barrier()
    gone_on, _ = trained_full(RECIPE, augmented, images=IMAGES, group=group, checkpoint=checkpoint)
    if group.is_main:  # the other's running statistics are those of its own share and are not used
        assert_same_weights(gone_on, whole)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("group")
    multiprocessing.spawn(train_as_one_of_two, (f"file://{out}/meeting", out), nprocs=2)
    return out


@pytest.mark.parametrize("defense", ["none", "pgd-at", "awp", "free-at", "stages"])
def test_both_end_with_the_same_weights(of_two: Path, defense: str) -> None:
    (first, loss), (second, other) = (torch.load(of_two / f"{defense}-{rank}.pt") for rank in (0, 1))
    assert loss == other
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_loss_that_one_of_them_loses_stops_both(of_two: Path) -> None:
    for rank in (0, 1):
        assert "no longer finite at step 4 of epoch 1" in (of_two / f"lost-{rank}.txt").read_text()


@pytest.mark.parametrize(
    ("name", "defense", "recipe"),
    [
        ("none", "none", RECIPE),
        (
            "stages",
            "none",
            Recipe(3, 16, 3e-2, train="last:1:epochs=1,all", average="swa", clip_norm=0.1),
        ),
    ],
)
def test_what_draws_nothing_ends_as_with_one_process(
    of_two: Path, name: str, defense: str, recipe: Recipe
) -> None:
    alone, record = trained_full(recipe, defense, images=IMAGES, model=built())
    weights, loss = torch.load(of_two / f"{name}-0.pt")
    moved = alone.state_dict()
    start = built().state_dict()
    assert any(not torch.allclose(moved[key], start[key], atol=1e-2) for key in start)
    for key, value in weights.items():
        torch.testing.assert_close(value, moved[key], atol=1e-5, rtol=1e-4)
    assert loss == pytest.approx(record.loss, rel=1e-4)


def test_each_draws_its_own_noise_anew_at_each_step() -> None:
    def draws(rank: int, step: int) -> list[float]:
        generator = torch.Generator()
        with torch.random.fork_rng(devices=[]):
            ProcessGroup(rank, 2).reseed(generator, 3, step)
            return [*torch.rand(2, generator=generator).tolist(), float(torch.rand(()))]

    assert draws(0, 5) == draws(0, 5)
    assert len({tuple(draws(rank, step)) for rank in (0, 1) for step in (5, 6)}) == 4


def test_without_torchrun_a_process_is_alone() -> None:
    assert group_size({"WORLD_SIZE": "4"}) == 1
    assert group_size({"WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "none"}) == 4


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_a_bench_under_torchrun_writes_one_run(tmp_path: Path) -> None:
    options = (
        *("--models", "timm:test_vit", "--epochs", "1", "--no-trust", "--defenses", "none,fgsm-at"),
        *("--eval-images", "20", "--train-per-class", "5", "--attacks", "fgsm", "--eps", "0,0.03"),
    )
    command = [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--master-port",
            free_port(),
        ),
        *("-m", "robustbench_tin", "bench", "--device", "cpu", "--out", str(tmp_path / "run"), *options),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr
    assert done.stdout.count("Tables and records:") == 1
    records = Run.load(tmp_path / "run").records
    assert (records["status"] == "ok").all()
    assert len(pd.unique(records["defense"])) == 2
    assert Run.load(tmp_path / "run").plan.processes == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")
def test_a_mistake_is_a_line_of_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two processes are started as torchrun does, but without its launcher, which takes seconds."""
    common = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    places, processes = [tmp_path / "0", tmp_path / "1"], []
    for place in places:
        place.mkdir()
        own = {"RANK": place.name, "LOCAL_RANK": place.name, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        for name, value in {**common, **own}.items():
            monkeypatch.setenv(name, value)
        command = ("bench", "--device", "cpu", "--models", "timm:test_vitt")
        processes.append(started(*command, place=place, cwd=tmp_path))
    for process in processes:
        process.join()
        assert process.exitcode == 2
    first, second = ((place / "stderr").read_text() for place in places)
    assert first.startswith("robust-tin: unknown backbone 'timm:test_vitt'")
    assert second.startswith("robust-tin: process 1 of torchrun ends because another process ended")
    assert first.count("\n") == second.count("\n") == 1
