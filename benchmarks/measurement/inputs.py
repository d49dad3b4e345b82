"""Convert and check the arguments of callers: images and labels of any usual type, and numbers."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from robustbench_tin.errors import InvalidSettingError, one_line
from robustbench_tin.runtime import as_tensor
from robustbench_tin.text import brief

Images = Tensor | npt.NDArray[Any] | Sequence[Any] | DataLoader[Any] | Dataset[Any] | Iterable[Any]
"""Images, float in [0, 1] or uint8: a tensor or array ``(N, C, H, W)``, a list, or a data set with labels."""
Labels = Tensor | npt.NDArray[Any] | Sequence[int]

_IMAGE_KEYS = ("image", "images", "img", "pixel_values")
_LABEL_KEYS = ("label", "labels", "target", "fine_label")
_IMAGES = "a tensor or array (N, C, H, W), a list of images, or a DataLoader or Dataset of images with labels"
_LABELS = "class indices from 0, one for each image"


def as_images_and_labels(images: Images, labels: Labels | None) -> tuple[Tensor, Tensor]:
    """Convert images and labels to tensors.

    Args:
        images: in any form that :func:`robustbench_tin.evaluate` accepts.
        labels: class indices, one for each image; None if the images come with labels.

    Returns:
        The images, uint8 or float32 ``(N, C, H, W)`` in [0, 1], and the labels, int64 ``(N,)``.

    Raises:
        InvalidSettingError: if a shape, type or range is wrong, if there are no labels, or if the labels
            differ from those that come with the images.
    """
    found: Tensor | None = None
    if isinstance(images, Tensor | np.ndarray):
        image_tensor = _as_tensor(images)
    else:
        image_tensor, found = _collected(images)
    image_tensor = _as_pixels(image_tensor)
    if labels is None and found is None:
        raise InvalidSettingError(f"labels got None, and the images have no labels; expected {_LABELS}")
    label_tensor = _as_labels(found if labels is None else labels, len(image_tensor))
    if (
        labels is not None
        and found is not None
        and not torch.equal(_as_labels(found, len(found)), label_tensor)
    ):
        raise InvalidSettingError(
            "labels got other values than the labels that come with the images; leave labels out (a shuffled"
            " DataLoader gives another order each time)"
        )
    return image_tensor, label_tensor


def as_whole(setting: str, value: object, least: int) -> int:
    """Convert a whole number of any integer type.

    Args:
        setting: name of the setting, for the error.
        value: the value; a bool is refused.
        least: smallest valid number.

    Raises:
        InvalidSettingError: if the value is no whole number of at least ``least``; it names the setting.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise InvalidSettingError(f"{setting} got {brief(value)}; expected a whole number, {least} or more")
    return number


def require_values(model: nn.Module) -> None:
    """Refuse a model without values: its weights are placeholders on torch's meta device.

    Raises:
        InvalidSettingError: if a parameter or buffer is on the meta device.
    """
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise InvalidSettingError(
            "the model is on torch's meta device, which holds no values; expected one with weights"
            " (model.to_empty(device='cpu'), then load them)"
        )


def _as_tensor(array: object) -> Tensor:
    """Convert a tensor, or an array of any byte order, to a dense tensor without autograd graph."""
    if isinstance(array, Tensor):
        tensor = array.detach().as_subclass(Tensor)
        return tensor if tensor.layout == torch.strided else tensor.to_dense()
    found = np.asarray(array)
    if found.dtype.kind not in "buif":
        raise TypeError(f"an array of {found.dtype}")
    return as_tensor(np.ascontiguousarray(found, found.dtype.newbyteorder("=")))


def _as_pixels(images: Tensor) -> Tensor:
    if images.ndim != 4 or len(images) == 0:
        raise InvalidSettingError(f"images got shape {tuple(images.shape)}; expected (N, C, H, W), N above 0")
    if images.is_meta or images.is_complex() or images.is_quantized:
        raise InvalidSettingError(
            f"images got {images.dtype} on {images.device}; expected float in [0, 1], or uint8"
        )
    if images.dtype == torch.uint8:
        return images
    pixels = images.float()
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise InvalidSettingError(
            f"images got values from {low:.3g} to {high:.3g}; expected [0, 1]"
            " (divide by 255, and normalise inside the model or with mean and std)"
        )
    return pixels


def _as_labels(labels: object, count: int) -> Tensor:
    try:
        array = labels if isinstance(labels, Tensor) else np.asarray(labels)
        if isinstance(array, np.ndarray) and array.dtype == object:
            array = np.array([operator.index(label) for label in array.ravel()]).reshape(array.shape)
        tensor = _as_tensor(array)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InvalidSettingError(
            f"labels got {brief(labels)} ({one_line(error)}); expected {_LABELS}"
        ) from None
    if tensor.shape != (count,):
        raise InvalidSettingError(
            f"labels got shape {tuple(tensor.shape)}; expected ({count},), one for each image"
        )
    if tensor.is_floating_point():
        raise InvalidSettingError(f"labels got fractions ({tensor.dtype}); expected {_LABELS}")
    if tensor.is_meta or tensor.is_complex() or tensor.is_quantized:
        raise InvalidSettingError(f"labels got {tensor.dtype} on {tensor.device}; expected {_LABELS}")
    numbers = tensor.long()  # unsigned numbers that are too large become negative
    if int(numbers.min()) < 0:
        raise InvalidSettingError("labels got negative or huge numbers; expected class indices from 0")
    return numbers


def _collected(source: object) -> tuple[Tensor, Tensor | None]:
    """Collect images, and labels if there are any, from an iterable of images or batches."""
    if isinstance(source, str | bytes | Mapping) or source is None or not _has_items(source):
        raise InvalidSettingError(f"images got {brief(source)}; expected {_IMAGES}")
    images: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        for item in _items(source):
            image, label = _pair(item)
            batch = _batch(image)
            images.append(batch)
            if label is not None:
                labels.append(_as_tensor(label).reshape(-1))
    except InvalidSettingError:
        raise
    except Exception as error:  # a data set may raise anything
        raise InvalidSettingError(
            f"images got a {type(source).__name__} that fails ({one_line(error)}); expected {_IMAGES}"
        ) from error
    shapes = sorted({tuple(image.shape[1:]) for image in images})
    if len(shapes) != 1:
        told = " and ".join(map(str, shapes[:2])) or "none"
        raise InvalidSettingError(f"images got shapes {told}; expected images (C, H, W) of the same shape")
    if {image.dtype == torch.uint8 for image in images} == {True, False}:
        raise InvalidSettingError("images got uint8 mixed with other types; expected a single type")
    counted = sum(len(label) for label in labels)
    if labels and counted != sum(len(image) for image in images):
        raise InvalidSettingError(f"images came with {counted} labels; expected {_LABELS}")
    return torch.cat(images), torch.cat(labels) if labels else None


def _has_items(source: object) -> bool:
    return isinstance(source, Iterable) or hasattr(source, "__getitem__")


def _items(source: Any) -> Iterator[Any]:
    """The items of a source; a data set is read by its length, because not every one stops by itself."""
    if isinstance(source, list | tuple):
        return iter([source] if _is_pair(source) else source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return (source[number] for number in range(len(source)))
    return iter(source)


def _is_pair(source: Sequence[Any]) -> bool:
    """Whether the two items are all images and all labels, not two images."""
    if len(source) != 2 or getattr(source[0], "ndim", 0) != 4:
        return False
    numbers = isinstance(source[1], list | tuple | range) and not any(np.ndim(each) for each in source[1])
    return getattr(source[1], "ndim", 0) == 1 or numbers


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        found = [
            next((item[key] for key in keys if key in item), None) for keys in (_IMAGE_KEYS, _LABEL_KEYS)
        ]
        if found[0] is None:
            raise InvalidSettingError(
                f"images got items with {', '.join(map(str, item))}; expected {' or '.join(_IMAGE_KEYS)}"
            )
        return found[0], found[1]
    if isinstance(item, list | tuple):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _batch(image: Any) -> Tensor:
    """Convert an image or a batch to a batch ``(N, C, H, W)``; Pillow's images have the channels last."""
    tensor = _as_tensor(image)
    if not isinstance(image, Tensor | np.ndarray) and hasattr(image, "getbands"):
        tensor = tensor[..., None] if tensor.ndim == 2 else tensor
        tensor = tensor.permute(2, 0, 1)
    if tensor.ndim == 3:
        return tensor[None]
    if tensor.ndim != 4:
        raise InvalidSettingError(
            f"images got one of shape {tuple(tensor.shape)}; expected (C, H, W), or batches (N, C, H, W)"
        )
    return tensor
