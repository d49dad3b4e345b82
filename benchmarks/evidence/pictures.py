"""Lossless PNG files, so that a picture read back has the original pixels."""

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
"""Returns the address of a picture in a page, from its file name and its pixels."""


def write_png(file: Path, pixels: Pixels) -> None:
    """Write uint8 ``(H, W, 3)`` or ``(H, W)`` as PNG.

    Raises:
        RunError: if it cannot be written.
    """
    with replacing(file) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", optimize=True)


def inline(name: str, pixels: Pixels) -> str:
    """A data URI: the address of a picture that the page itself contains.

    Args:
        name: not used.
        pixels: uint8, see :func:`write_png`.
    """
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(content.getvalue()).decode()}"


def read_png(file: Path) -> Pixels:
    """The pixels of a PNG file that :func:`write_png` wrote.

    Raises:
        RunError: if it cannot be read or is not such a file.
    """
    content = read_bytes(file)
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as picture:
            pixels: Pixels = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    except FOREIGN as error:  # any error of the decoder
        raise DamagedError(f"'{file}' is damaged ({one_line(error)[:120]})", "make it again") from error
    return pixels
