"""The driver: attacks images until each is broken, and keeps the batch full meanwhile.

An image whose verdict is in leaves the batch and a waiting one takes its row, so that no pass is spent
on a finished image and none is made with a nearly empty batch. Searching may be done with a cheaper form
of the model; an image counts as broken only after the model itself, in float32, mistook that very image
inside the ball and the box. If the form turns out to be another function than the model, all images start
again with the model itself; those that are broken by then stay so.

To see which images are broken the host must wait for the device. On a CPU that costs nothing, so the driver
looks after every step. On other devices it takes several steps between two looks while no image leaves the
batch; the device keeps the last point at which each image seemed broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, IterativeAttack
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.attacked_model import AttackFailure, Oracle
from robustbench_tin.attacks.engine.image_batches import Pool
from robustbench_tin.attacks.engine.spot_checks import OnImages, SpotChecks, WrongFormError, told_once
from robustbench_tin.attacks.engine.state import Rows, Search, Task
from robustbench_tin.errors import RobustTinError, one_line
from robustbench_tin.runtime import is_asynchronous
from robustbench_tin.threat import Ball, ThreatModel

Finish = Callable[[Tensor, Ball], Tensor]

# New rows are let in together once so much of the batch is free: starting rows one by one costs more.
_REFILL_PART = 1 / 8
# What counts as the end of a budget, for telling an attack that has not converged.
_LATE_PART = 0.9
# Steps between two looks at a device that the host must wait for, at most.
_MOST_UNSEEN = 8


@dataclass(frozen=True)
class StageReport:
    """What one stage did.

    Attributes:
        attack: its spec.
        entered: images it was tried on.
        broke: images it broke.
        late: those of them broken in the last tenth of its budget.
    """

    attack: str
    entered: int
    broke: int
    late: int


@dataclass
class Verdicts:
    """What the driver found out.

    Attributes:
        broken: whether each image was broken, or wrong from the start, bool ``(N,)`` on the CPU.
        images: per broken image what broke it, else the clean image, float32 ``(N, C, H, W)`` on the
            CPU; None if they were not asked for.
        disagreements: times that the form searched with saw an image broken and the model did not, those
            with a form found wrong since among them.
        disputed: which images that happened to in the search that the verdicts rest on, bool ``(N,)`` on the
            CPU.
        stages: what each stage of that search did.
    """

    broken: Tensor
    images: Tensor | None
    disagreements: int = 0
    disputed: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    stages: list[StageReport] = field(default_factory=list)

    def add(self, before: Verdicts) -> None:
        """Take over what an earlier search of the same images broke."""
        new = before.broken & ~self.broken
        self.broken = self.broken | new
        if self.images is not None and before.images is not None:
            self.images[new] = before.images[new]
        self.disagreements += before.disagreements


@dataclass
class Driver:
    """Attacks a pool of images at one budget.

    Attributes:
        oracle: the model, entered and prepared.
        pool: the images.
        threat: norm and eps, above 0.
        criterion: what counts as broken.
        clean_logits: the model's logits of the clean images, float32 ``(N, C)`` on the pool's device.
        seed: of all randomness.
        finish: changes candidates before they are verified (rounds them to 8 bits, say); it may not
            take them out of the ball.
        on_images: called with a number of images whose verdict is in.
    """

    oracle: Oracle
    pool: Pool
    threat: ThreatModel
    criterion: Criterion
    clean_logits: Tensor
    seed: int = 0
    finish: Finish | None = None
    on_images: OnImages | None = None

    def attack(self, attack: Attack, *, keep_images: bool = False) -> Verdicts:
        """Run the attack's stages, each on the images that those before it left.

        Args:
            attack: what to run.
            keep_images: return what broke each image.

        Raises:
            AttackFailure: where the model or the attack goes wrong.
        """
        report = told_once(self.on_images)
        try:
            self._attack(attack, keep_images, report())
        except WrongFormError as error:
            self.oracle.refute_form(error)
            before = self.verdicts
            self._attack(attack, keep_images, report())
            self.verdicts.add(before)
        return self.verdicts

    def _attack(self, attack: Attack, keep_images: bool, tell: OnImages) -> None:
        classes = self.clean_logits.shape[1]
        self.criterion.check(classes)
        wrong = self.criterion.broken(self.clean_logits, self.pool.all_labels())
        self.verdicts = Verdicts(wrong.cpu(), self.pool.all_images().cpu().clone() if keep_images else None)
        self.verdicts.disputed = torch.zeros_like(self.verdicts.broken)
        self._tell = tell
        self._tell(int(wrong.sum()))
        self.oracle.reseed("search", self.seed)
        self._checks = SpotChecks(self.oracle)
        reports = self.verdicts.stages
        while len(waiting := self.survivors()):
            stage = attack.next_stage(reports, classes)
            if stage is None:
                break
            reports.append(self._run_stage(stage, waiting, len(reports)))
        self._tell(len(self.pool) - int(self.verdicts.broken.sum()))

    def survivors(self) -> Tensor:
        """Numbers of the images not broken so far, int64."""
        return (~self.verdicts.broken).nonzero().squeeze(1)

    def _run_stage(self, stage: Attack, waiting: Tensor, index: int) -> StageReport:
        generator = torch.Generator(self.pool.device).manual_seed((self.seed * 1_009 + index) % 2**62)
        before = int(self.verdicts.broken.sum())
        try:
            if isinstance(stage, IterativeAttack):
                late = self._search(stage, waiting, generator)
            else:
                late = self._run_whole(stage, waiting, generator)
            self._checks.settle()
            self.oracle.asked_forms.clear()
        except (AttackFailure, RobustTinError, WrongFormError):
            raise
        except Exception as error:
            raise AttackFailure(f"{stage.name} raised {one_line(error)}") from error
        broke = int(self.verdicts.broken.sum()) - before
        return StageReport(stage.spec, len(waiting), broke, late)

    def _run_whole(self, stage: Attack, waiting: Tensor, generator: torch.Generator) -> int:
        """An attack that is no search: batch by batch, judged at its end."""
        for rows in torch.split(waiting, self.pool.size):
            images, labels = self.pool.rows(rows)
            ball = self.threat.ball(images)
            with untouched(ball.images, stage.name):
                moved = stage.sweep(self.oracle, labels, [ball], [generator])[0]
            self._judge(rows, moved, labels, ball)
        return 0

    def _search(self, stage: IterativeAttack, waiting: Tensor, generator: torch.Generator) -> int:
        late = 0
        rows = waiting[:0]
        live: Search | None = None
        budget = 0
        unseen = 1
        while True:
            room = self.pool.size - len(rows)
            if len(waiting) and (len(rows) == 0 or room >= _REFILL_PART * self.pool.size):
                new = self._begin(stage, waiting[:room], generator)
                budget = max(budget, int(new.left.max()))
                unseen = 1
                rows = torch.cat([rows, waiting[:room]])
                waiting = waiting[room:]
                if live is None or len(live) == 0:
                    live = new
                else:
                    live.extend(new)
            if live is None or len(rows) == 0:
                return late
            with untouched(live.task.ball.images, stage.name):
                trail = self._advance(live, unseen)
            gone = self._look(stage, live, trail, rows)
            late += int((gone.broken & (gone.left <= (1 - _LATE_PART) * budget)).sum())
            unseen = self._next_unseen(unseen, gone)
            if bool(gone.done.any()):
                staying = (~gone.done).nonzero().squeeze(1)
                rows = rows[staying]
                live.keep(staying.to(self.pool.device, non_blocking=True))

    def _begin(self, stage: IterativeAttack, rows: Tensor, generator: torch.Generator) -> Search:
        images, labels = self.pool.rows(rows)
        clean_logits = self.clean_logits[rows.to(self.clean_logits.device)]
        return stage.begin(Task(labels, self.threat.ball(images), clean_logits, self.criterion, generator))

    def _advance(self, live: Search, steps: int) -> _Trail:
        """Take some steps with all rows; nothing here waits for the device.

        Args:
            live: the rows, of each of which at least so many questions are left.
            steps: 1 or more.
        """
        trail: _Trail | None = None
        for _ in range(steps):
            answer = live.ask(self.oracle)
            points, left = live.points, live.left
            broken = self.criterion.broken(answer.logits, live.task.labels)
            if is_asynchronous(broken.device) or bool(broken.any()):
                broken = broken & live.task.ball.contains(points)
                # Copies, since a search may move its points in place.
                points, left = points.clone(), left.clone()
            here = _Trail(broken, points, left)
            trail = here if trail is None else trail.then(here)
            live.move(answer)
        assert trail is not None
        return trail

    def _look(self, stage: IterativeAttack, live: Search, trail: _Trail, rows: Tensor) -> _Gone:
        """Judge the rows that seemed broken on the way, and those whose budget is spent."""
        self.oracle.require_finite()
        # One transfer for all that is looked at.
        seems, then, left = torch.stack([trail.broken.long(), trail.left, live.left]).cpu()
        broken = self._judge_some(seems > 0, rows, trail.points, live)
        over = (left <= 0) & ~broken
        then = torch.where(broken, then, left + 1)
        # What another form than the model gets right may still be what the model mistakes.
        judges = stage.judges_result or not self.oracle.searches_model(precise=live.precise)
        if judges and bool(over.any()):
            broken = broken | self._judge_some(over, rows, live.result(), live, expected=False)
        self._checks.look()
        return _Gone(broken | over, broken, then, left)

    def _next_unseen(self, unseen: int, gone: _Gone) -> int:
        """Steps before the next look: fewer while images leave, never more than a row has questions left."""
        if not is_asynchronous(self.pool.device) or bool(gone.done.all()):
            return 1
        wanted = max(1, unseen // 2) if bool(gone.done.any()) else min(2 * unseen, _MOST_UNSEEN)
        return min(wanted, int(gone.remaining[~gone.done].min()))

    def _judge_some(
        self, chosen: Tensor, rows: Tensor, candidates: Tensor, live: Search, *, expected: bool = True
    ) -> Tensor:
        """Judge the chosen rows; which rows are broken, bool ``(N,)``, both on the CPU."""
        broken = torch.zeros_like(chosen)
        index = chosen.nonzero().squeeze(1)
        if len(index) == 0:
            return broken
        there = index.to(self.pool.device, non_blocking=True)
        hit = self._judge(
            rows[index], candidates[there], live.task.labels[there], live.task.ball.select(there), expected
        )
        broken[index] = hit
        return broken

    def _judge(
        self, rows: Tensor, candidates: Tensor, labels: Tensor, ball: Ball, expected: bool = False
    ) -> Tensor:
        """Show candidates to the model itself and note which are broken, bool ``(n,)`` on the CPU.

        Args:
            rows: numbers of the images.
            candidates: what may break them.
            labels: of them.
            ball: around them.
            expected: whether what was searched with says that they are broken; else they are what the search
                ends with.
        """
        adversarial = ball.project(candidates)
        if self.finish is not None:
            adversarial = self.finish(adversarial, ball)
        if not bool(ball.contains(adversarial).all()):
            raise AttackFailure("the attack returned an image that is not finite")
        logits = self.oracle.logits(adversarial)
        broken = self.criterion.broken(logits, labels)
        hit = broken.cpu()
        done = rows[hit]
        self.verdicts.broken[done] = True
        if self.verdicts.images is not None:
            self.verdicts.images[done] = adversarial[broken].cpu()
        self._tell(len(done))
        if bool(hit.all()):
            return hit
        if expected:
            # Rounding explains some of these, an image at the border; once is enough to tell.
            new = ~hit & ~self.verdicts.disputed[rows]
            self.verdicts.disagreements += int((~hit).sum())
            self.verdicts.disputed[rows[~hit]] = True
            self._checks.insist(*_chosen(new, adversarial, logits))
        else:
            self._checks.offer(*_chosen(~hit, adversarial, logits))
        return hit


def _chosen(mask: Tensor, *rows: Tensor) -> Iterator[Tensor]:
    """The rows of a mask on the CPU."""
    index = mask.nonzero().squeeze(1)
    return (each.index_select(0, index.to(each.device, non_blocking=True)) for each in rows)


@dataclass
class _Trail(Rows):
    """What the steps between two looks left of each row.

    Attributes:
        broken: whether it seemed broken at one of the points, and was inside the ball there, bool ``(N,)``.
        points: the last such point, float32 ``(N, C, H, W)``; of other rows any.
        left: questions left there, int64 ``(N,)``.
    """

    broken: Tensor
    points: Tensor
    left: Tensor

    def then(self, here: _Trail) -> _Trail:
        """This, and one more step."""
        return _Trail(
            self.broken | here.broken,
            torch.where(here.broken.view(-1, 1, 1, 1), here.points, self.points),
            torch.where(here.broken, here.left, self.left),
        )


@dataclass(frozen=True)
class _Gone:
    """What a look found out, on the CPU.

    Attributes:
        done: rows that leave, bool ``(N,)``.
        broken: those of them that are broken.
        left: what was left of a row's budget at the question that broke it, int64 ``(N,)``.
        remaining: what is left now.
    """

    done: Tensor
    broken: Tensor
    left: Tensor
    remaining: Tensor


@contextmanager
def untouched(images: Tensor, attack: str) -> Iterator[None]:
    """Refuse an attack that writes into the clean images inside: its ball would move with them.

    Raises:
        AttackFailure: naming it.
    """
    before = images._version
    yield
    if images._version != before:
        raise AttackFailure(f"{attack} wrote into the clean images; expected it to return new ones")
