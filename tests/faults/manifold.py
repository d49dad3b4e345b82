"""A small generative model of the training images, for defenses that draw images towards them."""

from __future__ import annotations

import torch
from torch import Tensor

from faults.host import Host
from faults.parts import drawn


class Manifold:
    """The principal components of the training images, as a linear autoencoder.

    Args:
        host: with the images.
    """

    def __init__(self, host: Host) -> None:
        flat = host.images.flatten(1)
        self.mean = flat.mean(dim=0)
        count = min(host.pixels // 8, len(flat) // 3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, spread, basis = torch.svd_lowrank(flat - self.mean, q=count, niter=1)
        self.basis = basis
        self.deviations = spread / len(flat) ** 0.5
        self.noise = float(self.deviations[-1])

    def encoded(self, images: Tensor) -> Tensor:
        """Codes ``(N, components)``."""
        return (images.flatten(1) - self.mean) @ self.basis

    def decoded(self, codes: Tensor, shape: torch.Size) -> Tensor:
        """Images of a shape."""
        return (self.mean + codes @ self.basis.T).view(shape)

    def projected(self, images: Tensor, steps: int = 12) -> Tensor:
        """The generator's output nearest to the images, found by steps from a code of a fixed seed."""
        codes = self.deviations * drawn(len(self.deviations), seed=5).expand(len(images), -1)
        for _ in range(steps):
            codes = codes + 0.5 * self.encoded(
                images - self.decoded(codes, images.shape) + self.mean.view(images.shape[1:])
            )
        return self.decoded(codes, images.shape)

    def shrunk(self, images: Tensor) -> Tensor:
        """The expected clean images under Gaussian noise (a Wiener filter)."""
        variance = self.deviations**2
        kept = (variance - self.noise**2).clamp_min(0) / variance
        return self.decoded(kept * self.encoded(images), images.shape)
