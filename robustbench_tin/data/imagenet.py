"""ImageNet's validation images in class folders, the layout of torchvision and timm.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robustbench_tin.data.base import Dataset
from robustbench_tin.data.cache import open_decoded
from robustbench_tin.data.class_folders import by_class, list_split, require_same_classes
from robustbench_tin.data.files import Directory, Files
from robustbench_tin.data.imagenet_classes import COUNT, class_numbers, described
from robustbench_tin.data.listing import VAL_FOLDERS, Listing, Reason, is_image, within
from robustbench_tin.data.source import OpenOptions, Source
from robustbench_tin.errors import DataError, InvalidSettingError
from robustbench_tin.text import counted, printable

_LAYOUTS = "expected val/CLASS/*.JPEG in it, or CLASS/*.JPEG: val/n01440764/ILSVRC2012_val_00000293.JPEG"


@dataclass(frozen=True)
class ImageNet(Source):
    """ImageNet, as imagenet:DIR with DIR/val/CLASS/* or DIR/CLASS/*: 1,000 classes, cropped to 224×224.

    Classes are sorted by id (``n01440764``). Images are scaled and cropped as in the usual evaluation: the
    shorter side to ``size`` pixels, then ``crop`` pixels around the centre. Give other numbers as
    ``imagenet:DIR,size=232,crop=224``. The crop cuts off the rest of images that are not square.
    ``train=true`` also reads DIR/train; without it the data set is only for evaluation. If DIR has a part of
    the 1,000 classes, a model with 1,000 outputs is measured on its outputs for these classes.
    """

    takes_path: ClassVar[bool] = True

    size: int = 256
    crop: int = 224
    train: bool = False

    def __post_init__(self) -> None:
        require_sizes(self.name, self.size, self.crop)

    def open(self, options: OpenOptions) -> Dataset:
        """Open it; decode it first if it is not in the cache.

        Raises:
            DataError: if there are no such folders, or an image is broken.
        """
        if self.path is None:
            raise DataError("data set 'imagenet' needs a directory; expected imagenet:DIR")
        if not self.path.is_dir():
            raise DataError(f"no ImageNet at '{self.path}': no such directory; {_LAYOUTS}")
        folder = next((name for name in VAL_FOLDERS if (self.path / name).is_dir()), "")
        if not folder and (self.path / "train").is_dir():
            raise DataError(f"'{self.path}' has train but no val; {_LAYOUTS}")
        files = Directory(self.path, [folder, *(["train"] if self.train else [])] if folder else None)
        decoded = open_decoded(
            self.name,
            files,
            lambda files: self._find(files, folder),
            options,
            variant=f"{self.size} {self.crop} {self.train}",
        )
        return decoded.as_dataset(
            self.name,
            self.path,
            whole=_whole(decoded.classes),
            to_train=f"give imagenet:{self.path},train=true with images in train/CLASS/*",
        )

    def _find(self, files: Files, folder: str) -> Listing:
        below = {"val": folder} | ({"train": "train"} if self.train else {})
        splits = {split: by_class(files, name) for split, name in below.items()}
        for split, found in splits.items():
            if not found:
                raise DataError(
                    f"'{files.location / below[split]}' has no images in class folders; {_LAYOUTS}"
                )
        if self.train:
            require_same_classes(files, splits, below)
        classes = tuple(sorted(splits["val"]))
        listings = {split: list_split(found, classes) for split, found in splits.items()}
        tops = tuple(f"{name}/" if name else "" for name in below.values())
        rest = files.names - {name for listing in listings.values() for name in listing.names}
        left_out = {
            **within(files.left_out, tops),
            Reason.OTHER_KIND: [name for name in rest if not is_image(name)],
            Reason.NO_CLASS: [name for name in rest if is_image(name)],
        }
        return Listing(
            classes,
            tuple(described(wnid) for wnid in classes),
            {"train": list_split({}, ()), **listings},
            size=self.crop,
            shorter=self.size,
            left_out=left_out,
            notes=(
                f"images are scaled to {self.size} pixels on the shorter side and cropped to"
                f" {self.crop}×{self.crop} around the centre",
                *_count_notes(classes),
            ),
        )


def require_sizes(name: str, size: int, crop: int) -> None:
    """Refuse sizes that no image can have, and a crop larger than the image.

    Raises:
        InvalidSettingError: names the sizes.
    """
    if not 8 <= crop <= size <= 4096:
        raise InvalidSettingError(
            f"data set '{name}' got size={size} and crop={crop}; expected 8 to 4096 pixels, with crop not"
            " above size"
        )


def _whole(classes: tuple[str, ...]) -> tuple[str, ...]:
    """All 1,000 classes, if the given ones are a part of them."""
    known = class_numbers()
    return tuple(known) if len(classes) < COUNT and all(wnid in known for wnid in classes) else ()


def _count_notes(classes: tuple[str, ...]) -> tuple[str, ...]:
    if len(classes) == COUNT:
        return ()
    there = f"there are {counted(len(classes), 'class folder')}, but ImageNet has {COUNT:,}"
    if _whole(classes):
        return (f"{there}: a model with {COUNT:,} outputs is measured on its outputs for these classes",)
    strange = next((name for name in classes if name not in class_numbers()), None)
    named = "" if strange is None else f"; '{printable(strange)}' is not an ImageNet class"
    return (f"{there}{named}: labels number the folders in sorted order",)
