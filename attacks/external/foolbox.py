"""``foolbox:CLASS``: any gradient- or decision-based attack of foolbox; that package must be installed.

Rauber, Zimmermann, Bethge and Brendel, 2020, "Foolbox Native", Journal of Open Source Software 5(53), 2607.
Step lengths are fractions of eps in foolbox already (``rel_stepsize``).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from robustbench_tin.attacks.external.base import Bridge, CountedModule, require_package
from robustbench_tin.attacks.external.signature import bridged, fits, parameters_of
from robustbench_tin.errors import UnknownNameError
from robustbench_tin.threat import NORMS, Ball

_SET_BY_US = frozenset({"distance", "init_attack", "tensorboard"})
# They need other images to start from, or a target.
_UNFIT = frozenset({"BinarizationRefinementAttack", "DatasetAttack", "GenAttack", "PointwiseAttack"})
_SINGLE_STEP = frozenset({"L1FastGradientAttack", "L2FastGradientAttack", "LinfFastGradientAttack"})
_NORM_BY_P = {math.inf: "linf", 2: "l2"}


class FoolboxAttack(Bridge):
    """An attack of foolbox on misclassification."""

    package: ClassVar[str] = "foolbox"
    set_by_us: ClassVar[frozenset[str]] = _SET_BY_US
    takes_distance: ClassVar[bool]

    def build(self, seen: CountedModule, shape: Sequence[int], classes: int, norm: str, eps: float) -> Any:
        from foolbox.distances import LpDistance

        given = self.arguments(eps)
        if self.takes_distance:
            given["distance"] = LpDistance(math.inf if norm == "linf" else 2)
        return self.foreign_class(**given)

    def move(self, built: Any, seen: CountedModule, labels: Tensor, ball: Ball) -> Tensor:
        import foolbox
        from foolbox.models.pytorch import PyTorchModel

        model = PyTorchModel(seen, bounds=(0, 1), device=seen.device)
        wrong = foolbox.criteria.Misclassification(labels)
        moved, _, _ = built(model, ball.images, wrong, epsilons=ball.eps if self.knows_eps else None)
        result: Tensor = moved
        return result


@functools.cache
def find(name: str) -> type[FoolboxAttack]:
    """The attack ``foolbox:name``.

    Raises:
        InvalidSettingError: if foolbox is not installed.
        UnknownNameError: if it has no such attack, with the close names.
    """
    require_package(f"foolbox:{name}", "foolbox", "pip install foolbox")
    targets = _targets()
    if name not in targets:
        raise UnknownNameError("attack", f"foolbox:{name}", [f"foolbox:{each}" for each in targets])
    target = targets[name]
    return bridged(
        FoolboxAttack,
        f"foolbox:{name}",
        target,
        norms=_norms(target),
        takes_distance=any(each.name == "distance" for each in parameters_of(target)),
        knows_eps=_fixes_eps(target),
        single_step=target.__name__ in _SINGLE_STEP,
    )


@functools.cache
def _targets() -> dict[str, type[Any]]:
    from foolbox import attacks
    from foolbox.attacks.base import AttackWithDistance

    return {
        name: kind
        for name, kind in vars(attacks).items()
        if inspect.isclass(kind)
        and issubclass(kind, AttackWithDistance)
        and not inspect.isabstract(kind)
        and name not in _UNFIT
        and fits(kind, _SET_BY_US)
        and _norms(kind)
    }


def _fixes_eps(target: type[Any]) -> bool:
    from foolbox.attacks.base import FixedEpsilonAttack

    return issubclass(target, FixedEpsilonAttack)


def _norms(target: type[Any]) -> tuple[str, ...]:
    """The norms in which its eps is ours; none for an attack with a budget in another norm."""
    if not _fixes_eps(target):
        return NORMS
    norm = _norm_of(target.distance)
    return () if norm is None else (norm,)


def _norm_of(distance: Any) -> str | None:
    p = getattr(distance, "p", None)
    return None if p is None else _NORM_BY_P.get(p)
