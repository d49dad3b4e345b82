"""Auto-PGD: projected gradient ascent that chooses its own step sizes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.gradient_ascent import ascent_step
from robustbench_tin.attacks.engine.restarts import IterativeWithRestarts
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState, ModelOutput
from robustbench_tin.attacks.losses import cross_entropy, dlr, targeted_cross_entropy, targeted_dlr
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import Ball, LinfBall


@dataclass(frozen=True, kw_only=True)
class APGD(IterativeWithRestarts):
    """Base of the three Auto-PGDs, which differ in their loss.

    Croce and Hein, 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
    Parameter-free Attacks", arXiv 2003.01690; :class:`~robustbench_tin.attacks.apgd.Ascent` is the method.

    A start takes ``steps + 1`` gradients and ends at the first point that breaks the image. With
    ``criterion=none`` it takes them all, and gives, of the points that the model mistakes (top-1), the one
    of the highest loss; where it mistakes none, of all points. Of several starts that point counts whose
    label lies furthest below the strongest other class.

    Attributes:
        steps: gradient steps, at least 1.
        restarts: independent starts, at least 1.
        eot: passes averaged for one gradient; None: as the evaluation says.
    """

    verifies_result: ClassVar[bool] = False

    criterion: str | None = "top1"
    steps: int = 100
    eot: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps", "1 or more")
        self.require(self.eot is None or self.eot >= 1, "eot", "1 or more")

    @abstractmethod
    def objective(self, logits: Tensor, labels: Tensor, aims: Tensor, criterion: Criterion) -> Tensor:
        """The loss to climb, ``(N,)``, from logits ``(N, C)``, labels ``(N,)`` and aims ``(N, k)``."""

    def aims(self, inputs: AttackInputs) -> Tensor:
        """The classes to raise, int64 ``(N, k)``; k is 0 for a loss without targets."""
        return inputs.labels.new_empty(len(inputs.labels), 0)

    def gradients(self, budgets: int) -> int:
        return budgets * self.restarts * (self.steps + 1) * (self.eot or 1)

    def begin(self, inputs: AttackInputs) -> AttackState:
        start = random_boundary_points(inputs.ball, inputs.generator)
        return Ascent.start(inputs, start, self.objective, self.aims(inputs), self.steps, self.eot)


@dataclass(frozen=True, kw_only=True)
class CrossEntropyAPGD(APGD):
    """Auto-PGD on the cross-entropy."""

    name: ClassVar[str] = "apgd-ce"

    def objective(self, logits: Tensor, labels: Tensor, aims: Tensor, criterion: Criterion) -> Tensor:
        return cross_entropy(logits, labels)


@dataclass(frozen=True, kw_only=True)
class DLRAPGD(APGD):
    """Auto-PGD on the difference of logits ratio.

    The ratio needs three classes (seven for the top-5 criterion); with fewer, cross-entropy stands in.
    """

    name: ClassVar[str] = "apgd-dlr"

    def objective(self, logits: Tensor, labels: Tensor, aims: Tensor, criterion: Criterion) -> Tensor:
        if logits.shape[1] >= criterion.k + 2:
            return dlr(logits, labels, criterion)
        return cross_entropy(logits, labels)

    def remarks(self, classes: int) -> Sequence[str]:
        return _stand_in(self.name, classes, self.goal.k + 2)


@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(APGD):
    """Auto-PGD on the targeted difference of logits ratio, toward one likely class after the other.

    :class:`APGD` has the paper and the other settings. The ratio needs four classes (eight for the top-5
    criterion, whose target is five classes of neighbouring rank); with fewer, the cross-entropy of the
    targets stands in.

    Attributes:
        targets: how many of the strongest wrong classes to try, each from its own start; all where there are
            fewer.
        target: the rank of the only one to try, 1 for the strongest wrong class; None: as many as
            ``targets`` says.
    """

    name: ClassVar[str] = "apgd-t"
    needs_clean_logits: ClassVar[bool] = True

    targets: int = 9
    target: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.targets >= 1, "targets", "1 or more")
        self.require(self.target is None or self.target >= 1, "target", "1 or more")

    def objective(self, logits: Tensor, labels: Tensor, aims: Tensor, criterion: Criterion) -> Tensor:
        if logits.shape[1] >= criterion.k + 3:
            return targeted_dlr(logits, labels, aims)
        return targeted_cross_entropy(logits, aims)

    def remarks(self, classes: int) -> Sequence[str]:
        return _stand_in(self.name, classes, self.goal.k + 3)

    def gradients(self, budgets: int) -> int:
        return super().gradients(budgets) * (self.targets if self.target is None else 1)

    def starts(self, classes: int) -> Sequence[Self]:
        self.goal.check(classes)
        ranks = self.goal.ranks(classes, self.targets) if self.target is None else [self.target]
        single = replace(self, restarts=1, targets=type(self).targets)
        return [replace(single, target=rank) for rank in ranks for _ in range(self.restarts)]

    def aims(self, inputs: AttackInputs) -> Tensor:
        rank, classes = self.target or 1, inputs.clean_logits.shape[1]
        if rank > classes - inputs.criterion.k:
            raise InvalidSettingError(
                f"attack '{self.name}' got target={rank} with {classes} classes;"
                f" expected {classes - inputs.criterion.k} or less"
            )
        return inputs.criterion.targets(inputs.clean_logits, inputs.labels, rank)


def _stand_in(name: str, classes: int, needed: int) -> Sequence[str]:
    if classes >= needed:
        return ()
    return (f"{name}: cross-entropy stands in for DLR, which needs {needed} classes",)


Objective = Callable[[Tensor, Tensor, Tensor, Criterion], Tensor]
"""From logits ``(n, C)``, labels ``(n,)``, targets ``(n, k)`` and the criterion to losses ``(n,)``."""

# The published constants: parts of all steps, and of a window.
_FIRST_WINDOW, _SHRINKAGE, _SHORTEST_WINDOW = 0.22, 0.03, 0.06
_ENOUGH_RISES = 0.75
_MOMENTUM = 0.25


def random_boundary_points(ball: Ball, generator: torch.Generator) -> Tensor:
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
class Ascent(AttackState):
    """Gradient ascent with momentum whose steps begin at 2 × eps and are halved at checkpoints.

    At the end of a window of steps an image's step is halved, and it continues from the best point so far,
    if the loss rose in no more than three quarters of them, or if neither the step nor the best loss
    has changed since the last checkpoint. Croce and Hein, 2020, arXiv 2003.01690, algorithm 1.

    As published but for two details. A first step counts as a rise where the loss is above that of the
    start; the authors' code compares with 0. And the ball is this project's: projection to the
    intersection of an l2 ball with the box keeps the whole length eps, where theirs cuts what leaves the box.

    Attributes:
        objective: what is climbed.
        targets: classes for the objective, int64 ``(N, k)``.
        steps: of a row's whole budget, which is one question more.
        eot: passes averaged for one gradient; None: as the attacked model has it.
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
        cls,
        inputs: AttackInputs,
        points: Tensor,
        objective: Objective,
        targets: Tensor,
        steps: int,
        eot: int | None,
    ) -> Self:
        """The state before the first question.

        Args:
            inputs: the images.
            points: where to start, float32 ``(N, C, H, W)`` inside the ball.
            objective: what to climb.
            targets: for the objective, int64 ``(N, k)``; k may be 0.
            steps: 1 or more.
            eot: passes averaged for one gradient; None: as the attacked model has it.
        """
        labels = inputs.labels
        never = torch.full(labels.shape, -torch.inf, device=labels.device, dtype=torch.float32)
        none = torch.zeros_like(labels)
        return cls(
            inputs=inputs,
            points=points,
            queries_left=torch.full_like(labels, steps + 1),
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
            step_size=torch.full_like(never, 2 * inputs.ball.eps),
            window=torch.full_like(labels, _part(steps, _FIRST_WINDOW)),
            taken=none,
            rises=none,
            worst_points=points,
            worst_loss=never,
            breaks=torch.zeros_like(labels, dtype=torch.bool),
        )

    def ask(self, attacked: AttackedModel) -> ModelOutput:
        return attacked.ask(self.points, self.loss, precise=self.precise, eot=self.eot)

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        return self.objective(logits, self.inputs.labels[rows], self.targets[rows], self.inputs.criterion)

    def move(self, answer: ModelOutput) -> None:
        assert answer.losses is not None
        assert answer.gradient is not None
        self._note(answer.logits, answer.losses, answer.gradient)
        started = self.queries_left > self.steps
        back = self._check()
        here = torch.where(_wide(back), self.best_points, self.points)
        gradient = torch.where(_wide(back), self.best_gradient, answer.gradient)
        ball = self.inputs.ball
        aim = ascent_step(ball, here, gradient, _wide(self.step_size))
        momentum = _wide(torch.where(started, 0.0, _MOMENTUM).float())
        self.points = ball.project(here + (1 - momentum) * (aim - here) + momentum * (here - self.previous))
        self.previous = here
        self.taken = self.taken + 1
        self.queries_left = self.queries_left - 1

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

        success = self.inputs.criterion.success(logits, self.inputs.labels)
        worse = (success & ~self.breaks) | ((success == self.breaks) & (losses > self.worst_loss))
        self.worst_loss = torch.where(worse, losses, self.worst_loss)
        self.worst_points = torch.where(_wide(worse), self.points, self.worst_points)
        self.breaks = self.breaks | success

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
