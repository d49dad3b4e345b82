"""Honest configurations, as data: a careful user may measure them, and no trust check may flag them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from robustbench_tin.defenses import parse_defense


class Scaled(nn.Module):
    """A network whose logits are multiplied by a factor: the same answers, other losses.

    Args:
        network: pixels to logits.
        factor: above 0.
    """

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.network(images)
        return logits


@dataclass(frozen=True)
class Configuration:
    """A network and how it is measured.

    Attributes:
        network: a name of the zoo, or ``toy``.
        eps: budgets, in units of the pixel range.
        images: their number.
        attacks: specs, with commas between them.
        norm: ``linf`` or ``l2``.
        eot: passes averaged for one gradient.
        wrap: a defense that runs at test time, around the network.
        scale: factor on the logits.
    """

    network: str
    eps: tuple[float, ...]
    images: int = 100
    attacks: str = "fgsm,pgd"
    norm: str = "linf"
    eot: int = 1
    wrap: str | None = None
    scale: float = 1

    @property
    def name(self) -> str:
        """A unique name for it."""
        parts = [self.network, self.wrap, f"logits × {self.scale:g}" if self.scale != 1 else None]
        described = " + ".join(part for part in parts if part)
        averaged = f", eot {self.eot}" if self.eot > 1 else ""
        budgets = ", ".join(self.shown(eps) for eps in self.eps)
        return f"{described}: {self.norm} {budgets}, {self.images} images{averaged}"

    def shown(self, eps: float) -> str:
        """A budget as people read it: in 255ths if it is a multiple of a quarter of one."""
        level = 255 * eps
        in_quarters = self.norm == "linf" and abs(4 * level - round(4 * level)) < 1e-6
        return f"{level:g}/255" if in_quarters else f"{eps:g}"

    def around(self, network: nn.Module) -> nn.Module:
        """The model that is measured."""
        model = network if self.wrap is None else parse_defense(self.wrap).wrap(network)
        return (model if self.scale == 1 else Scaled(model, self.scale)).eval()


def _linf(*levels: float) -> tuple[float, ...]:
    """Budgets in 255ths."""
    return tuple(level / 255 for level in levels)


ALL = "fgsm,pgd,pgd:criterion=top1,noise"
TOP1 = "pgd:criterion=top1,noise"
APGD = "apgd-ce:steps=20,fgsm"

CONFIGURATIONS = [
    # A standard network: from a budget that hardly moves it to one that leaves nothing.
    Configuration("resnet-std", (0.01, 0.03), 250, ALL),
    Configuration("resnet-std", _linf(0.25, 1), 250),
    Configuration("resnet-std", _linf(2, 8), 200),
    Configuration("resnet-std", _linf(16, 64), 100),
    Configuration("resnet-std", _linf(1, 4), 20),
    Configuration("resnet-std", _linf(0.5, 4), 40, TOP1),
    Configuration("resnet-std", _linf(0.5, 2), 100, APGD),
    Configuration("resnet-std", _linf(1), 150, "fast"),
    Configuration("resnet-std", (0.1, 0.5), 150, norm="l2"),
    Configuration("resnet-std", (0.25, 3), 50, ALL, norm="l2"),
    # Adversarially trained ones: high accuracy under attack that is real.
    Configuration("resnet-at-linf", _linf(8), 250, ALL),
    Configuration("resnet-at-linf", _linf(0.25, 4), 100),
    Configuration("resnet-at-linf", _linf(16, 64), 100),
    Configuration("resnet-at-linf", _linf(8), 20),
    Configuration("resnet-at-linf", _linf(2, 16), 40, APGD),
    Configuration("resnet-at-linf", _linf(8), 100, "fast"),
    Configuration("resnet-at-linf", (0.5, 1.5), 100, norm="l2"),
    Configuration("resnet-at-l2", (0.25, 0.5, 1), 150, norm="l2"),
    Configuration("resnet-at-l2", _linf(2, 8), 60, ALL),
    Configuration("resnet-at-l2", (3,), 20, norm="l2"),
    # Other architectures and normalisations.
    Configuration("vit", _linf(0.5, 2), 200),
    Configuration("vit", _linf(8, 32), 50, ALL),
    Configuration("vit", (0.5,), 60, "pgd,pgd:criterion=top1,fast", norm="l2"),
    Configuration("vit", _linf(1), 20),
    Configuration("convnext-layer-norm", _linf(1, 4), 150),
    Configuration("convnext-layer-norm", _linf(16), 30, APGD),
    Configuration("convnext-layer-norm", (0.3, 1), 60, norm="l2"),
    Configuration("convnext-group-norm", _linf(0.5, 2), 150),
    Configuration("convnext-group-norm", _linf(8, 32), 50),
    Configuration("convnext-group-norm", (0.5,), 20, ALL, norm="l2"),
    # Few classes and many.
    Configuration("resnet-2-classes", _linf(1, 4), 200, ALL),
    Configuration("resnet-2-classes", _linf(16, 64), 60),
    Configuration("resnet-2-classes", _linf(2), 20),
    Configuration("resnet-2-classes", (0.5, 2), 60, norm="l2"),
    Configuration("efficientnet-200-classes", _linf(0.25, 1), 120),
    Configuration("efficientnet-200-classes", _linf(4), 40, "pgd,pgd:criterion=top1,noise"),
    Configuration("efficientnet-200-classes", (0.5,), 50, norm="l2"),
    # Logits of another scale, under attacks that no scale misleads. Cross-entropy has no gradient at a factor
    # of 1000. At 0.001 it pulls all wrong classes up alike: PGD leaves up to 12 points more than ``fast``.
    Configuration("resnet-std", _linf(1, 8), attacks="fast", scale=1e-3),
    Configuration("resnet-at-linf", _linf(8), attacks="fast,apgd-dlr:steps=20", scale=1e-3),
    Configuration("vit", (0.5,), 50, "apgd-dlr:steps=20", norm="l2", scale=1e-3),
    Configuration("resnet-std", _linf(1), attacks="fast", scale=1e3),
    Configuration("resnet-at-linf", _linf(8), attacks="apgd-dlr:steps=20", scale=1e3),
    # Transforms with a replacement for their gradient.
    Configuration("resnet-std", _linf(2, 8), 60, wrap="bit-depth:bits=4"),
    Configuration("resnet-at-linf", _linf(8), wrap="bit-depth:bits=3"),
    Configuration("resnet-std", _linf(2, 8), 60, wrap="jpeg"),
    Configuration("resnet-at-linf", _linf(8), 60, wrap="jpeg"),
    # Random ones, their gradients averaged.
    Configuration("resnet-std", _linf(2, 8), 30, eot=20, wrap="random-resize"),
    Configuration("resnet-at-linf", _linf(8), 50, "pgd", eot=20, wrap="random-resize"),
    Configuration("resnet-at-linf", _linf(8), 20, "pgd", eot=20, wrap="smoothing:sigma=0.05,n0=20,samples=1"),
    # The toy network of the tests.
    Configuration("toy", (0.01, 0.03), 160, ALL),
    Configuration("toy", _linf(0.25, 64), 250),
    Configuration("toy", _linf(1, 4), 20, ALL),
    Configuration("toy", (0.15, 0.5), 160, ALL, norm="l2"),
]
