"""Bounding boxes: selecting usable ones, and cropping images to them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image


def usable(boxes: npt.NDArray[np.int32], height: int, width: int) -> npt.NDArray[np.bool_]:
    """True for boxes that contain at least two by two pixels of the image; a missing box (-1) is unusable.

    Args:
        boxes: int32 ``(N, 4)``, ``x0, y0, x1, y1`` with the corners included.
        height: height of the images in pixels.
        width: width of the images in pixels.

    Returns:
        bool ``(N,)``.
    """
    x0, y0, x1, y1 = boxes.T
    wide, high = np.minimum(x1, width - 1) > x0, np.minimum(y1, height - 1) > y0
    mask: npt.NDArray[np.bool_] = wide & high & (x0 >= 0) & (y0 >= 0)
    return mask


def given(boxes: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """True for images that have a box, usable or not, bool ``(N,)``."""
    mask: npt.NDArray[np.bool_] = (boxes != -1).any(axis=1)
    return mask


def crop(
    images: npt.NDArray[np.uint8], boxes: npt.NDArray[np.int32], *, fill: bool = False
) -> npt.NDArray[np.uint8]:
    """Each image's box alone in an image of the same size: padded with black, or enlarged to fill it.

    Args:
        images: uint8 ``(N, 3, H, W)``.
        boxes: int32 ``(N, 4)``, usable ones; parts outside the image are cut off.
        fill: enlarge, see :func:`crop_and_fill`; otherwise pad, see :func:`crop_and_pad`.

    Returns:
        uint8 ``(N, 3, H, W)``.
    """
    return crop_and_fill(images, boxes) if fill else crop_and_pad(images, boxes)


def crop_and_fill(images: npt.NDArray[np.uint8], boxes: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Each image's box alone, enlarged (bicubic) to the image's height and width.

    Args:
        images: uint8 ``(N, 3, H, W)``.
        boxes: int32 ``(N, 4)``, usable ones; parts outside the image are cut off.

    Returns:
        uint8 ``(N, 3, H, W)``.
    """
    height, width = images.shape[-2:]
    filled = np.empty_like(images)
    for image, (x0, y0, x1, y1), canvas in zip(images, boxes, filled, strict=True):
        crop = image[:, y0 : min(y1, height - 1) + 1, x0 : min(x1, width - 1) + 1]
        picture = Image.fromarray(np.ascontiguousarray(crop.transpose(1, 2, 0)))
        enlarged = picture.resize((width, height), Image.Resampling.BICUBIC)
        canvas[:] = np.asarray(enlarged).transpose(2, 0, 1)
    return filled


def crop_and_pad(images: npt.NDArray[np.uint8], boxes: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Each image's box alone, at its own scale, in the centre of a black image of the same size.

    Args:
        images: uint8 ``(N, 3, H, W)``.
        boxes: int32 ``(N, 4)``, usable ones; parts outside the image are cut off.

    Returns:
        uint8 ``(N, 3, H, W)``.
    """
    height, width = images.shape[-2:]
    cropped = np.zeros_like(images)
    places = zip(inside(boxes, height, width), padded(boxes, height, width), strict=True)
    for image, (source, target), canvas in zip(images, places, cropped, strict=True):
        canvas[:, *_pixels(target)] = image[:, *_pixels(source)]
    return cropped


def inside(boxes: npt.NDArray[np.int32], height: int, width: int) -> npt.NDArray[np.int32]:
    """Usable boxes without the parts outside the image, int32 ``(N, 4)``."""
    return np.minimum(boxes, np.array([width, height, width, height], np.int32) - 1)


def padded(boxes: npt.NDArray[np.int32], height: int, width: int) -> npt.NDArray[np.int32]:
    """The places to which :func:`crop_and_pad` moves usable boxes, int32 ``(N, 4)``."""
    x0, y0, x1, y1 = inside(boxes, height, width).T
    left, top = (width - (x1 - x0 + 1)) // 2, (height - (y1 - y0 + 1)) // 2
    return np.stack([left, top, left + x1 - x0, top + y1 - y0], axis=1)


def _pixels(box: npt.NDArray[np.int32]) -> tuple[slice, slice]:
    """Rows and columns of a box."""
    x0, y0, x1, y1 = box
    return slice(y0, y1 + 1), slice(x0, x1 + 1)
