"""Attacks: they make adversarial images from images, labels and a budget.

This module exports every name that an attack's author needs::

    from robustbench_tin import attacks

    @attacks.register("my-attack")
    @dataclass(frozen=True)
    class MyAttack(attacks.Attack):
        steps: int = 10

        def run(self, attacked, labels, ball, generator): ...

``docs/how-to/write-an-attack.md`` shows how to write, check and use one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.lazy import lazy_names
from robustbench_tin.registry import Registry
from robustbench_tin.specs import parse_spec

if TYPE_CHECKING:
    from robustbench_tin.attacks.base import Attack, IterativeAttack
    from robustbench_tin.attacks.criterion import Criterion
    from robustbench_tin.attacks.engine.attacked_model import AttackedModel, AttackFailure
    from robustbench_tin.attacks.engine.restarts import worst_of
    from robustbench_tin.attacks.engine.state import AttackInputs, AttackState, BatchState, ModelOutput
    from robustbench_tin.attacks.engine.stop_on_success import StageReport
    from robustbench_tin.attacks.losses import (
        cross_entropy,
        dlr,
        targeted_cross_entropy,
        targeted_dlr,
        targeted_margin,
    )
    from robustbench_tin.metrics import in_top
    from robustbench_tin.threat import NORMS, Ball, ThreatModel

__all__ = [
    "NORMS",
    "Attack",
    "AttackFailure",
    "AttackInputs",
    "AttackState",
    "AttackedModel",
    "Ball",
    "BatchState",
    "Criterion",
    "InvalidSettingError",
    "IterativeAttack",
    "ModelOutput",
    "StageReport",
    "ThreatModel",
    "cross_entropy",
    "dlr",
    "in_top",
    "parse_attack",
    "register",
    "registry",
    "targeted_cross_entropy",
    "targeted_dlr",
    "targeted_margin",
    "worst_of",
]

registry: Registry[type[Attack]] = Registry(
    "attack",
    group="robustbench_tin.attacks",
    expected="robustbench_tin.attacks.base:Attack",
    checked_by="robustbench_tin.attacks.plugin_check:problem_of",
    builtin={
        "apgd-ce": "robustbench_tin.attacks.apgd:CrossEntropyAPGD",
        "apgd-dlr": "robustbench_tin.attacks.apgd:DLRAPGD",
        "apgd-t": "robustbench_tin.attacks.apgd:TargetedAPGD",
        "autoattack": "robustbench_tin.attacks.autoattack:AutoAttack",
        "fab": "robustbench_tin.attacks.fab:FAB",
        "fab-t": "robustbench_tin.attacks.fab:FABT",
        "fast": "robustbench_tin.attacks.fast:Fast",
        "fgsm": "robustbench_tin.attacks.fgsm:FGSM",
        "mi-fgsm": "robustbench_tin.attacks.mi_fgsm:MIFGSM",
        "noise": "robustbench_tin.attacks.noise:Noise",
        "pgd": "robustbench_tin.attacks.pgd:PGD",
        "square": "robustbench_tin.attacks.square:Square",
    },
)
register = registry.register


def _bridge(library: str) -> Callable[[str], type[Attack]]:
    """A function that finds attacks of another library; the first call imports the library."""

    def find(name: str) -> type[Attack]:
        found: type[Attack] = import_module(f"robustbench_tin.attacks.external.{library}").find(name)
        return found

    return find


for _library in ("art", "foolbox", "torchattacks"):
    registry.add_prefix(_library, _bridge(_library))


def parse_attack(text: str) -> Attack:
    """Build an attack from its spec, ``pgd:steps=20,restarts=2``.

    Args:
        text: a registered name, optionally with settings; ``robust-tin list attacks`` shows both.

    Returns:
        The attack, which prints as its canonical spec.

    Raises:
        RobustTinError: for an unknown name or setting, or a value that does not fit.

    >>> print(parse_attack("pgd:steps=20,restarts=1"))
    pgd:steps=20
    """
    spec = parse_spec(text, registry.prefixes)
    return registry.get(spec.name).from_settings(spec.settings)


# All of these need torch; naming a registry must not import it.
__getattr__, __dir__ = lazy_names(
    __name__,
    __all__,
    {
        "robustbench_tin.attacks.base": ["Attack", "IterativeAttack"],
        "robustbench_tin.attacks.criterion": ["Criterion"],
        "robustbench_tin.attacks.engine.stop_on_success": ["StageReport"],
        "robustbench_tin.attacks.losses": [
            "cross_entropy",
            "dlr",
            "targeted_cross_entropy",
            "targeted_dlr",
            "targeted_margin",
        ],
        "robustbench_tin.attacks.engine.attacked_model": ["AttackFailure", "AttackedModel"],
        "robustbench_tin.attacks.engine.restarts": ["worst_of"],
        "robustbench_tin.attacks.engine.state": ["ModelOutput", "BatchState", "AttackState", "AttackInputs"],
        "robustbench_tin.metrics": ["in_top"],
        "robustbench_tin.threat": ["NORMS", "Ball", "ThreatModel"],
    },
)
