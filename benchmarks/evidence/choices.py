"""The choices that the commands on galleries and saliency have."""

from __future__ import annotations

from enum import StrEnum


class Rule(StrEnum):
    """How images are chosen; nobody chooses them by hand.

    ``random`` takes any image. ``smallest_margin`` takes those closest to the decision boundary after the
    attack. ``confident`` takes the successes in whose wrong class the model is most confident. ``survivors``
    takes random images that are right under the attack. What is random follows from a seed.
    """

    random = "random"
    smallest_margin = "smallest-margin"
    confident = "confident"
    survivors = "survivors"


class Method(StrEnum):
    """How an image's pixels are credited with the model's prediction.

    ``saliency``: Simonyan et al., 2014, arXiv 1312.6034. ``integrated_gradients``: Sundararajan et al., 2017,
    arXiv 1703.01365. ``grad_cam``: Selvaraju et al., 2017, arXiv 1610.02391.
    """

    saliency = "saliency"
    integrated_gradients = "integrated-gradients"
    grad_cam = "grad-cam"


class Kind(StrEnum):
    """Which version of an image: as it is, its box alone, or after the attack."""

    clean = "clean"
    crop = "crop"
    adversarial = "adversarial"
