"""robust-tin: how much accuracy survives an attack, for each backbone and each defense.

The public names, loaded when they are first used:

- :func:`bench` trains backbones, attacks them and returns a run with its records;
- :func:`evaluate` measures any model of one's own;
- :func:`perturb` returns adversarial images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustbench_tin._version import __version__ as __version__

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.bench import bench as bench
    from robustbench_tin.benchmarks.evaluate import evaluate as evaluate
    from robustbench_tin.benchmarks.evaluate import perturb as perturb

__all__ = ["__version__", "bench", "evaluate", "perturb"]

_LAZY = {
    "bench": "robustbench_tin.benchmarks.bench",
    "evaluate": "robustbench_tin.benchmarks.evaluate",
    "perturb": "robustbench_tin.benchmarks.evaluate",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
