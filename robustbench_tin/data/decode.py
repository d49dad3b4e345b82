"""Decoding of image files to arrays, several at a time.

It uses threads, not processes: Pillow releases the interpreter's lock while it decodes, and threads work in a
script without a ``__main__`` guard, from standard input and beside torch's own threads.
"""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from robustbench_tin.errors import one_line

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
MOST_PIXELS = 89_478_485
"""Number of pixels of the largest image that is decoded; above it, Pillow warns of a decompression bomb."""

_LONGEST_SIDE = 65_535  # the limit of a JPEG; Pillow's decoders allocate a multiple of a row
_CHUNK_BYTES = 3 << 20
# Images that take tens of megabytes are decoded one at a time; otherwise the threads would fill the memory.
_LARGE_PIXELS = 4_000_000
_one_large = threading.Lock()


class BrokenImageError(Exception):
    """An image that cannot be used; its text is the reason, written to follow the image's name."""


@dataclass(frozen=True)
class Chunk:
    """A chunk of consecutive decoded images.

    Attributes:
        images: the good images, uint8 ``(n, 3, size, size)``.
        rows: their indices in the list of names; ``n`` numbers.
        broken: name and reason of the other images.
        done: number of names processed so far, good or not.
    """

    images: npt.NDArray[np.uint8]
    rows: list[int]
    broken: list[tuple[str, str]]
    done: int


def decode_image(
    data: bytes, size: int, *, exact: bool = False, shorter: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode one image to uint8 ``(3, size, size)``, RGB.

    An image of another size is scaled (shorter side to ``size``, antialiased) and cropped around its centre.
    Transparency is dropped and grayscale is repeated, as in torchvision's ``ImageFolder``.

    Args:
        data: a JPEG, PNG, BMP, WebP, PPM or TIFF file; if it holds several images, the first is used.
        size: height and width in pixels.
        exact: refuse an image of another size.
        shorter: scale the shorter side to this number of pixels first, then crop ``size`` pixels around the
            centre, both exactly as torchvision's ``Resize`` and ``CenterCrop``; None: see above.

    Raises:
        BrokenImageError: if it is truncated, damaged, too large or not an image.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        _require_size(image, size if exact else None)
        with _one_large if image.width * image.height > _LARGE_PIXELS else nullcontext():
            return _pixels(image, size) if shorter is None else _resized(image, size, shorter)
    except BrokenImageError:
        raise
    except UnidentifiedImageError:
        raise BrokenImageError(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:  # whichever error a decoder raises, the image is broken
        raise BrokenImageError(f"cannot be decoded ({one_line(error)})") from error


def _pixels(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    if image.size != (size, size):
        # A JPEG can be decoded at a fraction of its size; twice the requested size is enough.
        image.draft(None, (2 * size, 2 * size))
    image = _rgb(image)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=_centre_square(*image.size))
    return np.asarray(image).transpose(2, 0, 1)


def _resized(image: Image.Image, size: int, shorter: int) -> npt.NDArray[np.uint8]:
    image = _rgb(image)
    least = min(image.size)
    width, height = (shorter if side == least else int(shorter * side / least) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def _require_size(image: Image.Image, exact: int | None) -> None:
    """Refuse an image by the size in its header, before it is decoded."""
    width, height = image.size
    if exact is not None and (width, height) != (exact, exact):
        raise BrokenImageError(f"is {width}×{height} pixels, expected {exact}×{exact}")
    if width * height > MOST_PIXELS or max(width, height) > _LONGEST_SIDE:
        raise BrokenImageError(
            f"is {width}×{height} pixels, expected at most {MOST_PIXELS:,} and {_LONGEST_SIDE:,} a side"
        )


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from an image file's header; None if it has no readable one."""
    try:
        with _strict_pillow(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Exception:  # noqa: BLE001 - decoding will report the fault
        return None


def decode_all(
    read: Callable[[str], bytes],
    names: Sequence[str],
    size: int,
    *,
    exact: bool = False,
    shorter: int | None = None,
    workers: int | None = None,
) -> Generator[Chunk]:
    """Decode many images in parallel; the chunks come in the order of ``names``.

    Only a few chunks are in memory at a time.

    Args:
        read: returns the bytes of a name; called from several threads.
        names: the images.
        size: height and width in pixels.
        exact: refuse images of another size.
        shorter: as in :func:`decode_image`.
        workers: number of threads; None for one per core.
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
                images[len(rows)] = decode_image(_bytes(read, name), size, exact=exact, shorter=shorter)
                rows.append(row)
            except BrokenImageError as error:
                broken.append((name, str(error)))
        return Chunk(images[: len(rows)], rows, broken, start + len(part))

    pending: deque[Future[Chunk]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    with _strict_pillow():
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
    except ValueError as error:  # a name that no file can have
        raise BrokenImageError(f"cannot be read ({error})") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise BrokenImageError("has 32 bits per pixel, expected 8 or 16")  # their range is unknown
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip to 255
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
def _strict_pillow() -> Iterator[None]:
    """Treat truncated images as errors, even if another library told Pillow to pad them.

    Pillow's own limit of pixels would print a warning for each large image; our limit replaces it.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before
