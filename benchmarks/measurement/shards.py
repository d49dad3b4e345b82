"""Shards: parts of a measurement for several machines at once, with the figures of a single machine.

A shard consists of blocks of images (see :mod:`robustbench_tin.benchmarks.measurement.blocks`) under one
attack. If the attack stops on success, a shard has one budget; if it has a fixed budget, a shard has all
budgets, because they may share gradients. A ladder of budgets is not divided, because its rungs attack the
survivors of the lower rungs. An attack like ``fast``, whose later stages depend on the successes of all
images, is divided by budget only.

If the model or the attack fails, or the variant of the model is wrong, a shard gives no part. The cell is
then measured undivided, so that its records are those of a single machine.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack, AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import OnImages
from robustbench_tin.attacks.engine.stop_on_success import StageReport
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.blocks import blocks, image_blocks, joined_stages
from robustbench_tin.benchmarks.measurement.fixed_budget import FixedBudget
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.measurement.until_success import UntilSuccess
from robustbench_tin.benchmarks.planning.plan import eps_slug, slug
from robustbench_tin.errors import FOREIGN


@dataclass(frozen=True)
class Shard:
    """Some images of a cell under one attack.

    Attributes:
        attack: canonical spec of the attack.
        eps: budgets in units of the pixel range.
        first: row of the first image.
        stop: row after the last image.
        seconds: estimated duration.
    """

    attack: str
    eps: tuple[float, ...]
    first: int
    stop: int
    seconds: float

    @property
    def name(self) -> str:
        """Name for a file, unique within the cell."""
        budget = eps_slug(self.eps[0]) if len(self.eps) == 1 else "all"
        return f"{slug(self.attack)}@{budget}.{self.first}"

    @property
    def images(self) -> range:
        """The rows of its images."""
        return range(self.first, self.stop)


@dataclass(frozen=True)
class Part:
    """The results of a shard.

    Attributes:
        shard: the shard.
        top1: whether the label is in the top 1 at each of the K budgets, bool ``(K, n)``; None for another
            criterion.
        top5: whether the label is in the top 5, bool ``(K, n)``; None for another criterion.
        predicted: the class with the largest logit, int32 ``(K, n)``.
        classes: number of classes of the model.
        seconds: wall-clock time.
        forward_passes: forward passes, summed over images and budgets.
        backward_passes: backward passes, summed over images and budgets.
        search: label of the variant that the attack searched with.
        stages: stage reports of an attack that stops on success.
        disagreements: as in :class:`~robustbench_tin.benchmarks.measurement.results.Measurement`.
        unverified: as in :class:`~robustbench_tin.benchmarks.measurement.results.Measurement`.
    """

    shard: Shard
    top1: npt.NDArray[np.bool_] | None
    top5: npt.NDArray[np.bool_] | None
    predicted: npt.NDArray[np.int32]
    classes: int
    seconds: float
    forward_passes: int
    backward_passes: int
    search: str
    stages: tuple[StageReport, ...] = ()
    disagreements: int = 0
    unverified: int = 0

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The results per image, by name."""
        found = {"top1": self.top1, "top5": self.top5, "predicted": self.predicted}
        return {name: array for name, array in found.items() if array is not None}

    @property
    def facts(self) -> dict[str, Any]:
        """All other fields, in a form that can be written as JSON."""
        rest = {name: getattr(self, name) for name in _FACTS}
        stages = [vars(stage) for stage in self.stages]
        return {**rest, "shard": vars(self.shard), "stages": stages}

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]) -> Self:
        """Make the part from its :attr:`arrays` and :attr:`facts`."""
        shard = Shard(**{**facts["shard"], "eps": tuple(facts["shard"]["eps"])})
        stages = tuple(StageReport(**stage) for stage in facts["stages"])
        top1, top5 = arrays.get("top1"), arrays.get("top5")
        rest = {name: facts[name] for name in _FACTS}
        return cls(shard, top1, top5, arrays["predicted"], **rest, stages=stages)


_FACTS = (
    *("classes", "seconds", "forward_passes", "backward_passes"),
    *("search", "disagreements", "unverified"),
)


def divided(
    attack: Attack,
    eps: Sequence[float],
    images: int,
    seconds: float,
    shortest: float,
    measured: Sequence[Shard] = (),
) -> list[Shard]:
    """The missing shards of one attack on a cell; empty if the measurement is too short to divide.

    Args:
        attack: the attack.
        eps: its budgets above 0, in units of the pixel range.
        images: number of images.
        seconds: estimated duration of the whole measurement.
        shortest: shortest duration of a shard, in seconds.
        measured: finished shards of this attack.
    """
    at_once = [tuple(eps)] if attack.criterion is None else [(value,) for value in eps]
    of_images = image_blocks(images) if attack.criterion is None else blocks(attack, images)
    each = seconds / len(at_once) / len(of_images)
    together = max(1, min(len(of_images), round(shortest / each))) if each > 0 else len(of_images)
    shards = [
        Shard(attack.spec, budgets, group[0].start, group[-1].stop, each * len(group))
        for budgets in at_once
        for group in _groups([rows for rows in of_images if not _holds(measured, budgets, rows)], together)
    ]
    is_worth = len(at_once) * len(of_images) > 1 and seconds >= 2 * shortest
    return shards if measured or is_worth else []


def _holds(measured: Sequence[Shard], budgets: tuple[float, ...], rows: range) -> bool:
    """Whether one of these shards includes a block."""
    return any(shard.eps == budgets and rows.start in shard.images for shard in measured)


def _groups(of_images: Sequence[range], together: int) -> list[list[range]]:
    """Groups of consecutive blocks, each of at most this number."""
    groups: list[list[range]] = []
    for rows in of_images:
        if groups and len(groups[-1]) < together and groups[-1][-1].stop == rows.start:
            groups[-1].append(rows)
        else:
            groups.append([rows])
    return groups


def choose_variants(
    model: nn.Module,
    batches: ImageBatches,
    attacks: Sequence[Attack],
    eps: Sequence[float],
    protocol: AttackProtocol,
    clean_logits: Tensor,
) -> None:
    """Choose the variants for these attacks, as an undivided measurement does.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: all images.
        attacks: the attacks.
        eps: their budgets above 0, in units of the pixel range.
        protocol: norm, seed and search; it gets the variants.
        clean_logits: clean logits of all images, float32 ``(N, C)``.
    """
    for attack in attacks:
        with protocol.attacked(model) as attacked:
            if attack.criterion is None:
                FixedBudget(batches, attack, eps, protocol).prepare(attacked)
            else:
                UntilSuccess(batches, attack, eps[0], protocol, clean_logits).prepare(attacked)


def measure_shard(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    shard: Shard,
    protocol: AttackProtocol,
    clean_logits: Tensor,
    on_images: OnImages,
) -> Part | None:
    """Measure one shard.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: all images.
        attack: the attack of the shard.
        shard: the images and budgets.
        protocol: norm, seed and search, with chosen variants.
        clean_logits: clean logits of all images, float32 ``(N, C)``.
        on_images: called with the number of newly finished images.

    Returns:
        The part; None if the cell must be measured undivided.
    """
    try:
        with protocol.attacked(model) as attacked:
            started = time.perf_counter()
            if attack.criterion is None:
                fixed = FixedBudget(batches, attack, shard.eps, protocol)
                found = _fixed(attacked, fixed, shard, on_images)
            else:
                (eps,) = shard.eps
                work = UntilSuccess(batches, attack, eps, protocol, clean_logits)
                found = _until_success(attacked, work, shard, on_images)
            if attacked.wrong_variant is not None:
                return None
            return Part(
                shard,
                **found,
                seconds=time.perf_counter() - started,
                forward_passes=attacked.forward_passes,
                backward_passes=attacked.backward_passes,
                search=attacked.search_label,
            )
    except FOREIGN:  # a wrong variant, too; the undivided measurement gives the reason
        return None


def _fixed(attacked: AttackedModel, work: FixedBudget, shard: Shard, on_images: OnImages) -> dict[str, Any]:
    work.prepare(attacked)
    rows = [rows for rows in image_blocks(len(work.batches)) if rows.start in shard.images]
    found = work.run(attacked, rows, on_images=on_images)
    return {name: getattr(found, name) for name in ("top1", "top5", "predicted", "classes")}


def _until_success(
    attacked: AttackedModel, work: UntilSuccess, shard: Shard, on_images: OnImages
) -> dict[str, Any]:
    work.prepare(attacked)
    rows = [rows for rows in blocks(work.attack, len(work.batches)) if rows.start in shard.images]
    found = work.run(attacked, rows, on_images=on_images)
    right = (~found.success).numpy()[None]
    return {
        "top1": right if work.attack.goal.k == 1 else None,
        "top5": right if work.attack.goal.k == 5 else None,
        "predicted": found.predicted.numpy()[None],
        "classes": work.clean_logits.shape[1],
        "stages": tuple(found.stages),
        "disagreements": found.disagreements,
        "unverified": int((found.unverified & ~found.success).sum()),
    }


def assembled(
    attack: Attack, eps: Sequence[float], images: int, parts: Sequence[Part]
) -> list[Measurement] | None:
    """Join the parts of an attack to measurements, as a single machine would have measured them.

    Args:
        attack: the attack.
        eps: its budgets above 0, in units of the pixel range.
        images: number of images.
        parts: the parts of this attack, in any order.

    Returns:
        One measurement for each budget; None if parts are missing or used different variants.
    """
    found = []
    for index, value in enumerate(eps):
        row = index if attack.criterion is None else 0
        of_value = sorted(
            (part for part in parts if value in part.shard.eps), key=lambda part: part.shard.first
        )
        if not _cover(of_value, images) or len({part.search for part in of_value}) != 1:
            return None
        found.append(_measurement(attack, value, of_value, row, len(eps)))
    return found


def _cover(parts: Sequence[Part], images: int) -> bool:
    """Whether parts, in the order of their images, include each image exactly once."""
    stops = [0, *(part.shard.stop for part in parts)]
    return stops[-1] == images and all(
        part.shard.first == stop for part, stop in zip(parts, stops, strict=False)
    )


def _measurement(attack: Attack, eps: float, parts: Sequence[Part], row: int, budgets: int) -> Measurement:
    share = budgets if attack.criterion is None else 1
    stages = tuple(joined_stages([part.stages for part in parts]))

    def whole(name: str) -> Any:
        rows = [getattr(part, name) for part in parts]
        return None if rows[0] is None else np.concatenate([each[row] for each in rows])

    return Measurement(
        eps=eps,
        top1=whole("top1"),
        top5=whole("top5"),
        status=OK,
        seconds=sum(part.seconds for part in parts) / share,
        forward_passes=sum(part.forward_passes for part in parts) // share,
        backward_passes=sum(part.backward_passes for part in parts) // share,
        mode=attack.mode,
        search=parts[0].search,
        remarks=(*attack.remarks(parts[0].classes), *attack.conclusions(stages)),
        stages=stages,
        disagreements=sum(part.disagreements for part in parts),
        unverified=None if attack.criterion is None else sum(part.unverified for part in parts),
        predicted=whole("predicted"),
    )
