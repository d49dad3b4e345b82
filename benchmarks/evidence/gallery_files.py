"""A gallery as a directory: PNG files, and ``gallery.json`` with all facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.evidence.choices import Rule
from robustbench_tin.benchmarks.evidence.gallery import Gallery, GalleryImage, GallerySelection
from robustbench_tin.benchmarks.evidence.pictures import read_png, write_png
from robustbench_tin.benchmarks.planning.plan import eps_slug, slug
from robustbench_tin.benchmarks.runs.files import DamagedError, forget, read_json

FACTS = "gallery.json"
FOLDER = "gallery"
"""The default directory of a gallery, within its run."""
PICTURES = ("clean", "perturbation", "adversarial")


class _Image(BaseModel):
    """The facts of a :class:`GalleryImage`, and the names of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cell: str
    attack: str
    eps: float
    norm: str
    index: int
    rule: str
    label: int
    before: int
    before_confidence: float
    after: int
    after_confidence: float
    distance: float
    magnified_by: float
    clean: str
    perturbation: str
    adversarial: str


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    seed: int
    classes: tuple[str, ...]
    images: tuple[_Image, ...]
    selections: tuple[GallerySelection, ...]


def write_gallery(gallery: Gallery, folder: Path) -> None:
    """Write a gallery into a directory, replacing an earlier one; ``gallery.json`` is written last.

    Raises:
        RunError: if the directory cannot be written.
    """
    for old in [FACTS, *(f"*-{kind}.png" for kind in PICTURES)]:
        for file in folder.glob(old):
            forget(file)
    images = []
    for image in gallery.images:
        names = {kind: f"{picture_name(image)}-{kind}.png" for kind in PICTURES}
        for kind, name in names.items():
            write_png(folder / name, getattr(image, kind))
        images.append(_Image(**{**vars(image), **names}))
    facts = _Facts(
        rule=gallery.rule,
        seed=gallery.seed,
        classes=gallery.classes,
        images=tuple(images),
        selections=tuple(gallery.selections),
    )
    write_text(folder / FACTS, facts.model_dump_json(indent=2) + "\n")


def read_gallery(folder: Path) -> Gallery | None:
    """The gallery in a directory, such as ``RUN/gallery``; None without one.

    Needs neither torch nor the data set.

    Raises:
        RunError: if a file is missing or damaged.
    """
    file = folder / FACTS
    if not file.is_file():
        return None
    facts = read_json(file, _Facts)
    try:
        rule = Rule(facts.rule)
    except ValueError:
        raise DamagedError(f"'{file}' has the unknown rule '{facts.rule[:80]}'", "make it again") from None
    images = [_read(folder, image) for image in facts.images]
    return Gallery(rule, facts.seed, facts.classes, images, facts.selections)


def picture_name(image: GalleryImage) -> str:
    """The common beginning of an image's file names."""
    cell = slug(image.cell.replace("/", "--"))
    return f"{cell}--{slug(image.attack)}@{eps_slug(image.eps)}--{image.index}"


def _read(folder: Path, image: _Image) -> GalleryImage:
    facts: dict[str, Any] = dict(image)
    # Only the last part of a stored name is used: it cannot lead out of the directory.
    pictures: dict[str, Any] = {kind: read_png(folder / Path(facts.pop(kind)).name) for kind in PICTURES}
    return GalleryImage(**facts, **pictures)
