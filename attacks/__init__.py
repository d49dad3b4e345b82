"""Attacks: what makes adversarial images from images, labels and a budget.

``from robustbench_tin import attacks`` is all that an author needs::

    @attacks.register("my-attack")
    @dataclass(frozen=True)
    class MyAttack(attacks.Attack):
        steps: int = 10

        def run(self, oracle, labels, ball, generator): ...
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from robustbench_tin.registry import Registry
from robustbench_tin.specs import parse_spec

if TYPE_CHECKING:
    from robustbench_tin.attacks.base import Attack as Attack
    from robustbench_tin.attacks.base import Oracle as Oracle

registry: Registry[type[Attack]] = Registry(
    "attack",
    group="robustbench_tin.attacks",
    expected="robustbench_tin.attacks.base:Attack",
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
    """How the attacks of another library are found; it is imported with the first of them."""

    def find(name: str) -> type[Attack]:
        found: type[Attack] = import_module(f"robustbench_tin.attacks.bridge_{library}").find(name)
        return found

    return find


for _library in ("art", "foolbox", "torchattacks"):
    registry.add_prefix(_library, _bridge(_library))


def parse_attack(text: str) -> Attack:
    """Build an attack from its spec, ``pgd:steps=20,restarts=2``.

    Raises:
        RobustTinError: for an unknown name or setting, or a value that does not fit.
    """
    spec = parse_spec(text, registry.prefixes)
    return registry.get(spec.name).from_settings(spec.settings)


def __getattr__(name: str) -> Any:
    # Attack and Oracle need torch; naming a registry must not import it.
    if name in ("Attack", "Oracle"):
        from robustbench_tin.attacks import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
