"""Square: random search with square-shaped changes, for which logits are enough."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.engine.attacked_model import Oracle
from robustbench_tin.attacks.engine.restarts import RestartedSearch
from robustbench_tin.attacks.engine.state import Answer, Search, Task
from robustbench_tin.attacks.windows import SquareWindows, first_stripes, first_tiles
from robustbench_tin.runtime import is_asynchronous

# After so many of 10,000 queries the share of the image that a change covers is halved.
_HALVED_AFTER = (10, 50, 200, 500, 1_000, 2_000, 4_000, 6_000, 8_000)
_SCHEDULE = 10_000


@dataclass(frozen=True, kw_only=True)
class Square(RestartedSearch):
    """Square: repaint a random square, keep it where the margin got worse for the model; no gradients.

    Andriushchenko, Croce, Flammarion and Hein, 2020, "Square Attack: a query-efficient black-box adversarial
    attack via random search", arXiv 1912.00049. Its schedule, written for 10,000 queries, is stretched to
    those it is given, as AutoAttack does. Each image draws squares of its own, anywhere in it (the
    published code leaves out the last row and column).

    With ``criterion=none`` all queries are made; of several starts the one worst for the model counts.

    Attributes:
        queries: forward passes, the start included, at least 1.
        restarts: independent starts, at least 1, each with all queries.
        p: the share of the image that the first squares cover, in (0, 1].
    """

    name: ClassVar[str] = "square"
    needs_gradients: ClassVar[bool] = False
    judges_result: ClassVar[bool] = False

    criterion: str | None = "top1"
    queries: int = 5000
    p: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.queries >= 1, "queries", "1 or more")
        self.require(0 < self.p <= 1, "p", "more than 0, at most 1")

    def gradients(self, budgets: int) -> int:
        # A forward pass takes about half the time of a gradient.
        return budgets * self.restarts * (self.queries + 1) // 2

    def begin(self, task: Task) -> Search:
        clean = task.ball.images
        first = first_stripes if task.ball.norm == "linf" else first_tiles
        start = task.ball.project(clean + task.ball.eps * first(clean, task.generator))
        return _Squares(
            task=task,
            points=start,
            left=torch.full_like(task.labels, self.queries),
            best=start,
            best_margin=clean.new_full(task.labels.shape, -torch.inf),
            settings=self,
        )


@dataclass
class _Squares(Search):
    """Attributes: best and best_margin, the point of the largest margin so far, and that; settings."""

    # Late squares change the margin by less than bfloat16 resolves: with it, five improvements of six are
    # not seen in the second half, and some are that are none.
    precise: ClassVar[bool] = True

    best: Tensor
    best_margin: Tensor
    settings: Square

    def ask(self, oracle: Oracle) -> Answer:
        return Answer(oracle.search_logits(self.points, precise=self.precise))

    def move(self, answer: Answer) -> None:
        margin = self.task.criterion.margin(answer.logits, self.task.labels)
        better = margin > self.best_margin
        self.best = torch.where(better.view(-1, 1, 1, 1), self.points, self.best)
        self.best_margin = torch.where(better, margin, self.best_margin)
        self.left = self.left - 1
        if is_asynchronous(margin.device) or bool((self.left > 0).any()):
            self.points = self._proposals()

    def result(self) -> Tensor:
        return self.best

    def _proposals(self) -> Tensor:
        ball = self.task.ball
        windows = SquareWindows(self.best, self._shares(), self.task.generator)
        if ball.norm == "linf":
            return ball.project(windows.repainted(self.best, 2 * ball.eps))
        change = windows.rebuilt(self.best - ball.images, ball.eps)
        return ball.project(ball.images + ball.eps * ball.direction(change))

    def _shares(self) -> Tensor:
        """What part of each image its next square covers, ``(N,)``."""
        proposed = self.settings.queries - self.left - 1
        scaled = (proposed * _SCHEDULE).div(self.settings.queries, rounding_mode="floor")
        halvings = torch.bucketize(scaled, _halved_after(scaled.device))
        return self.settings.p / 2.0 ** halvings.float()


@lru_cache
def _halved_after(device: torch.device) -> Tensor:
    """:data:`_HALVED_AFTER`, copied to a device once."""
    return torch.tensor(_HALVED_AFTER, device=device)
