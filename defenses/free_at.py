"""Free adversarial training: each batch several times, with one pass for both weights and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_tin.defenses.adversarial_training import BallTraining
from robustbench_tin.training.context import Context, Objective
from robustbench_tin.training.objective import classification_loss

CHANGE = "free-at.change"


@dataclass(frozen=True)
class FreeAdversarialTraining(BallTraining):
    """Train on each batch several times; the backward pass of one time makes the images of the next.

    Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor and Goldstein, 2019, "Adversarial Training
    for Free!", arXiv 1904.12843: on ImageNet 4 replays. The change of the pixels is kept from replay to
    replay and from batch to batch. As in the paper's tables, an epoch means an epoch's cost: ``replays``
    epochs are one pass over the data. One pass in train mode gives both gradients.

    Attributes:
        eps: radius of the linf ball and length of a step, in units of the pixel range.
        replays: number of times that each batch is trained on before the next, at least 1.
    """

    name: ClassVar[str] = "free-at"
    single_step: ClassVar[bool] = True

    # The loop reads it as the hook of the same name.
    replays: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.replays >= 1, "replays", "1 or more")

    def objective(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Objective:
        change = self._change(images, context)

        def climb(gradient: Tensor) -> None:
            change.add_(self.eps * gradient.sign()).clamp_(-self.eps, self.eps)

        def ask() -> Tensor:
            carried = change.clone().requires_grad_()
            # The hook runs in the backward pass of the weights, so the images need no pass of their own.
            carried.register_hook(climb)  # type: ignore[no-untyped-call]
            logits = classifier((images + carried).clamp(0, 1))
            return classification_loss(classifier, logits, labels, context.label_smoothing)

        return ask

    def _change(self, images: Tensor, context: Context) -> Tensor:
        """The rows of the stored change that belong to these images; new rows start at zero."""
        kept = context.memory.get(CHANGE)
        last = context.first_row + len(images)
        known = 0 if kept is None else len(kept)
        if kept is None or known < last:
            grown = torch.zeros((last, *images.shape[1:]), device=images.device, dtype=torch.float32)
            if kept is not None:
                grown[:known] = kept
            kept = context.memory[CHANGE] = grown
        return kept[context.first_row : last]
