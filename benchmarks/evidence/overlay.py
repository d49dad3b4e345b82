"""Attribution maps drawn over their images, with the object's box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.evidence.pictures import Pixels, Source, write_png
from robustbench_tin.benchmarks.evidence.saliency import Box, SaliencyImage
from robustbench_tin.text import printable

SHEET = "saliency.html"
_LINE = (0, 255, 255)
_STYLE = "body{font:14px/1.4 system-ui,sans-serif;margin:1rem;color-scheme:light dark}"
_PIXELATED = "image-rendering:pixelated;margin:0 4px 0 0;display:inline-block"


def overlay(image: SaliencyImage, scale: int = 3) -> npt.NDArray[np.uint8]:
    """The image in grey under its map (black, red, yellow, white by increasing value), its box in cyan.

    Args:
        image: the image with its map and box.
        scale: side of an image pixel in the picture, in pixels, at least 2.

    Returns:
        uint8 ``(scale * H, scale * W, 3)``.
    """
    heat = image.map.astype(np.float64)[..., None] / 255
    colours = (3 * heat - np.arange(3)).clip(0, 1) * 255
    grey = image.image.mean(axis=2, keepdims=True)
    opacity = 0.2 + 0.5 * heat
    picture = ((1 - opacity) * grey + opacity * colours).round().astype(np.uint8)
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    return large if image.box is None else _framed(large, image.box, scale)


def _framed(picture: npt.NDArray[np.uint8], box: Box, scale: int) -> npt.NDArray[np.uint8]:
    """The picture with a line along the inner edge of a box."""
    x0, y0, x1, y1 = (scale * corner for corner in (box[0], box[1], box[2] + 1, box[3] + 1))
    for edge in (
        np.s_[y0, x0:x1],
        np.s_[y1 - 1, x0:x1],
        np.s_[y0:y1, x0],
        np.s_[y0:y1, x1 - 1],
    ):
        picture[edge] = _LINE
    return picture


def write_saliency_page(images: Sequence[SaliencyImage], classes: tuple[str, ...], folder: Path) -> Path:
    """Write overlays and an HTML page of them into the folder of a saliency result; return the page's path.

    Raises:
        RunError: if they cannot be written.
    """

    def written(name: str, pixels: Pixels) -> str:
        write_png(folder / name, pixels)
        return name

    body = saliency_html(images, classes, written)
    what = f"{images[0].method} of {images[0].cell}" if images else "no images"
    write_text(
        folder / SHEET,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Saliency</title><style>{_STYLE}</style>'
        f"<h1>{_text(what)}</h1><p>The map shows where the classifier looks: brighter means"
        f" more important. The object's box is cyan.</p>{body}</html>\n",
    )
    return folder / SHEET


def saliency_html(images: Sequence[SaliencyImage], classes: tuple[str, ...], source: Source) -> str:
    """Images and their maps as HTML, one row per image.

    Args:
        images: the images of one cell and method.
        classes: class names in label order.
        source: returns the address of each picture.
    """
    return "".join(_sections(images, classes, source))


def _sections(images: Sequence[SaliencyImage], classes: tuple[str, ...], source: Source) -> Iterator[str]:
    in_order = sorted(images, key=lambda image: image.index)
    for _, versions in groupby(in_order, key=lambda image: image.index):
        figures = "".join(_figure(version, classes, source) for version in versions)
        yield f'<section style="display:flex;flex-wrap:wrap;gap:1rem;margin-bottom:1rem">{figures}</section>'


def _figure(image: SaliencyImage, classes: tuple[str, ...], source: Source) -> str:
    name = f"{image.index}-{image.kind}"
    share = "no box" if image.share != image.share else f"{100 * image.share:.0f} % inside the box"
    caption = (
        f"{image.kind}: {_name(classes, image.label)}, predicted {_name(classes, image.predicted)}; {share}"
    )
    size = 3 * image.map.shape[0]
    files = {f"{name}.png": image.image, f"{name}-overlay.png": overlay(image)}
    pictures = "".join(
        f'<img src="{escape(source(file, pixels))}" width="{size}" height="{size}" style="{_PIXELATED}"'
        f' alt="{_text(caption)}">'
        for file, pixels in files.items()
    )
    shown = f'<figcaption style="max-width:400px">{_text(caption)}</figcaption>'
    return f'<figure style="margin:0">{pictures}{shown}</figure>'


def _name(classes: tuple[str, ...], number: int) -> str:
    """The first name of a class; its number if the model has more outputs than the data set has classes."""
    return classes[number].partition(",")[0] if 0 <= number < len(classes) else f"output {number}"


def _text(text: str) -> str:
    return escape(printable(text))
