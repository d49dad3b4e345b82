"""A form that is not the model is found out, and the model itself is searched with instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from test_attacks_do_not_wait import looking_as_on_a_gpu
from torch import Tensor, nn
from toys import Toy, draw_toy_images
from two_way_networks import WAYS, TwoWays, trained
from wrong_variants import comparisons

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.acceleration import selection, variant_cache, variants
from robustbench_tin.attacks.acceleration.agreement import FLOAT32_LIMIT, SampleOutput
from robustbench_tin.attacks.acceleration.fuse_batchnorm import fuse_batchnorm
from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.acceleration.variant_label import VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant, Rewrite
from robustbench_tin.attacks.engine.adversarial_sets import AdversarialBatch, adversarial_batches
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches, drawn
from robustbench_tin.attacks.engine.spot_checks import SpotChecks, WrongVariantError, told_once
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopRunner
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.threat import ThreatModel

EPS = 0.03
FULL, UNTIL = "pgd:steps=5", "pgd:steps=5,criterion=top1"
FOLDED = "float32, channels-last, folded"
LOW = "bfloat16, channels-last, folded"
CPU = torch.device("cpu")
# The other way is gone at the first steps of an attack: whether it is met before is chance.
FOUND = [name for name in WAYS if name != "confident"]


def pool_of(model: TwoWays, count: int = 120, size: int = 40) -> ImageBatches:
    """Images that go the one way first."""
    images, labels = draw_toy_images(count, seed=2)
    levels = (images * 255).round().byte()
    order = model.others(levels / 255).long().sort(stable=True).indices
    return ImageBatches(levels[order], labels[order], size, CPU)


def measured(
    model: TwoWays, spec: str, search: str = "fixed", variants: VariantCache | None = None
) -> Measurement:
    protocol = AttackProtocol(search=search, variants=variants or VariantCache())
    (outcomes,) = measure_attack(model, pool_of(model), parse_attack(spec), [EPS], protocol)
    assert str(outcomes.status) == "ok"
    return outcomes


@pytest.fixture
def credulous() -> Iterator[None]:
    """Norms are folded as if every image went the one way, and no form is compared beforehand."""

    def by_easy_images(model: TwoWays, images: Tensor) -> nn.Module:
        return fuse_batchnorm(model, images[~model.others(images)][:2])

    def trusted(theirs: SampleOutput, ours: SampleOutput) -> float:
        return FLOAT32_LIMIT if theirs.precision == "float32" else 0.1

    with (
        mock.patch.object(variants, "REWRITES", (Rewrite(by_easy_images), *variants.REWRITES[1:])),
        mock.patch.object(selection, "limit_of", trusted),
    ):
        yield


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("spec", [FULL, UNTIL, "fast:most_stages=4", "square:queries=40"])
def test_no_image_survives_that_the_model_itself_would_lose(name: str, spec: str) -> None:
    exact, found = measured(trained(name), spec, "exact"), measured(trained(name), spec)
    assert not (found.top1 & ~exact.top1).any()
    assert found.unverified in (None, 0)


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize(
    ("label", "spec", "unseen"),
    [
        (FOLDED, FULL, False),
        (FOLDED, UNTIL, False),
        (FOLDED, "fast:most_stages=4", True),
        (LOW, FULL, False),
        (LOW, UNTIL, True),
    ],
)
@pytest.mark.usefixtures("credulous")
def test_a_wrong_form_is_found_out_while_it_is_used(name: str, label: str, spec: str, unseen: bool) -> None:
    model, cache = trained(name), VariantCache({"fastest": (label, FOLDED)})
    with looking_as_on_a_gpu() if unseen else nullcontext():
        exact = measured(model, spec, "exact")
        found = measured(model, spec, "fastest", cache)
        # Because of the stored finding, a continued run searches with the model from its start.
        again = measured(model, spec, "fixed", VariantCache(cache.labels))
    assert found.search == exact.search == "float32"
    assert f"{label} gave other logits than the model at " in found.remarks[-1]
    assert found.remarks[:-1] == exact.remarks
    assert found.backward_passes > exact.backward_passes  # those of the first start were made as well
    if spec == FULL:
        assert np.array_equal(found.top1, exact.top1)
        assert np.array_equal(found.top5, exact.top5)
    else:
        assert not (found.top1 & ~exact.top1).any()
        assert found.stages == exact.stages
        assert found.unverified == 0
    assert cache.labels == {"fastest": ("float32", "float32"), "refuted": (label,)}
    assert np.array_equal(again.top1, exact.top1)
    assert (again.search, again.remarks) == ("float32", exact.remarks)
    assert again.backward_passes == exact.backward_passes


@pytest.mark.usefixtures("credulous")
def test_images_broken_by_then_stay_broken_and_the_rest_is_as_with_the_model_alone() -> None:
    """With one image a batch and no random start, the verdict on an image depends on no other."""
    model = trained("unsure")
    batches = pool_of(model, size=1)
    clean = measure_clean(model, batches)[1]
    attack = parse_attack("pgd:steps=4,random_start=false,criterion=top1")
    told: list[int] = []

    def drive(search: str) -> tuple[EarlyStopRunner, AttackedModel]:
        with AttackedModel(model) as attacked:
            threat = ThreatModel("linf", EPS)
            attacked.prepare(drawn(batches, threat, 32), search)
            runner = EarlyStopRunner(attacked, batches, threat, attack.goal, clean, on_images=told.append)
            runner.attack(attack, keep_images=True)
            return runner, attacked

    exact, _ = drive("exact")
    told.clear()
    with mock.patch.object(
        AttackedModel, "refute_variant", autospec=True, side_effect=AttackedModel.refute_variant
    ) as refute:
        found, attacked = drive("fixed")
    refute.assert_called_once()
    assert attacked.search_label == "float32"
    assert sum(told) == len(batches)
    assert found.result.images is not None
    assert not (exact.result.success & ~found.result.success).any()
    still = model(found.result.images).argmax(dim=1) == batches.labels
    assert torch.equal(~still, found.result.success)
    # If the variant had not broken an image yet, image and verdict are the model's own.
    same = (found.result.images == exact.result.images).flatten(1).all(dim=1)
    assert torch.equal(found.result.success[same], exact.result.success[same])
    assert same[exact.result.success].float().mean() == 1


@pytest.mark.usefixtures("credulous")
def test_perturb_gives_the_images_of_the_model_itself() -> None:
    model = trained("unsure")
    batches = pool_of(model)
    settings = {"batch_size": 40, "eps": (0.0, EPS)}
    found, exact = (
        perturb(model, batches.images, batches.labels, FULL, search=search, **settings)
        for search in ("fixed", "exact")
    )
    assert torch.equal(found, exact)
    frame = evaluate(model, batches.images, batches.labels, FULL, search="fixed", **settings).records
    kept = (model(found[1]).argmax(dim=1) == batches.labels).float().mean()
    assert frame["top1"].iloc[1] == pytest.approx(float(kept))
    assert frame["remarks"].iloc[1].endswith("points: searched again with the model itself")


@pytest.mark.usefixtures("credulous")
def test_images_of_fool_are_those_of_the_model_itself_from_the_batch_on_that_finds_it_out() -> None:
    model = trained("unsure")
    batches, attack, threat = pool_of(model), parse_attack(FULL), ThreatModel("linf", EPS)

    def made() -> list[AdversarialBatch]:
        return list(adversarial_batches(model, batches, attack, threat))

    found = made()
    with mock.patch.dict(variant_cache._FIXED, {"fixed": variant_cache._FIXED["exact"]}):
        exact = made()
    assert [each.start for each in found] == [0, 40, 80]
    assert all(np.array_equal(a.images, b.images) for a, b in zip(found, exact, strict=True))


def test_measures_by_a_form_that_is_found_wrong_later_are_taken_again(toy: Toy) -> None:
    images, labels = (toy.images * 255).round().byte(), toy.labels
    attacks, eps = "pgd:steps=3,pgd:criterion=top1,steps=4", (0.01, 0.02)
    with comparisons() as made:
        before = evaluate(toy.model, images, labels, attacks, eps).records
    exact = evaluate(toy.model, images, labels, attacks, eps, search="exact").records
    assert set(before["search"][1:]) == {FOLDED}
    with comparisons(wrong=len(made)):
        found = evaluate(toy.model, images, labels, attacks, eps).records
    assert set(found["search"]) == {"float32"}
    assert found["top1"].tolist() == exact["top1"].tolist()
    assert [bool(text) for text in found["remarks"]] == [False] * 4 + [True]
    assert found["backward_passes"].tolist()[:4] == exact["backward_passes"].tolist()[:4]


@pytest.mark.parametrize(
    "name", ["timm:test_resnet", "timm:mobilenetv3_small_050", "timm:test_convnext", "timm:test_nfnet"]
)
def test_honest_networks_keep_their_form(name: str) -> None:
    model = build_classifier(backbones.get(name), 10, image_size=32, resize_to=None, seed=0)
    images, labels = draw_toy_images(36, 1, size=32)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(images)
    for spec in (FULL, UNTIL):
        found = evaluate(model, images, labels, spec, 0.02, search="fixed").records.iloc[1]
        assert (found["search"], found["remarks"]) == (FOLDED, "")


def test_a_model_that_is_random_at_test_time_keeps_its_form(toy: Toy) -> None:
    noisy = parse_defense("random-resize:least=0.6").wrap(toy.model)
    for spec in (FULL, UNTIL):
        found = evaluate(noisy, toy.images, toy.labels, spec, 0.02, search="fixed").records.iloc[1]
        assert (found["search"], found["remarks"]) == (FOLDED, "")


def test_the_form_of_a_surrogate_is_compared_with_the_surrogate(toy: Toy) -> None:
    class Other(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = toy.model(images.flip(-1))
            return logits

    batches = ImageBatches(toy.images, toy.labels, 20, CPU)
    for spec in (FULL, UNTIL):
        (found,) = measure_attack(
            Other(), batches, parse_attack(spec), [0.02], AttackProtocol(search="fixed", surrogate=toy.model)
        )
        assert (str(found.status), found.search, found.remarks) == ("ok", FOLDED, ())


@pytest.mark.parametrize("spec", ["pgd", "pgd:criterion=top1", "square:queries=60"])
def test_comparing_takes_at_most_1_2_percent_of_the_passes_and_some_in_advance(toy: Toy, spec: str) -> None:
    images, labels = draw_toy_images(960, 3)
    with comparisons() as made:
        found = evaluate(toy.model, images, labels, spec, 0.005, search="fixed").records.iloc[1]
    assert found["search"] == FOLDED
    passes = sum(2 * points - known for points, known in made)
    assert 48 < passes <= 0.012 * (found["forward_passes"] + found["backward_passes"]) + 96
    with comparisons() as made:
        assert (
            evaluate(toy.model, images, labels, spec, 0.005, search="exact").records.iloc[1]["search"]
            == "float32"
        )
    assert made == []


def test_comparing_counts_no_pass_and_draws_nothing(toy: Toy) -> None:
    with AttackedModel(toy.model) as attacked:
        attacked.prepare(toy.images, "fixed")
        attacked.gradient(toy.images, toy.labels)
        own = attacked.logits(toy.images[:5])
        counts = attacked.forward_passes, attacked.backward_passes, attacked.variant_passes
        state = torch.get_rng_state()
        for logits in (None, own, torch.zeros(5, 10)):
            ((variant, apart),) = attacked.apart(toy.images[:5], logits)
            assert (str(variant.label), apart) == (FOLDED, 0)
            assert (attacked.forward_passes, attacked.backward_passes, attacked.variant_passes) == counts
        assert torch.equal(torch.get_rng_state(), state)


def test_an_answer_that_is_no_number_lies_apart(toy: Toy) -> None:
    class Overflowing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return toy.model(images) * torch.tensor([1.0, torch.inf]).repeat(len(images) // 2).view(-1, 1)

    with AttackedModel(toy.model) as attacked:
        attacked.used_variants[0] = ModelVariant(Overflowing(), VariantLabel(fused=True))
        ((_, apart),) = attacked.apart(toy.images[:6])
        assert apart == 3


def test_what_gathered_is_compared_once_it_fills_a_pass_or_at_the_end(toy: Toy) -> None:
    with AttackedModel(toy.model) as attacked:
        attacked.prepare(toy.images, "fixed")
        checks = SpotChecks(attacked)
        checks.offer(toy.images)  # no form has been asked
        attacked.search_logits(toy.images)  # of these a sixteenth is taken
        with mock.patch.object(attacked, "apart", side_effect=attacked.apart) as apart:
            checks.look()
            checks.insist(toy.images[:27], attacked.logits(toy.images[:27]))
            checks.look()
            apart.assert_not_called()
            checks.insist(toy.images[:1])
            checks.look()
            checks.insist(toy.images[:2])
            checks.settle()
            checks.settle()
            assert [len(call.args[0]) for call in apart.call_args_list] == [32, 2]
            assert [len(call.args[1]) for call in apart.call_args_list[:1]] == [27]
            assert apart.call_args_list[1].args[1] is None
            apart.side_effect = lambda points, logits: [(mock.Mock(label="odd", precision="float32"), 2)]
            checks.insist(toy.images[:3])
            with pytest.raises(WrongVariantError, match=r"^odd gave .* at 2 of 3 points"):
                checks.settle()


def test_an_image_is_told_once_however_often_the_work_starts() -> None:
    told: list[int] = []
    start = told_once(told.append)
    for batches in ([3, 4], [3, 2, 2, 5], [12]):
        report = start()
        for images in batches:
            report(images)
    assert told == [3, 4, 5]
