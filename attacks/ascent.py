"""The ascent of Auto-PGD: steps that shrink where they stop paying, each image by its own schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from robustbench_tin.attacks.climb import uphill
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.attacked_model import Oracle
from robustbench_tin.attacks.engine.state import Answer, Search, Task
from robustbench_tin.threat import Ball, LinfBall

Objective = Callable[[Tensor, Tensor, Tensor, Criterion], Tensor]
"""From logits ``(n, C)``, labels ``(n,)``, targets ``(n, k)`` and the criterion to losses ``(n,)``."""

# The published constants: parts of all steps, and of a window.
_FIRST_WINDOW, _SHRINKAGE, _SHORTEST_WINDOW = 0.22, 0.03, 0.06
_ENOUGH_RISES = 0.75
_MOMENTUM = 0.25


def on_the_rim(ball: Ball, generator: torch.Generator) -> Tensor:
    """Points drawn at the full distance eps from each image, then cut with the pixel box.

    linf: uniform values, scaled until the largest is eps; l2: a uniform direction of length eps.

    Returns:
        float32 ``(N, C, H, W)``.
    """
    shape, device = ball.images.shape, ball.images.device
    if isinstance(ball, LinfBall):
        noise = 2 * torch.rand(shape, generator=generator, device=device, dtype=torch.float32) - 1
        noise = noise / noise.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    else:
        noise = ball.direction(torch.randn(shape, generator=generator, device=device, dtype=torch.float32))
    return ball.project(ball.images + ball.eps * noise)


@dataclass
class Ascent(Search):
    """Gradient ascent with momentum whose steps begin at 2 × eps and are halved at checkpoints.

    At the end of a window of steps an image's step is halved, and it goes on from the best point so far,
    where the loss rose in no more than three quarters of them, or where neither the step nor the best loss
    has changed since the last checkpoint. Croce and Hein, 2020, arXiv 2003.01690, algorithm 1.

    As published but for two details. A first step counts as a rise where the loss is above that of the
    start; the authors' code compares with 0. And the ball is this project's: projection to the
    intersection of an l2 ball with the box keeps the whole length eps, where theirs cuts what leaves the box.

    Attributes:
        objective: what is climbed.
        targets: classes for the objective, int64 ``(N, k)``.
        steps: of a row's whole budget, which is one question more.
        eot: passes averaged for one gradient; None: as the oracle has it.
        previous: the point before the last step.
        best_points: of the highest loss so far.
        best_gradient: there.
        best_loss: there, ``(N,)``.
        last_loss: at the point before, ``(N,)``.
        checked_loss: the best at the last checkpoint, ``(N,)``.
        halved: whether the step was halved at the last checkpoint, bool ``(N,)``.
        step_size: in units of the pixel range, ``(N,)``.
        window: steps from the last checkpoint to the next, int64 ``(N,)``.
        taken: steps since the last checkpoint, int64 ``(N,)``.
        rises: how many of them raised the loss, int64 ``(N,)``.
        worst_points: what :meth:`result` gives: of the points that break the criterion the one of the highest
            loss; of all points where none does.
        worst_loss: there, ``(N,)``.
        breaks: whether it breaks the criterion, bool ``(N,)``.
    """

    objective: Objective
    targets: Tensor
    steps: int
    eot: int | None
    previous: Tensor
    best_points: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    last_loss: Tensor
    checked_loss: Tensor
    halved: Tensor
    step_size: Tensor
    window: Tensor
    taken: Tensor
    rises: Tensor
    worst_points: Tensor
    worst_loss: Tensor
    breaks: Tensor

    @classmethod
    def start(
        cls, task: Task, points: Tensor, objective: Objective, targets: Tensor, steps: int, eot: int | None
    ) -> Self:
        """The state before the first question.

        Args:
            task: the images.
            points: where to start, float32 ``(N, C, H, W)`` inside the ball.
            objective: what to climb.
            targets: for the objective, int64 ``(N, k)``; k may be 0.
            steps: 1 or more.
            eot: passes averaged for one gradient; None: as the oracle has it.
        """
        labels = task.labels
        never = torch.full(labels.shape, -torch.inf, device=labels.device, dtype=torch.float32)
        none = torch.zeros_like(labels)
        return cls(
            task=task,
            points=points,
            left=torch.full_like(labels, steps + 1),
            objective=objective,
            targets=targets,
            steps=steps,
            eot=eot,
            previous=points,
            best_points=points,
            best_gradient=torch.zeros_like(points),
            best_loss=never,
            last_loss=-never,
            checked_loss=never,
            # As if: at the first checkpoint there is no earlier one to have got nowhere since.
            halved=torch.ones_like(labels, dtype=torch.bool),
            step_size=torch.full_like(never, 2 * task.ball.eps),
            window=torch.full_like(labels, _part(steps, _FIRST_WINDOW)),
            taken=none,
            rises=none,
            worst_points=points,
            worst_loss=never,
            breaks=torch.zeros_like(labels, dtype=torch.bool),
        )

    def ask(self, oracle: Oracle) -> Answer:
        return oracle.ask(self.points, self.loss, precise=self.precise, eot=self.eot)

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        return self.objective(logits, self.task.labels[rows], self.targets[rows], self.task.criterion)

    def move(self, answer: Answer) -> None:
        assert answer.losses is not None
        assert answer.gradient is not None
        self._note(answer.logits, answer.losses, answer.gradient)
        started = self.left > self.steps
        back = self._check()
        here = torch.where(_wide(back), self.best_points, self.points)
        gradient = torch.where(_wide(back), self.best_gradient, answer.gradient)
        ball = self.task.ball
        aim = uphill(ball, here, gradient, _wide(self.step_size))
        momentum = _wide(torch.where(started, 0.0, _MOMENTUM).float())
        self.points = ball.project(here + (1 - momentum) * (aim - here) + momentum * (here - self.previous))
        self.previous = here
        self.taken = self.taken + 1
        self.left = self.left - 1

    def result(self) -> Tensor:
        return self.worst_points

    def _note(self, logits: Tensor, losses: Tensor, gradient: Tensor) -> None:
        """Remember what was seen at the points."""
        self.rises = self.rises + (losses > self.last_loss)
        self.last_loss = losses
        better = losses > self.best_loss
        self.best_loss = torch.where(better, losses, self.best_loss)
        self.best_points = torch.where(_wide(better), self.points, self.best_points)
        self.best_gradient = torch.where(_wide(better), gradient, self.best_gradient)

        broken = self.task.criterion.broken(logits, self.task.labels)
        worse = (broken & ~self.breaks) | ((broken == self.breaks) & (losses > self.worst_loss))
        self.worst_loss = torch.where(worse, losses, self.worst_loss)
        self.worst_points = torch.where(_wide(worse), self.points, self.worst_points)
        self.breaks = self.breaks | broken

    def _check(self) -> Tensor:
        """Halve the step of rows at a checkpoint that need it; which these are, bool ``(N,)``."""
        due = self.taken == self.window
        stuck = ~self.halved & (self.best_loss <= self.checked_loss)
        back = due & ((self.rises <= _ENOUGH_RISES * self.window) | stuck)
        self.step_size = torch.where(back, self.step_size / 2, self.step_size)
        self.halved = torch.where(due, back, self.halved)
        self.checked_loss = torch.where(due, self.best_loss, self.checked_loss)
        shorter = (self.window - _part(self.steps, _SHRINKAGE)).clamp(min=_part(self.steps, _SHORTEST_WINDOW))
        self.window = torch.where(due, shorter, self.window)
        self.taken = torch.where(due, 0, self.taken)
        self.rises = torch.where(due, 0, self.rises)
        return back


def _part(steps: int, part: float) -> int:
    """So many of the steps, at least one."""
    return max(int(part * steps), 1)


def _wide(column: Tensor) -> Tensor:
    """``(N,)`` as ``(N, 1, 1, 1)``."""
    return column.view(-1, 1, 1, 1)
