"""Image files to arrays, several at a time.

Threads, not processes: Pillow releases the interpreter's lock while it decodes, and threads work in
a script without a ``__main__`` guard, from standard input and beside torch's own threads.
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
"""Pixels of the largest image that is decoded; from there on Pillow warns of a bomb."""

_LONGEST_SIDE = 65_535  # of a JPEG; decoders in Pillow hold a multiple of a row
_CHUNK_BYTES = 3 << 20
# Images that take tens of megabytes are decoded one at a time, or threads would fill the memory together.
_LARGE_PIXELS = 4_000_000
_one_large = threading.Lock()


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


def decode_image(
    data: bytes, size: int, *, exact: bool = False, shorter: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode one image to uint8 ``(3, size, size)``, RGB.

    An image of another size is scaled (shorter side to ``size``, antialiased) and cropped around its
    centre; transparency is dropped and grayscale repeated, as torchvision's ``ImageFolder`` does.

    Args:
        data: a JPEG, PNG, BMP, WebP, PPM or TIFF file; of several images in it, the first.
        size: height and width in pixels.
        exact: refuse an image of another size.
        shorter: scale the shorter side to this many pixels first, and crop ``size`` around the centre, both
            to the pixel as torchvision's ``Resize`` and ``CenterCrop``; None: see above.

    Raises:
        BrokenImageError: where it is truncated, damaged, too large or no image.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        _require_size(image, size if exact else None)
        with _one_large if image.width * image.height > _LARGE_PIXELS else nullcontext():
            return _pixels(image, size) if shorter is None else _resized(image, size, shorter)
    except BrokenImageError:
        raise
    except UnidentifiedImageError:
        raise BrokenImageError(f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:  # whatever a decoder raises, the image is broken
        raise BrokenImageError(f"cannot be decoded ({one_line(error)})") from error


def _pixels(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    if image.size != (size, size):
        # A JPEG can be decoded at an eighth of its size; twice the size asked for is ample.
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
    """Refuse an image by what its header says, before it is decoded."""
    width, height = image.size
    if exact is not None and (width, height) != (exact, exact):
        raise BrokenImageError(f"is {width}×{height} pixels, expected {exact}×{exact}")
    if width * height > MOST_PIXELS or max(width, height) > _LONGEST_SIDE:
        raise BrokenImageError(
            f"is {width}×{height} pixels, expected at most {MOST_PIXELS:,} and {_LONGEST_SIDE:,} a side"
        )


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from an image file's header; None where it has no readable one."""
    try:
        with _strict_pillow(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Exception:  # noqa: BLE001 - decoding it will say what is wrong
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
        read: gives the bytes of a name; called from several threads.
        names: the images.
        size: height and width in pixels.
        exact: refuse images of another size.
        shorter: as of :func:`decode_image`.
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
        raise BrokenImageError("has 32 bits a pixel, expected 8 or 16")  # in no range that is known
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
def _strict_pillow() -> Iterator[None]:
    """Truncated images are errors here, even where another library asked Pillow to pad them.

    Pillow's own limit of pixels would print a warning of each large image; ours stands in its place.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before
