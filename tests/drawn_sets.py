"""Small drawn data sets, in the layout of real ones and without any of their images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n03", "n01", "n02")  # not in alphabetical order, as in the real wnids.txt
TRAIN, VAL, TEST = 5, 4, 3


def picture(key: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> Image.Image:
    """A smooth image that JPEG keeps well, another one a key."""
    dice = np.random.default_rng(key)
    coarse = Image.fromarray(dice.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def draw_tiny_imagenet(root: Path) -> Path:
    """Three classes in Tiny ImageNet's layout; training image 0 of each class is grayscale."""
    for c, wnid in enumerate(WNIDS):
        for i in range(TRAIN):
            image = picture(100 * c + i, mode="L" if i == 0 else "RGB")
            save(root / f"train/{wnid}/images/{wnid}_{i}.JPEG", image)
        boxes = [f"{wnid}_{i}.JPEG\t{i}\t{c}\t{40 + i}\t60\n" for i in range(TRAIN)]
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text("".join(boxes))
    lines = []
    for i in range(len(WNIDS) * VAL):
        save(root / f"val/images/val_{i}.JPEG", picture(1000 + i))
        lines.append(f"val_{i}.JPEG\t{WNIDS[i % len(WNIDS)]}\t5\t6\t{0 if i == 0 else 50}\t51\n")
    (root / "val/val_annotations.txt").write_text("".join(lines))
    for i in range(TEST):
        save(root / f"test/images/test_{i}.JPEG", picture(2000 + i))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (root / "words.txt").write_text(
        "n00\tentity\nn01\tgoldfish, carp\nn02\tcrane\nn03\tcrane, lifting device\n"
    )
    return root


def pack(root: Path, target: Path, folder: str = "tiny-imagenet-200") -> Path:
    """Zip a directory as the official file is made: everything under one folder."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, f"{folder}/{path.relative_to(root)}" + ("/" if path.is_dir() else ""))
    return target
