"""Roughly how long a run will take, said before it starts.

Passes are counted exactly; what one costs is the network's arithmetic (counted on shapes) divided by
what this machine achieves on a small convolution network, timed for a moment. Networks differ in how
well they use a machine, so the answer is good to a factor of two or so; the progress bar corrects it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from robustbench_tin.attacks.base import Attack
from robustbench_tin.benchmarks.measurement.fixed_budget import with_clean_gradients
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.benchmarks.trust.probe import IMAGES, PASSES
from robustbench_tin.models.flops import Cost, cost
from robustbench_tin.models.network import create_skeleton
from robustbench_tin.runtime import Runtime, choose_precision
from robustbench_tin.training.progressive import sides

# Seconds an optimiser step takes per parameter, beside the arithmetic of the passes: AdamW reads and writes
# some 28 bytes of each.
_STEP_SECONDS_PER_PARAMETER = {"cpu": 3e-9, "cuda": 2e-11}
# What real networks reach of the small network's rate, by backbones timed on two CPU cores.
_EFFICIENCY = 0.45
# A side for counting by how much progressive resizing cuts the pixels.
_WHOLE = 1024


@dataclass(frozen=True)
class Estimate:
    """Seconds a backbone's cells take, by plan and by machine.

    Attributes:
        flops_per_second: what the machine achieves in float32, which attacks and measures compute in.
        training_flops_per_second: by backbone, in the precision that it is trained in.
        costs: by backbone.
        plan: what will run.
    """

    flops_per_second: float
    training_flops_per_second: dict[str, float]
    costs: dict[str, Cost]
    plan: Plan

    def training(self, model: str, defense: str) -> float:
        """Seconds to train one cell."""
        epochs = self.plan.epochs_of(model)
        images = self.plan.train_images * epochs * self.plan.defense(defense).relative_cost
        steps = images / self.plan.batch_size
        images *= sum((size / _WHOLE) ** 2 for size in sides(_WHOLE, self.plan.progressive, epochs)) / epochs
        kind = torch.device(self.plan.device).type
        update = steps * self.costs[model].parameters * _STEP_SECONDS_PER_PARAMETER.get(kind, 3e-9)
        return images * 3 * self.costs[model].flops_per_image / self.training_flops_per_second[model] + update

    def attack(self, model: str, attack: Attack) -> float:
        """Seconds of one attack at all budgets on one cell."""
        budgets = len(self.plan.attacked_eps)
        gradients = attack.gradients(budgets)
        # Frozen parameters: a backward pass to the pixels costs about a forward pass.
        return self.plan.eval_images * (2 * gradients + budgets) * self._forward(model)

    def checking(self, model: str) -> float:
        """Seconds of the trust checks of one cell, at most."""
        return min(IMAGES, self.plan.eval_images) * PASSES * self._forward(model) if self.plan.trust else 0.0

    def clean(self, model: str) -> float:
        """Seconds of the clean measure of one cell; none if an attack's gradients give it."""
        attacks = map(self.plan.attack, self.plan.attacks if self.plan.attacked_eps else ())
        shares = with_clean_gradients(attacks, AttackProtocol(search=self.plan.search)) is not None
        if shares and not self.plan.oblivious:
            return 0.0
        return self.plan.eval_images * self._forward(model)

    def certifying(self, model: str, votes: int) -> float:
        """Seconds of this number of votes on each image of one cell."""
        return self.plan.eval_images * votes * self._forward(model)

    def total(self, done: frozenset[str] = frozenset()) -> float:
        """Seconds of all cells but those whose slug is in ``done``."""
        return sum(
            self.training(cell.model, cell.defense)
            + self.clean(cell.model)
            + self.checking(cell.model)
            + sum(self.attack(cell.model, self.plan.attack(spec)) for spec in self.plan.attacks)
            + self.certifying(cell.model, self._votes(cell.defense))
            for cell in self.plan.cells()
            if cell.slug not in done
        )

    def _votes(self, defense: str) -> int:
        vote = (
            self.plan.defense(defense).noise_vote(nn.Identity()) if defense in self.plan.certified else None
        )
        return 0 if vote is None else vote.n0 + vote.n

    def _forward(self, model: str) -> float:
        return self.costs[model].flops_per_image / self.flops_per_second


def estimate(plan: Plan, image_size: int) -> Estimate:
    """Count the work of a plan and time this machine for a moment."""
    costs, precisions = {}, {}
    for name in plan.backbones:
        backbone = plan.backbone(name)
        size = backbone.check_size(image_size, plan.image_size)
        skeleton = create_skeleton(backbone, plan.classes, size)
        costs[name] = cost(skeleton, size)
        precisions[name] = plan.precision or choose_precision(plan.device, skeleton, size)
    rates = {
        precision: _EFFICIENCY * _flops_per_second(Runtime(plan.device, precision))
        for precision in {"float32", *precisions.values()}
    }
    training = {name: rates[precision] for name, precision in precisions.items()}
    return Estimate(rates["float32"], training, costs, plan)


def _flops_per_second(runtime: Runtime) -> float:
    """Forward rate of a small convolution network in a precision."""
    device = runtime.torch_device
    layer = runtime.place(nn.Conv2d(64, 64, 3, padding=1, bias=False))
    images = torch.zeros(16, 64, 32, 32, device=device, dtype=torch.float32).to(
        memory_format=torch.channels_last
    )
    flops = 2 * 16 * 32 * 32 * 64 * 64 * 9
    best = float("inf")
    with torch.inference_mode(), runtime.autocast():
        for _ in range(12):
            started = time.perf_counter()
            for _ in range(4):
                layer(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, (time.perf_counter() - started) / 4)
    return flops / best
