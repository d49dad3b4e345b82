"""The quick way back through a first convolution against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustbench_tin.attacks.acceleration.strided_conv_gradient import replace_strided_convs


@pytest.mark.parametrize("size", [(16, 16), (17, 13)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(7, 2, 3), (3, 2, 1), (3, 2, 0), (4, 4, 0), (4, 3, 1), ((3, 5), 2, (0, 2)), (1, 2, 0), (11, 4, 2)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_it_gives_the_gradient_of_the_convolution(size, kernel, stride, padding, bias) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, kernel, stride, padding, bias=bias).double().requires_grad_(False)
    images = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = convolution(images)
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), images)
    quick = replace_strided_convs(nn.Sequential(convolution), images)
    assert type(quick[0]) is not nn.Conv2d
    found = quick(images)
    assert torch.equal(found, expected)
    (quick_gradient,) = torch.autograd.grad((found * weights).sum(), images)
    torch.testing.assert_close(quick_gradient, gradient.float().double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Conv2d(3, 6, 3, stride=2, groups=3),
        nn.Conv2d(3, 8, 3, stride=2, dilation=2),
        nn.Conv2d(3, 8, 3, stride=(1, 2)),
        nn.Conv2d(3, 8, 4, stride=2, padding_mode="reflect", padding=1),
    ],
)
def test_other_convolutions_stay(other: nn.Module) -> None:
    assert replace_strided_convs(nn.Sequential(other), torch.rand(1, 3, 16, 16))[0] is other
