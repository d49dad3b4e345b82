"""Data sets: Tiny ImageNet and image folders, also zipped, NumPy files, and the input of ``predict``."""

from __future__ import annotations

import io
import shutil
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from robustbench_tin.benchmarks.commands.predict import read_images
from robustbench_tin.data import open_dataset, subset
from robustbench_tin.data.boxes import crop, usable
from robustbench_tin.errors import DataError
from robustbench_tin.progress import Reporter

_KINDS = {
    **{"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP"},
    **{"ppm": "PPM", "pgm": "PPM", "tif": "TIFF"},
}


@cache
def seeds() -> list[dict[str, bytes]]:
    """Each layout, with images of every kind in several modes."""
    tiny, folder = _tiny_imagenet(), _folder()
    images = {f"images/{name.rpartition('/')[2]}": content for name, content in _images(16).items()}
    paths = "".join(f"{name};1\n" for name in images).encode()
    return [
        *({f"set/{name}": content for name, content in files.items()} for files in (tiny, folder, folder)),
        {"set.zip": _packed(tiny)},
        {"set.zip": _packed(folder)},
        {"set.npz": _arrays()},
        {**images, "list.csv": b"file;label\n" + paths},
    ]


def read(folder: Path) -> None:
    """Read as ``bench``, ``crop`` and ``predict`` do, then without broken images."""
    try:
        _read(folder, skip_broken=False)
    except DataError:
        _read(folder, skip_broken=True)
        raise


def _read(folder: Path, *, skip_broken: bool) -> None:
    for name in ("images", "list.csv"):
        if (folder / "list.csv").exists() or (folder / "images").exists():
            read_images(folder / name, 16, skip_broken, Reporter())
            break
    for name in ("set", "set.zip", "set.npz"):
        if (folder / name).exists():
            _use(folder / name, folder.parent / "cache", skip_broken)


def _use(place: Path, cache_dir: Path, skip_broken: bool) -> None:
    shutil.rmtree(cache_dir, ignore_errors=True)
    opened = open_dataset(str(place), skip_broken=skip_broken, cache_dir=cache_dir, workers=1)
    part = subset(opened, classes=1)
    assert len(part.val) > 0
    if part.train.boxes is not None:
        rows = np.flatnonzero(usable(part.train.boxes, part.image_size, part.image_size))
        for fill in (False, True):
            crop(part.train.images[rows], part.train.boxes[rows], fill=fill)


def _images(side: int) -> dict[str, bytes]:
    """Small images by file name: every kind that is read, gray, coloured, with palettes and with 16 bits."""
    dice = np.random.default_rng(0)
    colours = Image.fromarray(dice.integers(0, 256, (4, 4, 3), np.uint8)).resize((side, side))
    made = {}
    for suffix, kind in _KINDS.items():
        image = colours.convert("L") if suffix == "pgm" else colours
        made[f"a.{suffix}"] = _encoded(image, kind)
    deep = Image.fromarray(dice.integers(0, 65536, (side, side), np.uint16))
    made |= {"deep.png": _encoded(deep, "PNG"), "deep.tiff": _encoded(deep, "TIFF")}
    made |= {"deep.pgm": _encoded(deep, "PPM"), "palette.png": _encoded(colours.quantize(8), "PNG")}
    made |= {"clear.png": _encoded(colours.convert("RGBA"), "PNG"), "ink.jpg": _cmyk(colours)}
    made["runs.bmp"] = _run_lengths(side)
    made["plain.ppm"] = f"P3 {side} {side} 255\n".encode() + b"1 2 3\n" * side * side
    for method in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"{method}.tif"] = _encoded(colours, "TIFF", compression=method)
    made["turning.webp"] = _encoded(colours, "WEBP", save_all=True, append_images=[colours.rotate(90)])
    made["slow.jpg"] = _encoded(colours, "JPEG", progressive=True)
    return made


def _run_lengths(side: int) -> bytes:
    """A BMP with eight bits a pixel in runs, which Pillow reads and does not write."""
    data = bytearray(_encoded(Image.new("P", (side, side), 1), "BMP"))
    offset = int.from_bytes(data[10:14], "little")
    runs = bytes([side, 1, 0, 0]) * side + b"\0\1"
    data[30:34] = (1).to_bytes(4, "little")
    data[34:38] = len(runs).to_bytes(4, "little")
    return bytes(data[:offset]) + runs


def _cmyk(image: Image.Image) -> bytes:
    return _encoded(image.convert("CMYK"), "JPEG")


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _folder() -> dict[str, bytes]:
    images = _images(16)
    files = {f"train/cat/{name}": content for name, content in images.items()}
    plain = images["a.jpg"]
    return files | {"train/dog/deep/a.jpg": plain, "val/cat/a.jpg": plain, "val/dog/a.jpg": plain}


def _tiny_imagenet() -> dict[str, bytes]:
    image = _images(64)["a.jpg"]
    files = {}
    for wnid in ("n02", "n01"):
        files[f"train/{wnid}/images/{wnid}_0.JPEG"] = image
        files[f"train/{wnid}/{wnid}_boxes.txt"] = f"{wnid}_0.JPEG\t0\t10\t40\t62\n".encode()
        files[f"val/{wnid}/val_{wnid}.JPEG"] = image
    annotated = [f"val_{wnid}.JPEG\t{wnid}\t3\t0\t63\t50\n" for wnid in ("n02", "n01")]
    return files | {
        "wnids.txt": b"n02\nn01\n",
        "words.txt": "n01\tgoldfish, Carassius auratus\nn02\tcafé\n".encode("utf-16"),
        "val/val_annotations.txt": "".join(annotated).encode(),
        "test/images/test_0.JPEG": image,
    }


def _arrays() -> bytes:
    dice = np.random.default_rng(0)
    buffer = io.BytesIO()
    labels = np.arange(4) % 2
    np.savez(
        buffer,
        x=dice.integers(0, 256, (4, 8, 8, 3), np.uint8),
        y=labels,
        x_train=dice.random((4, 3, 8, 8)),
        y_train=labels,
    )
    return buffer.getvalue()


def _packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"mine/{name}", content)
    return buffer.getvalue()
