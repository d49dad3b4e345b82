"""The plan of a run: complete before the run starts, and stored in its directory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_serializer, model_validator
from pydantic_core import to_json

from robustbench_tin.benchmarks.planning.config import AttackConfig, TrainingConfig
from robustbench_tin.benchmarks.planning.given_models import GivenModel, given_differences
from robustbench_tin.benchmarks.planning.parsed_specs import ParsedSpecs
from robustbench_tin.options import planned
from robustbench_tin.specs import eps_text, number_text, short_numbers
from robustbench_tin.text import counted

if TYPE_CHECKING:
    from robustbench_tin.attacks.base import Attack
    from robustbench_tin.defenses.base import Defense
    from robustbench_tin.models.backbone import Backbone
    from robustbench_tin.threat import ThreatModel
    from robustbench_tin.training.recipe import Recipe

NONE = "none"
"""The defense of source cells, on which other cells' defenses make images."""


if TYPE_CHECKING:

    class _Settings(TrainingConfig, AttackConfig):
        """The options of both configs; at run time without those that the plan resolves."""

else:
    _Settings = planned(TrainingConfig, AttackConfig)

# More cells than any real run; a larger plan is damaged.
_MOST_CELLS = 100_000


@dataclass(frozen=True)
class Cell:
    """One backbone × defense × seed: the unit that is trained once.

    Attributes:
        model: name of the backbone.
        defense: canonical spec of the defense.
        seed: seed of initialisation, data order, augmentation and attacks.
    """

    model: str
    defense: str
    seed: int

    @property
    def label(self) -> str:
        """A name for people: ``resnet50 + fgsm-at, seed 0``."""
        return f"{self.model} + {short_numbers(self.defense)}, seed {self.seed}"

    @property
    def slug(self) -> str:
        """A name for the file system: unique, and free of awkward characters."""
        return f"{slug(self.model)}--{slug(self.defense)}--s{self.seed}"


# The fields of the first format, in the order of fingerprints and digests. A digest leaves out fields with
# a question mark, and every later field, while they have their default.
_FORMAT = """
    data data_fingerprint classes train_images eval_images models sources? source_files? defenses seeds
    attacks eps norm search eot oblivious eight_bit worst_case trust? certified? epochs batch_size lr
    optimizer? weight_decay? schedule? clip_norm? label_smoothing? average? clean_epochs? early_stop? train?
    head_rate? progressive? image_size pretrained weights device processes? precision compile? plugins
"""
_ORDER = _FORMAT.replace("?", "").split()


class Plan(BaseModel, _Settings, frozen=True):
    """Everything that decides a run's numbers; two equal plans give equal tables on one machine.

    The plan inherits the attack and training options. The fields below are those that are resolved (full
    names, and a number for each choice that the user left open), and facts that are not options.

    It contains no paths: fingerprints identify data and weights, so a run can continue after they moved.

    ``sources`` are backbones on which defenses make images: a cell of each with ``none`` and every seed is
    trained before the others. ``source_files`` are the weights of other source models, trained earlier.
    ``epochs`` and ``sizes`` follow the order of :attr:`backbones`; ``sizes`` is empty if no backbone has its
    own. ``lr`` applies to ``models``; a backbone that is only a source uses its own learning rate.

    ``given`` are trained models that are only measured: ``models`` then contains just them, nothing is
    trained, and ``epochs`` are 0. ``stand_in`` is an attack for given models without gradients.

    Fields hold specs, which files store; :meth:`attack`, :meth:`defense` and :meth:`backbone` return
    objects.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

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
    search: str
    trust: bool = False  # a plan without this field is older than the checks
    certified: tuple[str, ...] = ()
    epochs: tuple[int, ...]  # type: ignore[assignment] # one for each backbone
    sizes: tuple[Annotated[int, Field(ge=1)] | None, ...] = ()
    batch_size: int
    weights: str | None
    device: str
    processes: int = 1
    plugins: tuple[str, ...]
    given: tuple[GivenModel, ...] = ()
    stand_in: str = ""

    _specs: ParsedSpecs = PrivateAttr(default_factory=ParsedSpecs)

    @classmethod
    def settled(cls, specs: ParsedSpecs, values: Mapping[str, Any]) -> Self:
        """A plan whose specs are already parsed; a plan read from a file parses specs on first use.

        Args:
            specs: the parsed objects.
            values: the plan's fields.
        """
        plan = cls(**values)
        plan._specs.take(specs)
        return plan

    def attack(self, spec: str) -> Attack:
        """The attack of a spec, parsed once; every caller gets the same object."""
        return self._specs.attack(spec)

    def defense(self, spec: str) -> Defense:
        """The defense of a spec, parsed once; every caller gets a copy, because hooks may keep state."""
        return self._specs.defense(spec)

    def backbone(self, name: str) -> Backbone:
        """The backbone of a name or spec, looked up once."""
        return self._specs.backbone(name)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.epochs) != len(self.backbones):
            raise ValueError(
                f"{len(self.epochs)} epochs for {len(self.backbones)} backbones; expected one each"
            )
        if len(self.sizes) not in (0, len(self.backbones)):
            raise ValueError(
                f"{len(self.sizes)} sizes for {len(self.backbones)} backbones; expected none or one each"
            )
        if not self.models or not self.defenses or not self.seeds:
            raise ValueError("models, defenses or seeds are empty; expected at least one of each")
        if self.given and tuple(model.name for model in self.given) != self.backbones:
            raise ValueError("the given models are not the plan's models")
        if len(self.backbones) * len(self.defenses) * len(self.seeds) > _MOST_CELLS:
            raise ValueError(f"too many cells; expected at most {_MOST_CELLS}")
        return self

    @property
    def backbones(self) -> tuple[str, ...]:
        """The backbones to train: the requested models, then backbones that are only sources."""
        return tuple(dict.fromkeys((*self.models, *self.sources)))

    def given_model(self, name: str) -> GivenModel | None:
        """The given model of this name; None for a backbone that the run trains."""
        return next((model for model in self.given if model.name == name), None)

    def lacks_gradients(self, name: str) -> bool:
        """Whether the name is a given model without gradients."""
        model = self.given_model(name)
        return model is not None and not model.gradients

    def outputs_of(self, name: str) -> int:
        """Number of a model's logits: more than the data's classes if the model has other classes, too."""
        model = self.given_model(name)
        return self.classes if model is None else model.outputs

    def attacks_of(self, cell: Cell) -> tuple[str, ...]:
        """The attacks that measure a cell; without gradients, an attack that needs none is added."""
        stands_in = self.stand_in and self.lacks_gradients(cell.model) and self.attacked_eps
        return (*self.attacks, self.stand_in) if stands_in else self.attacks

    def epochs_of(self, model: str) -> int:
        """Number of training epochs of one of the plan's backbones."""
        return self.epochs[self.backbones.index(model)]

    def size_of(self, model: str) -> int | None:
        """Side in pixels of a backbone's input; None: its own default, or the images' side."""
        return self.sizes[self.backbones.index(model)] if self.sizes else self.image_size

    def recipe(self, model: str) -> Recipe:
        """The training settings of one of the plan's backbones.

        The plan's learning rate applies to the requested models. Without one, and for backbones that are only
        sources, the optimizer's or the backbone's default applies.

        Raises:
            InvalidSettingError: for a setting out of its range.
        """
        # Needs torch; reading a finished run must not import torch.
        from robustbench_tin.training.recipe import SETTINGS, Recipe

        settings = {name: getattr(self, name) for name in SETTINGS}
        given = self.lr if model in self.models else None
        rate = self._default_lr(model) if given is None else given
        return Recipe(self.epochs_of(model), self.batch_size, rate, **settings)

    def _default_lr(self, model: str) -> float:
        from robustbench_tin.training.recipe import SGD_LR

        return SGD_LR if self.optimizer == "sgd" else self.backbone(model).lr

    def cells(self) -> Iterator[Cell]:
        """Every cell, seeds innermost; cells that others need come first."""
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
        """The budgets that need an attack; eps 0 is the clean measurement, which every cell has."""
        return tuple(eps for eps in self.eps if eps > 0)

    def measures_of(self, cell: Cell) -> int:
        """Number of a cell's measurements: clean; attacks, worst case, certificate at each eps above 0."""
        rows = len(self.attacks_of(cell)) + self.worst_case + (cell.defense in self.certified)
        return 1 + rows * len(self.attacked_eps)

    @property
    def measures(self) -> int:
        """Number of measurements of all cells."""
        return sum(self.measures_of(cell) for cell in self.cells())

    def describe(self) -> list[str]:
        """The plan for people: one line per cell, then every setting."""
        eps = ", ".join(eps_text(value) for value in self.attacked_eps)
        measured = f"clean, {', '.join(self.attacks)} at {self.norm} eps {eps}" if eps else "clean"
        cells = [
            f"{cell.label}: {counted(self.epochs_of(cell.model), 'epoch')}; {measured}"
            for cell in self.cells()
        ]
        return [*cells, *(f"{key} = {value}" for key, value in self.settings.items())]

    @property
    def settings(self) -> dict[str, str]:
        """Every setting as a text for people."""
        return {key: _shown(value) for key, value in self.model_dump().items()}

    def watched_threat(self, cell: Cell) -> ThreatModel | None:
        """The threat model under which a cell's training is monitored.

        It is that of the cell's adversarial training, else the largest measured budget; None if no
        budget is above 0.
        """
        # Needs torch, as above.
        from robustbench_tin.threat import ThreatModel

        threat = self.defense(cell.defense).threat
        if threat is None and self.attacked_eps:
            threat = ThreatModel(self.norm, max(self.attacked_eps))
        return threat

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits of the whole plan."""
        return self._hash(_ORDER, 4)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of all fields without their default; they link a run's files to its plan."""
        return self._hash(_FORMAT.split(), 8)

    def _hash(self, always: Collection[str], size: int) -> str:
        """Hash the fields ``always``, and other fields that differ from their defaults.

        An option that a later version adds leaves fingerprints and digests of earlier runs unchanged.
        """
        values = self.model_dump(mode="json")
        changed = self.model_dump(exclude_defaults=True)
        content = to_json(
            {name: value for name, value in values.items() if name in always or name in changed}
        )
        return hashlib.blake2b(content, digest_size=size).hexdigest()

    @model_serializer(mode="wrap")
    def _in_order(self, handler: Callable[[Plan], dict[str, Any]]) -> dict[str, Any]:
        values = handler(self)
        return {name: values[name] for name in _ORDER if name in values} | values

    def differences(self, other: Plan) -> list[str]:
        """The differences to another plan, one line per field: ``eps: (0.0, 0.01) there, (0.03,) here``."""
        mine, theirs = self.model_dump(exclude={"given"}), other.model_dump(exclude={"given"})
        fields = [
            f"{key}: {_shown(theirs[key])} there, {_shown(mine[key])} here"
            for key in mine
            if mine[key] != theirs[key]
        ]
        return fields + given_differences(self.given, other.given)


def slug(text: str) -> str:
    """A name as part of a file name: unchanged if possible, else with a hash that keeps it unique.

    >>> slug("resnet50"), slug("pgd:steps=20")
    ('resnet50', 'pgd_steps=20-fe5f')
    """
    safe = re.sub(r"[^A-Za-z0-9.=,+_-]", "_", text)[:80]
    if safe == text:
        return text
    return f"{safe}-{hashlib.blake2b(text.encode(), digest_size=2).hexdigest()}"


def eps_slug(eps: float) -> str:
    """A budget as part of a file name.

    >>> eps_slug(0.03), eps_slug(8 / 255)
    ('0.03', '8-255')
    """
    return number_text(eps).replace("/", "-")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return eps_text(value) if isinstance(value, float) else str(value)
