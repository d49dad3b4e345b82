"""The gradient vanishes: through saturation, rounding or signs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from faults.base import Fault
from faults.host import Host
from faults.parts import After, Before, straight_through

NO_GRADIENT = "gradient is zero"


class SaturatedLogits(Fault):
    """Logits so large that the softmax of the loss is exact."""

    name = "saturated logits"
    says = NO_GRADIENT

    def plant(self, host: Host) -> nn.Module:
        return After(host.network, lambda logits: 1e4 * logits)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class FaintLogits(Fault):
    """Logits so small that the softmax is nearly even, and the loss the same for all wrong classes."""

    name = "faint logits"
    says = "two highest logits"

    def plant(self, host: Host) -> nn.Module:
        return After(host.network, lambda logits: 0.01 * logits)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class Percentages(Fault):
    """A softmax at the end, scaled so that its rows do not sum to 1."""

    name = "percentages"
    says = NO_GRADIENT

    def plant(self, host: Host) -> nn.Module:
        return After(host.network, lambda logits: 100 * (30 * logits).softmax(dim=1))

    def truth(self, host: Host) -> nn.Module:
        return host.network


class RoundedLogits(Fault):
    """As many digits as a service may show."""

    name = "rounded logits"

    def plant(self, host: Host) -> nn.Module:
        return After(host.network, lambda logits: (logits * 8).round() / 8)

    def truth(self, host: Host) -> nn.Module:
        return host.network


class TinyLogits(Fault):
    """So small that float32 has few digits for them, and none for their slope."""

    name = "tiny logits"

    def plant(self, host: Host) -> nn.Module:
        return After(host.network, lambda logits: 1e-42 * logits)

    def truth(self, host: Host) -> nn.Module:
        return host.network


def quantised(images: Tensor) -> Tensor:
    """Eight levels a value."""
    return (images * 7).round() / 7


class QuantisedInput(Fault):
    name = "quantised input"
    paper = "Xu, Evans, Qi, 2018, arXiv 1704.01155"
    says = NO_GRADIENT

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, quantised)

    def truth(self, host: Host) -> nn.Module:
        return Before(host.network, straight_through(quantised))


class _SignFeatures(nn.Module):
    """The signs of a network's features below a linear layer fitted by least squares."""

    def __init__(self, host: Host, *, soft: bool) -> None:
        super().__init__()
        self.body, _ = host.split()
        self.soft = False
        with torch.no_grad():
            self.middle = self.body(host.images).median(dim=0).values
            targets = functional.one_hot(host.labels, host.classes).float()
            self.top = nn.Parameter(torch.linalg.lstsq(self._signs(host.images), targets).solution)
        self.soft = soft

    def forward(self, images: Tensor) -> Tensor:
        return self._signs(images) @ self.top

    def _signs(self, images: Tensor) -> Tensor:
        raised = self.body(images) - self.middle
        signs = raised.sign()
        if self.soft:
            signs = signs.detach() + raised - raised.detach()
        return torch.cat([signs, torch.ones_like(signs[:, :1])], dim=1)


class SignActivations(Fault):
    name = "sign activations"
    says = NO_GRADIENT

    def plant(self, host: Host) -> nn.Module:
        return _SignFeatures(host, soft=False)

    def truth(self, host: Host) -> nn.Module:
        return _SignFeatures(host, soft=True)


def _detect_and_shift(images: Tensor) -> Tensor:
    """Knows images that no file can hold, and moves those to a coarse grid."""
    off_grid = ((images * 255 - (images * 255).round()).abs() > 1e-3).flatten(1).any(dim=1)
    return torch.where(off_grid.view(-1, 1, 1, 1), quantised(images), images)


class DetectsAndShifts(Fault):
    name = "detects and shifts"
    says = NO_GRADIENT

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, _detect_and_shift)

    def truth(self, host: Host) -> nn.Module:
        return Before(host.network, straight_through(_detect_and_shift))
