"""Networks that compute otherwise for some images: a convolution whose norm is left out the second time.

Folding that norm into the convolution is right for all other images, and wrong for these.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import TOY_CLASSES, draw_toy_images

Ways = Callable[[Tensor, Tensor], Tensor]


class TwoWays(nn.Module):
    """A small network with batch norm that uses its second convolution once more for some images.

    Args:
        second: maps images ``(N, 3, H, W)`` and their logits to the images that take the second way, too,
            bool ``(N,)``.
    """

    def __init__(self, second: Ways) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Sequential(
                nn.Conv2d(3, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()
            )
            self.convolution = nn.Conv2d(12, 12, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(12)
            self.head = nn.Linear(12 * 16, TOY_CLASSES)
        self.second = second

    def forward(self, images: Tensor) -> Tensor:
        maps, logits = self.first(images)
        again = self.second(images, logits.detach())
        if not bool(again.any()):
            return logits
        return logits.index_put((again.nonzero().squeeze(1),), self.other(maps[again]))

    def first(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps, and the logits of the one way."""
        maps = functional.relu(self.norm(self.convolution(self.stem(images))))
        return maps, self._answers(maps)

    def other(self, maps: Tensor) -> Tensor:
        """The logits of the other way."""
        return self._answers(maps + 2 * torch.tanh(self.convolution(maps)))

    def others(self, images: Tensor) -> Tensor:
        """Which images go the other way, bool ``(N,)``."""
        with torch.no_grad():
            return self.second(images, self.first(images)[1])

    def _answers(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.head(functional.avg_pool2d(maps, 2).flatten(1))
        return logits


def _lead(logits: Tensor) -> Tensor:
    """The lead of the strongest class over the second, ``(N,)``."""
    first, second = logits.topk(2, dim=1).values.T
    return first - second


def unsure(images: Tensor, logits: Tensor) -> Tensor:
    """Hard images: two classes are close; a tenth of the clean ones."""
    return _lead(logits) < 4.2


def confident(images: Tensor, logits: Tensor) -> Tensor:
    """The strongest class is far above all others; a tenth of the clean ones."""
    return logits.amax(dim=1) - logits.mean(dim=1) > 12.9


def bright(images: Tensor, logits: Tensor) -> Tensor:
    """The image is bright; a tenth of the clean ones."""
    return images.mean(dim=(1, 2, 3)) > 0.5095


def attacked(images: Tensor, logits: Tensor) -> Tensor:
    """Two classes are closer than in any clean image."""
    return _lead(logits) < 2.0


WAYS = {way.__name__: way for way in (unsure, confident, bright, attacked)}


@cache
def trained(name: str) -> TwoWays:
    """The network, in eval mode, of one of :data:`WAYS`; nothing may change it."""
    model = TwoWays(WAYS[name])
    images, labels = draw_toy_images(320, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        maps, logits = model.first(images)
        both = torch.cat([logits, model.other(maps)])
        functional.cross_entropy(both, labels.repeat(2)).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()
