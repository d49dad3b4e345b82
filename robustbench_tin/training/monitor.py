"""A robustness measurement after each epoch: early stopping, and catastrophic overfitting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_tin.data.base import Split

# Fractions of the training images: held out for early stopping, and watched if none are held out.
HELD_OUT = 0.05
LOOKED_AT = 0.025
FEWEST = 64
MOST = 1000


@dataclass(frozen=True)
class Robustness:
    """Robust accuracies, 0 to 1, on the images that a monitor watches.

    Attributes:
        fgsm: accuracy under FGSM.
        pgd: accuracy under PGD with 5 steps.
    """

    fgsm: float
    pgd: float


Probe = Callable[[nn.Module, Tensor, Tensor], Robustness]
"""Attacks a classifier on uint8 images ``(N, 3, H, W)`` with their labels, without changing it."""


def hold_out(split: Split, seed: int) -> tuple[Split, Split]:
    """Split the training images into the rest and a held-out part: a twentieth, 64 to 1000 images."""
    count = min(max(int(HELD_OUT * len(split)), FEWEST), MOST, len(split) // 2)
    order = np.random.default_rng([seed, count]).permutation(len(split))
    return split.take(np.sort(order[count:])), split.take(np.sort(order[:count]))


def some(split: Split, seed: int, trained_on: int | None = None) -> Split:
    """Some of the images: one per forty training images, 64 to 1000; None: the images of ``split``."""
    trained_on = len(split) if trained_on is None else trained_on
    count = min(max(int(LOOKED_AT * trained_on), FEWEST), MOST, len(split))
    return split.take(np.sort(np.random.default_rng([seed, count]).permutation(len(split))[:count]))


class Monitor:
    """Measures a classifier after each epoch, and keeps the weights that training should end with.

    With ``patience``, these are the weights with the highest accuracy under PGD: Rice, Wong and Kolter, 2020,
    "Overfitting in adversarially robust deep learning", arXiv 2002.11569. Otherwise they are the last good
    weights before catastrophic overfitting, which occurs in single-step training (Wong, Rice and Kolter,
    2020, arXiv 2001.03994): the accuracy under PGD falls to half of its best or less, by more than chance
    explains, while the accuracy under FGSM is no lower than in that best epoch. The fall may take some
    epochs; an epoch is good if its accuracy under PGD is within a standard error of the best.

    A classifier that gives every image the same label is robust, and loses this robustness when it begins to
    learn. An accuracy under PGD that is no higher than the share of the most common label is therefore never
    the best, and a fall counts only if the best was higher by more than chance explains.

    Args:
        images: uint8, on the device of the classifier.
        labels: labels of the images.
        probe: attacks the classifier.
        patience: number of epochs without a higher accuracy under PGD that end the training; None for no
            limit.
        single_step: watch for catastrophic overfitting.

    Attributes:
        seen: accuracies of the last measurement; None before the first.
        best: accuracies of the best epoch so far.
        best_epoch: number of that epoch, from 0.
        kept_epoch: number of the epoch whose weights are kept.
        kept: the kept state dict.
        overfitted: True if catastrophic overfitting occurred.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, probe: Probe, *, patience: int | None, single_step: bool
    ) -> None:
        self._images = images
        self._labels = labels
        self._probe = probe
        self._patience = patience
        self._single_step = single_step
        # The highest accuracy of a classifier that gives every image the same label.
        self._constant = int(torch.bincount(labels).max()) / len(labels)
        self.seen: Robustness | None = None
        self.best: Robustness | None = None
        self.best_epoch = 0
        self.kept_epoch = 0
        self.kept: dict[str, Tensor] = {}
        self.overfitted = False

    def look(self, classifier: nn.Module, epoch: int) -> str | None:
        """Measure the classifier after an epoch; returns a reason to end the training, or None."""
        seen = self.seen = self._probe(classifier, self._images, self._labels)
        if self._single_step and self.best is not None and self._has_overfitted(seen, self.best):
            self.overfitted = True
            return (
                f"catastrophic overfitting in epoch {epoch + 1}: on {len(self._images)} training images FGSM"
                f" accuracy went from {self.best.fgsm:.2f} to {seen.fgsm:.2f}, PGD-5 accuracy from"
                f" {self.best.pgd:.2f} to {seen.pgd:.2f}; stopped, with the weights of epoch"
                f" {self.kept_epoch + 1}"
            )
        better = self.best is None or self.best.pgd <= self._constant or seen.pgd > self.best.pgd
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
        """True if training ends with the kept weights instead of the last."""
        return bool(self.kept) and (self.overfitted or self._patience is not None)

    def facts(self) -> dict[str, Any]:
        """The state without the kept weights, for a checkpoint."""
        best = None if self.best is None else asdict(self.best)
        return {
            "best": best,
            "best_epoch": self.best_epoch,
            "kept_epoch": self.kept_epoch,
            "overfitted": self.overfitted,
        }

    def restore(self, facts: dict[str, Any], kept: dict[str, Tensor]) -> None:
        """Continue from a checkpoint."""
        self.best = None if facts["best"] is None else Robustness(**facts["best"])
        self.best_epoch, self.kept_epoch = facts["best_epoch"], facts["kept_epoch"]
        self.overfitted = facts["overfitted"]
        self.kept = kept

    def _has_overfitted(self, seen: Robustness, best: Robustness) -> bool:
        fall, error = self._fall(seen, best)
        fell = fall >= best.pgd / 2 and fall > 2 * error
        had_learned = best.pgd - self._constant > 2 * self._error(best)
        return fell and had_learned and seen.fgsm >= best.fgsm

    def _fall(self, seen: Robustness, best: Robustness) -> tuple[float, float]:
        """The drop of the accuracy under PGD from its best, and the standard error of the drop."""
        return best.pgd - seen.pgd, math.hypot(self._error(seen), self._error(best))

    def _error(self, measured: Robustness) -> float:
        """The standard error of an accuracy under PGD."""
        return math.sqrt(measured.pgd * (1 - measured.pgd) / len(self._images))
