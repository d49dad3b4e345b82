"""The cost of checking that the variant which attacks search with equals the model.

``python perf/variants.py RUN/cells/CELL/weights.safetensors --data DATA --classes 20 --last 1000`` attacks
these validation images and prints, attack by attack, the time of the choice of a variant and of the
comparisons while it is used, as parts of all other work of the measurement: medians of the rounds, and their
range. Time is processor time, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from reference import add_arguments, opened

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.acceleration.variant_cache import VariantCache
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import SpotChecks
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.runtime import as_tensor
from robustbench_tin.threat import parse_eps

BATCH_SIZE = 50
WORK = {
    "pgd": "fixed",
    "pgd:steps=40,criterion=top1": "fastest",
    "fast": "fastest",
}

HEADER = (
    "| attack | search | images left | choice, % | comparisons, % | both, % | range |\n"
    "|---|---|---:|---:|---:|---:|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset, model = opened(arguments)
    part = slice(arguments.first, arguments.last)
    images, labels = as_tensor(dataset.val.images)[part], as_tensor(dataset.val.labels)[part]
    batches = ImageBatches(images, labels, BATCH_SIZE, torch.device("cpu"))
    clean, logits = measure_clean(model, batches)
    assert logits is not None, clean.status
    print(HEADER)
    for spec, search in WORK.items():
        rows = []
        for _ in range(arguments.rounds):
            started = time.process_time()
            with (
                timed(VariantCache, "choose") as choice,
                timed(AttackedModel, "apart") as asked,
                taken() as gathered,
            ):
                (found,) = measure_attack(
                    model,
                    batches,
                    parse_attack(spec),
                    [parse_eps(arguments.eps)],
                    AttackProtocol(arguments.norm, search=search),
                    clean_logits=logits,
                )
            compared = sum(asked) + sum(gathered)
            rest = time.process_time() - started - sum(choice) - compared
            rows.append((100 * sum(choice) / rest, 100 * compared / rest))
        both = sorted(map(sum, rows))
        middle = [statistics.median(column) for column in zip(*rows, strict=True)]
        hits = found.top1 if found.top1 is not None else []
        print(
            f"| {spec} | {found.search} | {sum(hits)} | {middle[0]:.2f} | {middle[1]:.2f} |"
            f" {statistics.median(both):.2f} | {both[0]:.2f} to {both[-1]:.2f} |",
            flush=True,
        )


@contextmanager
def timed(owner: type[Any], name: str) -> Iterator[list[float]]:
    """Gives a list of the seconds of each call of a method inside."""
    method: Callable[..., Any] = getattr(owner, name)
    seconds: list[float] = []

    def call(*arguments: Any, **keywords: Any) -> Any:
        started = time.process_time()
        try:
            return method(*arguments, **keywords)
        finally:
            seconds.append(time.process_time() - started)

    with mock.patch.object(owner, name, call):
        yield seconds


@contextmanager
def taken() -> Iterator[list[float]]:
    """The seconds of gathering points."""
    with timed(SpotChecks, "offer") as ends, timed(SpotChecks, "_passed") as passed:
        both: list[float] = []
        yield both
        both += ends + passed


if __name__ == "__main__":
    main()
