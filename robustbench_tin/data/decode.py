"""Image files to arrays, several at a time.

Threads, not processes: Pillow releases the interpreter's lock while it decodes, and threads work in
a script without a ``__main__`` guard, from standard input and beside torch's own threads.
"""

from __future__ import annotations

import io
import os
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_CHUNK_BYTES = 3 << 20


class BrokenImageError(Exception):
    """An image that cannot be used; its text is the reason, to follow the image's name."""


@dataclass(frozen=True)
class Chunk:
    """Some decoded images in a row.

    Attributes:
        images: uint8 ``(n, 3, size, size)``, the good ones.
        rows: which of the names asked for they are, ``n`` indices.
        broken: name and reason of the others.
        done: how many of the names are behind us, good or not.
    """

    images: npt.NDArray[np.uint8]
    rows: list[int]
    broken: list[tuple[str, str]]
    done: int


def decode_image(data: bytes, size: int, *, exact: bool = False) -> npt.NDArray[np.uint8]:
    """Decode one image to uint8 ``(3, size, size)``, RGB.

    An image of another size is scaled (shorter side to ``size``, antialiased) and cropped around its
    centre; transparency is dropped and grayscale repeated, as torchvision's ``ImageFolder`` does.

    Args:
        data: a JPEG, PNG, BMP or WebP file.
        size: height and width in pixels.
        exact: refuse an image of another size.

    Raises:
        BrokenImageError: where it is truncated, damaged or no image.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.size != (size, size):
            if exact:
                width, height = image.size
                raise BrokenImageError(f"is {width}×{height} pixels, expected {size}×{size}")
            # A JPEG can be decoded at an eighth of its size; twice the size asked for is ample.
            image.draft(None, (2 * size, 2 * size))
        image = _rgb(image)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BICUBIC, box=_centre_square(*image.size))
    except UnidentifiedImageError:
        raise BrokenImageError(f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise BrokenImageError(f"cannot be decoded ({error})") from error
    return np.asarray(image).transpose(2, 0, 1)


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from an image file's header; None where it has no readable one."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError):
        return None


def decode_all(
    read: Callable[[str], bytes],
    names: Sequence[str],
    size: int,
    *,
    exact: bool = False,
    workers: int | None = None,
) -> Generator[Chunk]:
    """Decode many images in parallel; the chunks come in the order of ``names``.

    Only a few chunks are in memory at a time.

    Args:
        read: gives the bytes of a name; called from several threads.
        names: the images.
        size: height and width in pixels.
        exact: refuse images of another size.
        workers: threads; None: one a core.
    """
    workers = workers or min(16, _cores())
    length = max(1, _CHUNK_BYTES // (3 * size * size))

    def decode_from(start: int) -> Chunk:
        part = names[start : start + length]
        images = np.empty((len(part), 3, size, size), np.uint8)
        rows: list[int] = []
        broken: list[tuple[str, str]] = []
        for row, name in enumerate(part, start):
            try:
                images[len(rows)] = decode_image(_bytes(read, name), size, exact=exact)
                rows.append(row)
            except BrokenImageError as error:
                broken.append((name, str(error)))
        return Chunk(images[: len(rows)], rows, broken, start + len(part))

    pending: deque[Future[Chunk]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    with _no_half_images():
        try:
            for start in range(0, len(names), length):
                pending.append(pool.submit(decode_from, start))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _bytes(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except OSError as error:
        raise BrokenImageError(f"cannot be read ({error.strerror or error})") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip to 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _centre_square(width: int, height: int) -> tuple[float, float, float, float]:
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _no_half_images() -> Iterator[None]:
    """Truncated images are errors here, even where another library asked Pillow to pad them."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
