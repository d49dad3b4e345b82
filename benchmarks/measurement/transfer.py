"""Adversarial images of one cell on their way to the others, a block at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_tin.attacks.acceleration.variants import probed
from robustbench_tin.attacks.base import Attack, AttackFailure, Oracle
from robustbench_tin.attacks.engine.image_batches import Pool, drawn
from robustbench_tin.attacks.engine.spot_checks import OnImages, SpotChecks, told_once, with_right_form
from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.measurement.attack import (
    Conditions,
    batch_logits,
    of_form,
    perturb_batch,
)
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.cell_loader import Loader
from robustbench_tin.errors import FOREIGN, one_line
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import ThreatModel

# Adversarial images that are kept at a time, whatever the data set's size.
_BLOCK_BYTES = 256 * 2**20

Moved = dict[int, Tensor]


def measure_transfer(
    loader: Loader,
    plan: Plan,
    pool: Pool,
    attack: Attack,
    eps: Sequence[float],
    source: Cell,
    targets: Sequence[Cell],
    *,
    on_images: OnImages | None = None,
) -> dict[Cell, list[Measurement]]:
    """Move every image on one cell, once, and measure other cells on all of them.

    What goes wrong becomes the status of the measures that it concerns: at the source of all.

    Args:
        loader: gives the cells' models.
        plan: of the run: norm, ``eot``, ``eight_bit`` and ``oblivious``.
        pool: the images.
        attack: one that spends its full budget.
        eps: positive budgets.
        source: where the images are made, with its seed, in the ``fixed`` form of its model.
        targets: where they are measured.
        on_images: called with the number of images moved after each batch.

    Returns:
        One measure a budget for each target; passes and seconds as if it was the only target.
    """
    goals = [_Goal(target, len(eps)) for target in targets]
    started, making = time.perf_counter(), 0.0
    oracle: Oracle | None = None
    status, search = OK, "float32"
    remarks = tuple(attack.remarks(plan.classes))
    report = told_once(on_images)
    try:
        loaded = loader.load(source)
        surrogate = loaded.bare if plan.oblivious else None
        conditions = Conditions(plan.norm, source.seed, "fixed", plan.eot, plan.eight_bit, surrogate)
        oracle = conditions.oracle(loaded.model)
        with oracle:
            few = drawn(pool, ThreatModel(plan.norm, max(eps)), probed(len(pool)))
            oracle.prepare(few, conditions.search)

        def passed(oracle: Oracle) -> None:
            nonlocal goals, making
            # Those of an earlier start have seen images that a wrong form made.
            goals = [_Goal(target, len(eps)) for target in targets]
            checks, told = SpotChecks(oracle), report()
            for starts in _blocks(pool, len(eps)):
                began = time.perf_counter()
                moved: Moved = {}
                with oracle:
                    for start in starts:
                        images, labels = pool.at(start)
                        moved[start] = perturb_batch(attack, oracle, images, labels, eps, conditions, start)
                        checks.offer(moved[start].flatten(0, 1))
                        checks.look()
                        told(len(labels))
                making += time.perf_counter() - began
                for goal in goals:
                    goal.measure(loader, pool, moved)
            with oracle:
                checks.settle()

        with_right_form(oracle, partial(passed, oracle))
        search = oracle.search_label
        remarks += of_form(oracle)
    except FOREIGN as error:  # whatever a model or a plugged-in attack raises
        status, making = _failed(StatusCode.failed_at_source, error), time.perf_counter() - started
    made_forward = 0 if oracle is None else oracle.forward_passes
    made_backward = 0 if oracle is None else oracle.backward_passes
    return {
        goal.cell: [
            Measurement(
                eps=value,
                top1=None if failed != OK else goal.top1(index),
                top5=None if failed != OK else goal.top5(index),
                status=failed,
                seconds=(making + goal.seconds) / len(eps),
                forward_passes=(made_forward + goal.forward_passes) // len(eps),
                backward_passes=made_backward // len(eps),
                mode=attack.mode,
                search=search,
                remarks=remarks,
            )
            for index, value in enumerate(eps)
        ]
        for goal in goals
        for failed in [goal.status if status == OK else status]
    }


@dataclass
class _Goal:
    """A cell that is measured on another's images.

    Attributes:
        cell: which.
        budgets: K.
        status: ``ok``, or why it failed; it is asked no further then.
        hits: of each batch, was the label in the top 1 and in the top 5, bool ``(2, K, n)``.
    """

    cell: Cell
    budgets: int
    status: Status = OK
    seconds: float = 0.0
    forward_passes: int = 0
    hits: list[Tensor] = field(default_factory=list)

    def measure(self, loader: Loader, pool: Pool, moved: Moved) -> None:
        """Ask about a block of images, float32 ``(K, n, C, H, W)`` by the first row of each batch."""
        if self.status != OK:
            return
        started = time.perf_counter()
        oracle: Oracle | None = None
        try:
            oracle = Oracle(loader.load(self.cell).model)
            with oracle:
                for start, versions in moved.items():
                    labels = pool.at(start)[1]
                    logits = [batch_logits(oracle, images, self.cell.seed, start) for images in versions]
                    ranks = [torch.stack([in_top(answer, labels, k) for answer in logits]) for k in (1, 5)]
                    self.hits.append(torch.stack(ranks).cpu())
        except FOREIGN as error:  # whatever a model raises
            self.status = _failed(StatusCode.failed_at_target, error)
        self.seconds += time.perf_counter() - started
        self.forward_passes += 0 if oracle is None else oracle.forward_passes

    def top1(self, budget: int) -> npt.NDArray[np.bool_]:
        """Was the label the top 1, bool ``(N,)``."""
        return self._hits(0, budget)

    def top5(self, budget: int) -> npt.NDArray[np.bool_]:
        """Was the label in the top 5, bool ``(N,)``."""
        return self._hits(1, budget)

    def _hits(self, rank: int, budget: int) -> npt.NDArray[np.bool_]:
        hits: npt.NDArray[np.bool_] = torch.cat([part[rank, budget] for part in self.hits]).numpy()
        return hits


def _blocks(pool: Pool, budgets: int) -> Iterator[Iterable[int]]:
    """The first rows of the batches, as many at a time as there is room for their adversarial images."""
    starts = pool.starts()
    batch_bytes = pool.size * pool.images[0].numel() * 4 * budgets
    batches = max(1, _BLOCK_BYTES // batch_bytes)
    for first in range(0, len(starts), batches):
        yield starts[first : first + batches]


def _failed(code: StatusCode, error: BaseException) -> Status:
    why = str(error) if isinstance(error, AttackFailure) else one_line(error)
    return Status.of(code, why=why)
