"""AutoAttack: the standard ensemble for reporting robustness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from robustbench_tin.attacks.apgd import DLRAPGD, CrossEntropyAPGD, TargetedAPGD
from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.ensemble import Ensemble
from robustbench_tin.attacks.fab import FAB, FABT
from robustbench_tin.attacks.square import Square

VERSIONS = ("standard", "plus", "rand")
_PLUS_RESTARTS = 5
_RAND_PASSES = 20


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Ensemble):
    """Four attacks that fail in different ways; an image counts as robust if all of them fail.

    Croce and Hein, 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
    Parameter-free Attacks", arXiv 2003.01690. The versions and their budgets are those of the authors' code;
    a spec that shows none of ``steps``, ``targets``, ``queries`` and ``eot`` has the published ones.

    ========  ==========================================================================================
    version   stages
    ========  ==========================================================================================
    standard  apgd-ce, apgd-t, fab-t, square
    plus      apgd-ce and apgd-dlr with 5 restarts, fab with 5 restarts, square, apgd-t, fab-t
    rand      apgd-ce and apgd-dlr with the gradients of 20 passes averaged, for models that are random at
              test time
    ========  ==========================================================================================

    Attributes:
        version: ``standard``, ``plus`` or ``rand``.
        steps: number of steps of each start of APGD and FAB.
        targets: number of classes that the targeted attacks try; all wrong ones if there are fewer.
        queries: number of queries of Square.
        eot: passes averaged for one gradient of ``rand``; None: 20. Other versions use the ``eot`` of the
            evaluation.
    """

    name: ClassVar[str] = "autoattack"

    version: str = "standard"
    steps: int = 100
    targets: int = 9
    queries: int = 5000
    eot: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.version in VERSIONS, "version", " or ".join(VERSIONS))
        self.require(self.steps >= 1, "steps", "1 or more")
        self.require(self.targets >= 1, "targets", "1 or more")
        self.require(self.queries >= 1, "queries", "1 or more")
        self.require(self.eot is None or self.version == "rand", "eot", "none unless version=rand")
        self.require(self.eot is None or self.eot >= 1, "eot", "1 or more")

    @property
    def attacks(self) -> Sequence[Attack]:
        """The attacks of the version, in order."""
        if self.version == "rand":
            return [self._apgd_ce(eot=self._passes), self._apgd_dlr(eot=self._passes)]
        apgd_t = TargetedAPGD(criterion=self.criterion, steps=self.steps, targets=self.targets)
        fab_t = FABT(criterion=self.criterion, steps=self.steps, targets=self.targets)
        square = Square(criterion=self.criterion, queries=self.queries)
        if self.version == "standard":
            return [self._apgd_ce(), apgd_t, fab_t, square]
        fab = FAB(criterion=self.criterion, steps=self.steps, restarts=_PLUS_RESTARTS)
        apgd = [self._apgd_ce(restarts=_PLUS_RESTARTS), self._apgd_dlr(restarts=_PLUS_RESTARTS)]
        return [*apgd, fab, square, apgd_t, fab_t]

    def stages(self, classes: int) -> Sequence[Attack]:
        return [stage for attack in self.attacks for stage in attack.stages(classes)]

    def gradients(self, budgets: int) -> int:
        return sum(attack.gradients(budgets) for attack in self.attacks)

    def remarks(self, classes: int) -> Sequence[str]:
        remarks = [remark for attack in self.attacks for remark in attack.remarks(classes)]
        if self.version == "rand":
            remarks.append(f"{self._passes} passes averaged for one gradient")
        return remarks

    @property
    def _passes(self) -> int:
        return self.eot or _RAND_PASSES

    def _apgd_ce(self, restarts: int = 1, eot: int | None = None) -> Attack:
        return CrossEntropyAPGD(criterion=self.criterion, steps=self.steps, restarts=restarts, eot=eot)

    def _apgd_dlr(self, restarts: int = 1, eot: int | None = None) -> Attack:
        return DLRAPGD(criterion=self.criterion, steps=self.steps, restarts=restarts, eot=eot)
