"""Transfer attacks: craft adversarial images on one cell and measure other cells on them, block by block."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, AttackedModel, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import OnImages, SpotChecks, told_once, with_right_variant
from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.measurement.clean import batch_logits
from robustbench_tin.benchmarks.measurement.fixed_budget import FixedBudget, variant_remarks
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.errors import FOREIGN, one_line
from robustbench_tin.metrics import in_top

# Largest number of bytes of adversarial images in memory at a time, for a data set of any size.
_BLOCK_BYTES = 256 * 2**20

Moved = dict[int, Tensor]


def measure_transfer(
    loader: CellLoader,
    plan: Plan,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    source: Cell,
    cells: Sequence[Cell],
    *,
    on_images: OnImages | None = None,
) -> dict[Cell, list[Measurement]]:
    """Craft adversarial images on a source cell once, and measure other cells on them.

    An error becomes the status of the measurements that it affects: an error at a target affects that target,
    an error at the source affects all targets.

    Args:
        loader: loads the cells' models.
        plan: the run's plan; it gives norm, ``eot``, ``eight_bit`` and ``oblivious``.
        batches: the images.
        attack: an attack with a fixed budget.
        eps: positive budgets in units of the pixel range.
        source: the cell on which the images are crafted, with its seed and the ``fixed`` variant of its
            model.
        cells: the target cells, which are measured on the images.
        on_images: called after each batch with its number of images.

    Returns:
        For each target, one measurement for each budget; passes and seconds as if it were the only target.
    """
    targets = [TransferTarget(cell, len(eps)) for cell in cells]
    started, making = time.perf_counter(), 0.0
    attacked: AttackedModel | None = None
    status, search = OK, "float32"
    remarks = tuple(attack.remarks(plan.classes))
    report = told_once(on_images)
    try:
        loaded = loader.load(source)
        surrogate = loaded.bare if plan.oblivious else None
        protocol = AttackProtocol(plan.norm, source.seed, "fixed", plan.eot, plan.eight_bit, surrogate)
        attacked = protocol.attacked(loaded.model)
        work = FixedBudget(batches, attack, eps, protocol)
        with attacked:
            work.prepare(attacked)

        def passed(attacked: AttackedModel) -> None:
            nonlocal targets, making
            # After a wrong variant, start again: the targets have seen images that it crafted.
            targets = [TransferTarget(cell, len(eps)) for cell in cells]
            checks, told = SpotChecks(attacked), report()
            for starts in _blocks(batches, len(eps)):
                began = time.perf_counter()
                moved: Moved = {}
                with attacked:
                    for start in starts:
                        images, labels = batches.at(start)
                        moved[start] = work.perturbed(attacked, images, labels, start)
                        checks.offer(moved[start].flatten(0, 1))
                        checks.look()
                        told(len(labels))
                making += time.perf_counter() - began
                for target in targets:
                    target.measure(loader, batches, moved)
            with attacked:
                checks.settle()

        with_right_variant(attacked, partial(passed, attacked))
        search = attacked.search_label
        remarks += variant_remarks(attacked)
    except FOREIGN as error:  # a model or a plugged-in attack may raise anything
        status, making = _failed(StatusCode.failed_at_source, error), time.perf_counter() - started
    made_forward = 0 if attacked is None else attacked.forward_passes
    made_backward = 0 if attacked is None else attacked.backward_passes
    return {
        target.cell: [
            Measurement(
                eps=value,
                top1=None if failed != OK else target.top1(index),
                top5=None if failed != OK else target.top5(index),
                status=failed,
                seconds=(making + target.seconds) / len(eps),
                forward_passes=(made_forward + target.forward_passes) // len(eps),
                backward_passes=made_backward // len(eps),
                mode=attack.mode,
                search=search,
                remarks=remarks,
            )
            for index, value in enumerate(eps)
        ]
        for target in targets
        for failed in [target.status if status == OK else status]
    }


@dataclass
class TransferTarget:
    """A cell that is measured on another cell's adversarial images.

    Attributes:
        cell: the cell.
        budgets: the number K of budgets.
        status: ``ok``, or the reason for a failure; a failed target is not measured further.
        seconds: wall-clock time of its measurements.
        forward_passes: forward passes, summed over the images.
        hits: for each batch, whether the label is in the top 1 and in the top 5, bool ``(2, K, n)``.
    """

    cell: Cell
    budgets: int
    status: Status = OK
    seconds: float = 0.0
    forward_passes: int = 0
    hits: list[Tensor] = field(default_factory=list)

    def measure(self, loader: CellLoader, batches: ImageBatches, moved: Moved) -> None:
        """Measure the cell on a block of adversarial images.

        Args:
            loader: loads the cell's model.
            batches: gives the labels.
            moved: for the first row of each batch, its adversarial images, float32 ``(K, n, C, H, W)``.
        """
        if self.status != OK:
            return
        started = time.perf_counter()
        attacked: AttackedModel | None = None
        try:
            attacked = AttackedModel(loader.load(self.cell).model)
            with attacked:
                for start, versions in moved.items():
                    labels = batches.at(start)[1]
                    logits = [batch_logits(attacked, images, self.cell.seed, start) for images in versions]
                    ranks = [torch.stack([in_top(answer, labels, k) for answer in logits]) for k in (1, 5)]
                    self.hits.append(torch.stack(ranks).cpu())
        except FOREIGN as error:  # a model may raise anything
            self.status = _failed(StatusCode.failed_at_target, error)
        self.seconds += time.perf_counter() - started
        self.forward_passes += 0 if attacked is None else attacked.forward_passes

    def top1(self, budget: int) -> npt.NDArray[np.bool_]:
        """Whether the label is the top 1 at a budget, by its index; bool ``(N,)``."""
        return self._hits(0, budget)

    def top5(self, budget: int) -> npt.NDArray[np.bool_]:
        """Whether the label is in the top 5 at a budget, by its index; bool ``(N,)``."""
        return self._hits(1, budget)

    def _hits(self, rank: int, budget: int) -> npt.NDArray[np.bool_]:
        hits: npt.NDArray[np.bool_] = torch.cat([part[rank, budget] for part in self.hits]).numpy()
        return hits


def _blocks(batches: ImageBatches, budgets: int) -> Iterator[Iterable[int]]:
    """Group the batches, given by their first rows, into blocks that fit into memory."""
    starts = batches.starts()
    batch_bytes = batches.size * batches.images[0].numel() * 4 * budgets
    together = max(1, _BLOCK_BYTES // batch_bytes)
    for first in range(0, len(starts), together):
        yield starts[first : first + together]


def _failed(code: StatusCode, error: BaseException) -> Status:
    why = str(error) if isinstance(error, AttackFailure) else one_line(error)
    return Status.of(code, why=why)
