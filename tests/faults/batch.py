"""An image's answer follows from the other images of its batch."""

from __future__ import annotations

from torch import Tensor, nn

from faults.base import Fault
from faults.host import Host
from faults.parts import Before
from faults.randomness import noisy

COMPANY = "other images of their batch"


def centred(images: Tensor) -> Tensor:
    """As batch norm without running statistics, or left in train mode, does it."""
    return images - images.mean(dim=(0, 2, 3), keepdim=True) + 0.5


def centred_and_noisy(images: Tensor) -> Tensor:
    """Both: neither may hide the other."""
    return noisy(centred(images))


def beside_the_first(images: Tensor) -> Tensor:
    """The first image of a batch shines through the others."""
    return 0.9 * images + 0.1 * images[:1]


class StatisticsOfTheBatch(Fault):
    name = "statistics of the batch"
    hides = False
    says = COMPANY
    clean = True

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, centred)


class AndRandom(Fault):
    name = "and random"
    hides = False
    says = COMPANY
    clean = True

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, centred_and_noisy)


class RandomAndOfTheBatch(Fault):
    name = "random, and statistics of the batch"
    hides = False
    says = "eot"

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, centred_and_noisy)


class OrderOfTheBatch(Fault):
    name = "order of the batch"
    hides = False
    says = COMPANY
    clean = True

    def plant(self, host: Host) -> nn.Module:
        return Before(host.network, beside_the_first)
