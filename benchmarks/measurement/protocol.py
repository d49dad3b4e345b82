"""How an attack is measured: norm, seed, search, and the batch size."""

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
# An attack that takes fewer gradients of an image than this is sooner done with the model itself.
_WORTH_FOLDING = 3


@dataclass(frozen=True)
class AttackProtocol:
    """Under what an attack works, beside its own settings.

    Attributes:
        norm: ``linf`` or ``l2``.
        seed: of the attack; batch by batch, so that an image meets the same randomness at each eps.
        search: what to search with, as :meth:`AttackedModel.prepare` takes it. ``auto`` is ``fastest`` for
            attacks that stop on success; a fixed budget is spent in the ``fixed`` variant, so that the same
            command gives the same table. ``fixed`` is ``exact`` for a fixed budget of so few gradients that
            no other variant would pay.
        eot: passes averaged for one gradient.
        eight_bit: adversarial images are rounded to 8 bits before they count.
        surrogate: searched with in the place of the model, for oblivious attacks; None: the model.
        curve: the budgets are a ladder: images that are adversarial at one count as such at all larger ones.
        variants: of the one model that these conditions are for, chosen once.
    """

    norm: str = "linf"
    seed: int = 0
    search: str = AUTO
    eot: int = 1
    eight_bit: bool = False
    surrogate: nn.Module | None = None
    curve: bool = False
    variants: VariantCache = field(default_factory=VariantCache)

    @classmethod
    def of_cell(
        cls, plan: Plan, cell: Cell, bare: nn.Module, chosen: Mapping[str, Sequence[str]] | None = None
    ) -> Self:
        """How a plan attacks a cell.

        Args:
            plan: of the run.
            cell: one of its cells.
            bare: its classifier without its defense.
            chosen: the variants that the run chose for it so far.
        """
        surrogate = bare if plan.oblivious else None
        variants = VariantCache(chosen)
        return cls(
            plan.norm, cell.seed, plan.search, plan.eot, plan.eight_bit, surrogate, plan.curve, variants
        )

    def attacked(self, model: nn.Module) -> AttackedModel:
        """The attacked model of a model under these conditions."""
        return AttackedModel(
            model, eot=self.eot, surrogate=self.surrogate, variants=self.variants, seed=self.seed
        )

    def search_for(self, attack: Attack) -> str:
        """The search that this attack is done with."""
        search = self.search
        if search == AUTO:
            search = "fixed" if attack.criterion is None else "fastest"
        if search == "fixed" and attack.criterion is None and attack.gradients(1) < _WORTH_FOLDING:
            return "exact"
        return search


def evaluation_batch_size(device: str) -> int:
    """Images attacked at a time: fixed, since an attack's randomness goes batch by batch."""
    return 50 if device == "cpu" else 250
