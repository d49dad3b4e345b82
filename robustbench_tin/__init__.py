"""robust-tin: how much accuracy survives an attack, for each backbone and each defense.

The public names, loaded when they are first used:

- :func:`bench` trains backbones, attacks them and returns a run with its records;
- :func:`evaluate` measures any model of one's own;
- :func:`perturb` returns adversarial images.

Authors of plug-ins find the names that they need in the packages ``attacks``, ``defenses`` and ``testing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_tin._version import __version__ as __version__
from robustbench_tin.lazy import lazy_names

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.bench import bench as bench
    from robustbench_tin.benchmarks.evaluate import evaluate as evaluate
    from robustbench_tin.benchmarks.perturb import perturb as perturb

__all__ = ["__version__", "bench", "evaluate", "perturb"]

__getattr__, __dir__ = lazy_names(
    __name__,
    __all__,
    {
        "robustbench_tin.benchmarks.bench": ["bench"],
        "robustbench_tin.benchmarks.evaluate": ["evaluate"],
        "robustbench_tin.benchmarks.perturb": ["perturb"],
    },
)
