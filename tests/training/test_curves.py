"""Training curves: true, the same after a stop, and without a trace in the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loop_toys import assert_same_weights, build_full_model, split_of, trained_full
from torch import Tensor, nn
from toys import build_toy_model

from robustbench_tin.benchmarks.cells.validation_metrics import RobustnessMetrics, ValidationMetrics
from robustbench_tin.errors import RunError
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import ThreatModel
from robustbench_tin.training import loop as loop_module
from robustbench_tin.training.batch_accuracy import right_answers
from robustbench_tin.training.checkpoint import Checkpoint
from robustbench_tin.training.curves import Curves, Point, read_curves
from robustbench_tin.training.loop import Recipe
from robustbench_tin.training.monitor import Robustness

# So small that the weights do not change.
STILL = Recipe(2, 16, 1e-12, optimizer="sgd", weight_decay=0)


class Stop(BaseException):
    """Ends a training as a kill would."""


def learnt_model() -> nn.Module:
    return trained_full(Recipe(3, 16, 1e-2), model=build_toy_model())[0]


def look(device: str = "cpu") -> ValidationMetrics:
    return ValidationMetrics(
        split_of(40, seed=9), device, RobustnessMetrics(ThreatModel("linf", 0.02), seed=3)
    )


def points_of(path: Path, model: nn.Module, defense: str = "none", recipe: Recipe = STILL) -> list[Point]:
    trained_full(recipe, defense, model=model, curves=Curves(path))
    return read_curves(path)


def clean_accuracy(model: nn.Module, k: int) -> float:
    split = split_of(64)
    with torch.no_grad():
        logits = model(torch.from_numpy(split.images).float() / 255)
    return float(in_top(logits, torch.from_numpy(split.labels), k).float().mean())


@pytest.mark.parametrize("defense", ["none", "free-at:replays=2,eps=1e-9", "trades", "awp:gamma=1e-9"])
def test_training_accuracies_are_those_of_the_first_pass(tmp_path: Path, defense: str) -> None:
    model = learnt_model()
    points = points_of(tmp_path / "curves.csv", model, defense)
    assert len(points) == (1 if defense.startswith("free-at") else 2)
    for point in points:
        assert point.train_top1 == pytest.approx(clean_accuracy(model, 1))
        assert point.train_top5 == pytest.approx(clean_accuracy(model, 5))
        assert 0.1 < point.train_top1 < point.train_top5


def test_adversarial_training_counts_adversarial_images(tmp_path: Path) -> None:
    model = learnt_model()
    (point, _) = points_of(tmp_path / "curves.csv", model, "pgd-at")
    assert point.train_top1 < clean_accuracy(model, 1) - 0.1


class Cramped(nn.Module):
    """A network for whose batches there is memory up to five images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits


def test_a_batch_in_parts_is_counted_once(tmp_path: Path) -> None:
    model = learnt_model()
    (point, _) = points_of(tmp_path / "curves.csv", Cramped(model))
    assert point.train_top1 == pytest.approx(clean_accuracy(model, 1))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.tensor([1, 0]), [1.0, 2.0]),
        (torch.tensor([6, 2]), [0.0, 1.0]),
        (torch.tensor([[0.0, 0.7, 0, 0, 0, 0, 0.3], [0.2, 0, 0.8, 0, 0, 0, 0]]), [0.7, 1.7]),
    ],
)
def test_right_answers_by_hand(labels: Tensor, expected: list[float]) -> None:
    logits = torch.tensor([[4.0, 9, 5, 3, 2, 1, 0], [4.0, 5, 3, 9, 2, 1, 0]])
    assert right_answers(logits, labels).tolist() == pytest.approx(expected)


def test_a_loss_that_asks_nothing_leaves_the_accuracy_open(tmp_path: Path) -> None:
    assert right_answers(None, torch.tensor([1])).isnan().all()
    curves = Curves(tmp_path / "curves.csv")
    curves.add(build_toy_model(), 1, train_loss=0.5, train_top1=float("nan"))
    assert read_curves(curves.path) == [Point(1, train_loss=0.5)]


@pytest.mark.parametrize(
    ("recipe", "defense"),
    [
        (Recipe(3, 16, 1e-2, average="ema"), "augment+fgsm-at"),
        (Recipe(3, 16, 1e-2), "mixup"),
        (Recipe(4, 16, 1e-2), "free-at:replays=2"),
        (Recipe(4, 16, 1e-2, early_stop=1), "fgsm-at"),
    ],
)
def test_stopped_anywhere_they_end_the_same_and_so_do_the_weights(
    tmp_path: Path, recipe: Recipe, defense: str
) -> None:
    def probe(classifier: nn.Module, images: Tensor, labels: Tensor) -> Robustness:
        total = sum(weight.detach().double().abs().sum() for weight in classifier.parameters())
        return Robustness(fgsm=0.5, pgd=float(total) % 1)

    options = {"probe": probe, "images": 128 if recipe.early_stop else 64}
    bare, _ = trained_full(recipe, defense, **options)
    whole = tmp_path / "whole.csv"
    with_curves, record = trained_full(recipe, defense, curves=Curves(whole, look()), **options)
    assert_same_weights(with_curves, bare)
    # Every moment: the first two stops come before there is a checkpoint, though curves are there by then.
    checkpoint, path = Checkpoint(tmp_path / "checkpoint.safetensors", 0), tmp_path / "curves.csv"
    for step in (1, 5, 6, 8, record.steps):
        kept = Checkpoint(checkpoint.path, 1e9 if step < 6 else 0)

        def stopping(done: int, of_all: int, step: int = step) -> None:
            if done == step:
                raise Stop

        with pytest.raises(Stop):
            trained_full(
                recipe,
                defense,
                on_step=stopping,
                checkpoint=kept,
                curves=Curves(path, look()),
                **options,
            )
    resumed, _ = trained_full(recipe, defense, checkpoint=checkpoint, curves=Curves(path, look()), **options)
    assert_same_weights(resumed, bare)
    assert path.read_text() == whole.read_text()
    points = read_curves(path)
    assert [point.epoch for point in points] == list(range(1, len(points) + 1))
    assert all(point.val_pgd5 is not None for point in points)
    assert (points[-1].monitor_pgd5 is not None) == (defense != "mixup")


def test_measuring_them_is_no_training_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(loop_module.time, "perf_counter", lambda: clock[0])

    def slow(classifier: nn.Module) -> dict[str, float]:
        clock[0] += 100
        return {}

    def on_step(done: int, of_all: int) -> None:
        clock[0] += 1

    curves = Curves(tmp_path / "curves.csv", slow)
    _, record = trained_full(Recipe(2, 16, 1e-2), curves=curves, on_step=on_step)
    assert (clock[0], record.seconds) == (208, 8)


def test_a_classifier_without_finite_logits_is_not_looked_at() -> None:
    model = build_full_model()
    with torch.no_grad():
        model[-1].bias.fill_(float("nan"))
    assert look()(model) == {}


@pytest.mark.parametrize("text", ["", "epoch,loss\n1,2\n", "epoch,train_loss\none,2\n"])
def test_damaged_curves_are_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curves.csv"
    points_of(path, build_toy_model())
    header = path.read_text().splitlines()[0]
    path.write_text(text or f"{header}\nx\n")
    with pytest.raises(RunError, match="are damaged or of another version; remove that file") as caught:
        Curves(path).resume(1)
    assert "\n" not in str(caught.value)
