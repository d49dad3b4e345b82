"""Evidence for the trust checks: what a short probe of a model finds out, once a cell.

The probe works on at most 96 images, drawn with a fixed seed. It asks the model itself in float32, without a
surrogate and without averaging, so that no setting of an attack can mislead it. A model that is random at
test time is frozen first: it draws the same random numbers at every call, and is a function like any other.
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
# Forward and backward passes an image, at most: 7,100 passes in all, a sixth of those of FGSM and PGD on
# 1,000 images at two budgets.
PASSES = 74
# Images that are looked at closely, in one batch, and how many of them from further points.
_CLOSELY, _AT_OTHER_POINTS = 48, 24
_ROWS = 64
# Part of the typical margin that may come and go when hardly a pixel changes; it is more if logits have 8 or
# 11 bits.
_JUMP, _COARSE_JUMP = 0.1, 0.5
_TOP1 = Criterion(1)


@dataclass(frozen=True)
class Gradients:
    """What was found out about a model's gradients.

    Attributes:
        images: number of images that were right.
        dead: of them, images whose gradient is zero or not finite, as they are or, of the first,
            at a random point of the ball.
        looked: number of images of the following.
        jumping: images whose margin moves by a tenth of the typical one when no pixel changes by more than
            1/100,000.
        near: changes of margins over a fraction of a level of 255, promised and measured, along each of
            :data:`~robustbench_tin.benchmarks.trust.slopes.KINDS`; None if the model gives no
            gradients, or says that they are stand-ins.
        beside: the same at random points of the ball.
        far: the same over a step of an attack, along the steepest direction.
        passage: the same from image to image.
        alike: how alike two gradients of one image are with other random numbers, the median cosine.
        declared: whether the model says that its gradient is a stand-in.
        coarse: whether its logits are numbers of half precision.
        margin: the typical distance between the two highest logits; infinite if it was not looked at.
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
    """What the probe found.

    Attributes:
        numbers: the images it looked at, as rows of the cell's outcomes, int64 ``(n,)``.
        right: of them, right as they are, bool ``(n,)``.
        answers: how the model answers.
        differentiable: whether the model gives gradients with respect to its pixels.
        gradients: of the model.
        eps: the budget of the attacks below.
        fgsm: which images FGSM left right, bool ``(n,)``.
        noise: which images random corners of the ball left right, likewise.
        pgd: which of the first images a PGD on margins left right, bool ``(m,)``, m up to n; None if the
            model is random, remembers earlier calls or gives no gradients.
        late_successes: images it broke in its last tenth.
        witness: a black-box search on images that PGD left right; None if there was none.
        huge: a budget with which every image can be made mid-grey, and what it leaves.
        forward_passes: of the probe, summed over the images.
        backward_passes: likewise.
        seconds: of the probe.
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
        model: float32 pixels in [0, 1] to logits, on the device of the images.
        batches: the cell's images.
        eps: a budget above 0 to attack with.
        protocol: of the cell's attacks; of them norm, seed and 8 bits hold here.

    Raises:
        AttackFailure: if the model goes wrong.
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
    """The parts of the probe; each asks the subject and nothing else."""

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
        # Some remember what attacks ask for, and answer otherwise only then.
        return replace(found, answers=replace(answers, changed=max(answers.changed, questions.changed())))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.sample.at(start) for start in self.sample.starts())

    def _one_batch(self) -> Tensor:
        """The images that are looked at closely, as many as the model takes in one batch."""
        images = self.sample.first(_CLOSELY).all_images()
        with suppress(Exception):  # a model that takes batches of one size only
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
            if not fgsm:  # of the first batch
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
        """Of the cross-entropy; zero if the model gives none."""
        if not self.differentiable:
            return torch.zeros_like(images)
        return self.subject.gradient(images, lambda logits: cross_entropy(logits, labels))

    def _gradients(self, alive: Tensor, *, remember: bool) -> Gradients:
        found = Gradients(int(self.right.sum()), int((self.right & ~alive).sum()), declared=self._declared())
        if remember:  # then answers follow from calls, and a difference from none of its pixels
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
        if found.declared:  # a stand-in keeps to no short distance
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
        """Over the shorter length if the longer one speaks against the gradient: it may curve so much."""
        near = differences(self.subject, images, OF_COARSE if coarse else NEAR, moves, seed)
        if coarse or not near.doubtful:
            return near
        nearer = differences(self.subject, images, NEARER, moves, seed)
        return nearer if nearer.usable.sum() >= near.usable.sum() / 2 else near

    def _step(self, images: Tensor) -> float:
        """Half of the budget, the largest change of a value, but no more than a long step of an attack."""
        values: int = images[0].numel() if self.threat.norm == "l2" else 1
        return min(FAR, self.threat.eps / 2 / math.sqrt(values))

    def _alike(self, images: Tensor) -> float:
        """How alike gradients are that were taken with other random numbers."""
        labels = self.labels[: len(images)]
        first = self._gradient(images, labels).flatten(1).nan_to_num()
        with self.subject.drawing(1):
            second = self._gradient(images, labels).flatten(1).nan_to_num()
        return float(torch.cosine_similarity(first, second, dim=1).median().item())

    def _declared(self) -> bool:
        return any(getattr(module, "substitutes_gradient", False) for module in self.subject.modules())


def _has_few_bits(logits: Tensor) -> bool:
    """Whether the logits are numbers of half precision, whose rounding is a jump by itself."""
    return any(bool((logits == logits.to(kind).float()).all()) for kind in (torch.bfloat16, torch.float16))


def _is_alive(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    return flat.isfinite().all(dim=1) & (flat != 0).any(dim=1)


def _on_host(mask: Tensor) -> Hits:
    hits: Hits = mask.cpu().numpy()
    return hits
