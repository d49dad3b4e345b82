"""Galleries and saliency maps in the page: pictures as data URIs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_tin.benchmarks.charts.eps_chart import NORMS
from robustbench_tin.benchmarks.charts.shown_run import ShownRun
from robustbench_tin.benchmarks.evidence.gallery import Gallery, GalleryImage
from robustbench_tin.benchmarks.evidence.gallery_files import FOLDER, read_gallery
from robustbench_tin.benchmarks.evidence.pictures import inline
from robustbench_tin.benchmarks.evidence.saliency import SaliencyImage
from robustbench_tin.benchmarks.evidence.saliency_files import read_saliency_images
from robustbench_tin.benchmarks.planning.cell_names import cell_name
from robustbench_tin.specs import eps_text, short_numbers

# Maximum size of each section: a report must stay below 5 MB.
_MOST_BYTES = 600_000


@dataclass(frozen=True)
class PagePicture:
    """One picture.

    Attributes:
        source: a data URI.
        title: a word or two, shown below it.
        alternative: a description for people who do not see the picture.
        width: width in pixels.
        height: height in pixels.
        box: box of the object, as x, y, width and height in pixels; None without one.
    """

    source: str
    title: str
    alternative: str
    width: int
    height: int
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class PictureRow:
    """Pictures of one image, shown in a row.

    Attributes:
        title: the cell and the attack.
        pictures: the pictures in order.
        facts: short lines below them.
    """

    title: str
    pictures: Sequence[PagePicture]
    facts: Sequence[str]


@dataclass(frozen=True)
class PictureSection:
    """The galleries or the maps of all runs.

    Attributes:
        rows: the rows that fit into the page.
        left_out: number of rows that do not fit.
        notes: how the images were chosen.
    """

    rows: Sequence[PictureRow]
    left_out: int
    notes: Sequence[str]


def gallery_section(runs: Sequence[ShownRun]) -> PictureSection:
    """The existing galleries of some runs."""
    rows: list[PictureRow] = []
    notes: list[str] = []
    for run in runs:
        gallery = read_gallery(run.run.path / FOLDER)
        if gallery is not None:
            names = _names(run)
            rows += [_gallery_row(run, gallery, image) for image in gallery.images if image.cell in names]
            notes.append(run.qualified(f"images chosen by rule '{gallery.rule}', seed {gallery.seed}"))
    return _section(rows, notes)


def saliency_section(runs: Sequence[ShownRun]) -> PictureSection:
    """The existing saliency maps of some runs."""
    rows = []
    for run in runs:
        by_image: dict[tuple[str, str, int], list[SaliencyImage]] = {}
        for image in read_saliency_images(run.run.path):
            if image.cell in _names(run):
                by_image.setdefault((image.cell, image.method, image.index), []).append(image)
        rows += [_saliency_row(run, images) for images in by_image.values()]
    return _section(rows, [])


def _names(run: ShownRun) -> set[str]:
    """The shown cells, by the names that evidence uses."""
    return {cell_name(cell) for cell in run.cells}


def _section(rows: Sequence[PictureRow], notes: Sequence[str]) -> PictureSection:
    """Rows that fit, taken from all cells in turn, so that no cell takes all the room."""
    by_title: dict[str, list[PictureRow]] = {}
    for row in rows:
        by_title.setdefault(row.title, []).append(row)
    longest = max(map(len, by_title.values()), default=0)
    order = [each[place] for place in range(longest) for each in by_title.values() if place < len(each)]
    kept, size = set[int](), 0
    for row in order:
        size += sum(len(picture.source) for picture in row.pictures)
        if size > _MOST_BYTES:
            break
        kept.add(id(row))
    return PictureSection([row for row in rows if id(row) in kept], len(rows) - len(kept), notes)


def _gallery_row(run: ShownRun, gallery: Gallery, image: GalleryImage) -> PictureRow:
    def name(label: int) -> str:
        return (
            gallery.classes[label].split(",")[0] if 0 <= label < len(gallery.classes) else f"output {label}"
        )

    threat = f"{short_numbers(image.attack)} at {eps_text(image.eps)}"
    before = f"{name(image.before)}, {100 * image.before_confidence:.0f} %"
    after = f"{name(image.after)}, {100 * image.after_confidence:.0f} %"
    return PictureRow(
        f"{run.qualified(image.cell)}, {threat}",
        [
            _picture(image.clean, before, f"Image {image.index}, true class {name(image.label)}, clean"),
            _picture(
                image.perturbation,
                f"× {image.magnified_by:g}",
                f"Perturbation of image {image.index}, {image.magnified_by:g} times as strong, around grey",
            ),
            _picture(image.adversarial, after, f"Image {image.index} after {threat}"),
        ],
        [f"image {image.index}, true class {name(image.label)}; {_distance(image)}"],
    )


def _distance(image: GalleryImage) -> str:
    text = f"{255 * image.distance:.2g}/255" if image.norm == "linf" else f"{image.distance:.3g}"
    return f"{NORMS.get(image.norm, image.norm)} distance {text}"


def _saliency_row(run: ShownRun, images: Sequence[SaliencyImage]) -> PictureRow:
    first = images[0]
    labels = run.labels
    name = f"class {first.label}" if labels is None else labels.name(first.label)
    pictures = []
    for image in images:
        share = "no box" if image.share != image.share else f"{100 * image.share:.0f} % in box"
        box = None
        if image.box is not None:
            x0, y0, x1, y1 = image.box
            box = (x0, y0, x1 - x0 + 1, y1 - y0 + 1)
        pictures += [
            _picture(image.image, image.kind, f"Image {image.index}, true class {name}, {image.kind}", box),
            _picture(heated(image.image, image.map), share, f"Saliency map: {share}", box),
        ]
    return PictureRow(
        f"{run.qualified(first.cell)}, {first.method}", pictures, [f"image {first.index}, true class {name}"]
    )


def heated(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An image in grey with a map over it, coloured from dark over red and yellow to white.

    Args:
        image: uint8 ``(H, W, 3)``.
        heat: uint8 ``(H, W)``, 255 at its largest value.
    """
    level = heat.astype(np.float32)[..., None] / 255
    colours = np.concatenate([3 * level, 3 * level - 1, 3 * level - 2], axis=-1).clip(0, 1)
    grey = image.mean(axis=-1, keepdims=True) / 255
    mixed: npt.NDArray[np.uint8] = (255 * (0.4 * grey + 0.6 * colours)).round().astype(np.uint8)
    return mixed


def _picture(
    pixels: npt.NDArray[np.uint8], title: str, alternative: str, box: tuple[int, int, int, int] | None = None
) -> PagePicture:
    return PagePicture(inline("", pixels), title, alternative, pixels.shape[1], pixels.shape[0], box)
