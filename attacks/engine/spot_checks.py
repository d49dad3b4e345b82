"""Spot checks of the variant that is searched with: does it answer as the model does where the search takes
it?

A variant is compared with the model before it is used, on a few images. A model may compute otherwise for
others (a layer used twice if it is not sure, say), or only under attack. So the search itself is looked at:
some of the points that it passes, and more of those that it ends with. What it takes for broken is verified
by the model anyway; the images that it leaves are the ones that a wrong variant would let survive.
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
    from robustbench_tin.attacks.engine.attacked_model import AttackedModel

# Points compared, at most: these parts of the passes that variants make, and some in advance. At a point on
# the way the model is asked as well as the variant, so that both together are 1.2 % of the passes; these are
# forward passes, small ones, and some of them the model's, so that they take a little more of the time.
_ENDS, _ENDS_IN_ADVANCE = 1 / 150, 48
_PASSED, _PASSED_IN_ADVANCE = 1 / 400, 24
# Of a single pass this part of the points at most: the next ones are to be seen as well.
_OF_A_PASS = 1 / 16
# Least number of points compared in one pass during a search. With few images a pass takes longer an image,
# and on a GPU about as long as one with many.
_TOGETHER, _TOGETHER_ON_GPU = 32, 256

Result = TypeVar("Result")
OnImages = Callable[[int], None]


class WrongVariantError(Exception):
    """A variant answered otherwise than its model, by more than rounding.

    Attributes:
        label: of the variant.
        apart: points at which it did.
        compared: points that were compared, this variant's alone.
    """

    def __init__(self, label: str, apart: int, compared: int) -> None:
        super().__init__(label, apart, compared)
        self.label, self.apart, self.compared = label, apart, compared

    def __str__(self) -> str:
        return (
            f"{self.label} answered otherwise than the model at {self.apart} of {self.compared} points:"
            " searched again with the model itself"
        )


class SpotChecks:
    """Compares variants with their model during an attack.

    Args:
        attacked: the model, entered and prepared; it tells what its variants are asked. Of a search with the
            model itself nothing is compared.
    """

    def __init__(self, attacked: AttackedModel) -> None:
        self._oracle = attacked
        self._oracle.on_variant = self._passed
        self._before = attacked.variant_passes
        self._generator = torch.Generator().manual_seed(0)
        self._points: list[Tensor] = []
        self._ends: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._points_taken = self._ends_taken = 0
        # Of each label, how many answers lay apart, and of how many.
        self._found: dict[str, tuple[int, int]] = {}

    def offer(self, points: Tensor, logits: Tensor | None = None) -> None:
        """Take some of these, drawn at random, as many as the passes so far allow.

        Args:
            points: where searches ended, float32 ``(N, C, H, W)``.
            logits: the model's own there; None: it is asked.
        """
        room = self._room(_ENDS, _ENDS_IN_ADVANCE) - self._ends_taken
        if room < len(points):
            chosen = self._drawn(len(points), max(0, room), points.device)
            points = points.index_select(0, chosen)
            logits = None if logits is None else logits.index_select(0, chosen)
        self.insist(points, logits)

    def insist(self, points: Tensor, logits: Tensor | None = None) -> None:
        """Take all of these: the variant and the model seem not to be of one mind there."""
        if not self._oracle.used_variants or len(points) == 0:
            return
        self._ends_taken += len(points)
        if logits is None:
            self._points.append(points)
        else:
            self._ends.append(points)
            self._logits.append(logits)

    def look(self) -> None:
        """Compare what has gathered, if that is enough for a pass; this waits for the device.

        Raises:
            WrongVariantError: if a variant answers otherwise than the model.
        """
        gathered = (*self._points, *self._ends)
        on_gpu = bool(gathered) and is_asynchronous(gathered[0].device)
        if sum(map(len, gathered)) >= (_TOGETHER_ON_GPU if on_gpu else _TOGETHER):
            self.settle()

    def settle(self) -> None:
        """Compare all that has gathered; this waits for the device.

        Raises:
            WrongVariantError: likewise.
        """
        gathered = [*self._ends, *self._points]
        logits = torch.cat(self._logits) if self._logits else None
        self._points, self._ends, self._logits = [], [], []
        if not gathered:
            return
        points = torch.cat(gathered)
        for variant, apart in self._oracle.apart(points, logits):
            before, compared = self._found.get(variant.label, (0, 0))
            found = before + apart, compared + len(points)
            self._found[variant.label] = found
            if is_wrong(variant.precision, *found):
                raise WrongVariantError(variant.label, *found)

    def _passed(self, images: Tensor) -> None:
        """Take some of the images that a variant was asked about; this does not wait for the device."""
        room = self._room(_PASSED, _PASSED_IN_ADVANCE) - self._points_taken
        count = min(room, math.ceil(_OF_A_PASS * len(images)))
        if count > 0:
            self._points.append(images.index_select(0, self._drawn(len(images), count, images.device)))
            self._points_taken += count

    def _room(self, part: float, in_advance: int) -> int:
        return in_advance + int(part * (self._oracle.variant_passes - self._before))

    def _drawn(self, of: int, count: int, device: torch.device) -> Tensor:
        """Different row numbers at random, in their order."""
        rows = torch.randperm(of, generator=self._generator)[:count].sort().values
        return rows.to(device, non_blocking=True)


def with_right_variant(attacked: AttackedModel, work: Callable[[], Result]) -> Result:
    """Do some work; once more from its start, with the model itself, if its variant turns out to be wrong.

    Args:
        attacked: that it searches with.
        work: the same each time it is called, but for the variant; it raises what :class:`SpotChecks` raises.
    """
    try:
        return work()
    except WrongVariantError as error:
        attacked.refute_variant(error)
        return work()


def told_once(on_images: OnImages | None) -> Callable[[], OnImages]:
    """Makes, for each start of the same work, what tells of its images; of each image once."""
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
