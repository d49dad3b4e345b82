"""What every attack shares: the oracle it asks, and the base class that keeps it honest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.errors import InvalidSettingError, RobustTinError, one_line
from robustbench_tin.exact import exact_float32
from robustbench_tin.specs import Configurable
from robustbench_tin.threat import Ball, ThreatModel, check_eps

Loss = Callable[[Tensor, Tensor], Tensor]


class AttackFailure(RuntimeError):  # noqa: N818 - a measure's "failed", in the project's words
    """An attack went wrong: the measure has failed, and no image of it counts as robust."""


class Oracle:
    """A model as an attack sees it: logits and gradients, each pass counted.

    A context manager. Inside, the model is in eval mode and its parameters are frozen, so that no
    attack spends time on their gradients; on leaving, every mode and flag is as it was.

    Attributes:
        forward_passes: forward passes so far, summed over the images.
        backward_passes: the same for backward passes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forward_passes = 0
        self.backward_passes = 0

    def __enter__(self) -> Self:
        self._modes = [(module, module.training) for module in self.model.modules()]
        self._frozen = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._restore = ExitStack()
        self._restore.callback(self._put_back)
        self._restore.enter_context(exact_float32())
        for kind in ("cpu", "cuda"):  # a caller's autocast would lower what is verified
            self._restore.enter_context(torch.autocast(kind, enabled=False))
        self.model.eval()
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore.close()

    def _put_back(self) -> None:
        for module, training in self._modes:
            module.training = training
        for parameter in self._frozen:
            parameter.requires_grad_(True)

    def logits(self, images: Tensor) -> Tensor:
        """Logits, float32 ``(N, C)``, without a graph.

        Raises:
            AttackFailure: where a logit is not finite.
        """
        with torch.inference_mode():
            logits = self._forward(images)
        return logits.clone()

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss | None = None) -> Tensor:
        """Gradient of each image's own loss with respect to its pixels, ``(N, C, H, W)``.

        Args:
            images: float32 ``(N, C, H, W)``.
            labels: int64 ``(N,)``.
            loss: from logits and labels to a loss per image ``(N,)``; cross-entropy if None.

        Raises:
            AttackFailure: where a logit or a gradient is not finite, or the model cuts the graph.
        """
        with torch.inference_mode(False), torch.enable_grad():
            variable = images.clone().requires_grad_()
            logits = self._forward(variable)
            # A copy: labels made in inference mode may not be saved for the way back.
            losses = (loss or cross_entropy)(logits, labels.clone())
            if not losses.requires_grad:
                raise AttackFailure("the model's logits have no gradient with respect to its pixels")
            (gradient,) = torch.autograd.grad(losses.sum(), variable)
        self.backward_passes += len(images)
        if not bool(torch.isfinite(gradient).all()):
            raise AttackFailure("the model's gradient is not finite")
        return gradient

    def _forward(self, images: Tensor) -> Tensor:
        logits: object = self.model(images)
        self.forward_passes += len(images)
        if not isinstance(logits, Tensor):
            raise AttackFailure(f"the model returned {type(logits).__name__}; expected logits (N, classes)")
        if logits.ndim != 2 or len(logits) != len(images):
            raise AttackFailure(f"the model returned {tuple(logits.shape)}; expected logits (N, classes)")
        if not bool(torch.isfinite(logits).all()):
            raise AttackFailure("the model's logits are not finite")
        return logits.float()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image, ``(N,)``: never averaged, so a batch's size moves no gradient."""
    return functional.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class Attack(Configurable):
    """Base of all attacks; its fields are its settings.

    An author writes :meth:`run`. This class owns what is easy to get wrong: several eps in one call,
    a generator of its own for each (so a measure does not depend on which others were asked for),
    eps 0, the ball, the pixel box, and the proof that the result is inside both.
    """

    kind: ClassVar[str] = "attack"

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

    def gradients(self, budgets: int) -> int:
        """Gradients an image needs for so many budgets; for time estimates only."""
        return 10 * budgets

    def sweep(
        self, oracle: Oracle, labels: Tensor, balls: Sequence[Ball], generators: Sequence[torch.Generator]
    ) -> list[Tensor]:
        """Adversarial images for several budgets; an attack that can share work between them overrides it."""
        return [
            self.run(oracle, labels, ball, generator)
            for ball, generator in zip(balls, generators, strict=True)
        ]

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
        """Adversarial images for each budget, proved inside the ball and the box in float32.

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
        images = images.detach()
        positive = [value for value in eps if check_eps(value) > 0]
        if images.dtype != torch.float32 or images.ndim != 4:
            raise InvalidSettingError(
                f"images got {images.dtype} {tuple(images.shape)}; expected float32 (N, C, H, W)"
            )
        balls = [ThreatModel(norm, value).ball(images) for value in positive]
        generators = [torch.Generator(images.device).manual_seed(seed) for _ in positive]
        moved = self._swept(oracle, labels, balls, generators) if balls else []
        by_eps = {ball.eps: self._verified(image, ball) for ball, image in zip(balls, moved, strict=True)}
        return torch.stack([by_eps[value] if value > 0 else images for value in eps])

    def _swept(
        self, oracle: Oracle, labels: Tensor, balls: Sequence[Ball], generators: Sequence[torch.Generator]
    ) -> list[Tensor]:
        try:
            return self.sweep(oracle, labels, balls, generators)
        except (AttackFailure, RobustTinError):
            raise
        except Exception as error:
            raise AttackFailure(f"{self.name} raised {one_line(error)}") from error

    def _verified(self, candidates: Tensor, ball: Ball) -> Tensor:
        if candidates.shape != ball.images.shape:
            raise AttackFailure(
                f"{self.name} returned {tuple(candidates.shape)}; expected {tuple(ball.images.shape)}"
            )
        adversarial = ball.project(candidates.float())
        if not bool(ball.contains(adversarial).all()):
            raise AttackFailure(f"{self.name} returned an image that is not finite")
        return adversarial
