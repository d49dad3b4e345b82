"""Test whether logits change if an image is shown again, with other random numbers or in another batch."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_tin.benchmarks.trust.frozen import ProbedModel

# Number of images that are shown alone.
_ALONE = 8
# How far logits may move, as a fraction of the typical margin. If the same batch is repeated, only float
# rounding differs. In another batch other kernels may compute, in a lower precision if the model chose one.
_SAME, _SAME_IN_OTHER_COMPANY = 1e-3, 0.05
# Float rounding, relative to the logits, which may be much larger than a margin.
_ROUNDING = 1e-5
# Number of classes that decide top-1 and top-5.
_DECIDING = 6
_DARKER = 0.25
# Number of other sets of random numbers that a random model is tested with.
_DRAWS = 6


@dataclass(frozen=True)
class Answers:
    """The stability of a model's logits.

    Attributes:
        images: number of images that were shown again with other random numbers.
        differing: number of these images whose logits changed.
        draws: whether the model takes random numbers from torch, NumPy or Python in a forward pass.
        asked_again: number of images that were shown again with the same random numbers.
        changed: number of these images whose logits changed.
        regrouped: number of images that were shown in another batch: beside other images, in another order,
            or alone.
        moved: number of these images whose logits changed.
    """

    images: int
    differing: int = 0
    draws: bool = True
    asked_again: int = 0
    changed: int = 0
    regrouped: int = 0
    moved: int = 0

    @property
    def remember(self) -> bool:
        """Whether logits depend on earlier calls: they changed, and not because of random numbers."""
        return self.changed > 0 or (self.differing > 0 and not self.draws)

    @property
    def random(self) -> bool:
        """Whether logits depend on random numbers."""
        return self.differing > 0 and not self.remember


class Questions:
    """Show a model the same images repeatedly and compare its logits.

    Args:
        subject: the model.
        images: one batch, float32 ``(N, C, H, W)`` in [0, 1].
    """

    def __init__(self, subject: ProbedModel, images: Tensor) -> None:
        self._subject = subject
        self._images = images
        self._logits = subject.logits(images)

    def answers(self) -> Answers:
        """Run all tests; :meth:`changed` may find more after the model was called for other purposes."""
        subject, images = self._subject, len(self._images)
        differing = 0
        # A model that draws one of a few values for each batch may draw the same value twice.
        for draw in range(1, (_DRAWS if subject.draws else 1) + 1):
            with subject.drawing(draw):
                other = subject.logits(self._images)
            differing = max(differing, int(apart(other, self._logits, _SAME).sum()))
            if differing:
                break
        changed = max(self.changed(), self.changed())
        # If a model remembers earlier calls, a change may not come from the other images of a batch.
        regrouped, moved = (0, 0) if changed else self._regrouped(orders=differing == 0)
        return Answers(images, differing, subject.draws, images, changed, regrouped, moved)

    def changed(self) -> int:
        """Number of images whose logits differ from the first call."""
        return int(apart(self._subject.logits(self._images), self._logits, _SAME).sum())

    def _regrouped(self, *, orders: bool) -> tuple[int, int]:
        """Show images in another batch with the same random numbers.

        Every second image is replaced by a darker one. The others keep their places in the batch, and so they
        keep their random numbers.

        Args:
            orders: also show the images in reverse order and alone; a random model then draws other numbers.

        Returns:
            The number of images that were shown, and the number of those whose logits changed.
        """
        images = self._images
        staying = torch.arange(len(images), device=images.device) % 2 == 1
        others = torch.where(staying.view(-1, 1, 1, 1), images, _DARKER * images.flip(-1))
        moved = staying & self._moved(self._subject.logits(others))
        if not orders:
            return int(staying.sum()), int(moved.sum())
        moved |= self._moved(self._subject.logits(images.flip(0)).flip(0))
        with suppress(Exception):  # some models accept no batch of a single image
            singly = torch.cat([self._subject.logits(image[None]) for image in images[:_ALONE]])
            moved[:_ALONE] |= self._moved(singly)
        return len(images), int(moved.sum())

    def _moved(self, logits: Tensor) -> Tensor:
        return apart(logits, self._logits, _SAME_IN_OTHER_COMPANY)


def typical_margin(logits: Tensor) -> Tensor:
    """The median difference of an image's two highest logits, a scalar tensor.

    Unlike the range of the logits, it does not grow if a class is masked by a huge negative logit.

    Args:
        logits: ``(N, C)``, with at least two classes.
    """
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return (first - second).median()


def apart(logits: Tensor, others: Tensor, part: float) -> Tensor:
    """Rows whose highest logits differ by more than a fraction of the typical margin, bool ``(n,)``.

    The function compares the differences between the highest logit and the next few, because they decide
    top-1 and top-5.

    Args:
        logits: logits of the first ``n`` rows of ``others``, in the same order, ``(n, C)``.
        others: ``(N, C)``, N at least ``n``.
        part: the fraction of the typical margin.
    """
    high = others.topk(min(_DECIDING, others.shape[1]), dim=1).indices[: len(logits)]
    ours, theirs = logits.gather(1, high), others[: len(logits)].gather(1, high)
    off = ((ours - ours[:, :1]) - (theirs - theirs[:, :1])).abs()
    least = torch.maximum(part * typical_margin(others), _ROUNDING * (theirs.abs() + theirs[:, :1].abs()))
    return (off > least).any(dim=1)
