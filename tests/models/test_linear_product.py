"""Linear layers by oneDNN, against PyTorch's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin import resources
from robustbench_tin.models import linear_product
from robustbench_tin.models.linear_product import linear

has_operator = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
needs_operator = pytest.mark.skipif(not has_operator, reason="this PyTorch has no oneDNN product")


@pytest.fixture(autouse=True)
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use oneDNN on every processor, and for small matrices too."""
    monkeypatch.setattr(linear_product, "ONEDNN_IS_FASTER", has_operator)
    monkeypatch.setattr(linear_product, "_LARGE", 1)


def factors(shape: tuple[int, ...] = (7, 5), out: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows, weight, bias = (
        torch.randn(size, generator=generator) for size in (shape, (out, shape[-1]), (out,))
    )
    return rows.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def products_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the results that oneDNN computes from now on."""
    made, before = [], linear_product._Product.forward

    def noted(first: Tensor, second: Tensor) -> Tensor:
        result = before(first, second)
        made.append(tuple(result.shape))
        return result

    monkeypatch.setattr(linear_product._Product, "forward", staticmethod(noted))
    return made


@needs_operator
@pytest.mark.parametrize("shape", [(7, 5), (1, 5), (2, 3, 5), (2, 1, 3, 5)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_result_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = products_of(monkeypatch)
    rows, weight, bias = factors(shape)
    given = (rows, weight, bias) if with_bias else (rows, weight)
    found = linear(*given, *([] if with_bias else [None]))
    expected = functional.linear(*given)
    torch.testing.assert_close(found, expected)
    towards = torch.randn(expected.shape)
    for one, other in zip(
        torch.autograd.grad(found, given, towards), torch.autograd.grad(expected, given, towards), strict=True
    ):
        torch.testing.assert_close(one, other)
    count = rows.numel() // 5
    assert made == [(count, 4), (count, 5), (4, 5)]


@needs_operator
def test_frozen_weights_get_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    made = products_of(monkeypatch)
    rows, weight, bias = factors()
    linear(rows, weight.detach(), bias.detach()).sum().backward()
    assert made == [(7, 4), (7, 5)]


@needs_operator
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda matrix: matrix.t().contiguous().t(),
        lambda matrix: matrix.repeat(2, 2)[::2, ::2],
        lambda matrix: matrix[:1].expand_as(matrix),
    ],
    ids=["transposed", "with gaps", "expanded"],
)
def test_every_layout_gives_the_same(laid_out) -> None:  # type: ignore[no-untyped-def]
    rows, weight, bias = (laid_out(each) if each.dim() > 1 else each for each in factors())
    torch.testing.assert_close(linear(rows, weight, bias), functional.linear(rows, weight, bias))


@needs_operator
def test_second_derivatives() -> None:
    rows, weight, bias = (each.detach()[:3].requires_grad_() for each in factors((3, 5), 3))

    def curvature(layer) -> Tensor:  # type: ignore[no-untyped-def]
        (first,) = torch.autograd.grad(layer(rows, weight, bias).pow(3).sum(), rows, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), weight)[0]

    torch.testing.assert_close(curvature(linear), curvature(functional.linear), rtol=1e-5, atol=1e-5)


@needs_operator
def test_jacobians_of_torch_func() -> None:
    rows, weight, bias = (each.detach() for each in factors())
    of_rows = torch.func.vmap(torch.func.jacrev(lambda row: linear(row[None], weight, bias)[0]))(rows)
    torch.testing.assert_close(of_rows, weight.expand(7, 4, 5))
    weights = torch.stack([weight, 2 * weight], dim=1)
    with_each = torch.func.vmap(lambda each: linear(rows, each, bias), in_dims=1)(weights)
    expected = torch.stack([functional.linear(rows, each, bias) for each in (weight, 2 * weight)])
    torch.testing.assert_close(with_each, expected)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_other_numbers_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = products_of(monkeypatch)
    rows, weight, bias = factors()
    doubles = rows.double(), weight.double(), bias.double()
    assert torch.equal(linear(*doubles), functional.linear(*doubles))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(rows, weight, bias).dtype == torch.bfloat16
    assert linear(rows[:0], weight, bias).shape == (0, 4)
    assert linear(rows[0], weight, bias).shape == (4,)
    with torch.backends.mkldnn.flags(enabled=False):
        linear(rows, weight, bias)
    monkeypatch.setattr(linear_product, "ONEDNN_IS_FASTER", False)
    linear(rows, weight, bias)
    assert made == []


class Layer(nn.Module):
    """One linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 5))

    def forward(self, rows: Tensor) -> Tensor:
        return linear(rows, self.weight, None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kept", ["trace", "export", "onnx", "compile"])
def test_a_network_is_kept_without_onednn(kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, rows, layer = products_of(monkeypatch), torch.ones(7, 5), Layer()
    if kept == "trace":
        assert "mkldnn" not in str(torch.jit.trace(layer, rows, check_trace=False).inlined_graph)
    elif kept == "export":
        assert "mkldnn" not in str(torch.export.export(layer, (rows,)).graph)
    elif kept == "onnx":
        torch.onnx.export(layer, (rows,), tmp_path / "layer.onnx", dynamo=False)
    else:
        torch.testing.assert_close(torch.compile(layer, backend="eager")(rows), 5 * torch.ones(7, 4))
    assert made == []


@pytest.mark.parametrize("maker", ["GenuineIntel", ""])
def test_only_amd(maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_product, "processor_maker", lambda: maker)
    assert not linear_product._is_onednn_faster()


@pytest.mark.parametrize(
    ("found", "identifier", "maker"),
    [
        ("processor\t: 0\nvendor_id\t: GenuineIntel\n", "", "GenuineIntel"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "", ""),  # ARM's
        (None, "AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD", "AuthenticAMD"),
        (None, "", ""),
    ],
)
def test_the_maker_of_a_processor(
    found: str | None, identifier: str, maker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path) -> str:
        if found is None:
            raise FileNotFoundError(path)
        return found

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setenv("PROCESSOR_IDENTIFIER", identifier)
    assert resources.processor_maker() == maker
