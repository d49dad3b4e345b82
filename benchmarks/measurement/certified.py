"""Certified accuracy by randomised smoothing: the accuracy that no attack within a radius can reduce.

Cohen, Rosenfeld and Kolter, 2019, "Certified Adversarial Robustness via Randomized Smoothing", arXiv
1902.02918. A classifier votes under Gaussian noise with standard deviation sigma. If one class wins a share p
of the votes above one half, no change shorter in l2 than sigma · Φ⁻¹(p) changes the winner. p is estimated
from a sample, so its lower confidence bound is used (Clopper and Pearson, 1934). Each certificate is wrong
with probability at most alpha.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.rng import seed_of
from robustbench_tin.attacks.engine.spot_checks import OnImages
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.clean import failed
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.defenses.base import NoiseVote
from robustbench_tin.errors import FOREIGN, InvalidSettingError
from robustbench_tin.threat import ThreatModel

MODE = "certified lower bound"


@dataclass(frozen=True)
class Certificates:
    """The certificates of all images.

    Attributes:
        answers: the class with most of the first votes, int64 ``(N,)``.
        radii: the certified l2 radius of each image in units of the pixel range, float64 ``(N,)``: within it,
            the smoothed classifier provably answers with the label. NaN if the answer is wrong or has too
            few votes for a certificate (an abstention).
    """

    answers: npt.NDArray[np.int64]
    radii: npt.NDArray[np.float64]

    def right(self, eps: float) -> npt.NDArray[np.bool_]:
        """Which images are certified right for every change of at most ``eps``, bool ``(N,)``.

        Args:
            eps: l2 radius in units of the pixel range, above 0.
        """
        # The certificate holds for shorter changes only, and the ball's tolerance exceeds eps slightly.
        proved: npt.NDArray[np.bool_] = self.radii > ThreatModel("l2", eps).ball(torch.zeros(1)).radius
        return proved


def certify(
    vote: NoiseVote, batches: ImageBatches, *, seed: int = 0, on_images: OnImages | None = None
) -> Certificates:
    """Certify each image (Cohen, Rosenfeld and Kolter, 2019).

    If the first votes choose another class than the label, the image gets no further votes.

    Args:
        vote: the classifier, its noise, and the numbers of votes.
        batches: the images, on the classifier's device.
        seed: seed of the noise.
        on_images: called with the number of newly finished images.

    Raises:
        InvalidSettingError: if the noise, a number of votes or the probability is out of range.
        AttackFailure: if the classifier raises an error or returns invalid logits.
    """
    with _oracle(vote, seed) as attacked:
        return _certified(attacked, vote, batches, seed, on_images)


def measure_certified(
    vote: NoiseVote,
    batches: ImageBatches,
    eps: Sequence[float],
    *,
    seed: int = 0,
    on_images: OnImages | None = None,
) -> list[Measurement]:
    """Measure certified accuracy, one measurement for each radius.

    All radii share the same votes; passes and seconds are divided among them.

    Args:
        vote: the classifier, its noise, and the numbers of votes.
        batches: the images, on the classifier's device.
        eps: l2 radii above 0 in units of the pixel range.
        seed: seed of the noise.
        on_images: called with the number of newly finished images.

    Returns:
        The measurements in the order of ``eps``; if the classifier raises an error, their status says so.

    Raises:
        InvalidSettingError: if the noise, a number of votes or the probability is out of range.
    """
    started = time.perf_counter()
    attacked = _oracle(vote, seed)
    status, found = OK, None
    try:
        with attacked:
            found = _certified(attacked, vote, batches, seed, on_images)
    except FOREIGN as error:  # a model may raise anything
        status = failed(error)
    return [
        Measurement(
            eps=value,
            top1=None if found is None else found.right(value),
            top5=None,
            status=status,
            seconds=(time.perf_counter() - started) / len(eps),
            forward_passes=attacked.forward_passes // len(eps),
            backward_passes=0,
            mode=MODE,
            remarks=(f"{vote.n0} + {vote.n} votes, each certificate wrong with probability {vote.alpha:g}",),
        )
        for value in eps
    ]


def _oracle(vote: NoiseVote, seed: int) -> AttackedModel:
    if not (vote.sigma > 0 and min(vote.n0, vote.n) >= 1 and 0 < vote.alpha < 1):
        raise InvalidSettingError(
            f"certify got sigma={vote.sigma}, n0={vote.n0}, n={vote.n}, alpha={vote.alpha};"
            " expected sigma above 0, votes of 1 or more and alpha between 0 and 1"
        )
    return AttackedModel(vote.base, seed=seed)


def _certified(
    attacked: AttackedModel, vote: NoiseVote, batches: ImageBatches, seed: int, on_images: OnImages | None
) -> Certificates:
    answers, radii = [], []
    for start in batches.starts():
        images, labels = batches.at(start)
        generator = torch.Generator(batches.device).manual_seed(seed_of("certify", seed, start))
        chosen = _votes(attacked, images, vote.n0, vote.sigma, generator).argmax(dim=1)
        candidates = (chosen == labels).nonzero().squeeze(1)
        counts = _votes(attacked, images[candidates], vote.n, vote.sigma, generator)
        won = counts.gather(1, labels[candidates].view(-1, 1)).squeeze(1)
        of_batch = np.full(len(labels), np.nan)
        of_batch[candidates.cpu().numpy()] = radius(won.cpu().numpy(), vote.n, vote.sigma, vote.alpha)
        answers.append(chosen.cpu().numpy())
        radii.append(of_batch)
        if on_images is not None:
            on_images(len(labels))
    return Certificates(np.concatenate(answers), np.concatenate(radii))


def _votes(
    attacked: AttackedModel, images: Tensor, count: int, sigma: float, generator: torch.Generator
) -> Tensor:
    """The number of votes of each class, int64 ``(N, C)``; a vote is one pass of the image with noise."""
    votes = torch.zeros(len(images), 1, dtype=torch.int64, device=images.device)
    for _ in range(count if len(images) else 0):
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=torch.float32)
        logits = attacked.logits(images + sigma * noise)
        votes = votes + functional.one_hot(logits.argmax(dim=1), logits.shape[1])
    return votes


def radius(won: npt.NDArray[np.int64], votes: int, sigma: float, alpha: float) -> npt.NDArray[np.float64]:
    """The certified l2 radius for a number of won votes (Cohen, Rosenfeld and Kolter, 2019).

    Args:
        won: number of votes for the class of each image, int64 ``(N,)``.
        votes: number of all votes of an image, 1 or more.
        sigma: standard deviation of the noise in units of the pixel range, above 0.
        alpha: largest probability that a certificate is wrong, in (0, 1).

    Returns:
        The radii in units of the pixel range, float64 ``(N,)``; NaN if the votes certify nothing.

    >>> radius(np.array([40, 60, 100]), 100, sigma=0.5, alpha=0.001).round(3)
    array([ nan,  nan, 0.75])
    """
    from scipy.stats import beta, norm

    least = beta.ppf(alpha, np.maximum(won, 1), votes - won + 1)
    proved: npt.NDArray[np.float64] = np.where((won > 0) & (least > 0.5), sigma * norm.ppf(least), np.nan)
    return proved
