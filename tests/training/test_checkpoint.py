"""A training stopped anywhere ends with the very weights of one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loop_toys import assert_same_weights, build_full_model, trained_full
from torch import nn

from robustbench_tin.errors import RunError
from robustbench_tin.training.checkpoint import Checkpoint, Saved, optimizer_tensors, restore_optimizer
from robustbench_tin.training.loop import Recipe, TrainingFailure
from robustbench_tin.training.monitor import Robustness

# 64 images in batches of 16: four batches an epoch.
CASES = {
    "plain": (Recipe(3, 16, 1e-2), "none"),
    "ema": (Recipe(3, 16, 1e-2, average="ema", label_smoothing=0.1), "augment"),
    "adam": (Recipe(3, 16, 1e-3, optimizer="adam", schedule="constant", weight_decay=0.01), "none"),
    "swa-sgd": (Recipe(8, 16, 5e-2, average="swa", optimizer="sgd", schedule="cosine"), "none"),
    "free-at": (Recipe(6, 16, 1e-2, average="ema"), "free-at:replays=2"),
    "fgsm-at": (Recipe(3, 16, 1e-2, clean_epochs=1), "augment+fgsm-at"),
    "awp": (Recipe(3, 16, 1e-2), "awp+trades:steps=2"),
    "mixup": (Recipe(3, 16, 1e-2, label_smoothing=0.1), "mixup+fgsm-at"),
    "randaugment": (Recipe(3, 16, 1e-2), "randaugment"),
    "stages": (Recipe(3, 16, 1e-2, train="head:epochs=1,all:rate=0.1"), "none"),
    "early-stop": (Recipe(4, 16, 1e-2, early_stop=1, average="ema"), "fgsm-at"),
}


class Stop(BaseException):
    """Ends a training as a kill would."""


class Looks:
    """A probe whose answers follow from the weights, and which may stop the training."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.count = 0
        self.stop_at = stop_at

    def __call__(self, classifier, images, labels) -> Robustness:
        self.count += 1
        if self.count == self.stop_at:
            raise Stop
        part = float(sum(weight.detach().double().abs().sum() for weight in classifier.parameters())) % 1
        return Robustness(fgsm=0.5, pgd=part)


def stopped_at(step: int):
    def on_step(done: int, of_all: int) -> None:
        if done == step:
            raise Stop

    return on_step


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_any_step_it_ends_with_the_same_weights(case: str, tmp_path: Path) -> None:
    """Killed at the first step, in the middle of an epoch, at the last step of one, and near the end."""
    recipe, defense = CASES[case]
    images = 128 if case == "early-stop" else 64
    whole, record = trained_full(recipe, defense, probe=Looks(), images=images)
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 0)
    assert record.steps >= 8
    for step in sorted({1, 6, 8, record.steps - 1}):
        # Once there is a checkpoint, a network's first weights must not matter.
        model = build_full_model(seed=step if checkpoint.path.exists() else 0)
        with pytest.raises(Stop):
            trained_full(
                recipe,
                defense,
                model=model,
                probe=Looks(),
                checkpoint=checkpoint,
                on_step=stopped_at(step),
                images=images,
            )
    resumed, again = trained_full(
        recipe,
        defense,
        model=build_full_model(seed=99),
        probe=Looks(),
        checkpoint=checkpoint,
        images=images,
    )
    assert_same_weights(resumed, whole)
    assert (again.loss, again.steps, again.notes) == (record.loss, record.steps, record.notes)


@pytest.mark.parametrize("look", [1, 2])
def test_stopped_while_it_looks_at_the_end_of_an_epoch(look: int, tmp_path: Path) -> None:
    recipe, defense = CASES["early-stop"]
    whole, _ = trained_full(recipe, defense, probe=Looks())
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 0)
    with pytest.raises(Stop):
        trained_full(recipe, defense, probe=Looks(stop_at=look), checkpoint=checkpoint)
    resumed, _ = trained_full(recipe, defense, probe=Looks(), checkpoint=checkpoint)
    assert_same_weights(resumed, whole)


def test_a_training_that_is_over_is_only_finished(tmp_path: Path) -> None:
    """Killed after its last checkpoint and before its weights were saved."""
    recipe, defense = CASES["ema"]
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 0)
    whole, _ = trained_full(recipe, defense, checkpoint=checkpoint)
    calls: list[int] = []
    again, record = trained_full(
        recipe,
        defense,
        model=build_full_model(seed=4),
        checkpoint=checkpoint,
        on_step=lambda done, of_all: calls.append(done),
    )
    assert calls == []
    assert_same_weights(again, whole)
    assert record.steps == 12


def test_how_often_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("robustbench_tin.training.checkpoint.time.monotonic", lambda: clock[0])
    checkpoint = Checkpoint(tmp_path / "file", minutes=10)
    due = []
    for clock[0] in (30.0, 60.0, 599.0, 600.0):
        due.append((checkpoint.due(epoch_over=True), checkpoint.due(epoch_over=False)))
    assert due == [(False, False), (True, False), (True, False), (True, True)]
    checkpoint.save(Saved({"a/b": torch.zeros(1)}, {}))
    assert not checkpoint.due(epoch_over=True)


def test_a_loss_that_explodes_leaves_the_checkpoint_from_before(tmp_path: Path) -> None:
    class Explosive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build_full_model()
            self.calls = 0

        def forward(self, images):
            self.calls += 1
            return self.inner(images) * (float("nan") if self.calls > 6 else 1.0)

    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 0)
    with pytest.raises(TrainingFailure, match="at step 3 of epoch 2"):
        trained_full(Recipe(3, 16, 1e-2), model=Explosive(), checkpoint=checkpoint)
    saved = checkpoint.load(torch.device("cpu"))
    assert saved is not None
    assert (saved.facts["epoch"], saved.facts["batch"]) == (1, 2)
    assert all(bool(torch.isfinite(value).all()) for value in saved.of("classifier").values())


class _SteepAt(torch.autograd.Function):
    """Returns its input, and a gradient that is no number."""

    @staticmethod
    def forward(context, logits):
        return logits.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("nan")


@pytest.mark.parametrize("call", [7, 8, 12])
def test_a_gradient_that_explodes_under_a_finite_loss_is_not_saved_either(call: int, tmp_path: Path) -> None:
    """In the middle of an epoch, at its last step, and at the last step of all."""

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build_full_model()
            self.calls = 0

        def forward(self, images):
            self.calls += 1
            logits = self.inner(images)
            return _SteepAt.apply(logits) if self.calls == call else logits

    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 0)
    step = f"gradient was no longer finite at step {(call - 1) % 4 + 1} of epoch {(call - 1) // 4 + 1}"
    with pytest.raises(TrainingFailure, match=step):
        trained_full(Recipe(3, 16, 1e-2), model=Steep(), checkpoint=checkpoint)
    saved = checkpoint.load(torch.device("cpu"))
    assert saved is not None
    assert saved.facts["step"] == call - 1
    assert all(bool(torch.isfinite(value).all()) for value in saved.of("classifier").values())


def test_another_trainings_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 0)
    trained_full(Recipe(1, 16, 1e-2), checkpoint=checkpoint)
    for recipe, seed in ((Recipe(2, 16, 1e-2), 0), (Recipe(1, 16, 1e-2), 1)):
        with pytest.raises(RunError, match="belongs to another training; remove it") as caught:
            trained_full(recipe, checkpoint=checkpoint, seed=seed)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint = Checkpoint(path, 0)
    trained_full(Recipe(1, 16, 1e-2), checkpoint=checkpoint)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("no tensors")
    else:
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(
        RunError, match=r"is damaged .*; remove it to train that cell from the start"
    ) as caught:
        trained_full(Recipe(1, 16, 1e-2), checkpoint=checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimisers_state_comes_back_in_its_parameters_layout(kind: type) -> None:
    def built() -> tuple[nn.Module, torch.optim.Optimizer]:
        layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return layer, kind(layer.parameters(), lr=0.1, fused=True, **settings)

    layer, optimizer = built()
    layer(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    _, other = built()
    packed = {name: value.clone().contiguous() for name, value in optimizer_tensors(optimizer).items()}
    restore_optimizer(other, packed)
    for mine, theirs in zip(
        optimizer.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True
    ):
        for name, value in mine.items():
            assert torch.equal(value, theirs[name])
            assert value.stride() == theirs[name].stride()
