"""Data sets: arrays of uint8 images with labels and bounding boxes, decoded once.

Importing this package is light; NumPy and Pillow are imported when a data set is opened.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.registry import Registry

if TYPE_CHECKING:
    from robustbench_tin.data.base import UNLABELLED, Dataset, Split
    from robustbench_tin.data.class_order import in_class_order
    from robustbench_tin.data.open import open_dataset
    from robustbench_tin.data.subsets import subset

__all__ = [
    "UNLABELLED",
    "Dataset",
    "OpenOptions",
    "Source",
    "Split",
    "datasets",
    "in_class_order",
    "open_dataset",
    "register",
    "subset",
]

datasets: Registry[type[Source]] = Registry(
    "data set",
    group="robustbench_tin.datasets",
    expected="robustbench_tin.data.source:Source",
    builtin={
        "demo": "robustbench_tin.data.demo.demo_set:Demo",
        "tiny-imagenet": "robustbench_tin.data.tiny_imagenet:TinyImageNet",
        "imagenet": "robustbench_tin.data.imagenet:ImageNet",
        "cifar10": "robustbench_tin.data.cifar:Cifar10",
        "cifar100": "robustbench_tin.data.cifar:Cifar100",
        "hf": "robustbench_tin.data.hugging_face:HuggingFace",
        "npz": "robustbench_tin.data.npz:Npz",
        "folder": "robustbench_tin.data.folder:Folder",
    },
)
register = datasets.register

_LAZY = {
    "UNLABELLED": "base",
    "Dataset": "base",
    "Split": "base",
    "in_class_order": "class_order",
    "open_dataset": "open",
    "subset": "subsets",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
