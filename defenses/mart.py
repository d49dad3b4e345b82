"""MART: adversarial training with more weight on images that are misclassified already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.defenses.adversarial_training import eval_mode
from robustbench_tin.defenses.trades import DivergenceTraining, divergence, near
from robustbench_tin.training.context import Context
from robustbench_tin.training.objective import classification_loss

FLOOR = 1e-4
"""Added to 1 - p before its logarithm, so that the loss of a confident mistake stays finite."""


@dataclass(frozen=True)
class MART(DivergenceTraining):
    """A boosted cross-entropy on adversarial images, plus their divergence from uncertain clean outputs.

    Wang, Zou, Yi, Bailey, Ma and Gu, 2020, "Improving Adversarial Robustness Requires Revisiting
    Misclassified Examples", ICLR (openreview rklOg6EFwS): 10 steps, the weight 5 (6 is their code's default).
    As in their code, adversarial images maximise the cross-entropy in eval mode.

    Attributes:
        eps: radius of the ball, in units of the pixel range.
        steps: number of gradient steps for each image.
        alpha: length of a step; None for eps / 4 under linf, 2 eps / steps under l2.
        norm: ``linf`` or ``l2``.
        beta: weight of the divergence, 0 or more.
    """

    name: ClassVar[str] = "mart"
    one_label: ClassVar[bool] = True

    beta: float = 5.0

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        with eval_mode(classifier):
            return self.climb(
                classifier,
                self.threat.ball(images),
                near(images, context),
                partial(classification_loss, classifier, labels=labels),
            )

    def risk(
        self, classifier: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, context: Context
    ) -> Tensor:
        clean = classifier(images).log_softmax(dim=1)
        logits = classifier(adversarial)
        moved = logits.log_softmax(dim=1)
        true = functional.one_hot(labels, logits.shape[1])
        strongest_other = moved.exp().masked_fill(true.bool(), 0).amax(dim=1)
        margin = -torch.log1p(FLOOR - strongest_other)
        unsure = 1 - clean.exp().gather(1, labels.view(-1, 1)).squeeze(1)
        weighted: Tensor = divergence(clean, moved) * unsure
        learned = classification_loss(classifier, logits, labels, context.label_smoothing)
        return learned + margin.mean() + self.beta * weighted.mean()
