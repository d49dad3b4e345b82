"""Fast adaptive boundary attacks: they look for the nearest adversarial point, inside the ball or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.box_projection import between, change_by, dual_length, length
from robustbench_tin.attacks.engine.restarts import IterativeWithRestarts
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState, ModelOutput
from robustbench_tin.attacks.losses import targeted_margin
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.threat import Ball


@dataclass(frozen=True, kw_only=True)
class FAB(IterativeWithRestarts):
    """The fast adaptive boundary attack: project onto the linearised decision boundary, again and again.

    It searches for the adversarial point nearest to the clean image, independent of eps; it succeeds as soon
    as such a point lies inside the ball. Croce and Hein, 2020, "Minimally distorted Adversarial Examples with
    a Fast Adaptive Boundary Attack", arXiv 1907.02044, with the settings of their AutoAttack.

    This attack goes to the nearest boundary of all classes, so a step takes a backward pass for each class
    (and two forward passes). With many classes, use ``fab-t``. For the top-5 criterion it goes to the fifth
    nearest boundary, at which the label leaves the top 5.

    With a fixed budget (``criterion=none``) the result is the nearest adversarial point, or the last point if
    none exists, projected onto the ball. If there are several starts, the one counts whose label lies
    furthest below the strongest other class.

    Attributes:
        steps: number of steps, at least 1.
        restarts: number of starts, at least 1: the clean image, then random points half way to the edge of
            the ball.
        random_start: start at such a point from the first start on.
        alpha_max: largest part of a step that starts from the clean image, to come back nearer to it.
        eta: length of a step, in units of the distance to the boundary, 1 or more.
        beta: an adversarial point is pulled back to this fraction of its way from the clean image.
    """

    name: ClassVar[str] = "fab"
    needs_clean_logits: ClassVar[bool] = True
    needs_precise_logits: ClassVar[bool] = True

    criterion: str | None = "top1"
    steps: int = 100
    random_start: bool = False
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.steps >= 1, "steps", "1 or more")
        self.require(0 <= self.alpha_max <= 1, "alpha_max", "a number from 0 to 1")
        self.require(1 <= self.eta < math.inf, "eta", "1 or more")
        self.require(0 <= self.beta <= 1, "beta", "a number from 0 to 1")

    def gradients(self, budgets: int) -> int:
        # The number of classes is not known here: assume ten.
        return 10 * budgets * self.steps * self.restarts

    def starts(self, classes: int) -> Sequence[Self]:
        self.goal.check(classes)
        first, again = replace(self, restarts=1), replace(self, restarts=1, random_start=True)
        return [first] + [again] * (self.restarts - 1)

    def begin(self, inputs: AttackInputs) -> _Boundary:
        inputs.criterion.check(inputs.clean_logits.shape[1])
        return _NearestBoundary(**self._state(inputs))

    def _state(self, inputs: AttackInputs) -> dict[str, Any]:
        clean = inputs.ball.images
        start = _half_way(inputs.ball, inputs.generator) if self.random_start else clean
        return {
            "inputs": inputs,
            "points": start,
            "queries_left": torch.full_like(inputs.labels, self.steps),
            "iterate": start,
            "nearest": clean,
            "nearest_distance": torch.full(inputs.labels.shape, torch.inf, dtype=torch.float64).to(
                clean.device
            ),
            "settings": self,
        }


@dataclass(frozen=True, kw_only=True)
class FABT(FAB):
    """FAB toward one likely class after the other: one gradient per step for any number of classes.

    For the top-5 criterion a target is five classes of neighbouring rank, and each step goes to the boundary
    of that one of them which is furthest below the label. The paper is :class:`FAB`'s.

    Attributes:
        targets: number of the strongest wrong classes to try; all if there are fewer.
        target: the rank of the only class to try, 1 for the strongest wrong class; None for all of them.
    """

    name: ClassVar[str] = "fab-t"

    targets: int = 9
    target: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.targets >= 1, "targets", "1 or more")
        self.require(self.target is None or self.target >= 1, "target", "none, or 1 or more")

    def gradients(self, budgets: int) -> int:
        return budgets * self.steps * self.restarts * (self.targets if self.target is None else 1)

    def starts(self, classes: int) -> Sequence[Self]:
        if self.target is not None:
            return super().starts(classes)
        self.goal.check(classes)
        ranks = self.goal.ranks(classes, self.targets)
        return [start for rank in ranks for start in replace(self, target=rank).starts(classes)]

    def begin(self, inputs: AttackInputs) -> _Boundary:
        classes = inputs.clean_logits.shape[1]
        inputs.criterion.check(classes)
        rank = self.target or 1
        if rank not in inputs.criterion.ranks(classes, rank):
            raise InvalidSettingError(
                f"attack '{self.name}' got target={rank} with {classes} classes;"
                f" expected at most {classes - inputs.criterion.k}"
            )
        targets = inputs.criterion.targets(inputs.clean_logits, inputs.labels, rank)
        unknown = torch.full(inputs.labels.shape, torch.nan, device=inputs.labels.device, dtype=torch.float32)
        return _TargetBoundary(**self._state(inputs), targets=targets, lead=unknown)


@dataclass
class _Boundary(AttackState):
    """The iterate at which a boundary is linearised, and the nearest adversarial point so far.

    Attributes:
        points: the point after the last step, which the model evaluates.
        iterate: the start of the next step: the same point, or one pulled back from it if it was adversarial.
        nearest: the adversarial point nearest to the clean image so far.
        nearest_distance: its distance, float64 ``(N,)``; infinite without one.
        settings: the settings of the attack.
    """

    # It follows the boundary; a lower precision does not tell its two sides apart.
    precise: ClassVar[bool] = True

    iterate: Tensor
    nearest: Tensor
    nearest_distance: Tensor
    settings: FAB

    def linearised(self, attacked: AttackedModel) -> ModelOutput:
        """The lead of the boundary's class over the label at the iterate, and its gradient."""
        raise NotImplementedError

    def ask(self, attacked: AttackedModel) -> ModelOutput:
        # The step comes before the query, so that the model evaluates every point.
        self.points = self._step(self.linearised(attacked))
        return ModelOutput(attacked.search_logits(self.points, precise=True))

    def move(self, answer: ModelOutput) -> None:
        ball = self.inputs.ball
        adversarial = self.inputs.criterion.success(answer.logits, self.inputs.labels)
        distance = ball.distance(self.points)
        nearer = adversarial & (distance < self.nearest_distance)
        self.nearest = torch.where(nearer.view(-1, 1, 1, 1), self.points, self.nearest)
        self.nearest_distance = torch.where(nearer, distance, self.nearest_distance)
        pulled_back = ball.images + self.settings.beta * (self.points - ball.images)
        self.iterate = torch.where(adversarial.view(-1, 1, 1, 1), pulled_back, self.points)
        self.queries_left = self.queries_left - 1

    def result(self) -> Tensor:
        found = self.nearest_distance.isfinite().view(-1, 1, 1, 1)
        return self.inputs.ball.project(torch.where(found, self.nearest, self.points))

    def _step(self, boundary: ModelOutput) -> Tensor:
        """A point past the boundary: a step from the iterate, mixed with one from the clean image."""
        assert boundary.losses is not None
        assert boundary.gradient is not None
        clean, norm, eta = self.inputs.ball.images, self.inputs.ball.norm, self.settings.eta
        back = (boundary.gradient * (clean - self.iterate)).flatten(1).sum(dim=1)
        near = change_by(self.iterate, boundary.gradient, -boundary.losses, norm)
        far = change_by(clean, boundary.gradient, -(boundary.losses + back), norm)
        part = between(near, far, self.settings.alpha_max, norm)
        return ((1 - part) * (self.iterate + eta * near) + part * (clean + eta * far)).clamp(0, 1)


@dataclass
class _NearestBoundary(_Boundary):
    def linearised(self, attacked: AttackedModel) -> ModelOutput:
        norm = self.inputs.ball.norm
        return attacked.ask_chosen(
            self.iterate, self._leads, partial(dual_length, norm=norm), self._nearest, precise=True
        )

    def _leads(self, logits: Tensor, rows: slice) -> Tensor:
        """The lead of each other class over the label, ``(n, C - 1)``."""
        labels = self.inputs.labels[rows].view(-1, 1)
        others = torch.arange(logits.shape[1] - 1, device=logits.device)
        others = others + (others >= labels)
        return logits.gather(1, others) - logits.gather(1, labels)

    def _nearest(self, leads: Tensor, lengths: Tensor) -> Tensor:
        """The class whose boundary the step crosses, as a column of the leads."""
        away = -leads / lengths
        k = self.inputs.criterion.k
        if k == 1:
            # As published: on either side.
            return away.abs().nan_to_num(nan=torch.inf).argmin(dim=1)
        # Some are crossed already; the label leaves the top k at the k-th.
        return away.nan_to_num(nan=torch.inf).kthvalue(k, dim=1).indices


@dataclass
class _TargetBoundary(_Boundary):
    """The boundary of given classes: one gradient, for whose direction a lower precision is good enough.

    Near the boundary, a lower precision does not give the distance to it. But there the iterate is the point
    of the last query, which gave the lead in float32.

    Attributes:
        targets: the classes to raise above the label, int64 ``(N, k)``.
        lead: the lead in float32 at the iterate, ``(N,)``; NaN if the iterate was pulled back since.
    """

    targets: Tensor
    lead: Tensor

    def linearised(self, attacked: AttackedModel) -> ModelOutput:
        answer = attacked.ask(self.iterate, self._lead)
        assert answer.losses is not None
        return replace(answer, losses=torch.where(self.lead.isnan(), answer.losses, self.lead))

    def move(self, answer: ModelOutput) -> None:
        super().move(answer)
        lead = self._lead(answer.logits, slice(None))
        adversarial = self.inputs.criterion.success(answer.logits, self.inputs.labels)
        self.lead = lead.masked_fill(adversarial, torch.nan)

    def _lead(self, logits: Tensor, rows: slice) -> Tensor:
        return targeted_margin(logits, self.inputs.labels[rows], self.targets[rows])


def _half_way(ball: Ball, generator: torch.Generator) -> Tensor:
    """Random points half way to the edge of the ball, cut to the pixel box."""
    shape, device = ball.images.shape, ball.images.device
    if ball.norm == "linf":
        noise = 2 * torch.rand(shape, generator=generator, device=device, dtype=torch.float32) - 1
    else:
        noise = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    direction = noise / length(noise, ball.norm).view(-1, 1, 1, 1)
    return (ball.images + ball.eps / 2 * direction).clamp(0, 1)
