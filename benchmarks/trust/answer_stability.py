"""How a model answers when an image is shown again, with other random numbers, in other company."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_tin.benchmarks.trust.frozen import ProbedModel

# Images that are shown alone.
_ALONE = 8
# Parts of the typical margin that an answer may move by. The same batch again: float rounding only. In other
# company other kernels compute, in a lower precision if the model has chosen one.
_SAME, _SAME_IN_OTHER_COMPANY = 1e-3, 0.05
# Float rounding is a part of the logits themselves, which may be large beside a margin.
_ROUNDING = 1e-5
# Classes that decide top-1 and top-5.
_DECIDING = 6
_DARKER = 0.25
# Times that a model with random numbers is asked with others.
_DRAWS = 6


@dataclass(frozen=True)
class Answers:
    """What was found out about a model's answers.

    Attributes:
        images: number of images it was asked about twice, with other random numbers.
        differing: images whose answer was another one the second time.
        draws: whether the model takes random numbers from torch, NumPy or Python as it answers.
        asked_again: images that were shown once more, with the same random numbers as the first time.
        changed: images of them whose answer was another one.
        regrouped: images that were shown in other company: beside others, in another order, alone.
        moved: images of them whose answer was another one.
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
        """Whether answers follow from the calls before: they changed, and no random number did it."""
        return self.changed > 0 or (self.differing > 0 and not self.draws)

    @property
    def random(self) -> bool:
        """Whether answers follow from random numbers."""
        return self.differing > 0 and not self.remember


class Questions:
    """Shows a model its images again and again.

    Args:
        subject: the model.
        images: one batch, float32 ``(N, C, H, W)``.
    """

    def __init__(self, subject: ProbedModel, images: Tensor) -> None:
        self._subject = subject
        self._images = images
        self._logits = subject.logits(images)

    def answers(self) -> Answers:
        """Ask all questions; :meth:`changed` may find more once the model was asked other things."""
        subject, images = self._subject, len(self._images)
        differing = 0
        # A model that draws once a batch, from a few values, may draw the same twice.
        for draw in range(1, (_DRAWS if subject.draws else 1) + 1):
            with subject.drawing(draw):
                other = subject.logits(self._images)
            differing = max(differing, int(apart(other, self._logits, _SAME).sum()))
            if differing:
                break
        changed = max(self.changed(), self.changed())
        # If a model remembers earlier calls, no change can be put down to company.
        regrouped, moved = (0, 0) if changed else self._regrouped(orders=differing == 0)
        return Answers(images, differing, subject.draws, images, changed, regrouped, moved)

    def changed(self) -> int:
        """Images whose answer is not that of the first time."""
        return int(apart(self._subject.logits(self._images), self._logits, _SAME).sum())

    def _regrouped(self, *, orders: bool) -> tuple[int, int]:
        """Images shown in other company with the same random numbers, and those of them that moved.

        Every other image is replaced by a darker one: the rest keep their places, and with them what is drawn
        for them.

        Args:
            orders: show them in the reverse order and alone, too; a random model draws other numbers then.
        """
        images = self._images
        staying = torch.arange(len(images), device=images.device) % 2 == 1
        others = torch.where(staying.view(-1, 1, 1, 1), images, _DARKER * images.flip(-1))
        moved = staying & self._moved(self._subject.logits(others))
        if not orders:
            return int(staying.sum()), int(moved.sum())
        moved |= self._moved(self._subject.logits(images.flip(0)).flip(0))
        with suppress(Exception):  # a model that takes no single image
            singly = torch.cat([self._subject.logits(image[None]) for image in images[:_ALONE]])
            moved[:_ALONE] |= self._moved(singly)
        return len(images), int(moved.sum())

    def _moved(self, logits: Tensor) -> Tensor:
        return apart(logits, self._logits, _SAME_IN_OTHER_COMPANY)


def typical_margin(logits: Tensor) -> Tensor:
    """The median distance between an image's two highest logits, a scalar; of logits ``(N, C)``.

    No class that is masked by a huge logit stretches it, as it would the range.
    """
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return (first - second).median()


def apart(logits: Tensor, others: Tensor, part: float) -> Tensor:
    """Rows whose highest logits lie apart by more than a part of the typical margin, bool ``(n,)``.

    Compared are the distances of the few highest classes from the highest one, which decide top-1 and top-5.

    Args:
        logits: of the first rows of ``others``, in the same order, ``(n, C)``.
        others: ``(N, C)``.
        part: of the typical margin.
    """
    high = others.topk(min(_DECIDING, others.shape[1]), dim=1).indices[: len(logits)]
    ours, theirs = logits.gather(1, high), others[: len(logits)].gather(1, high)
    off = ((ours - ours[:, :1]) - (theirs - theirs[:, :1])).abs()
    least = torch.maximum(part * typical_margin(others), _ROUNDING * (theirs.abs() + theirs[:, :1].abs()))
    return (off > least).any(dim=1)
