"""Convolutions of tiny maps as matrix products, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustbench_tin.attacks.acceleration.small_map_conv import replace_small_map_convs


def multiplied(convolution: nn.Module, maps: torch.Tensor) -> nn.Module:
    return replace_small_map_convs(nn.Sequential(convolution), maps)[0]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (3, 1, 1, (2, 2)),
        (3, 1, 1, (1, 1)),
        (3, 2, 1, (2, 4)),
        (3, 2, 1, (1, 2)),
        ((1, 7), 1, (0, 3), (2, 3)),
        (5, (1, 2), (2, 1), (3, 4)),
        (4, 2, 2, (2, 3)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_convolution(kernel, stride, padding, size, bias, layout) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    convolution = nn.Conv2d(5, 4, kernel, stride, padding, bias=bias).double().requires_grad_(False)
    maps = torch.rand(3, 5, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    product = multiplied(convolution, maps)
    assert product is not convolution
    expected, found = convolution(maps), product(maps)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    (ours,), (theirs,) = (torch.autograd.grad((out * weights).sum(), maps) for out in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(3, 1, 1, (2, 2)), (3, 1, 1, (1, 1)), (4, 2, 2, (2, 3)), ((1, 7), 1, (0, 3), (2, 3))],
)
@pytest.mark.parametrize("bias", [True, False])
def test_maps_of_another_size_are_convolved(kernel, stride, padding, size, bias) -> None:  # type: ignore[no-untyped-def]
    convolution = nn.Conv2d(2, 3, kernel, stride, padding, bias=bias)
    product = multiplied(convolution, torch.rand(1, 2, *size))
    other = torch.rand(2, 2, 4, 5)
    torch.testing.assert_close(product(other), convolution(other))


@pytest.mark.parametrize(
    ("other", "size"),
    [
        (nn.Conv2d(4, 4, 3, padding=1), (3, 3)),
        (nn.Conv2d(4, 4, 1), (1, 1)),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (2, 2)),
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2), (2, 2)),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), (2, 2)),
        (nn.Conv2d(4, 4, 3, padding="same"), (2, 2)),
    ],
)
def test_other_convolutions_stay(other: nn.Module, size: tuple[int, int]) -> None:
    assert multiplied(other, torch.rand(1, 4, *size)) is other
