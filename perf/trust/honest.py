"""Do the trust checks raise false alarms? Honest networks, honestly attacked, and each figure's verdict.

``perf/trust/honest --zoo FOLDER`` measures every configuration of :mod:`perf.trust.configurations` with
``evaluate(..., trust=True)`` on the networks that ``perf/trust/zoo`` made, prints a row for each figure, and
ends with the number of figures that are flagged. The exit status is 1 if there is one.

Beside a flagged figure stands the accuracy under ``fast``, a stronger attack, on the same images, so that a
reader can tell a false alarm from a true one. ``--truth`` measures it for every configuration, to show that
each is as honest as it is said to be. ``--only WORD`` measures the configurations whose name has this word in
it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from perf.attacks import clock
from perf.trust.configurations import CONFIGURATIONS, Configuration
from perf.trust.zoo import LoadedCell, load
from robustbench_tin import evaluate
from robustbench_tin.runtime import tune_allocator

Host = Callable[[str], LoadedCell]

HEADER = (
    "| configuration | attack | eps | clean | attacked | `fast` | verdict | seconds |\n"
    "|---|---|---|---:|---:|---:|---|---:|"
)
# Stronger than most that is measured, and cheap: it climbs margins, which no scale of the logits hides.
TRUTH = "fast"
# The verdict on a network that has learned nothing: the checks leave it out.
NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Figure:
    """A robust accuracy and its verdict.

    Attributes:
        configuration: its name.
        attack: its spec.
        eps: as people read it.
        clean: accuracy in percent.
        attacked: likewise.
        verdict: ``ok``, the reasons, or :data:`NOT_JUDGED`.
        seconds: that the configuration took, with its checks.
        strong: accuracy under :data:`TRUTH` in percent; None: not measured.
    """

    configuration: str
    attack: str
    eps: str
    clean: float
    attacked: float
    verdict: str
    seconds: float
    strong: float | None = None

    @property
    def flagged(self) -> bool:
        """Whether the checks say anything against it."""
        return self.verdict not in ("ok", NOT_JUDGED)

    @property
    def row(self) -> str:
        """A line of the table that begins with :data:`HEADER`."""
        strong = "" if self.strong is None else f"{self.strong:.1f}"
        return (
            f"| {self.configuration} | `{self.attack}` | {self.eps} | {self.clean:.1f} | {self.attacked:.1f}"
            f" | {strong} | {self.verdict} | {self.seconds:.0f} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, required=True, help="the folder that perf/trust/zoo wrote")
    parser.add_argument("--only", default="", help="a part of a configuration's name")
    parser.add_argument("--truth", action="store_true", help=f"measure {TRUTH} beside every figure")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    warnings.filterwarnings("ignore")
    chosen = [one for one in CONFIGURATIONS if arguments.only in one.name]
    print(HEADER, flush=True)
    found = measured(chosen, cache(partial(host, arguments.zoo)), truth=arguments.truth)
    return report(found, len(chosen))


def host(folder: Path, network: str) -> LoadedCell:
    """A network of the zoo, or the toy network of the tests."""
    return toy() if network == "toy" else load(folder, network)


@cache
def toy() -> LoadedCell:
    """The toy network of the tests, trained as they train it."""
    from tests.toys import TOY_CLASSES, draw_toy_images, train_toy_model

    images, labels = draw_toy_images(250, seed=2)
    return train_toy_model(), (images * 255).round().to(torch.uint8), labels, TOY_CLASSES


def measured(configurations: Iterable[Configuration], host: Host, *, truth: bool = False) -> Iterable[Figure]:
    """The figures of configurations, one after the other.

    Args:
        configurations: to measure.
        host: from the name of a network to the network, its images, their labels and its number of classes.
        truth: measure under :data:`TRUTH` although nothing is flagged.
    """
    for one in configurations:
        network, images, labels, _ = host(one.network)
        yield from figures(one, one.around(network), images[: one.images], labels[: one.images], truth=truth)


def figures(
    one: Configuration, model: nn.Module, images: Tensor, labels: Tensor, *, truth: bool = False
) -> list[Figure]:
    """The figures of a configuration; if one is flagged, the accuracy under :data:`TRUTH` stands beside."""
    started = clock()
    measure = partial(evaluate, model, images, labels, eps=one.eps, norm=one.norm, eot=one.eot)
    clean, *attacked = measure(attacks=one.attacks, trust=True).records.to_dict("records")
    seconds = clock() - started
    found = [
        Figure(
            one.name,
            record["attack"],
            one.shown(record["eps"]),
            100 * clean["top1"],
            100 * record["top1"],
            record["trust"] if record["above_chance"] else NOT_JUDGED,
            seconds,
        )
        for record in attacked
    ]
    if not (truth or any(figure.flagged for figure in found)):
        return found
    strong = measure(attacks=TRUTH).records.iloc[1:]
    left = {one.shown(eps): 100 * top1 for eps, top1 in zip(strong["eps"], strong["top1"], strict=True)}
    return [replace(figure, strong=left[figure.eps]) for figure in found]


def report(figures: Iterable[Figure], configurations: int) -> int:
    """Print the figures and their number; the exit status."""
    started = clock()
    total, judged, flagged = 0, 0, 0
    for figure in figures:
        total += 1
        judged += figure.verdict != NOT_JUDGED
        flagged += figure.flagged
        print(figure.row, flush=True)
    print(
        f"\n{flagged} of {total} figures of {configurations} configurations are flagged; {total - judged} are"
        f" not judged ({clock() - started:.0f} s)"
    )
    return 1 if flagged else 0


if __name__ == "__main__":
    sys.exit(main())
