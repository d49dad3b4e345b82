"""The base classes of attacks: what keeps their results honest, whoever wrote them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robustbench_tin.attacks.criterion import CRITERIA, Criterion
from robustbench_tin.attacks.engine.attacked_model import AttackFailure, Oracle
from robustbench_tin.attacks.engine.state import Search, Task
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.errors import InvalidSettingError, RobustTinError, one_line
from robustbench_tin.specs import Configurable
from robustbench_tin.threat import NORMS, Ball, ThreatModel, check_eps, check_length

if TYPE_CHECKING:
    from robustbench_tin.attacks.engine.stop_on_success import StageReport

__all__ = ["Attack", "AttackFailure", "IterativeAttack", "Oracle", "cross_entropy"]

FULL_BUDGET = "full budget"


@dataclass(frozen=True, kw_only=True)
class Attack(Configurable):
    """Base of all attacks; its fields are its settings.

    An author writes :meth:`run`. This class owns what is easy to get wrong: several eps in one call,
    a generator of its own for each (so a measure does not depend on which others were asked for),
    eps 0, the ball, the pixel box, and the proof that the result is inside both.

    Attributes:
        criterion: None: the full budget on every image, so that top-1 and top-5 are both measured.
            ``top1`` or ``top5``: until that is broken, an image's verdict and nothing more.
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
    def run(self, oracle: Oracle, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """Move ``ball.images`` so that the oracle mistakes them.

        Args:
            oracle: gives logits and gradients.
            labels: true labels, int64 ``(N,)``.
            ball: what is allowed; ``ball.images`` are the clean images, float32 ``(N, C, H, W)``.
            generator: the only source of randomness, on the images' device.

        Returns:
            Adversarial images, float32 ``(N, C, H, W)``.
        """

    @property
    def mode(self) -> str:
        """``full budget`` or ``until broken (top-1)``: how its figures were measured."""
        return FULL_BUDGET if self.criterion is None else f"until broken ({self.goal})"

    @property
    def goal(self) -> Criterion:
        """What counts as broken; top-1 where the full budget is spent."""
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
        self, oracle: Oracle, labels: Tensor, balls: Sequence[Ball], generators: Sequence[torch.Generator]
    ) -> list[Tensor]:
        """Adversarial images for several budgets; an attack that can share work between them overrides it."""
        moved = []
        for ball, generator in zip(balls, generators, strict=True):
            oracle.reseed("search", generator.initial_seed())
            moved.append(self.run(oracle, labels, ball, generator))
        return moved

    def perturb(
        self,
        oracle: Oracle,
        images: Tensor,
        labels: Tensor,
        eps: Sequence[float],
        *,
        norm: str = "linf",
        seed: int = 0,
    ) -> Tensor:
        """Adversarial images, proved inside the ball and the box in float32.

        With a criterion, of each image what broke it, and the clean image where nothing did.

        Args:
            oracle: the model under attack, entered.
            images: float32 ``(N, C, H, W)`` in [0, 1].
            labels: true labels, int64 ``(N,)``.
            eps: K budgets, in units of the pixel range.
            norm: ``linf`` or ``l2``.
            seed: of the attack's randomness; each budget starts from it anew.

        Returns:
            float32 ``(K, N, C, H, W)``; for eps 0 the images themselves.

        Raises:
            InvalidSettingError: for an eps or a norm that is none.
            AttackFailure: where the model or the attack raised, or the attack returned no image.
        """
        # Copies where they were made in inference mode: such tensors may not be saved for a way back.
        images = images.clone() if images.is_inference() else images.detach()
        labels = labels.clone() if labels.is_inference() else labels
        positive = [value for value in eps if check_eps(value) > 0]
        if images.dtype != torch.float32 or images.ndim != 4:
            raise InvalidSettingError(
                f"images got {images.dtype} {tuple(images.shape)}; expected float32 (N, C, H, W)"
            )
        self.check(norm)
        if self.criterion is not None:
            with self._blamed():
                return self._until_broken(oracle, images, labels, eps, norm, seed)
        balls = [ThreatModel(norm, value).ball(images) for value in positive]
        generators = [torch.Generator(images.device).manual_seed(seed) for _ in positive]
        oracle.reseed("search", seed)
        with self._blamed(), untouched(images, self.name):
            moved = self.sweep(oracle, labels, balls, generators) if balls and len(images) else []
            oracle.require_finite()
        by_eps = {ball.eps: self.verified(image, ball) for ball, image in zip(balls, moved, strict=False)}
        return torch.stack([by_eps.get(value, images) for value in eps])

    def _until_broken(
        self, oracle: Oracle, images: Tensor, labels: Tensor, eps: Sequence[float], norm: str, seed: int
    ) -> Tensor:
        from robustbench_tin.attacks.engine.image_batches import Pool
        from robustbench_tin.attacks.engine.stop_on_success import Driver

        if len(images) == 0:
            return torch.stack([images for _ in eps])
        pool = Pool(images, labels, len(images), images.device)
        oracle.reseed("verdict", seed)
        clean_logits = oracle.logits(images)
        results = []
        for value in eps:
            driver = Driver(oracle, pool, ThreatModel(norm, value), self.goal, clean_logits, seed=seed)
            found = driver.attack(self, keep_images=True) if value > 0 else None
            results.append(images if found is None or found.images is None else found.images)
        return torch.stack([result.to(images.device) for result in results])

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """What the model or the attack raises inside is this attack's failure."""
        try:
            yield
        except (AttackFailure, RobustTinError):
            raise
        except Exception as error:
            raise AttackFailure(f"{self.name} raised {one_line(error)}") from error

    def verified(self, candidates: Tensor, ball: Ball) -> Tensor:
        """The candidates as float32 images proved inside the ball and the box.

        Raises:
            AttackFailure: where one is no image.
        """
        if candidates.shape != ball.images.shape:
            raise AttackFailure(
                f"{self.name} returned {tuple(candidates.shape)}; expected {tuple(ball.images.shape)}"
            )
        adversarial = ball.project(candidates.float())
        if not bool(ball.contains(adversarial).all()):
            raise AttackFailure(f"{self.name} returned an image that is not finite")
        return adversarial


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


@dataclass(frozen=True, kw_only=True)
class IterativeAttack(Attack):
    """An attack that is a per-image state and one step.

    An author writes :meth:`begin`; the full budget and the driver, which takes out each image as soon as
    it is broken, both follow from the :class:`~robustbench_tin.attacks.engine.state.Search` that it returns.
    """

    judges_result: ClassVar[bool] = True
    """Whether what the search ends with is a point that nobody was asked about yet."""

    needs_clean_logits: ClassVar[bool] = False
    """Whether :meth:`begin` looks at the clean logits (to choose targets, say)."""

    needs_precise_logits: ClassVar[bool] = False
    """Whether they may not be of a lower precision than float32."""

    @abstractmethod
    def begin(self, task: Task) -> Search:
        """The state of these images before the first step."""

    def run(self, oracle: Oracle, labels: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        return self.begin(self.task(oracle, labels, ball, generator)).spend(oracle)

    def task(self, oracle: Oracle, labels: Tensor, ball: Ball, generator: torch.Generator) -> Task:
        """What a full budget is about; the arguments are those of :meth:`run`."""
        clean_logits = ball.images.new_empty(len(labels), 0)
        if self.needs_clean_logits:
            clean_logits = oracle.search_logits(ball.images, precise=self.needs_precise_logits)
        return Task(labels, ball, clean_logits, self.goal, generator)
