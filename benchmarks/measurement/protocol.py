"""The conditions of a measurement: norm, seed, search and batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from torch import nn

from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.base import Attack, AttackedModel

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.planning.plan import Cell, Plan

AUTO = "auto"
# Below this number of gradients for an image, an attack is faster with the model itself than with a variant.
_WORTH_FOLDING = 3


@dataclass(frozen=True)
class AttackProtocol:
    """The conditions of an attack, beside its own settings.

    Attributes:
        norm: ``linf`` or ``l2``.
        seed: seed of the attack. Each batch gets a seed of its own, so that an image meets the same random
            numbers at each eps.
        search: the variant of the model to search with, see :meth:`AttackedModel.prepare`. ``auto`` means
            ``fastest`` for attacks that stop on success and ``fixed`` for a fixed budget, so that the same
            command gives the same table. With few gradients for an image, ``fixed`` means ``exact``, because
            no variant would be faster.
        eot: number of gradients to average for one step, 1 or more.
        eight_bit: whether adversarial images are rounded to 8 bits before verification.
        surrogate: the model to search with in oblivious attacks; None to search with the attacked model.
        curve: whether the budgets are a ladder: an image that is adversarial at one budget counts as
            adversarial at all larger budgets.
        variants: the chosen variants of the one model that this protocol is for.
        keep: number of adversarial images to keep for each attack and eps.
    """

    norm: str = "linf"
    seed: int = 0
    search: str = AUTO
    eot: int = 1
    eight_bit: bool = False
    surrogate: nn.Module | None = None
    curve: bool = False
    variants: VariantCache = field(default_factory=VariantCache)
    keep: int = 0

    @classmethod
    def of_cell(
        cls, plan: Plan, cell: Cell, bare: nn.Module, chosen: Mapping[str, Sequence[str]] | None = None
    ) -> Self:
        """The protocol with which a plan attacks a cell.

        Args:
            plan: the plan of the run.
            cell: one of its cells.
            bare: the cell's classifier without its defense.
            chosen: the variants that the run has chosen for the cell so far; None if there are none.
        """
        surrogate = bare if plan.oblivious else None
        return cls(
            plan.norm,
            cell.seed,
            plan.search,
            plan.eot,
            plan.eight_bit,
            surrogate,
            plan.curve,
            VariantCache(chosen),
            plan.keep_adversarial,
        )

    def attacked(self, model: nn.Module) -> AttackedModel:
        """Wrap a model as an attacked model under these conditions."""
        return AttackedModel(
            model, eot=self.eot, surrogate=self.surrogate, variants=self.variants, seed=self.seed
        )

    def search_for(self, attack: Attack) -> str:
        """The search that this attack uses: ``exact``, ``fixed`` or ``fastest``; ``auto`` is resolved."""
        search = self.search
        if search == AUTO:
            search = "fixed" if attack.criterion is None else "fastest"
        if search == "fixed" and attack.criterion is None and attack.gradients(1) < _WORTH_FOLDING:
            return "exact"
        return search


def evaluation_batch_size(device: str) -> int:
    """The default number of images in a batch.

    It is fixed, because the random numbers of an attack depend on the batches.

    Args:
        device: type of the device, such as ``cpu`` or ``cuda``.
    """
    return 50 if device == "cpu" else 250
