"""Phase 1: the tests marked ``gpu``, each result on disk at once."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from perf.gpu.options import command, parse
from perf.gpu.results import Results

TESTS = Path("tests/gpu")
# The most important tests come first; those that compile come last.
FILES = ("test_attacks_on_gpu.py", "test_training_on_gpu.py", "test_graphs_on_gpu.py")


class _Told:
    """A plugin of pytest's that passes each result on."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Setup or call reports a skip; any of the three phases reports a failure.
        if report.when != "call" and report.outcome == "passed":
            return
        self.counts[report.outcome] += 1
        self._results.summary(", ".join(f"{count} {name}" for name, count in sorted(self.counts.items())))
        name = report.nodeid.rpartition("/")[2]
        facts = {"name": name, "outcome": report.outcome, "took": round(report.duration, 2)}
        if report.outcome == "failed":
            self._results.row(**facts, test=name, seconds=report.duration, why=_reason(report))
        else:
            self._results.row(**facts)


def _reason(report: pytest.TestReport) -> str:
    text = report.longreprtext.strip().splitlines()
    wrong = [line.removeprefix("E").strip() for line in text if line.startswith("E ")]
    return (wrong or text or [""])[0][:200]


def main() -> int:
    options = parse()
    results = Results(
        options.out,
        "correct",
        title="Correct: the tests marked gpu (failures alone are listed)",
        columns=["test", "seconds", "why"],
        command=command(),
    )
    if options.device == "cpu":
        os.environ["ROBUST_TIN_GPU_TESTS"] = "cpu"
    told = _Told(results)
    code = pytest.main(
        ["-q", "-m", "gpu", "-p", "no:cacheprovider", *(str(TESTS / name) for name in FILES)], plugins=[told]
    )
    results.close("done" if code == 0 else f"pytest ended with {int(code)}")
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
