"""A look at robustness after each epoch: early stopping, and catastrophic overfitting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from robustbench_tin.data.base import Split

# Of the training images: held out for early stopping, and looked at where nothing is held out.
HELD_OUT = 0.05
LOOKED_AT = 0.025
FEWEST = 64
MOST = 1000


@dataclass(frozen=True)
class Robustness:
    """Accuracies, 0 to 1, of a classifier on the images that a monitor looks at.

    Attributes:
        fgsm: under FGSM.
        pgd: under PGD with 5 steps.
    """

    fgsm: float
    pgd: float


Probe = Callable[[nn.Module, Tensor, Tensor], Robustness]
"""Attacks a classifier on uint8 images ``(N, 3, H, W)`` with their labels, and leaves it as it was."""


def hold_out(split: Split, seed: int) -> tuple[Split, Split]:
    """The training images without a part of them, and that part: a twentieth, from 64 to 1000 of them."""
    count = min(max(int(HELD_OUT * len(split)), FEWEST), MOST, len(split) // 2)
    order = np.random.default_rng([seed, count]).permutation(len(split))
    return split.take(np.sort(order[count:])), split.take(np.sort(order[:count]))


def some(split: Split, seed: int, trained_on: int | None = None) -> Split:
    """Some of the images: one for every forty that are trained on, from 64 to 1000; None: on all of these."""
    trained_on = len(split) if trained_on is None else trained_on
    count = min(max(int(LOOKED_AT * trained_on), FEWEST), MOST, len(split))
    return split.take(np.sort(np.random.default_rng([seed, count]).permutation(len(split))[:count]))


class Monitor:
    """Looks at a classifier after each epoch, and keeps the weights that training should end with.

    With ``patience`` these are the ones of the highest accuracy under PGD: Rice, Wong and Kolter, 2020,
    "Overfitting in adversarially robust deep learning", arXiv 2002.11569. Otherwise they are the last good
    ones before catastrophic overfitting, which single-step training is prone to (Wong, Rice and Kolter, 2020,
    arXiv 2001.03994): the accuracy under PGD falls to half of its best or less, beyond what chance would do,
    while that under FGSM is no lower than it was then. It may take some epochs to fall so far; good are those
    in which it is within a standard error of its best.

    Args:
        images: uint8, on the device of the classifier.
        labels: of these.
        probe: attacks the classifier.
        patience: epochs without a higher accuracy under PGD that end the training; None: any number.
        single_step: watch for catastrophic overfitting.

    Attributes:
        seen: the accuracies of the last look; None before it.
        best: the accuracies of the best epoch so far.
        best_epoch: which that was, from 0.
        kept_epoch: which epoch the kept weights are of.
        kept: their state dict.
        overfitted: whether catastrophic overfitting was seen.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, probe: Probe, *, patience: int | None, single_step: bool
    ) -> None:
        self._images = images
        self._labels = labels
        self._probe = probe
        self._patience = patience
        self._single_step = single_step
        self.seen: Robustness | None = None
        self.best: Robustness | None = None
        self.best_epoch = 0
        self.kept_epoch = 0
        self.kept: dict[str, Tensor] = {}
        self.overfitted = False

    def look(self, classifier: nn.Module, epoch: int) -> str | None:
        """Measure the classifier as it is after an epoch; a reason to end the training, or None."""
        seen = self.seen = self._probe(classifier, self._images, self._labels)
        if self._single_step and self.best is not None and self._has_overfitted(seen, self.best):
            self.overfitted = True
            return (
                f"catastrophic overfitting in epoch {epoch + 1}: on {len(self._images)} training images FGSM"
                f" accuracy went from {self.best.fgsm:.2f} to {seen.fgsm:.2f}, PGD-5 accuracy from"
                f" {self.best.pgd:.2f} to {seen.pgd:.2f}; stopped, with the weights of epoch"
                f" {self.kept_epoch + 1}"
            )
        better = self.best is None or seen.pgd > self.best.pgd
        if better:
            self.best, self.best_epoch = seen, epoch
        assert self.best is not None
        fall, error = self._fall(seen, self.best)
        if better or (self._patience is None and fall <= error):
            self.kept_epoch = epoch
            self.kept = {name: value.detach().clone() for name, value in classifier.state_dict().items()}
        if self._patience is not None and epoch - self.best_epoch >= self._patience:
            return (
                f"stopped after epoch {epoch + 1}: PGD-5 accuracy on {len(self._images)} held-out training"
                f" images was highest, {self.best.pgd:.2f}, after epoch {self.best_epoch + 1}, whose weights"
                " are kept"
            )
        return None

    @property
    def decides(self) -> bool:
        """Whether training ends with the kept weights, not with the last."""
        return bool(self.kept) and (self.overfitted or self._patience is not None)

    def facts(self) -> dict[str, Any]:
        """All but the kept weights, for a checkpoint."""
        best = None if self.best is None else asdict(self.best)
        return {
            "best": best,
            "best_epoch": self.best_epoch,
            "kept_epoch": self.kept_epoch,
            "overfitted": self.overfitted,
        }

    def restore(self, facts: dict[str, Any], kept: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.best = None if facts["best"] is None else Robustness(**facts["best"])
        self.best_epoch, self.kept_epoch = facts["best_epoch"], facts["kept_epoch"]
        self.overfitted = facts["overfitted"]
        self.kept = kept

    def _has_overfitted(self, seen: Robustness, best: Robustness) -> bool:
        fall, error = self._fall(seen, best)
        return seen.fgsm >= best.fgsm and fall >= best.pgd / 2 and fall > 2 * error

    def _fall(self, seen: Robustness, best: Robustness) -> tuple[float, float]:
        """By how much the accuracy under PGD is lower than it was, and the standard error of that."""
        variance = (seen.pgd * (1 - seen.pgd) + best.pgd * (1 - best.pgd)) / len(self._images)
        return best.pgd - seen.pgd, math.sqrt(variance)
