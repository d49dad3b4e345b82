"""Paired differences of the saliency share between cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from robustbench_tin.benchmarks.evidence.saliency_differences import differences, differences_table
from robustbench_tin.benchmarks.evidence.saliency_files import ImageShare, SaliencyResult


def result(cell: str, shares: dict[str, dict[int, float | None]]) -> SaliencyResult:
    return SaliencyResult(
        cell=cell,
        method="saliency",
        settings={},
        weights_digest="",
        classes=(),
        shares=(),
        image_shares=tuple(
            ImageShare(index=index, kind=kind, predicted=0, share=share, chance=0.3)
            for kind, of_kind in shares.items()
            for index, share in of_kind.items()
        ),
    )


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    random = np.random.default_rng(0)
    before = random.random(30)
    after = before + random.normal(0.02, 0.05, 30)
    first = result("m/none/0", {"clean": dict(enumerate(before))})
    second = result("m/bbox-crop/0", {"clean": dict(enumerate(after[::-1]))})
    paired = result("m/fgsm-at/0", {"clean": dict(enumerate(after))})
    (other, found) = differences([first, second, paired])
    expected = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(other.mean) == pytest.approx((after - before).mean())
    assert found.high - found.low < other.high - other.low  # these shares belong to other images


def test_only_images_with_a_share_in_both_cells_count() -> None:
    first = result("m/none/0", {"clean": {1: 0.5, 2: None, 3: 0.2, 7: 0.9}, "crop": {1: 0.4, 2: 0.4}})
    second = result("m/jpeg/0", {"clean": {3: 0.4, 1: 0.6, 2: 0.5, 7: None}, "adversarial": {1: 0.1}})
    (found,) = differences([first, second])
    assert (found.kind, found.images, found.first, found.cell) == ("clean", 2, "m/none/0", "m/jpeg/0")
    assert found.mean == pytest.approx(0.15)
    assert differences([first]) == []
    table = differences_table([found])
    assert table.title == "Difference of the share to m/none/0 on the same images, in points"
    assert table.rows[0][:4] == ("m/jpeg/0", "saliency", "clean", "2")
    assert table.rows[0][4].startswith("+15.0 [")
