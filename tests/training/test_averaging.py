"""Averages of the weights against the same sums by hand, and the statistics that go with them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from loop_toys import build_full_model, split_of, trained_full
from torch import nn

from robustbench_tin.defenses.base import Defense
from robustbench_tin.training import loop
from robustbench_tin.training.averaging import Average, estimate_statistics
from robustbench_tin.training.loop import Recipe


@pytest.fixture
def weights_along_the_way(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The state dict after each step."""
    seen: list[dict[str, torch.Tensor]] = []
    take = loop.Stepper.take

    def watched(self, *args, **options):
        result = take(self, *args, **options)
        seen.append(copy.deepcopy(self._classifier.state_dict()))
        return result

    monkeypatch.setattr(loop.Stepper, "take", watched)
    return seen


def test_ema_is_the_decayed_sum_of_all_steps(weights_along_the_way) -> None:
    model, _ = trained_full(Recipe(2, 16, 1e-2, average="ema"))
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        expected = weights_along_the_way[0][name].double()
        for count, state in enumerate(weights_along_the_way[1:], start=1):
            decay = min(0.998, (1 + count) / (10 + count))
            expected = decay * expected + (1 - decay) * state[name].double()
        assert torch.allclose(value.double(), expected, rtol=1e-4, atol=1e-6), name


def test_swa_is_the_mean_of_the_last_quarters_epochs(weights_along_the_way) -> None:
    model, _ = trained_full(Recipe(8, 16, 1e-2, average="swa"))
    for name, value in model.named_parameters():
        expected = torch.stack([weights_along_the_way[last][name] for last in (27, 31)]).mean(0)
        assert torch.allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_swa_of_one_epoch_is_its_weights(weights_along_the_way) -> None:
    model, _ = trained_full(Recipe(1, 16, 1e-2, average="swa"))
    for name, value in model.named_parameters():
        assert torch.equal(value, weights_along_the_way[-1][name])


def test_swa_estimates_the_statistics_of_the_averaged_weights() -> None:
    """Without dropout or augmentation, they are those of the training images under the final weights."""
    model, _ = trained_full(Recipe(8, 16, 3e-2, average="swa"))
    images = torch.from_numpy(split_of(64).images).float() / 255
    features = model[0](images)
    assert torch.allclose(model[1].running_mean, features.mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert model[1].momentum == 0.1


def test_the_batches_that_statistics_are_estimated_on_draw_for_themselves() -> None:
    steps: list[int] = []

    @dataclass(frozen=True)
    class Watching(Defense):
        name = "watching"

        def augment(self, images, labels, context):
            steps.append(context.step)
            return images, labels

    _, record = trained_full(Recipe(2, 16, 1e-2, average="swa"), Watching())
    assert steps == [*range(8), *range(8, 12)]
    assert record.steps == 8


def test_frozen_statistics_are_not_estimated_anew() -> None:
    start = build_full_model()
    model, _ = trained_full(Recipe(4, 16, 1e-2, average="swa", train="head"))
    assert torch.equal(model[1].running_mean, start[1].running_mean)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_statistics_are_the_plain_mean_over_the_batches() -> None:
    layer = nn.BatchNorm1d(2).train()
    layer(torch.full((4, 2), 100.0))
    batches = [torch.full((4, 2), value) for value in (1.0, 2.0, 6.0)]
    estimate_statistics(layer, lambda batch: layer(batches[batch]), 3)
    assert torch.allclose(layer.running_mean, torch.tensor(3.0))
    frozen = nn.BatchNorm1d(2).eval()
    estimate_statistics(frozen, lambda batch: pytest.fail("nobody asked"), 3)
    assert torch.equal(frozen.running_mean, torch.zeros(2))


def test_a_look_at_the_average_leaves_the_weights_as_they_were() -> None:
    model = build_full_model()
    average = Average("ema", model)
    average.after_step()
    first = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model[0].weight += 1
    live = copy.deepcopy(model.state_dict())
    with average.shown():
        assert torch.equal(model[0].weight, first["0.weight"])
    assert torch.equal(model[0].weight, live["0.weight"])


def test_no_average_keeps_nothing() -> None:
    average = Average("none", build_full_model())
    average.after_step()
    average.after_epoch(0, 1)
    assert average.shadow == {}
