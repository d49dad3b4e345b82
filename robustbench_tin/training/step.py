"""One optimiser step, split into parts if memory is short."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_tin.runtime import Runtime, is_out_of_memory
from robustbench_tin.training.batch_accuracy import hearing, right_answers
from robustbench_tin.training.context import Context, Objective, TrainingHooks
from robustbench_tin.training.distributed import SINGLE_PROCESS, ProcessGroup
from robustbench_tin.training.objective import classification_loss
from robustbench_tin.training.recipe import TrainingFailure


class Stepper:
    """Takes optimiser steps.

    If memory runs out, later batches are split into parts of half the size, and the gradients of the parts
    are summed. The gradient is the same, except through batch norm, which sees one part at a time.

    Args:
        classifier: the classifier to train.
        defense: the defense; its objective and its hook around the step are used.
        context: the state of training.
        runtime: gives the autocast.
        clip_norm: largest norm of a gradient; longer ones are scaled down to it. 0: no limit.
        group: the processes that take each step together.

    Attributes:
        part: number of images in a part; None for the whole batch.
    """

    def __init__(
        self,
        classifier: nn.Module,
        defense: TrainingHooks,
        context: Context,
        runtime: Runtime,
        clip_norm: float,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._classifier = classifier
        self._defense = defense
        self._context = context
        self._runtime = runtime
        self._clip_norm = clip_norm or float("inf")
        self.part: int | None = None
        self._right = torch.zeros(2, dtype=torch.float32)
        self._team = group
        self._ask: Callable[[Objective], Tensor] | None = None

    def trains_others(self) -> None:
        """Reset after a change of the trained parameters."""
        self._ask = None

    def take(
        self,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        labels: Tensor,
        *,
        clean: bool,
        weight: float = 1.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step; returns the loss, the norm of the unclipped gradient, and right predictions.

        Right predictions ``(2,)`` are those of the first pass of the loss; see
        :func:`robustbench_tin.training.batch_accuracy.right_answers`.

        Args:
            optimizer: the optimiser.
            images: float32 ``(N, 3, H, W)`` in [0, 1].
            labels: labels of the images, int64 ``(N,)`` or probabilities float32 ``(N, C)``.
            clean: use the plain loss instead of the defense's.
            weight: factor of the loss.

        Raises:
            TrainingFailure: if memory runs out in one of several processes, which step together.
        """
        while (loss := self._gradients_if_they_fit(images, labels, clean, weight)) is None:
            self._halve(len(images))
        norm = nn.utils.clip_grad_norm_(self._classifier.parameters(), self._clip_norm)
        optimizer.step()
        return loss, norm, self._right

    def _gradients_if_they_fit(
        self, images: Tensor, labels: Tensor, clean: bool, weight: float
    ) -> Tensor | None:
        """The loss, or None if memory ran out; by then the error, which holds the activations, is gone."""
        try:
            return self._gradients(images, labels, clean, weight)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self._team.size > 1:
                raise TrainingFailure(
                    f"memory ran out with {len(images)} images in each of {self._team.size} processes; give a"
                    " smaller --batch-size"
                ) from error
            if (self.part or len(images)) == 1:
                raise
            return None

    def _gradients(self, images: Tensor, labels: Tensor, clean: bool, weight: float) -> Tensor:
        """Write the gradients of the whole batch into ``.grad``."""
        size = self.part or len(images)
        ask = self._ask = self._ask or self._team.synchronised(self._classifier)
        parts = [
            (self._objective(some, some_labels, first, clean), some_labels)
            for first, some, some_labels in zip(
                range(0, len(images), size), torch.split(images, size), torch.split(labels, size), strict=True
            )
        ]

        def gradients() -> Tensor:
            self._classifier.zero_grad(set_to_none=True)
            total = torch.zeros((), device=images.device, dtype=torch.float32)
            self._right = torch.zeros(2, device=images.device, dtype=torch.float32)
            for objective, some_labels in parts:
                # Entered again for each part: autocast would reuse cached weights of an earlier part.
                with self._runtime.autocast(), hearing(self._classifier) as heard:
                    loss = ask(objective) * (weight * len(some_labels) / len(images))
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
                self._right += right_answers(heard.logits, some_labels)
            return total

        if clean:
            return gradients()
        return self._defense.around_step(self._classifier, gradients, self._context)

    def _objective(self, images: Tensor, labels: Tensor, first_row: int, clean: bool) -> Objective:
        if clean:
            return lambda: classification_loss(
                self._classifier, self._classifier(images), labels, self._context.label_smoothing
            )
        self._context.first_row = first_row
        with self._runtime.autocast():
            return self._defense.objective(self._classifier, images, labels, self._context)

    def _halve(self, batch: int) -> None:
        self.part = ((self.part or batch) + 1) // 2
        self._classifier.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._context.note(
            f"memory ran out: from here on, batches are split into parts of {self.part} images"
        )
