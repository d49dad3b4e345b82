"""Do the trust checks raise false alarms? Honest networks, honestly attacked, and each figure's verdict.

``perf/trust/honest --zoo FOLDER`` measures every configuration of :mod:`perf.trust.configurations` with
``evaluate(..., trust=True)`` on the networks that ``perf/trust/zoo`` made, prints a row for each figure, and
ends with the number of figures that are flagged. The exit status is 1 if there is one.

``--truth`` adds the accuracy under a stronger attack on the same images, so that a reader can tell a false
alarm from a true one. ``--only WORD`` measures the configurations whose name has this word in it.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from perf.trust.configurations import CONFIGURATIONS, Configuration
from perf.trust.zoo import Loaded, load
from robustbench_tin import evaluate
from robustbench_tin.runtime import tune_allocator

Host = Callable[[str], Loaded]

HEADER = (
    "| configuration | attack | eps | clean | attacked | {strong}verdict |\n|---|---|---|---:|---:|{line}---|"
)
# Stronger than what is measured, and cheap: margins toward several classes, then a black-box search.
TRUTH = "fast"


@dataclass(frozen=True)
class Figure:
    """A robust accuracy and its verdict.

    Attributes:
        configuration: its name.
        attack: its spec.
        eps: as people read it.
        clean: accuracy in percent.
        attacked: likewise.
        verdict: ``ok`` or the reasons; ``not judged`` if the network has learned nothing.
        strong: accuracy under :data:`TRUTH`, in percent; None: not measured.
    """

    configuration: str
    attack: str
    eps: str
    clean: float
    attacked: float
    verdict: str
    strong: float | None = None

    @property
    def flagged(self) -> bool:
        """Whether the checks say anything but ``ok``."""
        return self.verdict != "ok"

    @property
    def row(self) -> str:
        """A line of the table that begins with :data:`HEADER`."""
        strong = "" if self.strong is None else f"{self.strong:.1f} | "
        return (
            f"| {self.configuration} | `{self.attack}` | {self.eps} | {self.clean:.1f} | {self.attacked:.1f}"
            f" | {strong}{self.verdict} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, required=True, help="the folder that perf/trust/zoo wrote")
    parser.add_argument("--only", default="", help="a part of a configuration's name")
    parser.add_argument("--truth", action="store_true", help=f"measure each network under {TRUTH} too")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    warnings.filterwarnings("ignore")
    chosen = [one for one in CONFIGURATIONS if arguments.only in one.name]
    print(
        HEADER.format(strong="`fast` | " if arguments.truth else "", line="---:|" if arguments.truth else "")
    )
    return report(measured(chosen, cache(partial(host, arguments.zoo)), truth=arguments.truth), len(chosen))


def host(folder: Path, network: str) -> Loaded:
    """A network of the zoo, or the toy network of the tests."""
    return toy() if network == "toy" else load(folder, network)


@cache
def toy() -> Loaded:
    """The toy network of the tests, trained as they train it."""
    from tests.toys import TOY_CLASSES, draw_toy_images, trained_toy_model

    images, labels = draw_toy_images(250, seed=2)
    return trained_toy_model(), (images * 255).round().to(torch.uint8), labels, TOY_CLASSES


def measured(configurations: Iterable[Configuration], host: Host, *, truth: bool = False) -> Iterable[Figure]:
    """The figures of configurations, one after the other.

    Args:
        configurations: to measure.
        host: from the name of a network to the network, its images, their labels and its number of classes.
        truth: measure under :data:`TRUTH`, too.
    """
    for one in configurations:
        network, images, labels, _ = host(one.network)
        yield from figures(one, one.around(network), images[: one.images], labels[: one.images], truth=truth)


def figures(
    one: Configuration, model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, *, truth: bool
) -> Iterable[Figure]:
    """The figures of a configuration."""
    measure = partial(evaluate, model, images, labels, eps=one.eps, norm=one.norm, eot=one.eot)
    frame = measure(attacks=one.attacks, trust=True)
    strong = measure(attacks=TRUTH)[lambda table: table["attack"] == TRUTH] if truth else None
    clean = 100 * float(frame["top1"].iloc[0])
    for record in frame[frame["attack"] != "clean"].to_dict("records"):
        yield Figure(
            one.name,
            record["attack"],
            one.shown(record["eps"]),
            clean,
            100 * record["top1"],
            str(record["trust"]) if record["learned"] else "not judged",
            None
            if strong is None
            else 100 * float(strong.loc[strong["eps"] == record["eps"], "top1"].iloc[0]),
        )


def report(figures: Iterable[Figure], configurations: int) -> int:
    """Print the figures and their number; the exit status."""
    started = time.perf_counter()
    total, flagged = 0, []
    for figure in figures:
        total += 1
        print(figure.row, flush=True)
        if figure.flagged:
            flagged.append(figure)
    print(
        f"\n{len(flagged)} of {total} figures of {configurations} configurations are flagged"
        f" ({time.perf_counter() - started:.0f} s)"
    )
    return 1 if flagged else 0


if __name__ == "__main__":
    sys.exit(main())
