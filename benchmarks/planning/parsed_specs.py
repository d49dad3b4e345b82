"""Attacks, defenses and backbones by their specs, each parsed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from robustbench_tin.attacks import parse_attack
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import backbones

if TYPE_CHECKING:
    from robustbench_tin.attacks.base import Attack
    from robustbench_tin.defenses.base import Defense
    from robustbench_tin.models.backbone import Backbone

T = TypeVar("T")


class _WithSpec(Protocol):
    @property
    def spec(self) -> str: ...


S = TypeVar("S", bound=_WithSpec)


@dataclass(frozen=True)
class ParsedSpecs:
    """Attacks, defenses and backbones by canonical spec; one that is not there yet is parsed when asked for.

    Nothing is imported before that. The specs say everything, so two of these are always equal, and a copy
    or a pickled one starts empty.
    """

    _attacks: dict[str, Attack] = field(default_factory=dict, compare=False, repr=False)
    _defenses: dict[str, Defense] = field(default_factory=dict, compare=False, repr=False)
    _backbones: dict[str, Backbone] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls, attacks: Iterable[Attack], defenses: Iterable[Defense], backbones: Iterable[Backbone]
    ) -> ParsedSpecs:
        """Those that were parsed or given as objects already."""
        named = {backbone.name: backbone for backbone in backbones}
        return cls(_by_spec(attacks), _by_spec(defenses), named)

    def take(self, others: ParsedSpecs) -> None:
        """Keep what others have parsed."""
        self._attacks.update(others._attacks)
        self._defenses.update(others._defenses)
        self._backbones.update(others._backbones)

    def attack(self, spec: str) -> Attack:
        """The attack of a spec; every caller gets the same one, which is frozen.

        Raises:
            RobustTinError: for an unknown name or setting, or a value that does not fit.
        """
        return _found(self._attacks, spec, parse_attack)

    def defense(self, spec: str) -> Defense:
        """The defense of a spec, a copy for each caller: its hooks may keep state on it while a cell trains.

        Raises:
            RobustTinError: likewise.
        """
        return copy.deepcopy(_found(self._defenses, spec, parse_defense))

    def backbone(self, name: str) -> Backbone:
        """The backbone of a name or spec.

        Raises:
            RobustTinError: likewise.
        """
        return _found(self._backbones, name, backbones.get)

    def __reduce__(self) -> tuple[type[ParsedSpecs], tuple[()]]:
        return ParsedSpecs, ()


def _by_spec(objects: Iterable[S]) -> dict[str, S]:
    return {each.spec: each for each in objects}


def _found(known: dict[str, T], spec: str, parse: Callable[[str], T]) -> T:
    if spec not in known:
        known[spec] = parse(spec)
    return known[spec]
