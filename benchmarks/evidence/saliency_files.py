"""Saliency results in a run directory: ``RUN/saliency/CELL--METHOD/saliency.json`` and PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.evidence.pictures import read_png, write_png
from robustbench_tin.benchmarks.evidence.saliency import Box, SaliencyImage, SaliencyShare
from robustbench_tin.benchmarks.planning.plan import slug
from robustbench_tin.benchmarks.runs.files import forget, read_json

FACTS = "saliency.json"
FOLDER = "saliency"
"""The directory of the results, within a run."""


class ImageShare(BaseModel):
    """The share of one image.

    Attributes:
        index: number of the image among the run's evaluated images.
        kind: see :class:`robustbench_tin.benchmarks.evidence.saliency.Kind`.
        predicted: the explained class.
        share: in [0, 1]; None for a map that is zero everywhere, and without a usable box.
        chance: share of the area inside the box; None without a usable box.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    index: int
    kind: str
    predicted: int
    share: float | None
    chance: float | None


class _Picture(BaseModel):
    """The facts of a :class:`SaliencyImage`, and the names of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    index: int
    label: int
    kind: str
    image: str
    map: str
    box: Box | None
    share: float | None
    predicted: int


class SaliencyResult(BaseModel):
    """The saliency results of one cell and method.

    Attributes:
        cell: MODEL/DEFENSE/SEED.
        method: see :class:`robustbench_tin.benchmarks.evidence.saliency.Method`.
        settings: all settings of the measurement.
        weights_digest: digest of the explained weights.
        classes: class names in label order.
        shares: one per kind of image; empty without usable boxes.
        image_shares: one per image and kind.
        pictures: images whose maps were written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cell: str
    method: str
    settings: dict[str, str | int | float]
    weights_digest: str
    classes: tuple[str, ...]
    shares: tuple[SaliencyShare, ...]
    image_shares: tuple[ImageShare, ...]
    pictures: tuple[_Picture, ...] = ()


def write_saliency(run: Path, result: SaliencyResult, images: Sequence[SaliencyImage]) -> Path:
    """Write a result and its pictures into a run directory; return their folder.

    Raises:
        RunError: if it cannot be written.
    """
    folder = _folder(run, result.cell, result.method)
    for old in [FACTS, "*.png"]:
        for file in folder.glob(old):
            forget(file)
    pictures = []
    for each in images:
        name = f"{each.index}-{each.kind}"
        write_png(folder / f"{name}.png", each.image)
        write_png(folder / f"{name}-map.png", each.map)
        facts = {key: value for key, value in vars(each).items() if key in _Picture.model_fields}
        share = None if each.share != each.share else each.share
        names = {"image": f"{name}.png", "map": f"{name}-map.png"}
        pictures.append(_Picture(**{**facts, **names, "share": share}))
    whole = result.model_copy(update={"pictures": tuple(pictures)})
    write_text(folder / FACTS, whole.model_dump_json(indent=2) + "\n")
    return folder


def read_saliency(run: Path) -> list[SaliencyShare]:
    """The measured shares inside the box of a run's cells, one per cell, method and kind of image.

    Needs neither torch nor the data set. Without results the list is empty.

    Raises:
        RunError: if a file is damaged.
    """
    return [share for _, result in _results(run) for share in result.shares]


def read_saliency_images(run: Path) -> list[SaliencyImage]:
    """The images whose maps were written.

    Raises:
        RunError: if a file is missing or damaged.
    """
    return [_read(folder, result, each) for folder, result in _results(run) for each in result.pictures]


def _results(run: Path) -> Iterator[tuple[Path, SaliencyResult]]:
    for file in sorted((run / FOLDER).glob(f"*/{FACTS}")):
        yield file.parent, read_json(file, SaliencyResult)


def _read(folder: Path, result: SaliencyResult, picture: _Picture) -> SaliencyImage:
    facts: dict[str, Any] = dict(picture)
    # Only the last part of a stored name is used: it cannot lead out of the directory.
    pixels: dict[str, Any] = {
        kind: read_png(folder / Path(facts.pop(kind)).name) for kind in ("image", "map")
    }
    share = float("nan") if picture.share is None else picture.share
    return SaliencyImage(result.cell, result.method, **{**facts, "share": share}, **pixels)


def _folder(run: Path, cell: str, method: str) -> Path:
    return run / FOLDER / f"{slug(cell.replace('/', '--'))}--{slug(method)}"
