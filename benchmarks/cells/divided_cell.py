"""A cell whose attacks several machines measure: its shards and their results."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.fixed_budget import with_clean_gradients
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.measurement.shards import (
    Part,
    Shard,
    assembled,
    choose_variants,
    divided,
    measure_shard,
)
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.benchmarks.runs.part_files import Arrays, PartFiles

_FACTS = "part"


class DividedCell:
    """The shards of a trained cell.

    Args:
        context: the run and its data.
        cell: the cell.
    """

    def __init__(self, context: CellContext, cell: Cell) -> None:
        self._context = context
        self._cell = cell
        self._plan = context.plan
        self.files = PartFiles(context.run, cell)

    def shards(self, attacks: Sequence[Attack], shortest: float) -> list[Shard]:
        """The shards of these attacks that are not measured yet.

        Args:
            attacks: the missing attacks.
            shortest: least number of seconds of a shard.
        """
        plan, costs = self._plan, self._context.costs
        if plan.curve or plan.keep_adversarial or self._is_spoilt:
            return []
        return [
            shard
            for attack in attacks
            for shard in divided(
                attack,
                plan.attacked_eps,
                plan.eval_images,
                costs.attack(self._cell.model, attack),
                shortest,
                [part.shard for part in self._parts if part.shard.attack == attack.spec],
            )
        ]

    def prepare(
        self, model: nn.Module, batches: ImageBatches, protocol: AttackProtocol, clean_logits: Tensor | None
    ) -> None:
        """Write the common inputs of all shards: the clean logits and the variants.

        Args:
            model: with its defense.
            batches: all images.
            protocol: of the cell.
            clean_logits: float32 ``(N, C)``; None: computed here.
        """
        if clean_logits is None:
            _, clean_logits = measure_clean(model, batches, seed=self._cell.seed)
        if clean_logits is None:
            return
        self._choose(model, batches, protocol, clean_logits)
        self._context.run.save_search_variants(self._cell, protocol.variants.labels)
        self.files.save_clean_logits(clean_logits.cpu().numpy())

    def measure(self, shard: Shard, batches: ImageBatches) -> None:
        """Measure one shard and write its results.

        Args:
            shard: of this cell.
            batches: all images.
        """
        run, plan, cell = self._context.run, self._plan, self._cell
        known = self.files.clean_logits()
        if known is None or self.files.has(shard.name):
            return
        loaded = CellLoader(run, self._context.dataset.image_size, plan.device).load(cell)
        protocol = AttackProtocol.of_cell(plan, cell, loaded.bare, run.search_variants(cell))
        clean_logits = torch.from_numpy(known).to(batches.device)
        self._choose(loaded.model, batches, protocol, clean_logits)
        what = f"{shard.attack}, images {shard.first + 1} to {shard.stop},"
        with self._context.stage(cell, what, len(shard.images), shard.seconds) as advance:
            attack = plan.attack(shard.attack)
            part = measure_shard(loaded.model, batches, attack, shard, protocol, clean_logits, advance)
        if part is None:
            self.files.save(shard.name, {}, {_FACTS: None})
        else:
            self.files.save(shard.name, part.arrays, {_FACTS: part.facts})

    def measured(self, attack: Attack) -> list[Measurement] | None:
        """The measurements that the shards of an attack make up; None if it is to be measured undivided."""
        parts = [part for part in self._parts if part.shard.attack == attack.spec]
        if not parts:
            return None
        return assembled(attack, self._plan.attacked_eps, self._plan.eval_images, parts)

    @cached_property
    def _parts(self) -> list[Part]:
        """All parts; none if a shard gave none: the same error may concern the others."""
        if self._is_spoilt:
            return []
        return [Part.of(arrays, facts[_FACTS]) for arrays, facts in self._found]

    @cached_property
    def _is_spoilt(self) -> bool:
        """Whether a shard found that the cell is to be measured undivided."""
        return any(facts[_FACTS] is None for _, facts in self._found)

    @cached_property
    def _found(self) -> list[tuple[Arrays, dict[str, Any]]]:
        return list(self.files)

    def _choose(
        self, model: nn.Module, batches: ImageBatches, protocol: AttackProtocol, clean_logits: Tensor
    ) -> None:
        """Choose variants as the cell's attacks would, one after the other."""
        attacks = [self._plan.attack(spec) for spec in self._plan.attacks_of(self._cell)]
        first = with_clean_gradients(attacks, protocol)
        later = [attack for attack in attacks if attack != first]
        choose_variants(model, batches, later, self._plan.attacked_eps, protocol, clean_logits)
