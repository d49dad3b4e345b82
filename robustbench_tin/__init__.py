"""robust-tin: measures how much accuracy image classifiers keep under attack, per backbone and defense.

The public names are loaded at their first use:

- :func:`bench` trains backbones, attacks them and returns a run with its records;
- :func:`evaluate` measures your own model;
- :func:`perturb` returns adversarial images;
- :func:`report` writes a page that shows runs;
- :func:`plot` draws runs for a paper;
- :func:`compare` tests differences between cells or runs.

Authors of plug-ins find their names in the packages ``attacks``, ``defenses`` and ``testing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_tin._version import __version__ as __version__
from robustbench_tin.lazy import lazy_names

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.bench import bench as bench
    from robustbench_tin.benchmarks.charts.plot import plot as plot
    from robustbench_tin.benchmarks.comparison.compare import compare as compare
    from robustbench_tin.benchmarks.evaluate import evaluate as evaluate
    from robustbench_tin.benchmarks.perturb import perturb as perturb
    from robustbench_tin.benchmarks.report.report import report as report

__all__ = ["__version__", "bench", "compare", "evaluate", "perturb", "plot", "report"]

__getattr__, __dir__ = lazy_names(
    __name__,
    __all__,
    {
        "robustbench_tin.benchmarks.bench": ["bench"],
        "robustbench_tin.benchmarks.charts.plot": ["plot"],
        "robustbench_tin.benchmarks.comparison.compare": ["compare"],
        "robustbench_tin.benchmarks.evaluate": ["evaluate"],
        "robustbench_tin.benchmarks.perturb": ["perturb"],
        "robustbench_tin.benchmarks.report.report": ["report"],
    },
)
