"""The 1,000 classes of ImageNet's challenge, from timm's list."""

from __future__ import annotations

from functools import cache
from typing import Any

from robustbench_tin.text import printable

COUNT = 1000


@cache
def class_numbers() -> dict[str, int]:
    """The number of each class by its id: published networks sort them by id."""
    return {str(wnid): index for index, wnid in enumerate(_info().label_names())}


def described(wnid: str) -> str:
    """The readable name of a class; an unknown id is returned as it is."""
    index = class_numbers().get(wnid)
    return printable(wnid) if index is None else str(_info().index_to_description(index))


@cache
def _info() -> Any:
    from timm.data.imagenet_info import ImageNetInfo

    return ImageNetInfo()
