"""Costs are counted from shapes, and agree with counting by hand."""

from __future__ import annotations

import pytest

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models import backbones
from robustbench_tin.models.flops import Cost, cost
from robustbench_tin.models.network import create_skeleton


def cost_of(name: str, classes: int, image_size: int, resize_to: int | None = None) -> Cost:
    backbone = backbones.get(name)
    size = backbone.check_size(image_size, resize_to)
    return cost(create_skeleton(backbone, classes, size), size)


@pytest.mark.parametrize("name", backbones.names())
def test_cost_is_counted_silently(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    counted = cost_of(name, 200, 64)
    assert counted.flops_per_image > 1e7
    assert counted.parameters > 1e6
    assert capfd.readouterr() == ("", "")


def test_published_figures_of_resnet50() -> None:
    # He et al. give 3.8e9 multiply-adds at 224 px; with timm's stride in the 3x3 it is 4.1e9.
    counted = cost_of("resnet50", 1000, 224)
    assert counted.parameters == 25_557_032
    assert counted.flops_per_image / 2 == pytest.approx(4.09e9, rel=0.01)


def test_enlarging_costs_what_the_enlarged_size_costs() -> None:
    small, large = cost_of("mobilenet", 10, 64), cost_of("mobilenet", 10, 64, 128)
    assert large == cost_of("mobilenet", 10, 128)
    assert large.flops_per_image == pytest.approx(4 * small.flops_per_image, rel=0.01)
    assert isinstance(large, Cost)


def test_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="75 or more"):
        cost_of("inceptionv3", 10, 64, 64)
