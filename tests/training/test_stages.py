"""Stages, the parts of a network that they train, and the timetable made of them."""

from __future__ import annotations

import copy

import pytest
import torch
from loop_toys import build_full_model, trained_full
from torch import nn

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.training.epoch_plan import epoch_plan
from robustbench_tin.training.loop import Recipe
from robustbench_tin.training.stages import Stage, head_parameters, last_parameters, parse_stages, train_only


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("all", [Stage("all", 8)]),
        ("last:3", [Stage("last:3", 8)]),
        ("head:epochs=2,all:rate=0.1", [Stage("head", 2), Stage("all", 6, 0.1)]),
        (
            "head:epochs=1,last:2:epochs=3,all:epochs=4,rate=0.5",
            [Stage("head", 1), Stage("last:2", 3), Stage("all", 4, 0.5)],
        ),
    ],
)
def test_stages_share_the_epochs(text: str, stages: list[Stage]) -> None:
    assert list(parse_stages(text, 8)) == stages


@pytest.mark.parametrize(
    "text",
    [
        "tail",
        "",
        "last",
        "last:0",
        "last:two",
        "head,all",
        "head:epochs=8,all",
        "head:epochs=2",
        "head:epochs=0,all",
        "head:epochs=9,all",
        "head:epoch=2,all",
        "all:rate=0",
        "all:rate=fast",
        "all:rate=inf",
    ],
)
def test_what_is_no_stage_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"train got") as caught:
        parse_stages(text, 8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("last", "got 'last' in 'last'; expected head, last:N"),
        ("head,all", "got 'head' in 'head,all' without its epochs"),
        ("head:epochs=8,all", "does not divide 8 epochs"),
        ("head:epochs=0,all", "expected at least one for each stage"),
    ],
)
def test_a_refused_stage_is_told_what_is_wrong_with_it(text: str, why: str) -> None:
    with pytest.raises(InvalidSettingError, match=why):
        parse_stages(text, 8)


def test_layers_are_counted_from_the_end_with_the_normalisation_that_follows() -> None:
    model = build_full_model()
    assert last_parameters(model, 1) == {*model[10].parameters()} == head_parameters(model)
    assert last_parameters(model, 2) == {*model[8].parameters(), *model[10].parameters()}
    assert last_parameters(model, 3) == {parameter for layer in model[3:] for parameter in layer.parameters()}
    assert last_parameters(model, 99) == set(model.parameters())


@pytest.mark.parametrize("name", ["mobilenet", "densenet121", "timm:test_vit"])
def test_the_head_is_the_layer_that_gives_the_logits(name: str) -> None:
    classifier = build_classifier(backbones.get(name), 7, image_size=32, resize_to=None, seed=0)
    head = head_parameters(classifier)
    assert sorted(len(parameter) for parameter in head) == [7, 7]
    assert len(head) < len(list(classifier.parameters()))


def test_a_frozen_part_keeps_weights_and_statistics() -> None:
    start = build_full_model()
    model, _ = trained_full(Recipe(2, 16, 1e-2, train="head"))
    before, after = start.state_dict(), model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"10.weight", "10.bias"}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_last_layers_train_with_their_normalisation() -> None:
    start = build_full_model()
    model, _ = trained_full(Recipe(2, 16, 1e-2, train="last:3"))
    before, after = start.state_dict(), model.state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"3", "4", "8", "10"}


def test_what_was_frozen_from_the_start_stays_so() -> None:
    model = build_full_model()
    model[8].weight.requires_grad_(False)
    before = copy.deepcopy(model[8].weight)
    trained_full(Recipe(2, 16, 1e-2, train="head:epochs=1,all"), model=model)
    assert torch.equal(model[8].weight, before)
    assert not model[8].weight.requires_grad
    assert model[0].weight.requires_grad


def test_a_stage_has_a_schedule_and_a_rate_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[int, float]] = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **options):
        count = sum(len(group["params"]) for group in self.param_groups)
        used.append((count, self.param_groups[0]["lr"]))
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained_full(Recipe(3, 16, 0.2, schedule="cosine", train="head:epochs=1,all:rate=0.1"))
    assert [count for count, _ in used] == [2] * 4 + [12] * 8
    assert used[0][1] == pytest.approx(0.2)
    assert used[4][1] == pytest.approx(0.02)
    assert used[8][1] == pytest.approx(0.01)


def test_train_only_puts_a_network_into_train_mode() -> None:
    model = build_full_model().eval()
    train_only(model, "all", list(model.parameters()))
    assert all(module.training for module in model.modules())
    train_only(model, "head", list(model.parameters()))
    assert [module.training for module in model if isinstance(module, nn.BatchNorm2d)] == [False, False]
    assert model[7].training


@pytest.mark.parametrize(
    ("recipe", "replays", "expected"),
    [
        (Recipe(3, 16, 0.1), 1, [1, 1, 1]),
        (Recipe(8, 16, 0.1), 4, [4, 4]),
        (Recipe(2, 16, 0.1), 8, [8]),
        (Recipe(10, 16, 0.1), 4, [4, 4]),
        (Recipe(10, 16, 0.1, clean_epochs=2), 4, [1, 1, 4, 4]),
        (Recipe(3, 16, 0.1, clean_epochs=3), 4, [1, 1, 1]),
        (Recipe(9, 16, 0.1, clean_epochs=1, train="head:epochs=5,all"), 2, [1, 2, 2, 2, 2]),
    ],
)
def test_replays_count_as_epochs(recipe: Recipe, replays: int, expected: list[int]) -> None:
    epochs = epoch_plan(recipe, replays, batches=10)
    assert [epoch.replays for epoch in epochs] == expected
    assert [epoch.steps for epoch in epochs] == [10 * times for times in expected]
    assert [epoch.clean for epoch in epochs] == [index < recipe.clean_epochs for index in range(len(epochs))]
    for number in range(len(recipe.stages)):
        of_stage = [epoch for epoch in epochs if epoch.stage[0] == number]
        assert {epoch.stage_steps for epoch in of_stage} == {sum(epoch.steps for epoch in of_stage)}
        assert of_stage[0].stage_step == 0
        assert of_stage[-1].stage_step + of_stage[-1].steps == of_stage[-1].stage_steps
