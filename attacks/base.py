"""The base classes of attacks: what keeps their results honest, whoever wrote them."""

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
    """Base of all attacks; its fields are its settings.

    An author writes :meth:`run`. This class owns what is easy to get wrong: several eps in one call,
    a generator of its own for each (so a measure does not depend on which others were asked for),
    eps 0, the ball, the pixel box, and the proof that the result is inside both.

    Attributes:
        criterion: None: the fixed budget on every image, so that top-1 and top-5 are both measured.
            ``top1`` or ``top5``: until that is broken, stop at an image's first success.
    """

    kind: ClassVar[str] = "attack"
    norms: ClassVar[tuple[str, ...]] = NORMS
    """Where the method is defined."""
    needs_gradients: ClassVar[bool] = True
    """Whether it asks the model for gradients, not for answers alone."""
    lengths: ClassVar[tuple[str, ...]] = ()
    """Settings that are lengths in the attack's norm; in linf they are at most 1, as eps is."""

    criterion: str | None = None

    def __post_init__(self) -> None:
        self.require(self.criterion in (None, *CRITERIA), "criterion", "none, top1 or top5")

    @abstractmethod
    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """Move ``ball.images`` so that the attacked model mistakes them.

        Args:
            attacked: gives logits and gradients.
            labels: true labels, int64 ``(N,)``.
            ball: what is allowed; ``ball.images`` are the clean images, float32 ``(N, C, H, W)``.
            generator: the only source of randomness, on the images' device.

        Returns:
            Adversarial images, float32 ``(N, C, H, W)``.
        """

    @property
    def mode(self) -> str:
        """``fixed budget`` or ``until success (top-1)``: how its figures were measured."""
        return FIXED_BUDGET if self.criterion is None else f"stop on success ({self.goal})"

    @property
    def goal(self) -> Criterion:
        """What counts as broken; top-1 where the fixed budget is spent."""
        return Criterion.named(self.criterion or "top1")

    def gradients(self, budgets: int) -> int:
        """Gradients an image needs for so many budgets; for time estimates only."""
        return 10 * budgets

    def stages(self, classes: int) -> Sequence[Attack]:
        """The attacks that images go through until broken, each on what the ones before left.

        Args:
            classes: of the model.
        """
        return [self]

    def next_stage(self, reports: Sequence[StageReport], classes: int) -> Attack | None:
        """The stage that follows those reported; None: the images that are left stay.

        The next of :meth:`stages`, unless an attack that goes by its own success overrides it.

        Args:
            reports: of the stages so far, in their order.
            classes: of the model.
        """
        stages = self.stages(classes)
        return stages[len(reports)] if len(reports) < len(stages) else None

    def remarks(self, classes: int) -> Sequence[str]:
        """What a reader of the result must know: a loss that could not be used with so few classes, say."""
        return ()

    def conclusions(self, reports: Sequence[StageReport]) -> Sequence[str]:
        """What the reports of all stages let a reader conclude: how sure the result is, say."""
        return ()

    def check(self, norm: str) -> None:
        """Refuse a norm that the method is not defined for, and lengths that it does not allow.

        Raises:
            InvalidSettingError: naming the norms, or the length.
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
        """Adversarial images for several budgets; an attack that can share work between them overrides it."""
        moved = []
        for ball, generator in zip(balls, generators, strict=True):
            attacked.reseed("search", generator.initial_seed())
            moved.append(self.run(attacked, labels, ball, generator))
        return moved


@dataclass(frozen=True, kw_only=True)
class IterativeAttack(Attack):
    """An attack that is a per-image state and one step.

    An author writes :meth:`begin`; the fixed budget and the runner, which takes out each image as soon as
    it is broken, both follow from the :class:`~robustbench_tin.attacks.engine.state.AttackState` that it
    returns.
    """

    verifies_result: ClassVar[bool] = True
    """Whether what the search ends with is a point that nobody was asked about yet."""

    needs_clean_logits: ClassVar[bool] = False
    """Whether :meth:`begin` looks at the clean logits (to choose targets, say)."""

    needs_precise_logits: ClassVar[bool] = False
    """Whether they may not be of a lower precision than float32."""

    @abstractmethod
    def begin(self, inputs: AttackInputs) -> AttackState:
        """The state of these images before the first step."""

    def run(self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return self.begin(self.inputs(attacked, labels, ball, generator)).spend(attacked)

    def inputs(
        self, attacked: AttackedModel, labels: Tensor, ball: Ball, generator: torch.Generator
    ) -> AttackInputs:
        """What a fixed budget is about; the arguments are those of :meth:`run`."""
        clean_logits = ball.images.new_empty(len(labels), 0)
        if self.needs_clean_logits:
            clean_logits = attacked.search_logits(ball.images, precise=self.needs_precise_logits)
        return AttackInputs(labels, ball, clean_logits, self.goal, generator)
