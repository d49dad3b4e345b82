"""Repeat an attack of a run with the same images, batches, seeds and variants of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_tin.attacks.base import Attack, AttackedModel, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import SpotChecks, with_right_variant
from robustbench_tin.benchmarks.evidence.opened_run import OpenedRun
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.fixed_budget import FixedBudget
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.until_success import attack_until_success
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.cell_loader import LoadedCell


@dataclass(frozen=True)
class AttackAgain:
    """An attack of a run on one of its cells, ready to be repeated.

    Attributes:
        opened: the run.
        cell: one of its cells.
        attack: one of its attacks.
    """

    opened: OpenedRun
    cell: Cell
    attack: Attack

    @cached_property
    def attacked(self) -> AttackedModel:
        """The model under attack."""
        return self._protocol.attacked(self._loaded.model)

    def moved(
        self, eps: float, starts: Sequence[int], rows: npt.NDArray[np.int64] | None = None
    ) -> dict[int, Tensor]:
        """The adversarial images on the CPU, by the first row of their batch.

        Args:
            eps: budget in units of the pixel range.
            starts: first rows of the wanted batches; an attack that stops on success returns all batches,
                because its images share their randomness.
            rows: indices of the attacked images, ascending, from which the batches are made; None: all.

        Raises:
            AttackFailure: if the model or the attack fails.
        """
        batches = self.opened.batches
        if rows is not None:
            batches = batches.subset(torch.from_numpy(rows))
        if self.attack.criterion is None:
            return self._fixed_budget(batches, eps, starts)
        logits = self._clean_logits if rows is None else self._clean_logits[rows]
        return self._stop_on_success(batches, eps, logits)

    @cached_property
    def _protocol(self) -> AttackProtocol:
        chosen = self.opened.run.search_variants(self.cell)
        return AttackProtocol.of_cell(self.opened.plan, self.cell, self._loaded.bare, chosen)

    @cached_property
    def _loaded(self) -> LoadedCell:
        return self.opened.loader.load(self.cell)

    @cached_property
    def _clean_logits(self) -> Tensor:
        clean, logits = measure_clean(self._loaded.model, self.opened.batches, seed=self.cell.seed)
        if logits is None:
            raise AttackFailure(str(clean.status))
        return logits

    def _fixed_budget(self, batches: ImageBatches, eps: float, starts: Sequence[int]) -> dict[int, Tensor]:
        with self.attacked as attacked:
            budgets = self.opened.plan.attacked_eps
            FixedBudget(batches, self.attack, budgets, self._protocol).prepare(attacked)
            return with_right_variant(attacked, lambda: self._spent(attacked, batches, eps, starts))

    def _spent(
        self, attacked: AttackedModel, batches: ImageBatches, eps: float, starts: Sequence[int]
    ) -> dict[int, Tensor]:
        """The images after the fixed budget.

        Raises:
            WrongVariantError: if the searched variant turns out to be wrong.
        """
        work = FixedBudget(batches, self.attack, [eps], self._protocol)
        checks, made = SpotChecks(attacked), {}
        with self.opened.reporter.preparing() as progress:
            for number, start in enumerate(starts, 1):
                moved = work.perturbed(attacked, *batches.at(start), start)[0]
                checks.offer(moved)
                checks.look()
                made[start] = moved.cpu()
                progress(self._label, number, len(starts))
            checks.settle()
        return made

    def _stop_on_success(self, batches: ImageBatches, eps: float, clean_logits: Tensor) -> dict[int, Tensor]:
        with self.opened.reporter.preparing() as progress:
            done = 0

            def report(images: int) -> None:
                nonlocal done
                done += images
                progress(self._label, done, len(batches))

            found = attack_until_success(
                self._loaded.model,
                batches,
                self.attack,
                eps,
                self._protocol,
                clean_logits,
                keep_images=True,
                on_images=report,
            )
        assert found.images is not None
        return {start: found.images[start : start + batches.size] for start in batches.starts()}

    @property
    def _label(self) -> str:
        return f"{self.attack.spec} on {self.cell.label}"
