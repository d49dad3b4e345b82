"""What a run is going to do: decided in full before it starts, and written down."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from robustbench_tin.training.recipe import Recipe

NONE = "none"
"""The defense of the cells that others make images on."""


# More cells than anybody trains; a plan that asks for more is damaged.
_MOST_CELLS = 100_000


@dataclass(frozen=True)
class Cell:
    """One backbone × defense × seed: what is trained once.

    Attributes:
        model: a backbone's name.
        defense: a defense's canonical spec.
        seed: of initialisation, order, augmentation and attacks.
    """

    model: str
    defense: str
    seed: int

    @property
    def label(self) -> str:
        """For people: ``resnet50 + fgsm-at, seed 0``."""
        return f"{self.model} + {self.defense}, seed {self.seed}"

    @property
    def slug(self) -> str:
        """For the file system: unique, and free of awkward characters."""
        return f"{slug(self.model)}--{slug(self.defense)}--s{self.seed}"


class Plan(BaseModel):
    """Everything that decides a run's numbers; two equal plans give equal tables on one machine.

    Paths are not in it: data and weights are known by their fingerprints, so a run can go on after
    they moved.

    ``sources`` are backbones that defenses make images on: a cell of each with ``none`` and every seed comes
    before the others. ``source_files`` are the weights of trained models that they make images on.
    ``epochs`` goes by :attr:`backbones`; ``lr`` holds for ``models``, and what only sources need takes its
    backbone's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str
    data_fingerprint: str
    classes: Annotated[int, Field(ge=1)]
    train_images: Annotated[int, Field(ge=0)]
    eval_images: Annotated[int, Field(ge=1)]
    models: tuple[str, ...]
    sources: tuple[str, ...] = ()
    source_files: tuple[str, ...] = ()
    defenses: tuple[str, ...]
    seeds: tuple[int, ...]
    attacks: tuple[str, ...]
    eps: tuple[Annotated[float, Field(ge=0)], ...]
    norm: str
    search: str
    eot: int
    oblivious: bool
    eight_bit: bool
    worst_case: bool
    trust: bool = False
    certified: tuple[str, ...] = ()
    epochs: tuple[int, ...]
    batch_size: int
    lr: float | None
    optimizer: str = "adamw"
    weight_decay: float | None = None
    schedule: str = "one-cycle"
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    average: str = "none"
    clean_epochs: int = 0
    early_stop: int | None = None
    train: str = "all"
    head_rate: float = 1.0
    progressive: float = 1.0
    image_size: int | None
    pretrained: bool
    weights: str | None
    device: str
    processes: int = 1
    precision: str | None
    compile: bool = False
    plugins: tuple[str, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.epochs) != len(self.backbones):
            raise ValueError(f"{len(self.epochs)} epochs for {len(self.backbones)} backbones")
        if not self.models or not self.defenses or not self.seeds:
            raise ValueError("no models, defenses or seeds")
        if len(self.backbones) * len(self.defenses) * len(self.seeds) > _MOST_CELLS:
            raise ValueError(f"more than {_MOST_CELLS} cells")
        return self

    @property
    def backbones(self) -> tuple[str, ...]:
        """Those that cells are trained of: the models asked for, then what only sources need."""
        return tuple(dict.fromkeys((*self.models, *self.sources)))

    def epochs_of(self, model: str) -> int:
        """Passes over the training images for one of the plan's backbones."""
        return self.epochs[self.backbones.index(model)]

    def recipe(self, model: str, lr: float) -> Recipe:
        """How one of the plan's backbones is trained; ``lr`` where the plan leaves the rate open.

        The plan's own rate is for the models asked for; what only sources need takes ``lr``.

        Raises:
            InvalidSettingError: for a setting out of its range.
        """
        # Needs torch; reading a finished run must not import it.
        from robustbench_tin.training.recipe import SETTINGS, Recipe

        settings = {name: getattr(self, name) for name in SETTINGS}
        rate = self.lr if self.lr is not None and model in self.models else lr
        return Recipe(self.epochs_of(model), self.batch_size, rate, **settings)

    def cells(self) -> Iterator[Cell]:
        """Every cell, seeds innermost; those that others need first."""
        needed = [Cell(model, NONE, seed) for model in self.sources for seed in self.seeds]
        asked = [
            Cell(model, defense, seed)
            for model in self.models
            for defense in self.defenses
            for seed in self.seeds
        ]
        yield from dict.fromkeys((*needed, *asked))

    @property
    def attacked_eps(self) -> tuple[float, ...]:
        """The budgets that need an attack; eps 0 is the clean measure, which every cell has."""
        return tuple(eps for eps in self.eps if eps > 0)

    def measures_of(self, cell: Cell) -> int:
        """The clean measure, one for each attack and positive eps, worst cases and certificates."""
        rows = len(self.attacks) + self.worst_case + (cell.defense in self.certified)
        return 1 + rows * len(self.attacked_eps)

    @property
    def measures(self) -> int:
        """Those of all cells."""
        return sum(self.measures_of(cell) for cell in self.cells())

    def describe(self) -> list[str]:
        """What would run, for people: a line a cell, then every setting."""
        eps = ", ".join(f"{value:g}" for value in self.attacked_eps)
        measured = f"clean, {', '.join(self.attacks)} at {self.norm} eps {eps}" if eps else "clean"
        cells = [f"{cell.label}: {self.epochs_of(cell.model)} epochs; {measured}" for cell in self.cells()]
        return [*cells, *(f"{key} = {_shown(value)}" for key, value in self.model_dump().items())]

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits of the whole plan."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=4).hexdigest()

    @property
    def digest(self) -> str:
        """What ties the files of a run to its plan: 16 hexadecimal digits of all that is no default."""
        # Without defaults: a setting that a later version adds leaves the digests of earlier runs alone.
        content = self.model_dump_json(exclude_defaults=True)
        return hashlib.blake2b(content.encode(errors="replace"), digest_size=8).hexdigest()

    def differences(self, other: Plan) -> list[str]:
        """Where another plan differs, one line a field: ``eps: (0.0, 0.01) there, (0.03,) here``."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [
            f"{key}: {_shown(theirs[key])} there, {_shown(mine[key])} here"
            for key in mine
            if mine[key] != theirs[key]
        ]


def slug(text: str) -> str:
    """A name as part of a file name: unchanged where possible, else with a hash that keeps it unique.

    >>> slug("resnet50"), slug("pgd:steps=20")
    ('resnet50', 'pgd_steps=20-c0c7')
    """
    safe = re.sub(r"[^A-Za-z0-9.=,+_-]", "_", text)[:80]
    if safe == text:
        return text
    return f"{safe}-{hashlib.blake2b(text.encode(), digest_size=2).hexdigest()}"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
