"""Collect evidence for the trust checks with a short probe of the model, once for each cell.

The probe uses at most 96 images, drawn with a fixed seed. It queries the model itself in float32, without a
surrogate and without averaging, so that no setting of an attack can mislead it. A model that is random at
test time is frozen first: it gets the same random numbers at every call, so it becomes a fixed function.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.trust.answer_stability import Answers, Questions, typical_margin
from robustbench_tin.benchmarks.trust.frozen import ProbedModel
from robustbench_tin.benchmarks.trust.slopes import (
    FAR,
    NEAR,
    NEARER,
    OF_COARSE,
    Slopes,
    climbs,
    differences,
    jumps,
    passages,
)
from robustbench_tin.benchmarks.trust.trials import Huge, Trials, Witness
from robustbench_tin.threat import ThreatModel

Hits = npt.NDArray[np.bool_]

IMAGES = 96
# Largest number of forward and backward passes for an image: 8,900 passes in all, a fifth of the passes of
# FGSM and PGD on 1,000 images at two budgets. Most networks need 55 at most.
PASSES = 93
# Number of images whose gradients are tested, in one batch, and number of these also tested at other points.
_CLOSELY, _AT_OTHER_POINTS = 48, 24
_ROWS = 64
# Fraction of the typical margin that may change under an imperceptible change of the image; it is larger if
# logits have 8 or 11 bits.
_JUMP, _COARSE_JUMP = 0.1, 0.5
_TOP1 = Criterion(1)


@dataclass(frozen=True)
class Gradients:
    """Evidence about a model's gradients.

    Attributes:
        images: number of images that are right.
        dead: number of right images whose gradient is zero or not finite, at the image itself or, in the
            first batch, also at a random point of the ball.
        looked: number of images in the following tests.
        jumping: number of images whose margin changes by a tenth of the typical margin although no pixel
            changes by more than 1/100,000.
        near: predicted and measured changes of margins over a fraction of 1/255, along each of
            :data:`~robustbench_tin.benchmarks.trust.slopes.KINDS`; None if the model gives no gradients, or
            declares them as substitutes.
        beside: as ``near``, at random points of the ball.
        far: as ``near``, over an attack step along the steepest direction only.
        passage: as ``near``, from one image to another.
        alike: median cosine of two gradients of an image with different random numbers.
        declared: whether the model declares its gradient as a substitute (``substitutes_gradient``).
        coarse: whether the logits have half precision.
        margin: the typical difference of the two highest logits; infinite if it was not measured.
    """

    images: int = 0
    dead: int = 0
    looked: int = 0
    jumping: int = 0
    near: Slopes | None = None
    beside: Slopes | None = None
    far: Slopes | None = None
    passage: Slopes | None = None
    alike: float = 1.0
    declared: bool = False
    coarse: bool = False
    margin: float = math.inf


@dataclass(frozen=True)
class ProbeResult:
    """The result of the probe.

    Attributes:
        numbers: the probed images, as rows of the cell's results, int64 ``(n,)``.
        right: whether each of them is right when clean, bool ``(n,)``.
        answers: the stability of the model's logits.
        differentiable: whether the model gives gradients with respect to the pixels.
        gradients: evidence about the model's gradients.
        eps: budget of the attacks below, in units of the pixel range.
        fgsm: which images FGSM leaves right, bool ``(n,)``.
        noise: which images random corners of the ball leave right, bool ``(n,)``.
        pgd: which of the first images a PGD on margins leaves right, bool ``(m,)``, m up to n; None if the
            model is random, remembers earlier calls or gives no gradients.
        late_successes: number of PGD's successes in the last tenth of its budget.
        witness: result of a black-box search on images that PGD leaves right; None if it did not run.
        huge: result of an attack with a budget that can turn every image mid-grey; None if it did not run.
        forward_passes: forward passes of the probe, summed over the images.
        backward_passes: backward passes of the probe, summed over the images.
        seconds: wall-clock time of the probe.
    """

    numbers: npt.NDArray[np.int64]
    right: Hits
    answers: Answers
    eps: float
    fgsm: Hits
    noise: Hits
    differentiable: bool = True
    gradients: Gradients = field(default_factory=Gradients)
    pgd: Hits | None = None
    late_successes: int = 0
    witness: Witness | None = None
    huge: Huge | None = None
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0


def gather(model: nn.Module, batches: ImageBatches, eps: float, protocol: AttackProtocol) -> ProbeResult:
    """Probe a model.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the cell's images.
        eps: budget of the probe's attacks, above 0, in units of the pixel range.
        protocol: the protocol of the cell's attacks; norm, seed and 8-bit rounding are used.

    Raises:
        AttackFailure: if the model raises an error or returns invalid logits.
    """
    started = time.perf_counter()
    numbers = torch.randperm(len(batches), generator=torch.Generator().manual_seed(0))[:IMAGES]
    sample = ImageBatches(
        batches.images[numbers], batches.labels[numbers], min(batches.size, _ROWS), batches.device
    )
    subject = ProbedModel(model)
    with subject.attacked as attacked:
        found = _Probe(subject, sample, ThreatModel(protocol.norm, eps), protocol).found(numbers)
    return replace(
        found,
        forward_passes=attacked.forward_passes,
        backward_passes=attacked.backward_passes,
        seconds=time.perf_counter() - started,
    )


class _Probe:
    """The parts of the probe."""

    def __init__(
        self, subject: ProbedModel, sample: ImageBatches, threat: ThreatModel, protocol: AttackProtocol
    ) -> None:
        self.subject = subject
        self.sample = sample
        self.threat = threat
        self.protocol = protocol
        self.logits = torch.cat([subject.logits(images) for images, _ in self._batches()])
        self.labels = sample.all_labels()
        self.right = ~_TOP1.success(self.logits, self.labels)
        self.batch = self._one_batch()
        self.differentiable = subject.attacked.lacks_gradients(self.batch[:1]) is None

    def found(self, numbers: Tensor) -> ProbeResult:
        questions = Questions(self.subject, self.batch)
        answers = questions.answers()
        alive, fgsm, noise = self._single_steps()
        trials = Trials(self.subject, self.sample, self.logits, self.threat, self.protocol)
        found = ProbeResult(
            numbers=numbers.numpy(),
            right=_on_host(self.right),
            answers=answers,
            differentiable=self.differentiable,
            eps=self.threat.eps,
            fgsm=_on_host(fgsm),
            noise=_on_host(noise),
        )
        if self.differentiable:
            found = replace(
                found,
                gradients=self._gradients(alive, remember=answers.remember),
                huge=trials.huge(self.right),
            )
            if answers.random:
                found = replace(found, witness=trials.on_one_batch(self.right))
            elif not answers.remember:
                pgd, late_successes, witness = trials.stop_on_success()
                found = replace(found, pgd=_on_host(pgd), late_successes=late_successes, witness=witness)
        # Some models change their answers only after they were attacked.
        return replace(found, answers=replace(answers, changed=max(answers.changed, questions.changed())))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.sample.at(start) for start in self.sample.starts())

    def _one_batch(self) -> Tensor:
        """The images for the gradient tests, as many as the model accepts in one batch."""
        images = self.sample.first(_CLOSELY).all_images()
        with suppress(Exception):  # some models accept batches of one size only
            self.subject.logits(images)
            return images
        return self.sample.at(0)[0]

    def _single_steps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which images have a gradient, and which FGSM and noise leave right; bool ``(n,)`` each."""
        generator = torch.Generator(self.sample.device).manual_seed(self.protocol.seed)
        alive: list[Tensor] = []
        fgsm: list[Tensor] = []
        noise: list[Tensor] = []
        for images, labels in self._batches():
            ball = self.threat.ball(images)
            gradient = self._gradient(images, labels)
            alive.append(_is_alive(gradient))
            if not fgsm:  # in the first batch only
                alive[0] &= _is_alive(self._gradient(ball.random(generator), labels))
            corners = torch.randn(
                images.shape, generator=generator, device=images.device, dtype=torch.float32
            )
            for direction, kept in ((gradient.nan_to_num(), fgsm), (corners, noise)):
                moved = ball.project(images + self.threat.eps * ball.direction(direction))
                if self.protocol.eight_bit:
                    moved = to_8bit(moved, ball)
                kept.append(~_TOP1.success(self.subject.logits(moved), labels))
        return torch.cat(alive), torch.cat(fgsm), torch.cat(noise)

    def _gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """The gradient of the cross-entropy, ``(N, C, H, W)``; zero if the model gives no gradients."""
        if not self.differentiable:
            return torch.zeros_like(images)
        return self.subject.gradient(images, lambda logits: cross_entropy(logits, labels))

    def _gradients(self, alive: Tensor, *, remember: bool) -> Gradients:
        found = Gradients(int(self.right.sum()), int((self.right & ~alive).sum()), declared=self._declared())
        if remember:  # logits depend on earlier calls, so finite differences say nothing about pixels
            return found
        subject, batch = self.subject, self.batch
        logits = subject.logits(batch)
        typical = typical_margin(logits)
        moves = jumps(subject, batch, logits)
        few, few_moves = batch[:_AT_OTHER_POINTS], moves[:_AT_OTHER_POINTS]
        generator = torch.Generator(self.sample.device).manual_seed(self.protocol.seed + 1)
        beside = self.threat.ball(few).random(generator)
        found = replace(
            found,
            passage=passages(subject, few, few_moves) if len(few) > 1 else None,
            alike=self._alike(few) if subject.draws else 1.0,
            margin=float(typical),
        )
        if found.declared:  # a substitute gradient need not hold over short distances
            return found
        coarse = _has_few_bits(logits)
        jump = (_COARSE_JUMP if coarse else _JUMP) * typical
        return replace(
            found,
            looked=len(batch),
            jumping=int((moves > jump).sum()),
            coarse=coarse,
            near=self._near(batch, moves, coarse, seed=1),
            beside=self._near(beside, few_moves, coarse, seed=2),
            far=climbs(subject, few, self._step(few), few_moves),
        )

    def _near(self, images: Tensor, moves: Tensor, coarse: bool, seed: int) -> Slopes:
        """Compare differences with gradients; repeat over a shorter length if curvature may be the cause."""
        near = differences(self.subject, images, OF_COARSE if coarse else NEAR, moves, seed)
        if coarse or not near.doubtful:
            return near
        nearer = differences(self.subject, images, NEARER, moves, seed)
        return nearer if nearer.usable.sum() >= near.usable.sum() / 2 else near

    def _step(self, images: Tensor) -> float:
        """Largest change of a value in an attack step: half of the budget, and at most ``FAR``."""
        values: int = images[0].numel() if self.threat.norm == "l2" else 1
        return min(FAR, self.threat.eps / 2 / math.sqrt(values))

    def _alike(self, images: Tensor) -> float:
        """The median cosine of two gradients of an image with different random numbers."""
        labels = self.labels[: len(images)]
        first = self._gradient(images, labels).flatten(1).nan_to_num()
        with self.subject.drawing(1):
            second = self._gradient(images, labels).flatten(1).nan_to_num()
        return float(torch.cosine_similarity(first, second, dim=1).median().item())

    def _declared(self) -> bool:
        return any(getattr(module, "substitutes_gradient", False) for module in self.subject.modules())


def _has_few_bits(logits: Tensor) -> bool:
    """Whether the logits have half precision, so that rounding alone makes them jump."""
    return any(bool((logits == logits.to(kind).float()).all()) for kind in (torch.bfloat16, torch.float16))


def _is_alive(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    return flat.isfinite().all(dim=1) & (flat != 0).any(dim=1)


def _on_host(mask: Tensor) -> Hits:
    hits: Hits = mask.cpu().numpy()
    return hits
