"""The base classes of attacks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.criterion import CRITERIA, Criterion
from robustbench_tin.attacks.engine.attacked_model import AttackedModel, AttackFailure
from robustbench_tin.attacks.engine.state import AttackInputs, AttackState
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.specs import Configurable
from robustbench_tin.threat import NORMS, Ball, check_length

if TYPE_CHECKING:
    from robustbench_tin.attacks.engine.stop_on_success import StageReport

__all__ = ["Attack", "AttackFailure", "AttackedModel", "IterativeAttack", "cross_entropy"]

FIXED_BUDGET = "fixed budget"


@dataclass(frozen=True, kw_only=True)
class Attack(Configurable):
    """Base class of all attacks. An attack is a frozen dataclass; its fields are its settings.

    Its author writes :meth:`run`, which attacks one batch at one eps. The engine does the rest: several eps
    in one call, one random generator for each (so that no result depends on the other eps), eps 0, the
    projection onto the ball and the pixel box, and the proof that the result lies inside both.

    Attributes:
        criterion: None: a fixed budget for every image; one run then gives top-1 and top-5 accuracy. ``top1``
            or ``top5``: stop at the first success, when the true label is not in the model's top 1 or top 5.

    Raises:
        InvalidSettingError: for a setting out of its range.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Brighten(Attack):
    ...     def run(self, attacked, labels, ball, generator):
    ...         return ball.images + ball.eps
    >>> import robustbench_tin
    >>> from robustbench_tin.testing import toy_problem
    >>> toy = toy_problem(4)
    >>> moved = robustbench_tin.perturb(toy.model, toy.images, toy.labels, Brighten(), eps=0.1)
    >>> moved.shape, moved.amax() <= 1
    (torch.Size([4, 3, 16, 16]), tensor(True))
    """

    kind: ClassVar[str] = "attack"
    norms: ClassVar[tuple[str, ...]] = NORMS
    """Norms that the attack supports."""
    needs_gradients: ClassVar[bool] = True
    """True if the attack uses gradients of the model, not logits alone."""
    lengths: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that are lengths in the attack's norm; in linf they are at most 1, as eps is."""

    criterion: str | None = None

    def __post_init__(self) -> None:
        self.require(self.criterion in (None, *CRITERIA), "criterion", "none, top1 or top5")

    @abstractmethod
    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """Change ``ball.images`` so that the attacked model misclassifies them.

        Args:
            attacked: gives logits and gradients, and counts the queries.
            labels: true labels, int64 ``(N,)``.
            ball: the allowed points; ``ball.images`` are the clean images, float32 ``(N, C, H, W)``.
            generator: the only source of randomness, on the images' device.

        Returns:
            Candidates for adversarial images, float32 ``(N, C, H, W)``.
        """

    @property
    def mode(self) -> str:
        """The way to run the attack: ``fixed budget`` or ``stop on success (top-1)``."""
        return FIXED_BUDGET if self.criterion is None else f"stop on success ({self.goal})"

    @property
    def goal(self) -> Criterion:
        """The criterion of success; top-1 with a fixed budget."""
        return Criterion.named(self.criterion or "top1")

    def gradients(self, budgets: int) -> int:
        """Number of gradients an image needs for this number of eps; used for time estimates only."""
        return 10 * budgets

    def stages(self, classes: int) -> Sequence[Attack]:
        """The stages if the attack stops on success: attacks, each on the images that survived those before.

        Args:
            classes: number of classes of the model.
        """
        return [self]

    def next_stage(self, reports: Sequence[StageReport], classes: int) -> Attack | None:
        """The stage that follows those reported; None ends the attack.

        By default it is the next of :meth:`stages`. Override it if the stages depend on the success so far.

        Args:
            reports: the reports of the stages so far, in order.
            classes: number of classes of the model.
        """
        stages = self.stages(classes)
        return stages[len(reports)] if len(reports) < len(stages) else None

    def remarks(self, classes: int) -> Sequence[str]:
        """Remarks about the result, such as a loss that cannot be used with this number of classes.

        Args:
            classes: number of classes of the model.
        """
        return ()

    def conclusions(self, reports: Sequence[StageReport]) -> Sequence[str]:
        """Conclusions about the result, such as how sure it is.

        Args:
            reports: the reports of all stages.
        """
        return ()

    def check(self, norm: str) -> None:
        """Refuse a norm that the attack does not support, and a length that is too large for the norm.

        Raises:
            InvalidSettingError: names the supported norms, or the length.
        """
        if norm not in NORMS:
            raise InvalidSettingError(f"norm got '{norm}'; expected {' or '.join(NORMS)}")
        if norm not in self.norms:
            raise InvalidSettingError(
                f"attack '{self.name}' got norm {norm}; expected {' or '.join(self.norms)}"
            )
        for setting in self.lengths if norm == "linf" else ():
            check_length(f"attack '{self.name}' got {setting}", getattr(self, setting) or 0)

    def sweep(
        self,
        attacked: AttackedModel,
        labels: Tensor,
        balls: Sequence[Ball],
        generators: Sequence[torch.Generator],
    ) -> list[Tensor]:
        """The results of :meth:`run` for several eps; override it to share work between them."""
        moved = []
        for ball, generator in zip(balls, generators, strict=True):
            attacked.reseed("search", generator.initial_seed())
            moved.append(self.run(attacked, labels, ball, generator))
        return moved


@dataclass(frozen=True, kw_only=True)
class IterativeAttack(Attack):
    """An attack that takes one step at a time, on a state with one row an image.

    Its author writes :meth:`begin`, which returns an
    :class:`~robustbench_tin.attacks.engine.state.AttackState`. The engine can run the state in both ways:
    with a fixed budget, or with stop on success, which removes each image from the batch as soon as it is
    adversarial.
    """

    verifies_result: ClassVar[bool] = True
    """True if the model has not evaluated the final iterate yet, so that the engine must verify it."""

    needs_clean_logits: ClassVar[bool] = False
    """True if :meth:`begin` uses the clean logits, for example to choose targets."""

    needs_precise_logits: ClassVar[bool] = False
    """True if the clean logits must be computed in float32, not in a lower precision."""

    @abstractmethod
    def begin(self, inputs: AttackInputs) -> AttackState:
        """The state before the first step."""

    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return self.begin(self.inputs(attacked, labels, ball, generator)).run_to_end(attacked)

    def inputs(
        self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator
    ) -> AttackInputs:
        """The inputs of :meth:`begin` for a fixed budget; the arguments are those of :meth:`run`."""
        clean_logits = ball.images.new_empty(len(labels), 0)
        if self.needs_clean_logits:
            clean_logits = attacked.search_logits(ball.images, precise=self.needs_precise_logits)
        return AttackInputs(labels, ball, clean_logits, self.goal, generator)
