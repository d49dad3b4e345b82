"""A gallery as HTML: a page that shows the PNG files next to it, or a part of a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.evidence.choices import Rule
from robustbench_tin.benchmarks.evidence.gallery import Gallery, GalleryImage
from robustbench_tin.benchmarks.evidence.gallery_files import picture_name
from robustbench_tin.benchmarks.evidence.pictures import Source
from robustbench_tin.specs import eps_text
from robustbench_tin.text import counted, printable

SHEET = "gallery.html"
RULE_TEXTS = {
    Rule.random: "random images",
    Rule.smallest_margin: "images correct before the attack and closest to the decision boundary after it",
    Rule.confident: "successes with the most confident wrong prediction",
    Rule.survivors: "random images that are correct under the attack",
}
_STYLE = "body{font:14px/1.4 system-ui,sans-serif;margin:1rem;color-scheme:light dark}"
_SIZE = 'width="96" height="96" style="image-rendering:pixelated;margin:0 4px 0 0;display:inline-block"'


def write_contact_sheet(gallery: Gallery, folder: Path) -> Path:
    """Write the HTML page of a gallery next to its files; return its path.

    Raises:
        RunError: if it cannot be written.
    """
    body = gallery_html(gallery, lambda name, pixels: name)
    what = f"{RULE_TEXTS[gallery.rule]}; seed of the choice {gallery.seed}"
    write_text(
        folder / SHEET,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Gallery</title><style>{_STYLE}</style>'
        f"<h1>Gallery</h1><p>Rule: {escape(what)}. Each row shows the clean image, the magnified perturbation"
        f" around mid-grey, and the adversarial image.</p>{body}</html>\n",
    )
    return folder / SHEET


def gallery_html(gallery: Gallery, source: Source, heading: str = "h2") -> str:
    """The images of a gallery as HTML, one section per measurement.

    Args:
        gallery: the gallery.
        source: returns the address of each picture.
        heading: HTML tag of a section's title.
    """
    return "".join(_sections(gallery, source, heading))


def _sections(gallery: Gallery, source: Source, heading: str) -> Iterator[str]:
    def measurement(image: GalleryImage) -> tuple[str, str, float]:
        return image.cell, image.attack, image.eps

    shown = {key: list(images) for key, images in groupby(gallery.images, key=measurement)}
    for each in gallery.selections:
        images = shown.get((each.cell, each.attack, each.eps), [])
        left_out = each.not_reproduced + each.lost_to_rounding
        note = f"{counted(len(images), 'image')} of {each.candidates:,} candidates"
        note += f"; {left_out:,} left out, see gallery.json" if left_out else ""
        title = f"{each.cell}, {each.attack} at eps {eps_text(each.eps)}"
        figures = "".join(_figure(gallery, image, source) for image in images)
        head = f"<{heading}>{_text(title)}</{heading}><p>{_text(note)}</p>"
        yield f"<section>{head}{_side_by_side(figures)}</section>"


def _side_by_side(figures: str) -> str:
    return f'<div style="display:flex;flex-wrap:wrap;gap:1rem">{figures}</div>'


def _figure(gallery: Gallery, image: GalleryImage, source: Source) -> str:
    name = picture_name(image)
    before = _prediction(gallery, image.before, image.before_confidence)
    after = _prediction(gallery, image.after, image.after_confidence)
    label = _name(gallery, image.label)
    texts = {
        "clean": f"clean image {image.index}, predicted {before}",
        "perturbation": f"perturbation, magnified {image.magnified_by:.0f} times",
        "adversarial": f"adversarial image, predicted {after}",
    }
    pictures = "".join(
        f'<img src="{escape(source(f"{name}-{kind}.png", getattr(image, kind)))}" alt="{_text(text)}"'
        f' title="{_text(text)}" {_SIZE}>'
        for kind, text in texts.items()
    )
    caption = (
        f"{image.index}: {label}. Before: {before}; after: {after}. {image.norm} distance"
        f" {_distance(image)}, magnified {image.magnified_by:.0f} times."
    )
    shown = f'<figcaption style="max-width:300px">{_text(caption)}</figcaption>'
    return f'<figure style="margin:0">{pictures}{shown}</figure>'


def _distance(image: GalleryImage) -> str:
    return eps_text(image.distance) if image.norm == "linf" else f"{image.distance:.3g}"


def _prediction(gallery: Gallery, number: int, confidence: float) -> str:
    return f"{_name(gallery, number)} ({100 * confidence:.0f} %)"


def _name(gallery: Gallery, number: int) -> str:
    """The first name of a class; its number if the model has more outputs than the data set has classes."""
    if number < len(gallery.classes):
        return gallery.classes[number].partition(",")[0]
    return f"output {number}"


def _text(text: str) -> str:
    return escape(printable(text))
