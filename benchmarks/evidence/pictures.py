"""PNG files of evidence: lossless, so that a picture that is read back is the image itself."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustbench_tin.atomic import replacing
from robustbench_tin.benchmarks.runs.files import DamagedError, read_bytes
from robustbench_tin.errors import FOREIGN, one_line

Pixels = npt.NDArray[np.uint8]
Source = Callable[[str, Pixels], str]
"""Gives the address of a picture in a page, from its file's name and its pixels."""


def write_png(file: Path, pixels: Pixels) -> None:
    """Write uint8 ``(H, W, 3)`` or ``(H, W)`` as PNG.

    Raises:
        RunError: if it cannot be written.
    """
    with replacing(file) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", optimize=True)


def inline(name: str, pixels: Pixels) -> str:
    """The address of a picture that the page itself contains: a data URI.

    Args:
        name: not used.
        pixels: as of :func:`write_png`.
    """
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(content.getvalue()).decode()}"


def read_png(file: Path) -> Pixels:
    """The pixels of a PNG file that :func:`write_png` wrote.

    Raises:
        RunError: if it cannot be read, or is no such file.
    """
    content = read_bytes(file)
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as picture:
            pixels: Pixels = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    except FOREIGN as error:  # whatever the decoder raises on a damaged file
        raise DamagedError(f"'{file}' is damaged ({one_line(error)[:120]}); make it again") from error
    return pixels
