"""``torchattacks:CLASS``: any attack of torchattacks; that package must be installed.

Kim, 2020, "Torchattacks: A PyTorch Repository for Adversarial Attacks", arXiv 2010.01950. Note for
comparisons: its ``AutoAttack`` runs 10 steps of APGD instead of the published 100, and targets all classes
    except one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from robustbench_tin.attacks.external.base import Bridge, CountedModule, require_package
from robustbench_tin.attacks.external.signature import bridged, fits, parameters_of
from robustbench_tin.errors import UnknownNameError
from robustbench_tin.threat import NORMS, Ball

_EPS_NAMES = ("eps", "max_epsilon")
_SET_BY_US = frozenset({"model", *_EPS_NAMES, "norm", "n_classes", "seed", "verbose"})
# Not attacks of their own, or attacks that train further models.
_UNFIT = frozenset({"LGV", "MultiAttack", "VANILA"})
# Attacks without a choice of norm, whose norm is l2; the others' is linf.
_L2 = frozenset({"PGDL2", "PGDRSL2"})
_SINGLE_STEP = frozenset({"FGSM", "FFGSM"})
_NORMS = {"linf": "Linf", "l2": "L2"}


class TorchattacksAttack(Bridge):
    """An attack of torchattacks."""

    package: ClassVar[str] = "torchattacks"
    set_by_us: ClassVar[frozenset[str]] = _SET_BY_US
    taken: ClassVar[frozenset[str]]

    def build(self, seen: CountedModule, shape: Sequence[int], classes: int, norm: str, eps: float) -> Any:
        chosen = {"norm": _NORMS[norm], "n_classes": classes, "seed": 0, "verbose": False}
        given = {name: value for name, value in chosen.items() if name in self.taken}
        return self.foreign_class(seen, **self.arguments(eps), **given)

    def move(self, built: Any, seen: CountedModule, labels: Tensor, ball: Ball) -> Tensor:
        moved: Tensor = built(ball.images, labels)
        return moved


@functools.cache
def find(name: str) -> type[TorchattacksAttack]:
    """The attack ``torchattacks:name``.

    Raises:
        InvalidSettingError: if torchattacks is not installed.
        UnknownNameError: if it has no such attack, with the close names.
    """
    # Its pinned requests is older than ours may be; nothing that attacks needs it.
    install = "pip install --no-deps torchattacks"
    require_package(f"torchattacks:{name}", "torchattacks", install)
    targets = _targets()
    if name not in targets:
        raise UnknownNameError("attack", f"torchattacks:{name}", [f"torchattacks:{each}" for each in targets])
    target = targets[name]
    taken = frozenset(each.name for each in parameters_of(target))
    eps_name = next((each for each in _EPS_NAMES if each in taken), None)
    return bridged(
        TorchattacksAttack,
        f"torchattacks:{name}",
        target,
        steps=("alpha",),
        eps_name=eps_name,
        norms=_norms(name, taken, eps_name),
        taken=taken,
        single_step=name in _SINGLE_STEP,
    )


def _norms(name: str, taken: frozenset[str], eps_name: str | None) -> tuple[str, ...]:
    if "norm" in taken or eps_name is None:
        return NORMS
    return ("l2",) if name in _L2 else ("linf",)


@functools.cache
def _targets() -> dict[str, type[Any]]:
    import torchattacks
    from torchattacks.attack import Attack

    return {
        name: kind
        for name, kind in vars(torchattacks).items()
        if inspect.isclass(kind)
        and issubclass(kind, Attack)
        and name not in _UNFIT
        and fits(kind, _SET_BY_US)
    }
