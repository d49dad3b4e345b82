"""Auto-PGD: projected gradient ascent that chooses its own step sizes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from robustbench_tin.attacks.ascent import Ascent, on_the_rim
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.restarts import RestartedSearch
from robustbench_tin.attacks.engine.state import Search, Task
from robustbench_tin.attacks.losses import cross_entropy, dlr, targeted_cross_entropy, targeted_dlr
from robustbench_tin.errors import InvalidSettingError


@dataclass(frozen=True, kw_only=True)
class APGD(RestartedSearch):
    """Base of the three Auto-PGDs, which differ in their loss.

    Croce and Hein, 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
    Parameter-free Attacks", arXiv 2003.01690; :class:`~robustbench_tin.attacks.ascent.Ascent` is the method.

    A start takes ``steps + 1`` gradients and ends at the first point that breaks the image. With
    ``criterion=none`` it takes them all, and gives, of the points that the model mistakes (top-1), the one
    of the highest loss; where it mistakes none, of all points. Of several starts that point counts whose
    label lies furthest below the strongest other class.

    Attributes:
        steps: gradient steps, at least 1.
        restarts: independent starts, at least 1.
        eot: passes averaged for one gradient; None: as the evaluation says.
    """

    judges_result: ClassVar[bool] = False

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

    def aims(self, task: Task) -> Tensor:
        """The classes to raise, int64 ``(N, k)``; k is 0 for a loss without targets."""
        return task.labels.new_empty(len(task.labels), 0)

    def gradients(self, budgets: int) -> int:
        return budgets * self.restarts * (self.steps + 1) * (self.eot or 1)

    def begin(self, task: Task) -> Search:
        start = on_the_rim(task.ball, task.generator)
        return Ascent.start(task, start, self.objective, self.aims(task), self.steps, self.eot)


@dataclass(frozen=True, kw_only=True)
class CrossEntropyAPGD(APGD):
    """Auto-PGD on the cross-entropy; :class:`APGD` has the paper and the settings."""

    name: ClassVar[str] = "apgd-ce"

    def objective(self, logits: Tensor, labels: Tensor, aims: Tensor, criterion: Criterion) -> Tensor:
        return cross_entropy(logits, labels)


@dataclass(frozen=True, kw_only=True)
class DLRAPGD(APGD):
    """Auto-PGD on the difference of logits ratio; :class:`APGD` has the paper and the settings.

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

    def aims(self, task: Task) -> Tensor:
        rank, classes = self.target or 1, task.clean_logits.shape[1]
        if rank > classes - task.criterion.k:
            raise InvalidSettingError(
                f"attack '{self.name}' got target={rank} with {classes} classes;"
                f" expected {classes - task.criterion.k} or less"
            )
        return task.criterion.targets(task.clean_logits, task.labels, rank)


def _stand_in(name: str, classes: int, needed: int) -> Sequence[str]:
    if classes >= needed:
        return ()
    return (f"{name}: cross-entropy stands in for DLR, which needs {needed} classes",)
