"""Tiny ImageNet's validation images: as published, or rearranged into class folders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from robustbench_tin.data.files import Files
from robustbench_tin.data.listing import VAL_FOLDERS, Box, SplitListing, by_number, is_image, val_folder
from robustbench_tin.data.tiny_imagenet_text import ANNOTATIONS, TextFiles
from robustbench_tin.errors import DataError
from robustbench_tin.text import printable


@dataclass(frozen=True)
class _Annotated:
    """The class and the box of an image in the annotations."""

    wnid: str
    box: Box


def folder_of_val(files: Files) -> str:
    """The folder of the validation images; ``test`` counts only if its images have classes."""
    annotated = f"test/{ANNOTATIONS}" in files.names
    return val_folder(
        [
            name
            for name in files.names
            if annotated or not name.startswith("test/") or _class_folder(name) is not None
        ]
    )


def has_class_folders(names: Collection[str]) -> bool:
    """True if validation images lie in class folders, in any of the known places."""
    inner = tuple(f"/{folder}/" for folder in VAL_FOLDERS)
    for name in names:
        for folder in inner:
            _, found, below = f"/{name}".partition(folder)
            if found and is_image(below) and _class_folder(f"{folder}{below}".removeprefix("/")) is not None:
                return True
    return False


def find_val(
    files: Files, texts: TextFiles, folder: str, label_of: Mapping[str, int]
) -> tuple[SplitListing, list[str]]:
    """The validation images, and the second copies of some, which are left out.

    They lie in ``val/images`` with one line each in ``val_annotations.txt``, or in class folders:
    ``val/CLASS``, ``val/CLASS/images`` or ``val/images/CLASS``. Annotated images come first, in the order of
    the annotations; then the others by their number, which is the same order in the published set.

    Raises:
        DataError: if an image has no class or two, or if there are no images.
    """
    annotated = _annotations(files, texts, folder, label_of)
    chosen: dict[str, str] = {}
    others: list[str] = []
    copies: list[str] = []
    names = [name for name in files.names if name.startswith(f"{folder}/") and is_image(name)]
    # Images outside class folders come first, so that an image in a class folder is the copy.
    for name in sorted(names, key=lambda name: (_class_folder(name) is not None, name)):
        file = name.rpartition("/")[2]
        _check_class(texts, folder, name, annotated, label_of)
        if file not in annotated:
            others.append(name)
        elif file in chosen:
            copies.append(name)
        else:
            chosen[file] = name
    others.sort(key=lambda name: (by_number(name.rpartition("/")[2]), name))
    if not chosen and not others:
        images = f"none of the images of {ANNOTATIONS}" if annotated else "no images"
        raise DataError(f"'{texts.place(f'{folder}/images')}' has {images}; unpack it again")
    boxes_of = {wnid: texts.boxes_of(folder, wnid) for wnid in sorted({_class_of(name) for name in others})}
    labels = [label_of[line.wnid] for file, line in annotated.items() if file in chosen]
    boxes = [line.box for file, line in annotated.items() if file in chosen]
    listing = SplitListing(
        [chosen[file] for file in annotated if file in chosen] + others,
        labels + [label_of[_class_of(name)] for name in others],
        boxes + [boxes_of[_class_of(name)][name.rpartition("/")[2]] for name in others],
    )
    return listing, copies


def _annotations(
    files: Files, texts: TextFiles, folder: str, label_of: Mapping[str, int]
) -> dict[str, _Annotated]:
    """The annotations by file name, in their order; empty if there are none.

    Raises:
        DataError: if they name an unknown class, list an image twice, or cannot be read.
    """
    names = [f"{folder}/{ANNOTATIONS}", f"{folder}/{folder}_annotations.txt"]
    name = next((name for name in names if name in files.names), None)
    if name is None:
        return {}
    found: dict[str, _Annotated] = {}
    for (image, wnid), box in texts.table(name, texts.lines(name), columns=6):
        if wnid not in label_of:
            raise DataError(
                f"'{texts.place(name)}' gives {printable(image)} class '{printable(wnid)}', which is not in"
                f" {texts.source_of_classes}"
            )
        if image in found:
            raise DataError(f"'{texts.place(name)}' lists an image twice; unpack it again")
        found[image] = _Annotated(wnid, box)
    return found


def _check_class(
    texts: TextFiles,
    folder: str,
    name: str,
    annotated: Mapping[str, _Annotated],
    label_of: Mapping[str, int],
) -> None:
    """Refuse an image without a class, or one whose folder and annotation contradict each other."""
    wnid, line = _class_folder(name), annotated.get(name.rpartition("/")[2])
    if wnid is None:
        if not annotated:
            raise DataError(
                f"'{texts.place()}' has no {folder}/{ANNOTATIONS}, and image '{printable(name)}' lies in no"
                f" class folder; expected an unpacked tiny-imagenet-200 or its zip file, or {folder}/CLASS/*"
            )
        if line is None:
            raise DataError(f"image '{texts.place(name)}' has no line in {ANNOTATIONS}; remove it")
    elif wnid not in label_of:
        raise DataError(
            f"'{texts.place(name.rpartition('/')[0])}' is not a class in {texts.source_of_classes};"
            " remove it, or add it there"
        )
    elif line is not None and line.wnid != wnid:
        raise DataError(
            f"image '{texts.place(name)}' lies in class folder '{printable(wnid)}', but {ANNOTATIONS} gives"
            f" class '{printable(line.wnid)}'; remove {ANNOTATIONS} if the folders are right, or unpack it"
            " again"
        )


def _class_folder(name: str) -> str | None:
    """``n01443537`` for ``val/n01443537/images/val_0.JPEG``; None for an image in no class folder."""
    folders = name.split("/")[1:-1]
    if folders[:1] == ["images"]:
        del folders[0]
    return folders[0] if folders else None


def _class_of(name: str) -> str:
    """The class folder of an image that lies in one."""
    wnid = _class_folder(name)
    assert wnid is not None
    return wnid
