"""Estimate roughly, before a run starts, how long it will take.

The plan's passes are counted, and a pass of each network is timed in a short trial.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from robustbench_tin.attacks.base import Attack
from robustbench_tin.benchmarks.cells.pass_times import PassTimes, time_passes
from robustbench_tin.benchmarks.measurement.fixed_budget import with_clean_gradients
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol, evaluation_batch_size
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.benchmarks.runs.records import CERTIFIED, CLEAN
from robustbench_tin.benchmarks.runs.run_state import CellCosts, ExpectedCosts, last_end
from robustbench_tin.benchmarks.trust.probe import IMAGES, PASSES
from robustbench_tin.models.network import create_skeleton
from robustbench_tin.runtime import Runtime, choose_precision
from robustbench_tin.training.progressive import sides

# Seconds of an optimiser step per parameter, besides the arithmetic of the passes: AdamW reads and writes
# some 28 bytes per parameter.
_STEP_SECONDS_PER_PARAMETER = {"cpu": 1e-9, "cuda": 2e-11}
# Share of a forward and backward pass that the forward pass takes.
_FORWARD = 0.4
# Share of the trust checks' maximum number of passes that most networks need.
_USUAL_PART = 0.6
# An image side to count by how much progressive resizing cuts the pixels.
_WHOLE = 1024


@dataclass(frozen=True)
class Estimate:
    """Estimated seconds of a plan's cells on this machine.

    Attributes:
        passes: timed passes, by backbone.
        plan: the plan of the run.
    """

    passes: dict[str, PassTimes]
    plan: Plan

    def training(self, model: str, defense: str) -> float:
        """Seconds to train one cell; 0 if its model was given."""
        if self.plan.given:
            return 0.0
        pixels = [(size / _WHOLE) ** 2 for size in self._sides(model)]
        epochs = (self._epoch(model, *each) for each in zip(self.parts_trained[model], pixels, strict=True))
        return self.plan.defense(defense).relative_cost * sum(epochs)

    @cached_property
    def parts_trained(self) -> dict[str, list[str]]:
        """The part of the network that each epoch trains, by backbone."""
        return {
            name: [stage.part for stage in self.plan.recipe(name).stages for _ in range(stage.epochs)]
            for name in self.plan.backbones
        }

    def _sides(self, model: str) -> list[int]:
        return sides(_WHOLE, self.plan.progressive, self.plan.epochs_of(model))

    def _epoch(self, model: str, part: str, pixels: float) -> float:
        """Seconds of an epoch that trains a part, at this share of the full size's pixels."""
        step = self.passes[model].training[part]
        kind = torch.device(self.plan.device).type
        update = step.parameters * _STEP_SECONDS_PER_PARAMETER.get(kind, 1e-9)
        steps = self.plan.train_images / self.plan.batch_size
        return self.plan.train_images * pixels * step.gradient.image + steps * (step.gradient.batch + update)

    def attack(self, model: str, attack: Attack) -> float:
        """Seconds of one attack at all budgets on one cell; 0 if the plan has no budget above 0."""
        budgets = len(self.plan.attacked_eps)
        if budgets == 0:
            return 0.0
        images = self.plan.eval_images * (attack.gradients(budgets) + _FORWARD * budgets)
        return self._gradients(model, images)

    def checking(self, model: str) -> float:
        """Seconds of one cell's trust checks, if no check needs a closer look."""
        images = min(IMAGES, self.plan.eval_images) * _USUAL_PART * PASSES / 2
        return self._gradients(model, images) if self.plan.trust else 0.0

    def clean(self, model: str) -> float:
        """Seconds of one cell's clean measurement; 0 if an attack's gradients supply it."""
        attacks = map(self.plan.attack, self.plan.attacks if self.plan.attacked_eps else ())
        protocol = AttackProtocol(search=self.plan.search, curve=self.plan.curve)
        shares = with_clean_gradients(attacks, protocol) is not None
        if shares and not self.plan.oblivious:
            return 0.0
        return self._gradients(model, self.plan.eval_images * _FORWARD)

    def certifying(self, model: str, votes: int) -> float:
        """Seconds of a number of votes per image of one cell."""
        return self._gradients(model, self.plan.eval_images * votes * _FORWARD)

    def parts(self, cell: Cell) -> CellCosts:
        """Seconds of the parts of one cell."""
        attacks = {
            spec: self.attack(cell.model, self.plan.attack(spec)) for spec in self.plan.attacks_of(cell)
        }
        certifying = self.certifying(cell.model, self._votes(cell.defense))
        return CellCosts(
            train=self.training(cell.model, cell.defense),
            measure={CLEAN: self.clean(cell.model), **attacks, CERTIFIED: certifying},
            trust=self.checking(cell.model),
        )

    def cell(self, cell: Cell) -> float:
        """Seconds of one cell."""
        return self.parts(cell).total

    def expected(self, jobs: int) -> ExpectedCosts:
        """Seconds of all parts of the plan, in the form that a run directory stores."""
        return ExpectedCosts(jobs=jobs, cells={cell.slug: self.parts(cell) for cell in self.plan.cells()})

    def total(self, done: frozenset[str] = frozenset()) -> float:
        """Seconds of all cells except those whose slug is in ``done``, one after the other."""
        return sum(self.cell(cell) for cell in self.plan.cells() if cell.slug not in done)

    def side_by_side(self, jobs: int, done: frozenset[str] = frozenset()) -> float:
        """Seconds until the last cell is complete, if ``jobs`` cells run at a time, longest first."""
        return last_end((self.cell(cell) for cell in self.plan.cells() if cell.slug not in done), jobs)

    def _votes(self, defense: str) -> int:
        vote = (
            self.plan.defense(defense).noise_vote(nn.Identity()) if defense in self.plan.certified else None
        )
        return 0 if vote is None else vote.n0 + vote.n

    def _gradients(self, model: str, images: float) -> float:
        """Seconds of pixel gradients for a number of images."""
        return self.passes[model].attack.of(images, evaluation_batch_size(self.plan.device))


def estimate(plan: Plan, image_size: int, threads: int | None = None) -> Estimate:
    """Count the work of a plan, and time each of its networks in a short trial.

    Args:
        plan: the plan of the run.
        image_size: side of the data set's images in pixels.
        threads: number of CPU threads per cell; None: torch's current number.
    """
    costs = Estimate({}, plan)
    with _threads(threads):
        for name in plan.backbones:
            backbone = plan.backbone(name)
            size = backbone.check_size(image_size, plan.size_of(name))
            skeleton = create_skeleton(backbone, plan.classes, size)
            precision = plan.precision or choose_precision(plan.device, skeleton, size)
            parts = dict.fromkeys(costs.parts_trained[name])
            costs.passes[name] = time_passes(skeleton, size, Runtime(plan.device, precision), list(parts))
    return costs


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
