"""Source models, on which defenses make images: backbones of the plan, or models trained earlier."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_tin.benchmarks.planning.plan import NONE, Cell, Plan
from robustbench_tin.errors import InvalidSettingError, RunError, WeightsError
from robustbench_tin.files import open_regular
from robustbench_tin.models import backbones, select

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.runs.trained_model import TrainedModel
    from robustbench_tin.defenses.base import Defense

FindTrained = Callable[[str], "TrainedModel"]


@dataclass(frozen=True)
class DefenseSources:
    """The source models in a plan.

    Attributes:
        backbones: names of the sources that the plan trains.
        files: digests of the weights of the other sources.
    """

    backbones: tuple[str, ...]
    files: tuple[str, ...]


def find_sources(defenses: Iterable[Defense], num_classes: int, find_trained: FindTrained) -> DefenseSources:
    """The sources of these defenses, without duplicates.

    Args:
        defenses: the defenses of a plan.
        num_classes: number of classes of its data.
        find_trained: finds the trained model of a source that is not a backbone's name.

    Raises:
        InvalidSettingError: if there is no such model, or it has other classes.
    """
    sources = list(dict.fromkeys(source for defense in defenses for source in defense.sources))
    names = [name for source in sources if is_backbone(source) for name in select(source)]
    files = [_file(source, num_classes, find_trained) for source in sources if not is_backbone(source)]
    return DefenseSources(tuple(dict.fromkeys(names)), tuple(files))


def is_backbone(text: str) -> bool:
    """Whether the text is a backbone's name and not a path."""
    return text in backbones.names() or text.partition(":")[0] in backbones.prefixes


def file_digest(path: Path) -> str:
    """A file's name and the digest of its content."""
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read '{path}': {error.strerror}; expected a file") from error
    return f"{path.name} {digest}"


def _file(source: str, num_classes: int, find_trained: FindTrained) -> str:
    """The digest of the weights of a trained model."""
    try:
        found = find_trained(source)
    except RunError as error:
        raise InvalidSettingError(
            f"defense source got '{source}', which is not a backbone's name, and {error}"
        ) from None
    if found.classes != num_classes:
        raise InvalidSettingError(
            f"defense source '{source}' has {found.classes} classes; expected the data's {num_classes}"
        )
    return found.digest


def source_cells(plan: Plan, cell: Cell) -> list[Cell]:
    """The cells of a plan on which a cell's defense makes images; they are trained before it."""
    sources = plan.defense(cell.defense).sources
    return [Cell(select(source)[0], NONE, cell.seed) for source in sources if is_backbone(source)]
