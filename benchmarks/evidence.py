"""Evidence for the trust checks: what a short probe of a model finds out, once a cell.

The probe works on at most 256 images, drawn with a fixed seed, and makes no more passes than 20 steps of
PGD on them would. It asks the model itself in float32, without a surrogate and without averaging, so that
nothing of an attack's own settings can mislead it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
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
from robustbench_tin.attacks.randomness import random_state
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
# 2 to look twice, 1 to look at some of them alone and in other company, 4 for gradients at two points,
# 1 for FGSM, 11 for the probe, 5 for the huge budget, 16 for the black-box search, in units of a forward pass
# of 256 images, of which PGD-20 makes 40.
_PROBED = 128
_BLACK_BOX = 64
_HUGE = 64
_HUGE_STEPS = 8
# Float rounding moves logits by some 1e-6 of their spread; randomness by far more.
_SAME_LOGITS = 1e-3
# In a batch of another size other kernels compute, in a lower precision if the model has chosen one.
_SAME_IN_OTHER_COMPANY = 0.03
# Float rounding is a part of the logits themselves, which may be large beside what an image changes in them.
_ROUNDING = 1e-5
_ROWS = 64
_DARKER = 0.25
# Images that are shown in other company, and those of them that are shown alone.
_TOGETHER, _ALONE = 32, 8
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
            the model is random, remembers earlier calls or gives no gradients.
        late: images it broke in its last tenth.
        square: which images a short black-box search, started where that PGD had failed, left right, bool
            ``(k,)``, k up to m; None likewise.
        huge_eps: a budget with which every image can be made mid-grey.
        huge: which images were left right at it, bool ``(h,)``, all of them right when clean; none of a
            model without gradients.
        forward_passes: of the probe, summed over the images.
        backward_passes: likewise.
        seconds: of the probe.
        draws: whether the model takes random numbers from torch, NumPy or Python as it answers.
        asked_again: images that were shown once more, with the same random numbers as the first time.
        changed: images of them whose logits were not the same.
        regrouped: images that were shown in other company: beside others, in another order, alone.
        moved: images of them whose logits were not the same.
        differentiable: whether the model gives gradients with respect to its pixels.
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
    draws: bool = True
    asked_again: int = 0
    changed: int = 0
    regrouped: int = 0
    moved: int = 0
    differentiable: bool = True

    @property
    def remembers(self) -> bool:
        """Whether answers follow from the calls before: they changed, and no random number did it."""
        return self.changed > 0 or (self.differing > 0 and not self.draws)


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
        self.group = sample.first(_TOGETHER).all_images()
        oracle.reseed("look")
        before = random_state(sample.device)
        self.logits = self._pass()
        self.draws = random_state(sample.device) != before
        self.right = ~_TOP1.broken(self.logits, sample.all_labels())
        self.together = self._together()
        self.differentiable = oracle.lacks_gradients(self.group[:1]) is None

    def evidence(self, numbers: Tensor) -> dict[str, object]:
        differing = self.differing()
        changed = self.asked_again()
        # Of one that remembers earlier calls, company is not told apart.
        remembers = changed > 0 or (differing > 0 and not self.draws)
        regrouped, moved = (0, 0) if remembers else self.regrouped(orders=differing == 0)
        alive, fgsm = self.gradients()
        found: dict[str, object] = {
            "numbers": numbers.numpy(),
            "right": _on_host(self.right),
            "differing": differing,
            "draws": self.draws,
            "asked_again": len(self.sample.at(0)[0]),
            "regrouped": regrouped,
            "moved": moved,
            "differentiable": self.differentiable,
            "dead": int((self.right & ~alive).sum()),
            "eps": self.threat.eps,
            "fgsm": _on_host(fgsm),
            "pgd": None,
            "late": 0,
            "square": None,
        }
        # Judged again at every step, an image of a random model breaks by luck: that compares with nothing.
        if differing == 0 and changed == 0 and self.differentiable:
            found |= self.attacks()
        found |= self.huge()
        # Some remember what attacks ask for, and answer otherwise only then.
        return found | {"changed": max(changed, self.changed_since())}

    def _pass(self) -> Tensor:
        return torch.cat([self.oracle.logits(images) for images, _ in self._batches()])

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.sample.at(start) for start in self.sample.starts())

    def differing(self) -> int:
        """Images whose logits moved between two passes."""
        spread = self.logits.amax(dim=1) - self.logits.amin(dim=1)
        moved = (self._pass() - self.logits).abs().amax(dim=1)
        return int((moved > _SAME_LOGITS * spread).sum())

    def asked_again(self) -> int:
        """Images of the first batch that moved when they were shown again, with the same random numbers.

        The batch once more, and a few twice in a row.
        """
        images = self.sample.at(0)[0]
        changed = _apart(self._shown(images), self.logits[: len(images)], _SAME_LOGITS)
        return max(int(changed.sum()), self.changed_since())

    def changed_since(self) -> int:
        """Images of the group that moved since it was shown first."""
        if self.together is None:
            return 0
        return int(_apart(self._shown(self.group), self.together, _SAME_LOGITS).sum())

    def regrouped(self, *, orders: bool) -> tuple[int, int]:
        """Images shown in other company with the same random numbers, and those of them that moved.

        Every other one of a batch is replaced by a darker one: the rest keep their places, and with them
        what is drawn for them.

        Args:
            orders: show them in the reverse order and alone, too; a random model draws other numbers then.
        """
        images, together = self.group, self.together
        if together is None:
            return 0, 0
        staying = torch.arange(len(images), device=images.device) % 2 == 1
        others = torch.where(staying.view(-1, 1, 1, 1), images, _DARKER * images.flip(-1))
        moved = staying & _apart(self._shown(others), together, _SAME_IN_OTHER_COMPANY)
        if not orders:
            return int(staying.sum()), int(moved.sum())
        moved |= _apart(self._shown(images.flip(0)).flip(0), together, _SAME_IN_OTHER_COMPANY)
        with suppress(Exception):  # one that takes no single image
            singly = torch.cat([self._shown(image[None]) for image in images[:_ALONE]])
            moved[:_ALONE] |= _apart(singly, together, _SAME_IN_OTHER_COMPANY)
        return len(images), int(moved.sum())

    def _together(self) -> Tensor | None:
        """Logits of the group in one batch; None of a model that takes batches of another size only."""
        with suppress(Exception):
            return self._shown(self.group)
        return None

    def _shown(self, images: Tensor) -> Tensor:
        """The logits of images in one batch, with the random numbers of the first look."""
        self.oracle.reseed("look")
        return self.oracle.logits(images)

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
        """Of the cross-entropy; zero where the model gives none. No attack may meet an infinite one."""
        if not self.differentiable:
            return torch.zeros_like(images)
        with torch.enable_grad():
            variable = images.clone().requires_grad_()
            logits = self.oracle.called(variable)
            assert isinstance(logits, Tensor)
            losses = cross_entropy(logits.float(), labels.clone())
            (gradient,) = torch.autograd.grad(losses.sum(), variable, allow_unused=True)
        self.oracle.backward_passes += len(images)
        return torch.zeros_like(images) if gradient is None else gradient

    def attacks(self) -> dict[str, object]:
        """A PGD of another loss, and a black-box search on some of what it leaves."""
        count = min(_PROBED, len(self.sample))
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
        rows = self.right.nonzero().squeeze(1).cpu()[: _HUGE if self.differentiable else 0]
        images = self.sample.rows(rows)[0]
        eps = 0.5
        if self.threat.norm == "l2" and len(images):
            eps = float((images - 0.5).flatten(1).norm(dim=1).amax())
        attack = PGD(steps=_HUGE_STEPS, random_start=False)
        broken = torch.zeros(len(rows), dtype=torch.bool)
        if len(rows):
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


def _apart(logits: Tensor, others: Tensor, share: float) -> Tensor:
    """Rows whose logits lie apart by more than this share of what images differ by, bool ``(n,)``.

    Args:
        logits: of the first rows of ``others``, in the same order.
        others: of several images, ``(N, C)``.
        share: of the largest standard deviation of a class over the images; of the range of a single image.
    """
    scale = others.std(dim=0).amax() if len(others) > 1 else others.amax() - others.amin()
    least = torch.maximum(share * scale, _ROUNDING * others.abs().amax())
    return (logits - others[: len(logits)]).abs().amax(dim=1) > least


def _is_alive(gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    return flat.isfinite().all(dim=1) & (flat != 0).any(dim=1)


def _on_host(mask: Tensor) -> Hits:
    hits: Hits = mask.cpu().numpy()
    return hits
