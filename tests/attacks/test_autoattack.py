"""AutoAttack: the published budgets, verdicts an image at a time, and the same ensemble of another library.

The reference is torchattacks 3.5.1, made of the authors' code. Its AutoAttack takes 10 steps and a target for
every wrong class unless told otherwise, and leaves the model in train mode; here both are given the same
steps, targets and queries. (ART's AutoAttack is another ensemble: untargeted APGD, DeepFool and Square.)
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import Toy

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import parse_attack
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.metrics import in_top

QUICK = "queries=20,steps=4,targets=2"
VERSIONS = pytest.mark.parametrize("version", ["standard", "plus", "rand"])


def named(name: str, ranks: int = 9) -> list[str]:
    return [f"{name}:target={rank}" for rank in range(1, ranks + 1)]


PUBLISHED = {
    "standard": ["apgd-ce", *named("apgd-t"), *named("fab-t"), "square"],
    "plus": [
        *["apgd-ce"] * 5,
        *["apgd-dlr"] * 5,
        *["fab", *["fab:random_start=True"] * 4],
        "square",
        *named("apgd-t"),
        *named("fab-t"),
    ],
    "rand": ["apgd-ce:eot=20", "apgd-dlr:eot=20"],
}


@VERSIONS
@pytest.mark.parametrize("classes", [10, 200])
def test_the_stages_are_the_published_ones(version: str, classes: int) -> None:
    """Their specs show no budget, so they are the defaults: 100 steps and 5,000 queries."""
    attack = parse_attack(f"autoattack:version={version}")
    assert [stage.spec for stage in attack.stages(classes)] == PUBLISHED[version]
    assert [parse_attack(name).steps for name in ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t")] == [
        100
    ] * 5
    assert parse_attack("square").queries == 5000
    assert parse_attack("apgd-t").targets == parse_attack("fab-t").targets == 9


def test_a_spec_without_settings_is_the_published_one() -> None:
    assert parse_attack("autoattack:queries=5000,steps=100,targets=9,version=standard").spec == "autoattack"
    assert parse_attack("autoattack:steps=10").spec == "autoattack:steps=10"
    assert parse_attack("autoattack").mode == "stop on success (top-1)"


def test_there_are_no_more_targets_than_wrong_classes() -> None:
    stages = [stage.spec for stage in parse_attack("autoattack").stages(4)]
    assert stages == ["apgd-ce", *named("apgd-t", 3), *named("fab-t", 3), "square"]


@VERSIONS
def test_settings_and_criterion_reach_every_stage(version: str) -> None:
    attack = parse_attack(f"autoattack:criterion=top5,queries=7,steps=3,targets=2,version={version}")
    stages = attack.stages(50)
    assert {stage.criterion for stage in stages} == {"top5"}
    assert {getattr(stage, "steps", 3) for stage in stages} == {3}
    assert {getattr(stage, "queries", 7) for stage in stages} == {7}
    assert max(getattr(stage, "target", None) or 0 for stage in stages) == (0 if version == "rand" else 2)


def test_the_record_says_which_loss_stood_in_and_what_was_averaged() -> None:
    assert not parse_attack("autoattack").remarks(10)
    assert [remark.partition(":")[0] for remark in parse_attack("autoattack").remarks(3)] == ["apgd-t"]
    plus = parse_attack("autoattack:version=plus").remarks(2)
    assert [remark.partition(":")[0] for remark in plus] == ["apgd-dlr", "apgd-t"]
    (remark,) = parse_attack("autoattack:version=rand").remarks(10)
    assert remark == "20 passes averaged for one gradient"


def test_rand_averages_twenty_passes_for_a_gradient(toy: Toy) -> None:
    images, labels = toy.images[:3], toy.model(toy.images[:3]).argmax(dim=1)
    record = evaluate(
        toy.model, images, labels, ["autoattack:steps=2,version=rand"], [1e-6], search="exact"
    ).records.iloc[-1]
    assert record.backward_passes == 3 * (3 + 3) * 20


def test_rand_breaks_a_model_that_is_random_at_test_time(toy: Toy) -> None:
    class Noisy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return toy.model(images + 0.05 * torch.randn_like(images))

    spec = "autoattack:eot=4,steps=5,version=rand"
    record = evaluate(Noisy(), toy.images, toy.labels, [spec], [0.05]).records.iloc[-1]
    assert record.status == "ok"
    assert record.top1 < 0.2


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.6)])
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_what_is_returned_gives_the_accuracy_that_is_reported(
    toy: Toy, version: str, norm: str, eps: float
) -> None:
    spec, images, labels = f"autoattack:{QUICK},version={version}", toy.images[:20], toy.labels[:20]
    record = evaluate(toy.model, images, labels, [spec], [eps], norm, search="fixed").records.iloc[-1]
    moved = perturb(toy.model, images, labels, spec, eps, norm, search="fixed")
    assert record.status == "ok"
    with torch.no_grad():
        assert record.top1 == in_top(toy.model(moved), labels, 1).float().mean()
    assert 0 < record.top1 < 0.9


def test_later_stages_see_only_what_earlier_ones_left(toy: Toy) -> None:
    """Each does its part on its own images, so the verdict is an image's and not an attack's."""
    from robustbench_tin.attacks.engine.image_batches import ImageBatches
    from robustbench_tin.benchmarks.measurement.attack import measure_attack

    batches = ImageBatches(toy.images, toy.labels, 16, torch.device("cpu"))
    (outcomes,) = measure_attack(toy.model, batches, parse_attack(f"autoattack:{QUICK}"), [0.012])
    reports = outcomes.stages
    assert [report.attack for report in reports][:2] == ["apgd-ce:steps=4", "apgd-t:steps=4,target=1"]
    right = int(in_top(toy.model(toy.images), toy.labels, 1).sum())
    left = [right, *(report.entered - report.successes for report in reports)]
    assert [report.entered for report in reports] == left[:-1]
    assert outcomes.top1 is not None
    assert left[-1] == outcomes.top1.sum() > 0


def test_the_worst_top_5_is_measured_when_asked_for(toy: Toy) -> None:
    spec = f"autoattack:criterion=top5,{QUICK}"
    record = evaluate(toy.model, toy.images, toy.labels, [spec], [0.06], search="fixed").records.iloc[-1]
    moved = perturb(toy.model, toy.images, toy.labels, spec, 0.06, search="fixed")
    assert (record.status, record["mode"]) == ("ok", "stop on success (top-5)")
    assert record.top1 != record.top1
    with torch.no_grad():
        assert record.top5 == in_top(toy.model(moved), toy.labels, 5).float().mean()
    assert 0.05 < record.top5 < 0.95


def test_images_all_wrong_already_cost_nothing(toy: Toy) -> None:
    wrong = toy.model(toy.images).argmin(dim=1)
    record = evaluate(toy.model, toy.images, wrong, ["autoattack"], [0.01]).records.iloc[-1]
    assert (record.status, record.top1) == ("ok", 0.0)
    assert (record.forward_passes, record.backward_passes) == (0, 0)


def test_one_image(toy: Toy) -> None:
    record = evaluate(toy.model, toy.images[:1], toy.labels[:1], ["autoattack"], [0.1]).records.iloc[-1]
    assert (record.status, record.top1) == ("ok", 0.0)


def test_two_classes(toy: Toy) -> None:
    class Even(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = toy.model(images)
            return torch.stack([logits[:, ::2].amax(dim=1), logits[:, 1::2].amax(dim=1)], dim=1)

    record = evaluate(Even(), toy.images, toy.labels % 2, [f"autoattack:{QUICK}"], [0.04]).records.iloc[-1]
    assert record.status == "ok"
    assert "cross-entropy stands in for DLR" in record.remarks
    assert record.top1 < 0.7


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.6)])
def test_it_leaves_the_images_that_torchattacks_leaves(toy: Toy, norm: str, eps: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    theirs = torchattacks.AutoAttack(toy.model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, seed=0)
    for stage in theirs._autoattack.attacks:
        stage.steps, stage.n_queries, stage.n_target_classes = 10, 100, 3
    images, labels = toy.images[:24], toy.labels[:24]
    moved = theirs(images, labels)
    toy.model.eval()
    ours = perturb(toy.model, images, labels, "autoattack:queries=100,steps=10,targets=3", eps, norm)
    with torch.no_grad():
        kept = [in_top(toy.model(adversarial), labels, 1) for adversarial in (ours, moved)]
    assert 0.2 < kept[0].float().mean() < 0.9
    assert int((kept[0] != kept[1]).sum()) <= 1


@pytest.mark.parametrize(
    "setting",
    ["version=best", "steps=0", "targets=0", "queries=0", "eot=2", "criterion=none"],
)
def test_settings_out_of_range_are_refused_by_name(setting: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"attack 'autoattack' got {setting.partition('=')[0]}="):
        parse_attack(f"autoattack:{setting}")
