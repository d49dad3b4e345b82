"""Stop on success: attacks each image until it is adversarial, and keeps the batch full meanwhile.

If an image is done, it leaves the batch and a waiting image takes its row. So no pass is spent on a finished
image, and few passes are made with a small batch. The search may use a faster variant of the model. An image
counts as adversarial only if the model itself, in float32, misclassifies it inside the ball and the box. If
the variant turns out to be wrong, all images start again with the model itself; earlier successes stay.

To see which images are adversarial, the host must wait for the device. On a CPU that costs nothing, so the
runner looks after every step. On other devices it takes several steps between two looks while no image leaves
the batch; the device keeps the last point at which each image seemed adversarial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, IterativeAttack
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.attacked_model import AttackedModel, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import OnImages, SpotChecks, WrongVariantError, told_once
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState, BatchState
from robustbench_tin.attacks.engine.verify import Finish, verified
from robustbench_tin.errors import RobustTinError, one_line
from robustbench_tin.metrics import predictions
from robustbench_tin.runtime import is_asynchronous
from robustbench_tin.threat import Ball, ThreatModel

OnSuccess = Callable[[Tensor, Tensor], None]
"""Takes numbers of images, int64 ``(n,)`` on the CPU, and their adversarial images ``(n, C, H, W)``."""

# Part of the batch that must be free before new rows start: starting them one by one takes longer.
_REFILL_PART = 1 / 8
# A success after this part of the budget is late; many late ones mean that the attack has not converged.
_LATE_PART = 0.9
# Largest number of steps between two looks at a device that the host must wait for.
_MOST_UNSEEN = 8


@dataclass(frozen=True)
class StageReport:
    """The result of one stage.

    Attributes:
        attack: the spec of the stage's attack.
        entered: number of images it attacked.
        successes: number of images it made adversarial.
        late_successes: number of successes in the last tenth of its budget.
    """

    attack: str
    entered: int
    successes: int
    late_successes: int


@dataclass
class EarlyStopResult:
    """The result of an :class:`EarlyStopRunner`.

    Attributes:
        success: True for each image that is adversarial, or misclassified from the start, bool ``(N,)`` on
            the CPU.
        images: the adversarial image, or the clean image without one, float32 ``(N, C, H, W)`` on the
            CPU; None if images were not requested.
        predicted: class with the largest logit for the adversarial image, or the clean image without one,
            int32 ``(N,)`` on the CPU.
        disagreements: number of times that the variant misclassified a point and the model did not, including
            those of a variant that was wrong.
        unverified: True for each image with such a disagreement in the final search, bool ``(N,)`` on the
            CPU.
        stages: the reports of the stages of the final search.
    """

    success: Tensor
    images: Tensor | None
    predicted: Tensor
    disagreements: int = 0
    unverified: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    stages: list[StageReport] = field(default_factory=list)

    def add(self, before: EarlyStopResult) -> None:
        """Add the successes of an earlier search on the same images."""
        new = before.success & ~self.success
        self.success = self.success | new
        self.predicted[new] = before.predicted[new]
        if self.images is not None and before.images is not None:
            self.images[new] = before.images[new]
        self.disagreements += before.disagreements


@dataclass
class EarlyStopRunner:
    """Runs an attack on a set of images at one eps, and stops at each image's first success.

    Attributes:
        attacked: the attacked model, entered and prepared.
        batches: the images.
        threat: norm and eps, above 0.
        criterion: the criterion of success.
        clean_logits: the model's logits of the clean images, float32 ``(N, C)`` on the images' device.
        seed: seed of all randomness.
        finish: changes candidates before their verification, for example rounds them to 8 bits; they must
            stay in the ball.
        on_images: called with the number of images that are newly done.
        on_success: called with the successes that are verified; with another image of one of them, if a
            second search finds it again.
    """

    attacked: AttackedModel
    batches: ImageBatches
    threat: ThreatModel
    criterion: Criterion
    clean_logits: Tensor
    seed: int = 0
    finish: Finish | None = None
    on_images: OnImages | None = None
    on_success: OnSuccess | None = None

    def attack(self, attack: Attack, *, keep_images: bool = False) -> EarlyStopResult:
        """Run the attack's stages, each on the images that survived the stages before.

        Args:
            attack: the attack.
            keep_images: True returns the images too.

        Raises:
            AttackFailure: if the model or the attack goes wrong.
        """
        report = told_once(self.on_images)
        try:
            self._attack(attack, keep_images, report())
        except WrongVariantError as error:
            self.attacked.refute_variant(error)
            before = self.result
            self._attack(attack, keep_images, report())
            self.result.add(before)
        return self.result

    def _attack(self, attack: Attack, keep_images: bool, tell: OnImages) -> None:
        classes = self.clean_logits.shape[1]
        self.criterion.check(classes)
        wrong = self.criterion.success(self.clean_logits, self.batches.all_labels())
        self.result = EarlyStopResult(
            wrong.cpu(),
            self.batches.all_images().cpu().clone() if keep_images else None,
            predictions(self.clean_logits).cpu(),
        )
        self.result.unverified = torch.zeros_like(self.result.success)
        self._tell = tell
        self._tell(int(wrong.sum()))
        self.attacked.reseed("search", self.seed)
        self._checks = SpotChecks(self.attacked)
        reports = self.result.stages
        while len(waiting := self.survivors()):
            stage = attack.next_stage(reports, classes)
            if stage is None:
                break
            reports.append(self._run_stage(stage, waiting, len(reports)))
        self._tell(len(self.batches) - int(self.result.success.sum()))

    def survivors(self) -> Tensor:
        """Numbers of the images without a success so far, int64."""
        return (~self.result.success).nonzero().squeeze(1)

    def _run_stage(self, stage: Attack, waiting: Tensor, index: int) -> StageReport:
        generator = torch.Generator(self.batches.device).manual_seed((self.seed * 1_009 + index) % 2**62)
        before = int(self.result.success.sum())
        try:
            if isinstance(stage, IterativeAttack):
                late_successes = self._search(stage, waiting, generator)
            else:
                late_successes = self._run_whole(stage, waiting, generator)
            self._checks.settle()
            self.attacked.used_variants.clear()
        except (AttackFailure, RobustTinError, WrongVariantError):
            raise
        except Exception as error:
            raise AttackFailure(f"{stage.name} raised {one_line(error)}") from error
        successes = int(self.result.success.sum()) - before
        return StageReport(stage.spec, len(waiting), successes, late_successes)

    def _run_whole(self, stage: Attack, waiting: Tensor, generator: torch.Generator) -> int:
        """Run an attack that has no single steps on one batch after the other, and verify its results."""
        for rows in torch.split(waiting, self.batches.size):
            images, labels = self.batches.rows(rows)
            ball = self.threat.ball(images)
            with untouched(ball.images, stage.name):
                moved = stage.sweep(self.attacked, labels, [ball], [generator])[0]
            self._verify(rows, moved, labels, ball)
        return 0

    def _search(self, stage: IterativeAttack, waiting: Tensor, generator: torch.Generator) -> int:
        late_successes = 0
        rows = waiting[:0]
        live: AttackState | None = None
        budget = 0
        unseen = 1
        while True:
            room = self.batches.size - len(rows)
            if len(waiting) and (len(rows) == 0 or room >= _REFILL_PART * self.batches.size):
                new = self._begin(stage, waiting[:room], generator)
                budget = max(budget, int(new.queries_left.max()))
                unseen = 1
                rows = torch.cat([rows, waiting[:room]])
                waiting = waiting[room:]
                if live is None or len(live) == 0:
                    live = new
                else:
                    live.extend(new)
            if live is None or len(rows) == 0:
                return late_successes
            with untouched(live.inputs.ball.images, stage.name):
                trail = self._advance(live, unseen)
            gone = self._look(stage, live, trail, rows)
            late_successes += int((gone.success & (gone.queries_left <= (1 - _LATE_PART) * budget)).sum())
            unseen = self._next_unseen(unseen, gone)
            if bool(gone.done.any()):
                staying = (~gone.done).nonzero().squeeze(1)
                rows = rows[staying]
                live.keep(staying.to(self.batches.device, non_blocking=True))

    def _begin(self, stage: IterativeAttack, rows: Tensor, generator: torch.Generator) -> AttackState:
        images, labels = self.batches.rows(rows)
        clean_logits = self.clean_logits[rows.to(self.clean_logits.device)]
        return stage.begin(
            AttackInputs(labels, self.threat.ball(images), clean_logits, self.criterion, generator)
        )

    def _advance(self, live: AttackState, steps: int) -> _Trail:
        """Take some steps with all rows; the host does not wait for the device.

        Args:
            live: the rows; each has at least this number of queries left.
            steps: number of steps, at least 1.
        """
        trail: _Trail | None = None
        for _ in range(steps):
            answer = live.ask(self.attacked)
            points, left = live.points, live.queries_left
            success = self.criterion.success(answer.logits, live.inputs.labels)
            if is_asynchronous(success.device) or bool(success.any()):
                success = success & live.inputs.ball.contains(points)
                # Copies, since a search may move its points in place.
                points, left = points.clone(), left.clone()
            here = _Trail(success, points, left)
            trail = here if trail is None else trail.then(here)
            live.move(answer)
        assert trail is not None
        return trail

    def _look(self, stage: IterativeAttack, live: AttackState, trail: _Trail, rows: Tensor) -> _Gone:
        """Verify the rows that seemed adversarial since the last look, and those without queries left."""
        self.attacked.require_finite()
        # One transfer for all values.
        seems, then, left = torch.stack([trail.success.long(), trail.queries_left, live.queries_left]).cpu()
        success = self._verify_rows(seems > 0, rows, trail.points, live)
        over = (left <= 0) & ~success
        then = torch.where(success, then, left + 1)
        # The model may misclassify a final iterate that the variant classifies correctly.
        verifies = stage.verifies_result or not self.attacked.searches_model(precise=live.precise)
        if verifies and bool(over.any()):
            success = success | self._verify_rows(over, rows, live.result(), live, expected=False)
        self._checks.look()
        return _Gone(success | over, success, then, left)

    def _next_unseen(self, unseen: int, gone: _Gone) -> int:
        """Steps before the next look: fewer while images leave, never more than a row has queries left."""
        if not is_asynchronous(self.batches.device) or bool(gone.done.all()):
            return 1
        wanted = max(1, unseen // 2) if bool(gone.done.any()) else min(2 * unseen, _MOST_UNSEEN)
        return min(wanted, int(gone.remaining[~gone.done].min()))

    def _verify_rows(
        self, chosen: Tensor, rows: Tensor, candidates: Tensor, live: AttackState, *, expected: bool = True
    ) -> Tensor:
        """Verify the chosen rows; returns the adversarial ones, bool ``(N,)`` on the CPU as well."""
        success = torch.zeros_like(chosen)
        index = chosen.nonzero().squeeze(1)
        if len(index) == 0:
            return success
        there = index.to(self.batches.device, non_blocking=True)
        hit = self._verify(
            rows[index],
            candidates[there],
            live.inputs.labels[there],
            live.inputs.ball.select(there),
            expected,
        )
        success[index] = hit
        return success

    def _verify(
        self, rows: Tensor, candidates: Tensor, labels: Tensor, ball: Ball, expected: bool = False
    ) -> Tensor:
        """Verify candidates with the model itself; returns the adversarial ones, bool ``(n,)`` on the CPU.

        Args:
            rows: numbers of the images.
            candidates: points that may be adversarial, ``(n, C, H, W)``.
            labels: true labels of the images.
            ball: the ball around the images.
            expected: True if the searched variant misclassifies them; False for final iterates.
        """
        adversarial = verified(candidates, ball, "the attack", self.finish)
        logits = self.attacked.logits(adversarial)
        success = self.criterion.success(logits, labels)
        # One transfer for both.
        seen, predicted = torch.stack([success.int(), predictions(logits)]).cpu()
        hit: Tensor = seen > 0
        done = rows[hit]
        self.result.success[done] = True
        self.result.predicted[done] = predicted[hit]
        if self.result.images is not None:
            self.result.images[done] = adversarial[success].cpu()
        if self.on_success is not None and len(done):
            self.on_success(done, adversarial[success])
        self._tell(len(done))
        if bool(hit.all()):
            return hit
        if expected:
            # Rounding explains some of these, at a decision boundary; one check an image is enough.
            new = ~hit & ~self.result.unverified[rows]
            self.result.disagreements += int((~hit).sum())
            self.result.unverified[rows[~hit]] = True
            self._checks.insist(*_chosen(new, adversarial, logits))
        else:
            self._checks.offer(*_chosen(~hit, adversarial, logits))
        return hit


def _chosen(mask: Tensor, *rows: Tensor) -> Iterator[Tensor]:
    """The rows that a mask on the CPU selects."""
    index = mask.nonzero().squeeze(1)
    return (each.index_select(0, index.to(each.device, non_blocking=True)) for each in rows)


@dataclass
class _Trail(BatchState):
    """The successes of the steps between two looks, one row an image.

    Attributes:
        success: True if the row seemed adversarial at a point inside the ball, bool ``(N,)``.
        points: the last such point, float32 ``(N, C, H, W)``; arbitrary for other rows.
        queries_left: number of queries left at that point, int64 ``(N,)``.
    """

    success: Tensor
    points: Tensor
    queries_left: Tensor

    def then(self, here: _Trail) -> _Trail:
        """This trail with one more step."""
        return _Trail(
            self.success | here.success,
            torch.where(here.success.view(-1, 1, 1, 1), here.points, self.points),
            torch.where(here.success, here.queries_left, self.queries_left),
        )


@dataclass(frozen=True)
class _Gone:
    """The rows after a look, on the CPU.

    Attributes:
        done: rows that leave the batch, bool ``(N,)``.
        success: rows that are adversarial, bool ``(N,)``.
        queries_left: number of queries left at the success, int64 ``(N,)``.
        remaining: number of queries left now, int64 ``(N,)``.
    """

    done: Tensor
    success: Tensor
    queries_left: Tensor
    remaining: Tensor


@contextmanager
def untouched(images: Tensor, attack: str) -> Iterator[None]:
    """Refuse an attack that writes into the clean images: its ball would move with them.

    Raises:
        AttackFailure: names the attack.
    """
    before = images._version
    yield
    if images._version != before:
        raise AttackFailure(f"{attack} wrote into the clean images; expected it to return new ones")
