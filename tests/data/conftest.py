from __future__ import annotations

from pathlib import Path

import pytest
from drawn_sets import draw_tiny_imagenet, pack


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An unpacked Tiny ImageNet of 15 + 12 + 3 images, to be damaged at will."""
    return draw_tiny_imagenet(tmp_path / "drawn" / "tiny-imagenet-200")


@pytest.fixture
def tiny_zip(tiny: Path, tmp_path: Path) -> Path:
    return pack(tiny, tmp_path / "tiny-imagenet-200.zip")
