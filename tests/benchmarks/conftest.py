"""A small image folder and the options of a bench on it that takes a second or two."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import draw_tiny_imagenet
from PIL import Image

from robustbench_tin import bench
from robustbench_tin.benchmarks.run import Run

COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 70), "red": (210, 50, 40)}


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noisy coloured squares, 16 px: learnt in a few steps."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for part, count in (("train", 16), ("val", 8)):
        for name, colour in COLOURS.items():
            directory = root / part / name
            directory.mkdir(parents=True)
            for index in range(count):
                noise = random.integers(-30, 30, (16, 16, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(directory / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 training and 12 validation images of three classes, 64 px, in Tiny ImageNet's layout."""
    return draw_tiny_imagenet(tmp_path_factory.mktemp("drawn") / "set")


@pytest.fixture(scope="session")
def run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of one cell on the drawn set; tests only read it."""
    return bench(
        models="timm:test_resnet",
        data=str(drawn),
        attacks="fgsm",
        eps="0",
        epochs=8,
        device="cpu",
        trust=False,
        out=tmp_path_factory.mktemp("drawn") / "run",
    )


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_TIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def small_options(small_folder: Path) -> Callable[[Path], dict]:
    """Options of a bench of one cell and five measures, for a run directory."""

    def options(out: Path) -> dict:
        return {
            "models": "timm:test_resnet",
            "data": str(small_folder),
            "attacks": "fgsm,pgd:steps=2",
            "eps": "0,0.01,0.03",
            "epochs": 4,
            "device": "cpu",
            "trust": False,
            # Timing decides how to search otherwise, and with it how many passes a search takes.
            "deterministic": True,
            "out": out,
        }

    return options


@pytest.fixture
def small(small_options: Callable[[Path], dict], tmp_path: Path) -> dict:
    """The same for a new directory."""
    return small_options(tmp_path / "run")
