"""Spot checks during an attack: does the variant give the model's logits at the points of the search?

Before its use, a variant is compared with the model on a few images. A model may compute differently for
other images (for example, use a layer twice if it is unsure), or only under attack. So the variant is
compared again at some of the points that the search visits, and at more of its final points. The model
verifies each success anyway; but a wrong variant would let other images survive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from robustbench_tin.attacks.acceleration.agreement import is_wrong
from robustbench_tin.runtime import is_asynchronous

if TYPE_CHECKING:
    from robustbench_tin.attacks.acceleration.variant_label import VariantLabel
    from robustbench_tin.attacks.engine.attacked_model import AttackedModel

# Largest number of points compared: a part of the passes of variants, and some in advance. A visited point
# needs a pass of the model and one of the variant, so that all comparisons are at most 1.2 % of the passes.
# They take slightly more of the time: they are small forward passes, some of them of the model itself.
_ENDS, _ENDS_IN_ADVANCE = 1 / 150, 48
_PASSED, _PASSED_IN_ADVANCE = 1 / 400, 24
# Largest part of the points of a single pass, so that later passes are checked too.
_OF_A_PASS = 1 / 16
# Smallest number of points compared at once during a search. A pass with few images takes longer per image;
# on a GPU it takes about as long as one with many.
_TOGETHER, _TOGETHER_ON_GPU = 32, 256

Result = TypeVar("Result")
OnImages = Callable[[int], None]


class WrongVariantError(Exception):
    """A variant's logits differ from its model's by more than rounding.

    Attributes:
        label: the label of the variant.
        apart: number of points with different logits.
        compared: number of points compared for this variant.
    """

    def __init__(self, label: VariantLabel, apart: int, compared: int) -> None:
        super().__init__(label, apart, compared)
        self.label, self.apart, self.compared = label, apart, compared

    def __str__(self) -> str:
        return (
            f"{self.label} gave other logits than the model at {self.apart} of {self.compared} points:"
            " searched again with the model itself"
        )


class SpotChecks:
    """Compares variants with their model during an attack; does nothing if the model itself is searched.

    Args:
        attacked: the attacked model, entered and prepared.
    """

    def __init__(self, attacked: AttackedModel) -> None:
        self._attacked = attacked
        self._attacked.watch_variants(self._sample_pass)
        self._before = attacked.variant_passes
        self._generator = torch.Generator().manual_seed(0)
        self._points: list[Tensor] = []
        self._ends: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._points_taken = self._ends_taken = 0
        # By label: the number of points with different logits, and of points compared.
        self._found: dict[VariantLabel, tuple[int, int]] = {}

    def offer(self, points: Tensor, logits: Tensor | None = None) -> None:
        """Add a random sample of final points; the passes so far limit its size.

        Args:
            points: final points of the search, float32 ``(N, C, H, W)``.
            logits: the model's own logits at them; None: to be computed.
        """
        room = self._room(_ENDS, _ENDS_IN_ADVANCE) - self._ends_taken
        if room < len(points):
            chosen = self._drawn(len(points), max(0, room), points.device)
            points = points.index_select(0, chosen)
            logits = None if logits is None else logits.index_select(0, chosen)
        self.insist(points, logits)

    def insist(self, points: Tensor, logits: Tensor | None = None) -> None:
        """Add all of these points, at which the variant and the model seem to differ."""
        if not self._attacked.used_variants or len(points) == 0:
            return
        self._ends_taken += len(points)
        if logits is None:
            self._points.append(points)
        else:
            self._ends.append(points)
            self._logits.append(logits)

    def look(self) -> None:
        """Compare the points so far if there are enough for a pass; this waits for the device.

        Raises:
            WrongVariantError: if the logits of a variant differ from the model's.
        """
        gathered = (*self._points, *self._ends)
        on_gpu = bool(gathered) and is_asynchronous(gathered[0].device)
        if sum(map(len, gathered)) >= (_TOGETHER_ON_GPU if on_gpu else _TOGETHER):
            self.settle()

    def settle(self) -> None:
        """Compare all points so far; this waits for the device.

        Raises:
            WrongVariantError: if the logits of a variant differ from the model's.
        """
        gathered = [*self._ends, *self._points]
        logits = torch.cat(self._logits) if self._logits else None
        self._points, self._ends, self._logits = [], [], []
        if not gathered:
            return
        points = torch.cat(gathered)
        for variant, apart in self._attacked.apart(points, logits):
            before, compared = self._found.get(variant.label, (0, 0))
            found = before + apart, compared + len(points)
            self._found[variant.label] = found
            if is_wrong(variant.precision, *found):
                raise WrongVariantError(variant.label, *found)

    def _sample_pass(self, images: Tensor) -> None:
        """Add some of the images of a variant's pass; this does not wait for the device."""
        room = self._room(_PASSED, _PASSED_IN_ADVANCE) - self._points_taken
        count = min(room, math.ceil(_OF_A_PASS * len(images)))
        if count > 0:
            self._points.append(images.index_select(0, self._drawn(len(images), count, images.device)))
            self._points_taken += count

    def _room(self, part: float, in_advance: int) -> int:
        return in_advance + int(part * (self._attacked.variant_passes - self._before))

    def _drawn(self, of: int, count: int, device: torch.device) -> Tensor:
        """Distinct random row numbers, in ascending order."""
        rows = torch.randperm(of, generator=self._generator)[:count].sort().values
        return rows.to(device, non_blocking=True)


def with_right_variant(attacked: AttackedModel, work: Callable[[], Result]) -> Result:
    """Do some work. If the variant turns out to be wrong, do it again from the start with the model itself.

    Args:
        attacked: the attacked model that the work searches with.
        work: a function that does the same at each call, except for the variant, and raises
            :class:`WrongVariantError` if :class:`SpotChecks` does.
    """
    try:
        return work()
    except WrongVariantError as error:
        attacked.refute_variant(error)
        return work()


def told_once(on_images: OnImages | None) -> Callable[[], OnImages]:
    """A factory of progress callbacks for repeated starts of the same work: each image is reported once.

    Args:
        on_images: called with the number of images that are newly done; None: nobody listens.
    """
    told = 0

    def started() -> OnImages:
        done = 0

        def report(images: int) -> None:
            nonlocal done, told
            done += images
            if on_images is not None and done > told:
                on_images(done - told)
            told = max(told, done)

        return report

    return started
