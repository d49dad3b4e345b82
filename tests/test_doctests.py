"""Every example in a docstring of the package runs and prints the text that stands below it."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("robustbench_tin", "attacks", "defenses", "benchmarks")


def modules_with_examples() -> list[str]:
    """Full names of the modules that have an example."""
    files = (file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py")))
    names = (file.relative_to(ROOT).with_suffix("") for file in files if ">>> " in file.read_text("utf-8"))
    return [
        ".".join(("robustbench_tin", *name.parts) if name.parts[0] != "robustbench_tin" else name.parts)
        for name in names
    ]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROBUST_TIN_CACHE", str(tmp_path_factory.getbasetemp() / "doctest-cache"))


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_docstrings(name):
    module = importlib.import_module(name.removesuffix(".__init__"))
    failed, attempted = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert attempted > 0
    assert failed == 0
