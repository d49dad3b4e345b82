"""Parts of the attacked model on their own: memory split, finite check, counts, noted logits, labels."""

from __future__ import annotations

from typing import get_args
from unittest import mock

import pytest
import torch
from torch import nn

from robustbench_tin.attacks.acceleration.variant_label import MODEL, Precision, VariantLabel
from robustbench_tin.attacks.acceleration.variants import ModelVariant
from robustbench_tin.attacks.engine import finite_check
from robustbench_tin.attacks.engine.failure import AttackFailure
from robustbench_tin.attacks.engine.finite_check import Checked, FiniteCheck
from robustbench_tin.attacks.engine.memory_split import MemorySplit
from robustbench_tin.attacks.engine.noted_logits import NotedLogits
from robustbench_tin.attacks.engine.pass_counts import PassCounts
from robustbench_tin.attacks.engine.state import ModelOutput

NAN = torch.tensor([0.0, torch.nan])


class Memory:
    """Room for some rows a pass; notes the sizes that fit."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.fitted: list[int] = []

    def __call__(self, rows: slice) -> ModelOutput:
        if rows.stop - rows.start > self.room:
            raise torch.OutOfMemoryError
        self.fitted.append(rows.stop - rows.start)
        return ModelOutput(torch.arange(rows.start, rows.stop).view(-1, 1))


def test_a_batch_is_halved_until_it_fits_and_stays_halved() -> None:
    split, memory = MemorySplit(), Memory(3)
    assert split.run(10, memory).logits.flatten().tolist() == list(range(10))
    assert memory.fitted == [2] * 5  # 10, 5, 2
    assert split.run(3, memory).logits.flatten().tolist() == [0, 1, 2]
    assert memory.fitted[5:] == [2, 1]


def test_a_single_image_that_does_not_fit_is_a_failure() -> None:
    with pytest.raises(AttackFailure, match="out of memory with a single image"):
        MemorySplit().run(4, Memory(0))


def test_other_errors_of_a_pass_are_not_caught() -> None:
    with pytest.raises(RuntimeError, match="no memory of this"):
        MemorySplit().run(4, mock.Mock(side_effect=RuntimeError("no memory of this")))


def test_a_cpu_reports_a_fault_at_once() -> None:
    check = FiniteCheck()
    check.add(torch.zeros(3), Checked.LOGITS)
    with pytest.raises(AttackFailure, match="gradient is not finite"):
        check.add(NAN, Checked.GRADIENT)
    check.require()  # it is reported once


def test_another_device_reports_the_first_fault_when_asked() -> None:
    check = FiniteCheck()
    with mock.patch.object(finite_check, "is_asynchronous", return_value=True):
        check.add(torch.zeros(3), Checked.LOGITS)
        check.add(NAN, Checked.GRADIENT)
        check.add(NAN, Checked.LOGITS)
    with pytest.raises(AttackFailure, match="gradient is not finite"):
        check.require()
    check.require()


def test_passes_of_variants_are_counted_twice_and_shown() -> None:
    shown: list[int] = []
    counts = PassCounts(on_variant=lambda images: shown.append(len(images)))
    itself, copy = ModelVariant(nn.Identity()), ModelVariant(nn.Identity(), VariantLabel(fused=True))
    for variant, images in ((itself, 3), (copy, 5)):
        counts.add_forward(variant, torch.zeros(images, 1))
        counts.add_backward(variant, images)
    assert (counts.forward, counts.backward, counts.by_variants, shown) == (8, 8, 10, [5])


def test_only_logits_of_the_watched_images_are_noted() -> None:
    noted, images, logits = NotedLogits(), torch.zeros(4, 3), torch.ones(4, 2)
    noted.watch(images)
    for others in (images.clone(), images[:2]):
        noted.offer(others, logits)
        assert noted.logits is None
    noted.offer(images, logits)
    assert noted.logits is logits
    noted.watch(images.clone())
    assert noted.logits is None


@pytest.mark.parametrize("precision", get_args(Precision))
def test_each_label_is_parsed_from_its_text(precision: Precision) -> None:
    for layout in ("channels-last", "contiguous"):
        label = VariantLabel(precision, layout, fused=True)
        assert str(label) == f"{precision}, {layout}, folded"
        assert VariantLabel.parse(str(label)) == label
    assert VariantLabel.parse("float32") == MODEL
