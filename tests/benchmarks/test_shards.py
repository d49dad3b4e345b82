"""A measurement in blocks, and how it is divided into shards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.stop_on_success import StageReport
from robustbench_tin.benchmarks.measurement import blocks
from robustbench_tin.benchmarks.measurement.blocks import block_seed, joined_stages
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.shards import Shard, assembled, divided, measure_shard
from robustbench_tin.benchmarks.measurement.until_success import attack_until_success

PGD, SQUARE, FAST = "pgd:steps=2", "square:queries=30", "fast"


@pytest.fixture(autouse=True)
def blocks_of_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 8)


@pytest.fixture
def images() -> ImageBatches:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(20, 3, 6, 6, generator=generator)
    return ImageBatches(pixels, torch.arange(20) % 3, 4, torch.device("cpu"))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3)).eval()


def test_the_first_block_attacks_as_if_it_were_alone(images: ImageBatches, model: nn.Module) -> None:
    """So the figures of few images are the same as before there were blocks."""
    attack, protocol = parse_attack(SQUARE), AttackProtocol(seed=3, search="exact")
    logits = model(images.all_images()).detach()
    whole = attack_until_success(model, images, attack, 0.05, protocol, logits, keep_images=True)
    few = attack_until_success(model, images.first(8), attack, 0.05, protocol, logits[:8], keep_images=True)
    assert whole.images is not None
    assert few.images is not None
    assert torch.equal(whole.images[:8], few.images)
    assert block_seed(3, 0) == 3
    assert len({block_seed(3, first) for first in (0, 8, 16)}) == 3


def test_parts_make_up_the_whole(images: ImageBatches, model: nn.Module) -> None:
    attack, protocol = parse_attack(SQUARE), AttackProtocol(search="exact")
    logits = model(images.all_images()).detach()
    whole = attack_until_success(model, images, attack, 0.05, protocol, logits)
    shards = divided(attack, [0.05], 20, seconds=30, shortest=10)
    parts = [
        measure_shard(model, images, attack, shard, protocol, logits, lambda done: None) for shard in shards
    ]
    found = assembled(attack, [0.05], 20, [part for part in reversed(parts) if part is not None])
    assert found is not None
    assert found[0].top1 is not None
    assert (found[0].top1 == (~whole.success).numpy()).all()
    assert found[0].stages == tuple(whole.stages)
    assert assembled(attack, [0.05], 20, [part for part in parts[1:] if part is not None]) is None


def ranges(shards: list[Shard]) -> list[tuple[tuple[float, ...], int, int]]:
    return [(shard.eps, shard.first, shard.stop) for shard in shards]


@pytest.mark.parametrize(
    ("spec", "shortest", "expected"),
    [
        (PGD, 10, [((0.1, 0.2), 0, 8), ((0.1, 0.2), 8, 16), ((0.1, 0.2), 16, 20)]),
        (PGD, 14, [((0.1, 0.2), 0, 8), ((0.1, 0.2), 8, 16), ((0.1, 0.2), 16, 20)]),
        (SQUARE, 10, [((0.1,), 0, 16), ((0.1,), 16, 20), ((0.2,), 0, 16), ((0.2,), 16, 20)]),
        (FAST, 10, [((0.1,), 0, 20), ((0.2,), 0, 20)]),
        (SQUARE, 16, []),
    ],
)
def test_a_shard_is_some_blocks(spec: str, shortest: float, expected: list[object]) -> None:
    found = divided(parse_attack(spec), [0.1, 0.2], 20, seconds=30, shortest=shortest)
    assert ranges(found) == expected


def test_what_is_measured_is_not_divided_again() -> None:
    there = [Shard(SQUARE, (0.1,), 0, 16, 1.0), Shard(SQUARE, (0.2,), 8, 16, 1.0)]
    found = divided(parse_attack(SQUARE), [0.1, 0.2], 20, seconds=1, shortest=100, measured=there)
    assert ranges(found) == [((0.1,), 16, 20), ((0.2,), 0, 8), ((0.2,), 16, 20)]


def test_stages_of_blocks_add_up() -> None:
    first = [StageReport("a", 8, 8, 1)]
    second = [StageReport("a", 8, 2, 0), StageReport("b", 6, 1, 1)]
    assert joined_stages([first, second]) == [StageReport("a", 16, 10, 1), StageReport("b", 6, 1, 1)]
