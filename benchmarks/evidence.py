"""Evidence for the trust checks: what a short probe of a model finds out, once a cell.

The probe works on at most 256 images, drawn with a fixed seed, and makes no more passes than 20 steps of
PGD on them would. It asks the model itself in float32, without a surrogate and without averaging, so that
nothing of an attack's own settings can mislead it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack, IterativeAttack, Oracle
from robustbench_tin.attacks.criterion import Criterion
from robustbench_tin.attacks.driver import Driver, Verdicts
from robustbench_tin.attacks.losses import cross_entropy
from robustbench_tin.attacks.pgd import PGD
from robustbench_tin.attacks.pool import Pool
from robustbench_tin.attacks.rounding import to_8bit
from robustbench_tin.attacks.search import Answer, Search, Task
from robustbench_tin.attacks.square import Square
from robustbench_tin.benchmarks.measure import Conditions
from robustbench_tin.threat import ThreatModel

Hits = npt.NDArray[np.bool_]

IMAGES = 256
# Forward and backward passes an image, at most; 40 would be PGD-20.
PASSES = 40
PROBE_STEPS = 10
PROBE_QUERIES = 60
# Passes are shared out so that even a model that nothing breaks costs no more than PGD-20 on 256 images:
# 2 to look twice, 4 for gradients at two points, 1 for FGSM, 11 for the probe, 5 for the huge budget, 16 for
# the black-box search, in units of a forward pass of 256 images, of which PGD-20 makes 40.
_PROBED = 128
_BLACK_BOX = 64
_HUGE = 64
_HUGE_STEPS = 8
# Float rounding moves logits by some 1e-6 of their spread; randomness by far more.
_SAME_LOGITS = 1e-3
_ROWS = 64
_TOP1 = Criterion(1)


@dataclass(frozen=True)
class Evidence:
    """What the probe found.

    Attributes:
        numbers: the images it looked at, as rows of the cell's outcomes, int64 ``(n,)``.
        right: of them, right as they are, bool ``(n,)``.
        differing: images whose logits were not the same in a second pass.
        dead: right images whose gradient is zero or not finite, as they are or at a random point of the ball.
        eps: the budget of the attacks below.
        fgsm: which images FGSM left right, bool ``(n,)``.
        pgd: which of the first images a PGD on margins left right, bool ``(m,)``, m up to n; None where
            the model is random.
        late: images it broke in its last tenth.
        square: which images a short black-box search, started where that PGD had failed, left right, bool
            ``(k,)``, k up to m; None where the model is random.
        huge_eps: a budget with which every image can be made mid-grey.
        huge: which images were left right at it, bool ``(h,)``, all of them right when clean.
        forward_passes: of the probe, summed over the images.
        backward_passes: likewise.
        seconds: of the probe.
    """

    numbers: npt.NDArray[np.int64]
    right: Hits
    differing: int
    dead: int
    eps: float
    fgsm: Hits
    pgd: Hits | None
    late: int
    square: Hits | None
    huge_eps: float
    huge: Hits
    forward_passes: int
    backward_passes: int
    seconds: float


def gather(model: nn.Module, pool: Pool, eps: float, conditions: Conditions) -> Evidence:
    """Probe a model.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the pool.
        pool: the cell's images.
        eps: a budget above 0 to attack with.
        conditions: of the cell's attacks; of them norm, seed and 8 bits hold here.

    Raises:
        AttackFailure: where the model goes wrong.
    """
    started = time.perf_counter()
    numbers = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))[:IMAGES]
    sample = Pool(pool.images[numbers], pool.labels[numbers], min(pool.size, _ROWS), pool.device)
    with Oracle(model) as oracle:
        probe = _Probe(oracle, sample, ThreatModel(conditions.norm, eps), conditions)
        evidence = probe.evidence(numbers)
    return Evidence(
        **evidence,  # type: ignore[arg-type]
        forward_passes=oracle.forward_passes,
        backward_passes=oracle.backward_passes,
        seconds=time.perf_counter() - started,
    )


class _Probe:
    """The parts of the probe; each asks the oracle and nothing else."""

    def __init__(self, oracle: Oracle, sample: Pool, threat: ThreatModel, conditions: Conditions) -> None:
        self.oracle = oracle
        self.sample = sample
        self.threat = threat
        self.conditions = conditions
        self.differentiable = True
        self.logits = self._pass()
        self.right = ~_TOP1.broken(self.logits, sample.all_labels())

    def evidence(self, numbers: Tensor) -> dict[str, object]:
        differing = self.differing()
        alive, fgsm = self.gradients()
        found: dict[str, object] = {
            "numbers": numbers.numpy(),
            "right": _on_host(self.right),
            "differing": differing,
            "dead": int((self.right & ~alive).sum()),
            "eps": self.threat.eps,
            "fgsm": _on_host(fgsm),
            "pgd": None,
            "late": 0,
            "square": None,
        }
        # Judged again at every step, an image of a random model breaks by luck: that compares with nothing.
        if differing == 0:
            found |= self.attacks()
        return found | self.huge()

    def _pass(self) -> Tensor:
        return torch.cat([self.oracle.logits(images) for images, _ in self._batches()])

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.sample.at(start) for start in self.sample.starts())

    def differing(self) -> int:
        """Images whose logits moved between two passes."""
        spread = self.logits.amax(dim=1) - self.logits.amin(dim=1)
        moved = (self._pass() - self.logits).abs().amax(dim=1)
        return int((moved > _SAME_LOGITS * spread).sum())

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Which images have a gradient, clean and beside, and which FGSM leaves right; bool ``(n,)`` each."""
        generator = torch.Generator(self.sample.device).manual_seed(self.conditions.seed)
        alive, kept = [], []
        for images, labels in self._batches():
            ball = self.threat.ball(images)
            gradient = self._gradient(images, labels)
            beside = self._gradient(ball.random(generator), labels)
            alive.append(_is_alive(gradient) & _is_alive(beside))
            step = ball.project(images + self.threat.eps * ball.direction(gradient.nan_to_num()))
            if self.conditions.eight_bit:
                step = to_8bit(step, ball)
            kept.append(~_TOP1.broken(self.oracle.logits(step), labels))
        return torch.cat(alive), torch.cat(kept)

    def _gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of the cross-entropy; zero where the model cuts the graph. No attack may meet an infinite one."""
        with torch.enable_grad():
            variable = images.clone().requires_grad_()
            logits = self.oracle.called(variable)
            assert isinstance(logits, Tensor)
            losses = cross_entropy(logits.float(), labels.clone())
            if not losses.requires_grad:
                self.differentiable = False
                return torch.zeros_like(images)
            (gradient,) = torch.autograd.grad(losses.sum(), variable, allow_unused=True)
        self.oracle.backward_passes += len(images)
        return torch.zeros_like(images) if gradient is None else gradient

    def attacks(self) -> dict[str, object]:
        """A PGD of another loss, and a black-box search on some of what it leaves."""
        count = min(_PROBED, len(self.sample))
        broken, late = ~self.right[:count].cpu(), 0
        if self.differentiable:
            found = self._attack(_MarginPGD(steps=PROBE_STEPS), torch.arange(count), self.threat)
            broken, late = found.broken, sum(stage.late for stage in found.stages)
        left = (~broken).nonzero().squeeze(1)[:_BLACK_BOX]
        covered = count if len(left) < _BLACK_BOX else int(left[-1]) + 1
        black_box = broken[:covered].clone()
        if len(left):
            black_box[left] = self._attack(Square(queries=PROBE_QUERIES), left, self.threat).broken
        return {"pgd": _on_host(~broken), "late": late, "square": _on_host(~black_box)}

    def huge(self) -> dict[str, object]:
        """Plain PGD from the image itself with a budget that no image can withstand."""
        rows = self.right.nonzero().squeeze(1).cpu()[:_HUGE]
        images = self.sample.rows(rows)[0]
        eps = 0.5 if self.threat.norm == "linf" else float((images - 0.5).flatten(1).norm(dim=1).amax())
        attack = PGD(steps=_HUGE_STEPS, random_start=False)
        broken = torch.zeros(len(rows), dtype=torch.bool)
        if self.differentiable:
            broken = self._attack(attack, rows, ThreatModel(self.threat.norm, eps)).broken
        return {"huge_eps": eps, "huge": _on_host(~broken)}

    def _attack(self, attack: Attack, rows: Tensor, threat: ThreatModel) -> Verdicts:
        """Until broken, in float32, with the model itself."""
        sample = self.sample
        pool = Pool(sample.images[rows], sample.labels[rows], sample.size, sample.device)
        logits = self.logits[rows.to(self.logits.device)]
        finish = to_8bit if self.conditions.eight_bit else None
        return Driver(
            self.oracle, pool, threat, _TOP1, logits, seed=self.conditions.seed, finish=finish
        ).attack(attack)


@dataclass(frozen=True, kw_only=True)
class _MarginPGD(IterativeAttack):
    """PGD on the margin between the label and its strongest rival, which no scale of the logits hides."""

    name = "probe"

    steps: int

    def begin(self, task: Task) -> Search:
        return _MarginClimb(
            task=task,
            points=task.ball.random(task.generator),
            left=torch.full_like(task.labels, self.steps),
            alpha=2.5 * task.ball.eps / self.steps,
        )


@dataclass
class _MarginClimb(Search):
    alpha: float

    def loss(self, logits: Tensor, rows: slice) -> Tensor:
        return self.task.criterion.margin(logits, self.task.labels[rows])

    def move(self, answer: Answer) -> None:
        assert answer.gradient is not None
        ball = self.task.ball
        self.points = ball.project(self.points + self.alpha * ball.direction(answer.gradient))
        self.left = self.left - 1


def _is_alive(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    return flat.isfinite().all(dim=1) & (flat != 0).any(dim=1)


def _on_host(mask: Tensor) -> Hits:
    hits: Hits = mask.cpu().numpy()
    return hits
