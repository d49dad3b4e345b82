"""The training loop: it learns, repeats itself, and reports errors."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from toys import TOY_CLASSES, build_toy_model, draw_toy_images

from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense
from robustbench_tin.defenses.base import Defense
from robustbench_tin.metrics import in_top
from robustbench_tin.runtime import Runtime
from robustbench_tin.training import loop
from robustbench_tin.training.context import Context
from robustbench_tin.training.loop import Recipe, TrainingFailure, TrainingRecord, train
from robustbench_tin.training.schedule import one_cycle

CPU = Runtime("cpu")


def split_of(count: int, seed: int = 1) -> Split:
    images, labels = draw_toy_images(count, seed)
    return Split((images * 255).round().byte().numpy(), labels.numpy())


def trained(
    split: Split, defense: Defense | None = None, *, recipe: Recipe | None = None, seed: int = 0, **options
) -> tuple[nn.Module, TrainingRecord]:
    model = build_toy_model()
    record = train(
        model,
        split,
        defense or parse_defense("none"),
        recipe or Recipe(epochs=1, batch_size=20, lr=1e-2),
        options.pop("runtime", CPU),
        num_classes=TOY_CLASSES,
        seed=seed,
        **options,
    )
    return model, record


@dataclass(frozen=True)
class Watcher(Defense):
    """Changes nothing, and keeps everything it was shown."""

    name = "watcher"
    seen: list = field(default_factory=list)

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        self.seen.append((images, labels, context.step, context.epoch, context.steps_per_epoch))
        return images, labels


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_a_separable_problem(precision: str) -> None:
    recipe = Recipe(epochs=6, batch_size=20, lr=1e-2)
    model, record = trained(split_of(320), recipe=recipe, runtime=Runtime("cpu", precision))
    images, labels = draw_toy_images(100, seed=2)
    with torch.no_grad():
        accuracy = in_top(model(images), labels, k=1).float().mean()
    assert accuracy > 0.8
    assert record.loss < 0.5
    assert (record.images, record.steps) == (320, 6 * 16)
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    split = split_of(60)
    torch.manual_seed(1)
    one, _ = trained(split, seed=3)
    torch.manual_seed(2)
    same, _ = trained(split, seed=3)
    other, _ = trained(split, seed=4)
    for key, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[key])
    assert not torch.equal(one[0].weight, other[0].weight)


def test_global_random_states_are_untouched() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = nn.Sequential(build_toy_model(), nn.Dropout(0.5))
    train(
        model,
        split_of(40),
        parse_defense("augment"),
        Recipe(1, 20, 1e-2),
        CPU,
        num_classes=TOY_CLASSES,
        seed=0,
    )
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own() -> None:
    images = np.arange(50, dtype=np.uint8).repeat(3 * 16 * 16).reshape(50, 3, 16, 16)
    split = Split(images, np.arange(50, dtype=np.int64) % TOY_CLASSES)
    watcher = Watcher()
    trained(split, watcher, recipe=Recipe(epochs=2, batch_size=20, lr=1e-3))
    sizes = [len(shown) for shown, *_ in watcher.seen]
    assert sizes == [25, 25, 25, 25]
    epochs = []
    for pair in (watcher.seen[:2], watcher.seen[2:]):
        keys = torch.cat([shown[:, 0, 0, 0] for shown, *_ in pair]).mul(255).round().long()
        labels = torch.cat([labels for _, labels, *_ in pair])
        assert sorted(keys.tolist()) == list(range(50))
        assert torch.equal(labels, keys % TOY_CLASSES)
        epochs.append(keys.tolist())
    assert epochs[0] != epochs[1]


def test_batches_are_float32_from_0_to_1_and_the_context_counts() -> None:
    watcher = Watcher()
    split = split_of(40)
    split.images[0, 0, 0, 0], split.images[1, 0, 0, 0] = 0, 255
    trained(split, watcher, recipe=Recipe(epochs=2, batch_size=20, lr=1e-3))
    for shown, labels, *_ in watcher.seen:
        assert shown.dtype == torch.float32
        assert shown.shape == (20, 3, 16, 16)
        assert shown.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64
    assert min(float(shown.min()) for shown, *_ in watcher.seen) == 0
    assert max(float(shown.max()) for shown, *_ in watcher.seen) == 1
    assert [tuple(where) for _, _, *where in watcher.seen] == [(0, 0, 2), (1, 0, 2), (2, 1, 2), (3, 1, 2)]


def test_to_float_divides_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(loop.to_float(levels, CPU).flatten(), torch.arange(256, dtype=torch.float32) / 255)


def test_fewer_images_than_a_batch_are_one_step() -> None:
    _, record = trained(split_of(7), recipe=Recipe(epochs=3, batch_size=20, lr=1e-3))
    assert record.steps == 3


class LargeUint8Copies(TorchFunctionMode):
    """Collects the addresses of uint8 tensors that hold the whole training set."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.places: set[int] = set()

    def __torch_function__(self, function, types, args=(), settings=None):
        result = function(*args, **(settings or {}))
        if isinstance(result, Tensor) and result.dtype == torch.uint8 and len(result) == self.rows:
            self.places.add(result.data_ptr())
        return result


@pytest.mark.filterwarnings("error")
def test_a_read_only_memory_map_is_used_where_it_lies(tmp_path: Path) -> None:
    split = split_of(60)
    np.save(tmp_path / "images.npy", split.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    content = (tmp_path / "images.npy").read_bytes()
    with LargeUint8Copies(60) as copies:
        model, _ = trained(Split(mapped, split.labels), parse_defense("augment+fgsm-at"))
    assert copies.places == {mapped.ctypes.data}
    assert (tmp_path / "images.npy").read_bytes() == content
    in_memory, _ = trained(split, parse_defense("augment+fgsm-at"))
    assert torch.equal(model[0].weight, in_memory[0].weight)


def test_on_step_counts_to_the_end() -> None:
    calls: list[tuple[int, int]] = []
    trained(
        split_of(60), recipe=Recipe(2, 20, 1e-3), on_step=lambda done, of_all: calls.append((done, of_all))
    )
    assert calls == [(step, 6) for step in range(1, 7)]


def test_what_a_defense_says_reaches_the_record() -> None:
    @dataclass(frozen=True)
    class Talkative(Defense):
        name = "talkative"

        def prepare(self, train: Split, context: Context) -> Split:
            context.note("two lines were")
            context.note("worth keeping")
            return train.take(np.arange(20))

    _, record = trained(split_of(40), Talkative())
    assert record.notes == ("two lines were", "worth keeping")
    assert (record.images, record.steps) == (20, 1)


@pytest.mark.parametrize(
    ("first_bad_step", "told"),
    [
        (0, r"at step 1 of epoch 1 at a learning rate"),
        (
            21,
            r"at step 22 of epoch 1 after losses \(gradient norms\) of (\S+ \(\S+\)[, ]*){3} at a",
        ),
        (30, r"at step 1 of epoch 2 at a learning rate"),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_training(first_bad_step: int, told: str) -> None:
    @dataclass(frozen=True)
    class Explosive(Defense):
        name = "explosive"

        def loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
            usual = super().loss(classifier, images, labels, context)
            return usual * float("nan") if context.step >= first_bad_step else usual

    with pytest.raises(TrainingFailure, match=told) as caught:
        trained(split_of(60), Explosive(), recipe=Recipe(epochs=2, batch_size=2, lr=1e-3))
    assert "try a lower --lr" in str(caught.value)


def test_the_optimiser_follows_the_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate at each step, seen through the first weight of a model whose gradient is constant."""
    used: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **options):
        used.append(self.param_groups[0]["lr"])
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained(split_of(100), recipe=Recipe(epochs=2, batch_size=10, lr=0.02))
    assert used == pytest.approx([0.02 * one_cycle(step, 20, 0.25) for step in range(20)])


def test_frozen_weights_stay() -> None:
    model = build_toy_model()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    train(
        model,
        split_of(40),
        parse_defense("none"),
        Recipe(1, 20, 1e-2),
        CPU,
        num_classes=TOY_CLASSES,
        seed=0,
    )
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[2].weight, before["2.weight"])


@pytest.mark.parametrize(("clip_norm", "expected"), [(1.0, [1.0] * 3), (0.0, None)])
def test_long_gradients_are_scaled_back(
    clip_norm: float, expected: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any size of the loss: AdamW ignores scale except for its epsilon, so the norm itself is watched."""
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **options):
        grads = [weight.grad.norm() for group in self.param_groups for weight in group["params"]]
        norms.append(float(torch.stack(grads).norm()))
        return step(self, *args, **options)

    @dataclass(frozen=True)
    class Loud(Defense):
        name = "loud"

        def loss(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
            return 1e6 * super().loss(classifier, images, labels, context)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained(split_of(60), Loud(), recipe=Recipe(epochs=1, batch_size=20, lr=1e-2, clip_norm=clip_norm))
    if expected is not None:
        assert norms == pytest.approx(expected, rel=1e-4)
    else:
        assert min(norms) > 1e4
