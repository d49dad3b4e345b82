"""PNG files of the package's own encoder, as Pillow reads them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from robustbench_tin.data.png import encode_png


@pytest.mark.parametrize("height", [1, 5, 64])
@pytest.mark.parametrize("width", [1, 2, 64])
@pytest.mark.parametrize("kind", ["noise", "flat", "extremes"])
def test_pillow_reads_back_every_value(height: int, width: int, kind: str) -> None:
    random = np.random.default_rng(0)
    image = {
        "noise": random.integers(0, 256, (height, width, 3)),
        "flat": np.full((height, width, 3), 137),
        "extremes": random.choice([0, 255], (height, width, 3)),
    }[kind].astype(np.uint8)
    with Image.open(io.BytesIO(encode_png(image))) as file:
        assert (file.format, file.mode, file.size) == ("PNG", "RGB", (width, height))
        file.load()
        assert np.array_equal(np.asarray(file), image)
