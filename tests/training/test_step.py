"""One optimiser step: in parts if memory is short, with a hook around it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from loop_toys import assert_same_weights, trained_full
from torch import Tensor, nn
from toys import TOY_CLASSES, build_toy_model

from robustbench_tin.defenses.base import Defense
from robustbench_tin.training.loop import Recipe


class Small(nn.Module):
    """A network for whose batches there is memory up to a size; without batch norm, parts change nothing."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.inner = build_toy_model()
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.inner(images)


# The error of a CPU's allocator has no class of its own.
CPU_ERROR = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


@pytest.mark.parametrize(
    ("defense", "error"),
    [("none", None), ("none", CPU_ERROR), ("awp", None), ("free-at:replays=2", None)],
)
def test_out_of_memory_halves_the_parts_and_changes_no_gradient(
    defense: str, error: Exception | None
) -> None:
    recipe = Recipe(2, 16, 1e-2, optimizer="sgd")
    roomy, _ = trained_full(recipe, defense, model=Small(most=99))
    tight, record = trained_full(recipe, defense, model=Small(most=5, error=error))
    for one, other in zip(roomy.parameters(), tight.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)
    assert tight.sizes[:3] == [16, 8, 4]
    assert set(tight.sizes[2:]) == {4}
    assert record.notes == (
        "memory ran out: from here on, batches are split into parts of 8 images",
        "memory ran out: from here on, batches are split into parts of 4 images",
    )


def test_one_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        trained_full(Recipe(1, 16, 1e-2), model=Small(most=0))


@pytest.mark.parametrize("one_vs_rest", [False, True])
def test_clean_epochs_train_on_the_plain_loss_of_the_classifier(one_vs_rest: bool) -> None:
    recipe = Recipe(1, 16, 1e-2, clean_epochs=1, label_smoothing=0.1)
    models = [build_toy_model(), build_toy_model()]
    for model, defense in zip(models, ("fgsm-at", "none"), strict=True):
        model.one_vs_rest = one_vs_rest
        trained_full(recipe, defense, model=model)
    assert_same_weights(*models)


@dataclass(frozen=True)
class Stopping(Defense):
    """Ends the training after some epochs."""

    name = "stopping"
    last: int = 1

    def after_epoch(self, classifier: nn.Module, context) -> bool:
        return context.epoch == self.last


def test_a_defense_may_end_the_training() -> None:
    model, record = trained_full(Recipe(5, 16, 1e-2), Stopping())
    assert record.steps == 8
    assert not model.training


@dataclass(frozen=True)
class Around(Defense):
    """Says when it is called, and doubles the gradient."""

    calls: tuple = ()

    def around_step(self, classifier: nn.Module, gradients, context) -> Tensor:
        self.calls[0].append(f"{self.name} before")
        value = gradients()
        self.calls[0].append(f"{self.name} after")
        for weight in classifier.parameters():
            weight.grad *= 2
        return value


def test_hooks_around_a_step_nest_from_left_to_right() -> None:
    from robustbench_tin.defenses.combination import Combination

    calls: list[str] = []
    left, right = (type(name, (Around,), {"name": name})((calls,)) for name in ("left", "right"))
    both = Combination((left, right))
    recipe = Recipe(1, 64, 1e-2, optimizer="sgd", clip_norm=0, weight_decay=0, schedule="cosine")
    model, _ = trained_full(recipe, both, model=build_toy_model())
    assert calls == ["left before", "right before", "right after", "left after"]
    plain, _ = trained_full(recipe, model=build_toy_model())
    start = build_toy_model()
    for moved, once, at in zip(model.parameters(), plain.parameters(), start.parameters(), strict=True):
        assert torch.allclose(moved - at, 4 * (once - at), rtol=1e-2, atol=1e-6)


def test_clean_epochs_are_those_of_no_defense() -> None:
    recipe = Recipe(2, 16, 1e-2, clean_epochs=2)
    clean, _ = trained_full(recipe, "awp+pgd-at:steps=1")
    plain, _ = trained_full(Recipe(2, 16, 1e-2), "none")
    assert_same_weights(clean, plain)
    mixed, _ = trained_full(Recipe(2, 16, 1e-2, clean_epochs=1), "awp+pgd-at:steps=1")
    assert not torch.equal(mixed[0].weight, plain[0].weight)


def test_free_training_costs_as_many_steps_as_plain_training() -> None:
    _, plain = trained_full(Recipe(4, 16, 1e-2))
    _, free = trained_full(Recipe(4, 16, 1e-2), "free-at:replays=2")
    assert plain.steps == free.steps == 16


def test_the_context_tells_where_training_stands() -> None:
    seen: list[tuple[int, int, int, int]] = []

    @dataclass(frozen=True)
    class Watcher(Defense):
        name = "watcher"

        @property
        def replays(self) -> int:
            return 2

        def loss(self, classifier, images, labels, context) -> Tensor:
            seen.append((context.epoch, context.epochs, context.step, context.steps_per_epoch))
            assert context.num_classes == TOY_CLASSES
            return super().loss(classifier, images, labels, context)

    trained_full(Recipe(4, 32, 1e-2), Watcher())
    assert seen == [(step // 4, 2, step, 4) for step in range(8)]


def test_smoothed_labels_train_other_weights() -> None:
    hard, _ = trained_full(Recipe(1, 16, 1e-2))
    soft, _ = trained_full(Recipe(1, 16, 1e-2, label_smoothing=0.1))
    assert not torch.equal(hard[0].weight, soft[0].weight)
