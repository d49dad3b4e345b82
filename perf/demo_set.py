"""Does the demo set show what it is there to show? Trains a mobilenet on it with three defenses.

``python perf/demo_set.py`` runs ``bench`` over five seeds and prints, as mean ± standard deviation over
the seeds, clean top-1 and top-1 under PGD (linf, eps 0.03, 10 steps, one random start) of ``none``,
``bbox-crop`` and ``fgsm-at``, and the gain of each defense over ``none`` seed by seed. If it is stopped, the
same command continues.
"""

from __future__ import annotations

import argparse

import pandas as pd
from rich.console import Console

from robustbench_tin import bench
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.progress import ConsoleReporter

DEFENSES = ("none", "bbox-crop", "fgsm-at")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--model", default="mobilenet")
    parser.add_argument("--out", default="runs/demo-set", help="run directory")
    parser.add_argument("--from", dest="runs", nargs="*", help="print these finished runs instead")
    arguments = parser.parse_args()
    if arguments.runs:
        runs = [Run.load(path) for path in arguments.runs]
    else:
        run = bench(
            models=arguments.model,
            defenses=DEFENSES,
            attacks="pgd",
            eps="0.03",
            seeds=arguments.seeds,
            eval_images=400,
            out=arguments.out,
            jobs=None,
            threads=1,
            reporter=ConsoleReporter(Console()),
        )
        assert run is not None
        runs = [run]
    report(pd.concat([run.records for run in runs]))


def report(records: pd.DataFrame) -> None:
    top1 = 100 * records.pivot_table(index=["defense", "attack"], columns="seed", values="top1", sort=False)
    seconds = records[records["attack"] == "clean"].groupby("defense")["train_seconds"].median()
    print(f"| defense | clean top-1 | gain | PGD top-1 | gain | seconds |  ({top1.shape[1]} seeds)")
    print("|---|---:|---:|---:|---:|---:|")
    for defense in DEFENSES:
        figures = []
        for attack in ("clean", "pgd"):
            row = top1.loc[(defense, attack)]
            figures += [spread(row), spread(row - top1.loc[("none", attack)]) if defense != "none" else ""]
        print(f"| `{defense}` | {' | '.join(figures)} | {seconds[defense]:.0f} |")


def spread(values: pd.Series) -> str:  # type: ignore[type-arg]
    return f"{values.mean():.1f} ± {values.std():.1f}" if len(values) > 1 else f"{values.mean():.1f}"


if __name__ == "__main__":
    main()
