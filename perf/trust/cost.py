"""What do the trust checks cost, beside the measurements that they judge?

``perf/trust/cost --zoo FOLDER`` measures an honest standard, an honest adversarially trained and a broken
network under ``fgsm,pgd`` on 1,000 images at eps 0.01 and 0.03, and judges them. It prints the passes of the
checks, which are the same in each run, and their share of the passes and of the seconds of the two attacks. A
share of seconds is the median of ``--rounds`` runs, interleaved, and stands beside its range.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perf.attacks import clock
from perf.trust.zoo import LoadedCell, load
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.evaluate import measured
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.benchmarks.trust.judge import judge
from robustbench_tin.runtime import tune_allocator

ATTACKS = "fgsm,pgd"
EPS = (0.01, 0.03)
BATCH = 50


class Broken(nn.Module):
    """A network whose gradient has the wrong sign, so that no attack along it finds anything.

    Args:
        network: pixels to logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(_WrongSign.apply(images))
        return logits


class _WrongSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


CASES: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "standard": ("resnet-std", lambda network: network),
    "adversarially trained": ("resnet-at-linf", lambda network: network),
    "wrong sign on the way back": ("resnet-std", Broken),
}


@dataclass(frozen=True)
class Cost:
    """The cost of one run: passes are summed over the images, seconds are processor time on one thread.

    Attributes:
        attack_passes: forward and backward passes of the attacks and the clean measurement.
        check_passes: those of the checks.
        attack_seconds: of the same.
        check_seconds: of the checks.
        verdicts: on the attacks' figures, in their order.
    """

    attack_passes: int
    check_passes: int
    attack_seconds: float
    check_seconds: float
    verdicts: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, required=True, help="the folder that perf/trust/zoo wrote")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    loaded = {name: load(arguments.zoo, network) for name, (network, _) in CASES.items()}
    report(compare(loaded, arguments.images, arguments.rounds), arguments.images)


def compare(loaded: Mapping[str, LoadedCell], images: int, rounds: int) -> dict[str, list[Cost]]:
    """The costs of every case of :data:`CASES`, a round after the other.

    Args:
        loaded: the network and images of each case.
        images: their number, at most.
        rounds: how often each case is measured.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, (_, plant) in CASES.items():
            network, pixels, labels, _ = loaded[name]
            costs[name].append(cost(plant(network).eval(), pixels[:images], labels[:images]))
    return costs


def cost(model: nn.Module, images: Tensor, labels: Tensor) -> Cost:
    """Measure and judge a model once."""
    protocol = AttackProtocol("linf")
    batches = ImageBatches(images, labels, BATCH, images.device)
    started = clock()
    measures = measured(
        model, images, labels, ATTACKS, EPS, protocol, trust=False, batch_size=BATCH, facts={}
    )
    between = clock()
    judgement = judge(model, batches, measures, protocol)
    ended = clock()
    records = [measure.record for measure in measures]
    return Cost(
        sum(record.forward_passes + record.backward_passes for record in records),
        judgement.passes,
        between - started,
        ended - between,
        tuple(str(record.trust) for record in judgement.records if record.attack != CLEAN),
    )


def report(costs: Mapping[str, list[Cost]], images: int) -> None:
    """Print the table."""
    print(f"{ATTACKS} on {images} images at eps {EPS[0]:g} and {EPS[1]:g}:\n")
    print("| network | passes of the checks | share | share of seconds | range | figures flagged |")
    print("|---|---:|---:|---:|---|---:|")
    for name, runs in costs.items():
        passes = {run.check_passes for run in runs}
        ratios = [run.check_seconds / run.attack_seconds for run in runs]
        flagged = sum(verdict != "ok" for verdict in runs[0].verdicts)
        print(
            f"| {name} | {', '.join(map(str, sorted(passes)))}"
            f" | {100 * runs[0].check_passes / runs[0].attack_passes:.1f} %"
            f" | {100 * statistics.median(ratios):.1f} %"
            f" | {100 * min(ratios):.1f} to {100 * max(ratios):.1f} %"
            f" | {flagged} of {len(runs[0].verdicts)} |"
        )


if __name__ == "__main__":
    main()
