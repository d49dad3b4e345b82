"""The adversarial images of a run's measurement, kept or made again, checked against the stored results.

A run stores the results per image, and the adversarial images that ``--keep-adversarial`` asks for. Other
images follow from the plan, the seed and the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, AttackedModel
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.evidence.attack_again import AttackAgain
from robustbench_tin.benchmarks.evidence.kept_batches import kept_batches
from robustbench_tin.benchmarks.evidence.ladder_rungs import Rung, rungs_up_to
from robustbench_tin.benchmarks.evidence.opened_run import OpenedRun
from robustbench_tin.benchmarks.evidence.remade_batch import RemadeBatch, levels
from robustbench_tin.benchmarks.measurement.clean import batch_logits, hits_of, lone_logits
from robustbench_tin.benchmarks.measurement.fixed_budget import shares_gradients
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.adversarial_images import AdversarialImages
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.threat import ThreatModel

# Images that tell a model that is random at test time.
_COMPARED = 8


@dataclass
class RemadeMeasurement:
    """The adversarial images of one measurement: kept ones, and others, made in batches on demand.

    Attributes:
        opened: the run.
        cell: one of its cells.
        spec: one of its attacks.
        eps: one of its budgets, above 0.
    """

    opened: OpenedRun
    cell: Cell
    spec: str
    eps: float
    _made: dict[int, RemadeBatch] = field(default_factory=dict)

    @cached_property
    def attack(self) -> Attack:
        """The attack."""
        return self.opened.plan.attack(self.spec)

    @cached_property
    def stored(self) -> npt.NDArray[np.bool_]:
        """Whether each image is correct under the attack by its criterion, as stored in the run."""
        return self._stored(self.spec, self.eps, f"top{self.attack.goal.k}")

    @cached_property
    def stored_clean(self) -> npt.NDArray[np.bool_]:
        """Whether each clean image is correct by the attack's criterion, as stored in the run."""
        return self._stored(CLEAN, 0.0, f"top{self.attack.goal.k}")

    @property
    def remade(self) -> int:
        """Number of images made again so far."""
        return sum(len(batch.clean) for batch in self._made.values())

    @property
    def not_reproduced(self) -> int:
        """Number of remade images that do not give the stored result, without the kept ones."""
        return sum(
            not same and start + row not in self.kept
            for start, batch in self._made.items()
            for row, same in enumerate(batch.reproduced)
        )

    @cached_property
    def kept(self) -> dict[int, RemadeBatch]:
        """The images that the run keeps and that give their stored prediction here, by their number."""
        if not len(self._stored_images):
            return {}
        with self._again.attacked as attacked:
            return kept_batches(self.opened, self.cell, self.attack, self.eps, attacked, self._stored_images)

    @property
    def not_as_kept(self) -> int:
        """Number of images that the run keeps and that do not give their stored prediction here."""
        return len(self._stored_images) - len(self.kept)

    @cached_property
    def is_random(self) -> bool:
        """Whether the model is random at test time: other random numbers change its logits."""
        images = self.opened.batches.at(0)[0][:_COMPARED]
        with self._again.attacked as attacked:
            first, second = (batch_logits(attacked, images, self.cell.seed, draw) for draw in (0, 1))
        return not torch.allclose(first, second, rtol=1e-3, atol=1e-3 * float(first.std()))

    def row(self, index: int) -> tuple[RemadeBatch, int]:
        """The batch of an image, made if necessary, and the image's row in it.

        Raises:
            AttackFailure: if the model or the attack fails.
        """
        if index in self.kept:
            return self.kept[index], 0
        offset = index % self.opened.batches.size
        start = index - offset
        if start not in self._made:
            self.make([start])
        return self._made[start], offset

    def starts(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """First rows of the batches to make for these images; a kept image needs none."""
        return self._starts(rows[~np.isin(rows, list(self.kept))])

    def make(self, starts: Sequence[int]) -> None:
        """Make the batches that begin at these rows, all at once.

        Raises:
            AttackFailure: if the model or the attack fails.
        """
        todo = [start for start in starts if start not in self._made]
        if not todo:
            return
        made = self._moved(todo)
        with self._again.attacked as attacked:
            for start, moved in made.items():
                self._made[start] = self._checked(attacked, start, moved)

    def predict(self, index: int, image: Tensor) -> Tensor:
        """The logits of one image alone, float32 ``(C,)`` on the CPU; of a kept image under its own draw.

        Args:
            index: index of the image.
            image: uint8 ``(3, H, W)``.
        """
        pixels = image.to(self.opened.batches.device).float().div_(255)
        with self._again.attacked as attacked:
            return lone_logits(attacked, pixels, self.cell.seed, index, self._draws.get(index, 0)).cpu()

    @cached_property
    def _stored_images(self) -> AdversarialImages:
        """The adversarial images that the run keeps."""
        found = self.opened.run.adversarial(self.cell, self.spec, self.eps)
        nothing = np.empty(0, np.int64)
        return found or AdversarialImages(nothing, np.empty((0, 0, 0, 0), np.float32), nothing)

    @cached_property
    def _draws(self) -> dict[int, int]:
        """Numbers of the draws of the kept images that are shown, by the number of the image."""
        stored = self._stored_images
        pairs = zip(stored.rows.tolist(), stored.draws.tolist(), strict=True)
        return {row: draw for row, draw in pairs if row in self.kept}

    def _starts(self, rows: npt.NDArray[np.int64]) -> list[int]:
        size = self.opened.batches.size
        return [int(start) for start in np.unique(rows // size * size)]

    @cached_property
    def _again(self) -> AttackAgain:
        return AttackAgain(self.opened, self.cell, self.attack)

    def _moved(self, starts: Sequence[int]) -> dict[int, Tensor]:
        """The adversarial images, by the first row of their batch."""
        if self.opened.plan.curve:
            return self._climbed(starts)
        return self._again.moved(self.eps, starts)

    def _climbed(self, starts: Sequence[int]) -> dict[int, Tensor]:
        """The adversarial images of a ladder, each from its rung; images wrong when clean stay unchanged."""
        batches = self.opened.batches
        every = np.arange(len(batches))
        asked = np.isin(every - every % batches.size, starts)
        images = batches.all_images().cpu()
        for rung in self._rungs():
            chosen = None if rung.attacked is None else np.flatnonzero(rung.attacked)
            rows = every if chosen is None else chosen
            places = np.flatnonzero((rung.made & asked)[rows])
            found = self._again.moved(rung.eps, self._starts(places), chosen) if len(places) else {}
            for start, moved in found.items():
                here = places[(places >= start) & (places < start + len(moved))]
                images[rows[here]] = moved[here - start]
        return {start: images[start : start + batches.size] for start in starts}

    def _rungs(self) -> Iterator[Rung]:
        ladder = self.opened.plan.attacked_eps
        results = {
            eps: self._stored(self.spec, eps, f"top{self.attack.goal.k}")
            for eps in ladder
            if not why_not(self.opened, self.cell, self.spec, eps)
        }
        return rungs_up_to(
            self.eps,
            ladder,
            self.stored_clean,
            results,
            seed=self.cell.seed,
            attacks_all=shares_gradients(self.attack),
        )

    def _checked(self, attacked: AttackedModel, start: int, moved: Tensor) -> RemadeBatch:
        """A batch with its predictions, compared with the stored results."""
        images, labels = self.opened.batches.at(start)
        ball = ThreatModel(self.opened.plan.norm, self.eps).ball(images)
        moved = moved.to(images.device)
        seed, k = self.cell.seed, self.attack.goal.k
        clean_logits = batch_logits(attacked, images, seed, start)
        hits = hits_of(batch_logits(attacked, moved, seed, start), labels, k)
        rows = slice(start, start + len(images))
        reproduced = (hits == self.stored[rows]) & (
            hits_of(clean_logits, labels, k) == self.stored_clean[rows]
        )
        rounded = to_8bit(moved, ball)
        return RemadeBatch(
            clean=levels(images),
            adversarial=levels(rounded),
            clean_logits=clean_logits.cpu(),
            logits=batch_logits(attacked, rounded, seed, start).cpu(),
            reproduced=reproduced,
        )

    def _stored(self, attack: str, eps: float, column: str) -> npt.NDArray[np.bool_]:
        stored: npt.NDArray[np.bool_] = self.opened.run.outcomes(self.cell, attack, eps)[column].to_numpy()
        return stored


def why_not(opened: OpenedRun, cell: Cell, spec: str, eps: float) -> str:
    """The reason why a measurement's images cannot be made again; empty if they can."""
    record = opened.run.record(cell, spec, eps)
    if record is None:
        return "not measured yet"
    return "" if record.status == OK else str(record.status)
