"""Labelled images in batches, and the sample of them that variants are selected with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_tin.threat import ThreatModel


def batch_seed(seed: int, start: int) -> int:
    """The seed of the batch whose first row is ``start``."""
    return seed * 1_000_003 + start


@dataclass(frozen=True)
class ImageBatches:
    """Labelled images that are read in batches, as float32 on a device.

    Attributes:
        images: uint8 or float32 ``(N, 3, H, W)``; uint8 is divided by 255.
        labels: int64 ``(N,)``.
        size: number of images a batch.
        device: the device of the batches.
    """

    images: Tensor
    labels: Tensor
    size: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.labels)

    def starts(self) -> range:
        """The first row of each batch."""
        return range(0, len(self), self.size)

    def at(self, start: int) -> tuple[Tensor, Tensor]:
        """The batch that starts at this row: images float32 in [0, 1], and labels."""
        return self._given(slice(start, start + self.size))

    def rows(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The images with these numbers, int64 ``(n,)`` on the CPU, and their labels."""
        return self._given(numbers)

    def first(self, count: int) -> ImageBatches:
        """The first images only."""
        return ImageBatches(self.images[:count], self.labels[:count], self.size, self.device)

    def part(self, rows: range) -> ImageBatches:
        """The images of these rows, which follow each other; nothing is copied."""
        chosen = slice(rows.start, rows.stop)
        return ImageBatches(self.images[chosen], self.labels[chosen], self.size, self.device)

    def subset(self, numbers: Tensor) -> ImageBatches:
        """The images with these numbers only, int64 ``(n,)`` on the CPU."""
        return ImageBatches(self.images[numbers], self.labels[numbers], self.size, self.device)

    def all_images(self) -> Tensor:
        """Every image, float32 in [0, 1], on the device."""
        return self._given(slice(None))[0]

    def all_labels(self) -> Tensor:
        """Every label, on the device."""
        return self.labels.to(self.device)

    def _given(self, chosen: slice | Tensor) -> tuple[Tensor, Tensor]:
        # Never the caller's own memory: an attack may write into its images by mistake.
        images = self.images[chosen].to(self.device, copy=True)
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        return images, self.labels[chosen].to(self.device)


def drawn(batches: ImageBatches, threat: ThreatModel, count: int, among: Tensor | None = None) -> Tensor:
    """A sample of images similar to those of an attack; the same at each call.

    The sample is random, since the first images may all have one class, or be easy. Every second image is
    moved to a random point of its ball, since a model may compute differently there.

    Args:
        batches: the images.
        threat: norm and eps.
        count: number of images; fewer if there are fewer.
        among: numbers of the images to draw from, int64 on the CPU; None: all.

    Returns:
        float32 ``(n, C, H, W)`` on the device of the batches.
    """
    numbers = torch.arange(len(batches)) if among is None else among
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))
    images, _ = batches.rows(numbers[order[:count]])
    if len(images) > 1:
        generator = torch.Generator(batches.device).manual_seed(0)
        images[1::2] = threat.ball(images[1::2]).random(generator)
    return images
