"""Randomised smoothing: the classifier's majority vote under noise, with certified robustness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin.defenses.base import Defense, NoiseVote
from robustbench_tin.training.context import Context


@dataclass(frozen=True)
class Smoothing(Defense):
    """Train on images with Gaussian noise, and predict the class with most votes under such noise.

    Cohen, Rosenfeld and Kolter, 2019, "Certified Adversarial Robustness via Randomized Smoothing",
    arXiv 1902.02918. Noisy images are clipped to the pixel box, in training and at test time: the clipping is
    a part of the classifier that votes, so the certificate holds. Runs under l2 also measure its certified
    accuracy (:mod:`robustbench_tin.benchmarks.measurement.certified`). Runs under linf do not: a certificate
    for a linf ball would need the l2 ball around it, with a radius of eps times the root of the number of
    values.

    An attack cannot follow the gradient of votes. With gradients enabled, the logits are the logarithm of the
    mean probability over ``samples`` draws, as in the attack of Salman, Yang, Li, Zhang, Zhang, Razenshteyn
    and Bubeck, 2019, "Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers",
    arXiv 1906.04584. Without gradients, and in every verification, they are the votes. Passes are counted as
    the attack makes them: one pass of the smoothed classifier is ``samples`` or ``n0`` passes of the network.

    Attributes:
        sigma: standard deviation of the noise, in units of the pixel range, more than 0, at most 4.
        n0: number of votes for a prediction; for a certificate, those that choose its class.
        n: number of votes for a certificate.
        alpha: probability that a certificate is wrong, more than 0, below 0.5.
        samples: number of draws that are averaged for a gradient.
    """

    name: ClassVar[str] = "smoothing"

    sigma: float = 0.25
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    samples: int = 8

    def __post_init__(self) -> None:
        self.require(0 < self.sigma <= 4, "sigma", "more than 0, at most 4, in units of the pixel range")
        for setting in ("n0", "n", "samples"):
            self.require(getattr(self, setting) >= 1, setting, "1 or more")
        self.require(0 < self.alpha < 0.5, "alpha", "more than 0, below 0.5")

    def augment(self, images: Tensor, labels: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        noise = torch.randn(
            images.shape, generator=context.generator, device=images.device, dtype=torch.float32
        )
        return (images + self.sigma * noise).clamp(0, 1), labels

    def wrap(self, classifier: nn.Module) -> nn.Module:
        return _Smoothed(_Boxed(classifier), self.sigma, self.n0, self.samples)

    def noise_vote(self, classifier: nn.Module) -> NoiseVote:
        return NoiseVote(_Boxed(classifier), self.sigma, self.n0, self.n, self.alpha)


class _Boxed(nn.Module):
    """A classifier whose input is clipped to [0, 1]."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return cast("Tensor", self.classifier(images.clamp(0, 1)))


class _Smoothed(nn.Module):
    """The vote of ``votes`` noisy passes; with gradients, the mean probability of ``samples`` passes."""

    substitutes_gradient = True

    def __init__(self, base: nn.Module, sigma: float, votes: int, samples: int) -> None:
        super().__init__()
        self.base = base
        self.sigma = sigma
        self.votes = votes
        self.samples = samples

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._log_mean_probability(images)
        counts = probability = torch.zeros((), device=images.device, dtype=torch.float32)
        for _ in range(self.votes):
            logits = self._noisy(images)
            counts = counts + functional.one_hot(logits.argmax(dim=1), logits.shape[1])
            probability = probability + logits.softmax(dim=1)
        # Votes decide; for equal votes, and for the lower ranks, the mean probability decides.
        score = counts + probability / (2 * self.votes)
        return (score / (self.votes + 0.5)).clamp(min=torch.finfo(torch.float32).tiny).log()

    def _log_mean_probability(self, images: Tensor) -> Tensor:
        draws = torch.stack([self._noisy(images).log_softmax(dim=1) for _ in range(self.samples)])
        return draws.logsumexp(dim=0) - math.log(self.samples)

    def _noisy(self, images: Tensor) -> Tensor:
        return cast("Tensor", self.base(images + self.sigma * torch.randn_like(images))).float()
