"""The choices of the gallery and saliency commands."""

from __future__ import annotations

from enum import StrEnum


class Rule(StrEnum):
    """The rule that chooses the images of a gallery.

    ``random``: any images. ``smallest_margin``: those closest to the decision boundary after the attack.
    ``confident``: the successes with the most confident wrong prediction. ``survivors``: random images that
    are still correct under the attack. Random choices follow from a seed.
    """

    random = "random"
    smallest_margin = "smallest-margin"
    confident = "confident"
    survivors = "survivors"


class Method(StrEnum):
    """The method that attributes a prediction to an image's pixels.

    ``saliency``: Simonyan et al., 2014, arXiv 1312.6034. ``integrated_gradients``: Sundararajan et al., 2017,
    arXiv 1703.01365. ``grad_cam``: Selvaraju et al., 2017, arXiv 1610.02391.
    """

    saliency = "saliency"
    integrated_gradients = "integrated-gradients"
    grad_cam = "grad-cam"


class Kind(StrEnum):
    """The version of an image: unchanged, its box alone, or after the attack."""

    clean = "clean"
    crop = "crop"
    adversarial = "adversarial"
