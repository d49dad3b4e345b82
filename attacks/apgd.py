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

    A start takes ``steps + 1`` gradients and ends at the first adversarial point. With a fixed budget
    (``criterion=none``) it takes them all. Its result is then the point of the highest loss, among those that
    the model misclassifies (top-1) if there are any. If there are several starts, the one counts whose label
    lies furthest below the strongest other class.

    Attributes:
        steps: gradient steps, at least 1.
        restarts: independent starts, at least 1.
        eot: number of passes averaged for one gradient; None: that of the evaluation.
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
        targets: number of the strongest wrong classes to try, each from its own start; all if there are
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

    Two details differ from the publication. A first step counts as a rise if the loss is above that of the
    start; the authors' code compares with 0. And the projection onto the intersection of an l2 ball with the
    box keeps the whole length eps; theirs cuts off the part outside the box.

    Attributes:
        objective: the loss to maximise.
        targets: classes for the objective, int64 ``(N, k)``.
        steps: number of steps of a row's whole budget, which has one query more.
        eot: number of passes averaged for one gradient; None: that of the attacked model.
        previous: the point before the last step.
        best_points: the point of the highest loss so far.
        best_gradient: its gradient.
        best_loss: its loss, ``(N,)``.
        last_loss: the loss at the point before, ``(N,)``.
        checked_loss: the highest loss at the last checkpoint, ``(N,)``.
        halved: True if the step was halved at the last checkpoint, bool ``(N,)``.
        step_size: length of a step, in units of the pixel range, ``(N,)``.
        window: number of steps from the last checkpoint to the next, int64 ``(N,)``.
        taken: number of steps since the last checkpoint, int64 ``(N,)``.
        rises: number of them that raised the loss, int64 ``(N,)``.
        worst_points: the result: the point of the highest loss, among the adversarial ones if there are any.
        worst_loss: its loss, ``(N,)``.
        adversarial: True if it is adversarial, bool ``(N,)``.
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
    adversarial: Tensor

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
        """The state before the first query.

        Args:
            inputs: the inputs of the attack.
            points: starting points, float32 ``(N, C, H, W)`` inside the ball.
            objective: the loss to maximise.
            targets: classes for the objective, int64 ``(N, k)``; k may be 0.
            steps: number of steps, at least 1.
            eot: number of passes averaged for one gradient; None: that of the attacked model.
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
            # So that the first checkpoint, which has no earlier one, does not count as stuck.
            halved=torch.ones_like(labels, dtype=torch.bool),
            step_size=torch.full_like(never, 2 * inputs.ball.eps),
            window=torch.full_like(labels, _part(steps, _FIRST_WINDOW)),
            taken=none,
            rises=none,
            worst_points=points,
            worst_loss=never,
            adversarial=torch.zeros_like(labels, dtype=torch.bool),
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
        """Update the best and worst points from the output at the present points."""
        self.rises = self.rises + (losses > self.last_loss)
        self.last_loss = losses
        better = losses > self.best_loss
        self.best_loss = torch.where(better, losses, self.best_loss)
        self.best_points = torch.where(_wide(better), self.points, self.best_points)
        self.best_gradient = torch.where(_wide(better), gradient, self.best_gradient)

        success = self.inputs.criterion.success(logits, self.inputs.labels)
        worse = (success & ~self.adversarial) | ((success == self.adversarial) & (losses > self.worst_loss))
        self.worst_loss = torch.where(worse, losses, self.worst_loss)
        self.worst_points = torch.where(_wide(worse), self.points, self.worst_points)
        self.adversarial = self.adversarial | success

    def _check(self) -> Tensor:
        """Halve the step of rows at a checkpoint if needed; returns these rows, bool ``(N,)``."""
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
    """This part of the steps, at least one."""
    return max(int(part * steps), 1)


def _wide(column: Tensor) -> Tensor:
    """``(N,)`` as ``(N, 1, 1, 1)``."""
    return column.view(-1, 1, 1, 1)
