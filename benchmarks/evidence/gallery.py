"""Galleries: images of a run before and after an attack, chosen by a stated rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.evidence.choices import Rule


@dataclass(frozen=True)
class GalleryImage:
    """One image before and after an attack.

    Attributes:
        cell: MODEL/DEFENSE/SEED.
        attack: canonical spec.
        eps: budget in units of the pixel range.
        norm: ``linf`` or ``l2``.
        index: number of the image among the run's evaluated images.
        rule: the rule that chose it, see :class:`Rule`.
        label: true class.
        before: predicted class of the clean image.
        before_confidence: softmax probability of ``before``, in [0, 1].
        after: predicted class of the adversarial image, in the 8-bit form stored here.
        after_confidence: softmax probability of ``after``, in [0, 1].
        distance: distance of the adversarial from the clean image in ``norm``, in units of the pixel range.
        clean: uint8 ``(H, W, 3)``.
        perturbation: uint8 ``(H, W, 3)``: 128 plus ``magnified_by`` times the difference in levels.
        adversarial: uint8 ``(H, W, 3)``.
        magnified_by: see ``perturbation``.
    """

    cell: str
    attack: str
    eps: float
    norm: str
    index: int
    rule: str
    label: int
    before: int
    before_confidence: float
    after: int
    after_confidence: float
    distance: float
    clean: npt.NDArray[np.uint8]
    perturbation: npt.NDArray[np.uint8]
    adversarial: npt.NDArray[np.uint8]
    magnified_by: float


@dataclass(frozen=True)
class GallerySelection:
    """How the images of one measurement were chosen.

    Attributes:
        cell: MODEL/DEFENSE/SEED.
        attack: canonical spec.
        eps: budget in units of the pixel range.
        candidates: number of images that the rule chooses from.
        remade: number of images whose adversarial image was made again.
        not_reproduced: number of remade images that do not give the stored result; they are left out.
        lost_to_rounding: number of the others whose result changes when rounded to 8 bits; left out, too.
        kept: number of adversarial images that the run keeps and that give their stored prediction.
        not_as_kept: number of kept images that do not give it; they are made again.
        random: whether the model is random at test time; known only if images are left out.
    """

    cell: str
    attack: str
    eps: float
    candidates: int
    remade: int
    not_reproduced: int
    lost_to_rounding: int
    kept: int = 0
    not_as_kept: int = 0
    random: bool = False


@dataclass(frozen=True)
class Gallery:
    """A gallery of a run.

    Attributes:
        rule: the rule that chose its images.
        seed: seed of the choice.
        classes: class names in label order.
        images: the chosen images, grouped by measurement.
        selections: how images were chosen, one entry per measurement.
    """

    rule: Rule
    seed: int
    classes: tuple[str, ...]
    images: Sequence[GalleryImage]
    selections: Sequence[GallerySelection]


def magnified(
    clean: npt.NDArray[np.uint8], adversarial: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], float]:
    """The difference of two images around mid-grey, and its magnification.

    The factor is the largest whole number for which every value fits; 1 for equal images.

    Args:
        clean: uint8, of any shape.
        adversarial: uint8, of the same shape.
    """
    change = adversarial.astype(np.int64) - clean
    largest = int(np.abs(change).max(initial=0))
    factor = max(1, 127 // largest) if largest else 1
    return (128 + factor * change).clip(0, 255).astype(np.uint8), float(factor)


def distance(clean: npt.NDArray[np.uint8], adversarial: npt.NDArray[np.uint8], norm: str) -> float:
    """The distance between two 8-bit images, in units of the pixel range.

    Args:
        clean: uint8, of any shape.
        adversarial: uint8, of the same shape.
        norm: ``linf`` or ``l2``.
    """
    levels = np.abs(adversarial.astype(np.float64) - clean)
    return float(levels.max() if norm == "linf" else np.sqrt((levels**2).sum())) / 255
