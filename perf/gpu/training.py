"""Phase 3: the training loop beside the passes that it needs; see ``perf/training.py``."""

from __future__ import annotations

import argparse
import sys

from perf import training
from perf.gpu.options import command, parse
from perf.gpu.results import Results
from robustbench_tin.runtime import tune_allocator

MODEL = "timm:resnet18:stem=3x3"


def main() -> None:
    options = parse()
    results = Results(
        options.out,
        "training",
        title="Training: images a second, the loop and its passes alone",
        columns=["model", "precision", "training", "images/s", "limit", "ratio", "range"],
        command=command(),
    )
    tune_allocator()
    smoke = options.smoke
    size, steps, rounds = (4, 1, 1) if smoke else (500, 10, 3)
    results.note(f"Batches of {size} at 64 px, {steps} steps a round, {rounds} rounds.")
    cases = [(method, False) for method in training.METHODS] + [("standard", True), ("FGSM", True)]
    for method, compiled in cases if not smoke else cases[:3]:
        given = argparse.Namespace(
            batch_size=size, steps=steps, rounds=rounds, augment=False, compile=compiled
        )
        row = training.measured("timm:test_resnet" if smoke else MODEL, method, options.device, given)
        training.tell(row)
        results.row(
            model=row.model,
            precision=row.precision,
            training=row.method,
            **{"images/s": row.rate},
            limit=row.limit,
            ratio=row.ratio,
            range=f"{row.low:.2f} to {row.high:.2f}",
        )
    results.close()


if __name__ == "__main__":
    sys.exit(main())
