"""A table of the planted faults: an attack's robust accuracy, the true one, and the trust checks' verdict.

``perf/trust/faults`` prints Markdown: a row for each fault of ``tests/faults``, and the number of flagged
ones. It plants them in the toy network of the tests. ``--zoo FOLDER --network resnet-std`` plants them in a
network of ``perf/trust/zoo``, for real images of 64 px, at a quarter of the budgets: such a network
withstands less. A row that says ``ok`` is a fault that the checks miss.
"""

from __future__ import annotations

import argparse
import time

import torch
from faults import FAULTS, AttackFault, Fault, Host, toy_host
from faults.figures import Figures, measure, true_accuracy
from torch import Tensor
from toys import draw_toy_images

from robustbench_tin.errors import FOREIGN, one_line
from robustbench_tin.text import markdown

Images = tuple[Tensor, Tensor]
Row = tuple[str, bool, list[bool]]
# Attacks of the same strength differ by less.
HIDDEN = 0.05
FITTED_ON = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", help="folder that perf/trust/zoo filled; default: the toy network")
    parser.add_argument("--network", default="resnet-std", help="of the zoo; default: resnet-std")
    parser.add_argument("--another", help="of the zoo, the second trained network; default: one is trained")
    parser.add_argument("--scale", type=float, help="of the budgets; default: 1, with --zoo 0.25")
    parser.add_argument("--images", default="40,120", help="numbers of images; default: 40,120")
    parser.add_argument("--only", default="", help="a part of the name or of the module; default: all faults")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts = sorted(int(count) for count in arguments.images.split(","))
    scale = arguments.scale or (0.25 if arguments.zoo else 1.0)
    if arguments.zoo:
        host, images = zoo_host(arguments.zoo, arguments.network, arguments.another)
    else:
        host, images = toy_host(), toy_images(counts[-1])
    chosen = [
        fault
        for name, fault in FAULTS.items()
        if arguments.only in name or arguments.only in type(fault).__module__
    ]
    verdicts = " | ".join(f"verdict on {count} images" for count in counts)
    print(f"| fault | of | clean | attack says | truth | {verdicts} | seconds |")
    print(f"|---|---|---:|---:|---:|{'---|' * len(counts)}---:|", flush=True)
    rows = []
    for fault in chosen:
        rows.append(row(fault, host, images, counts, scale))
        print(rows[-1][0], flush=True)
    real = [flags for _, hides, flags in rows if hides]
    print()
    for index, count in enumerate(counts):
        flagged = sum(flags[index] for flags in real)
        print(f"On {count} images, {flagged} of {len(real)} faults are flagged.")
    if len(real) < len(rows):
        print(f"{len(rows) - len(real)} faults hide nothing in this network; they are not counted.")


def toy_images(count: int) -> Images:
    """Images that the toy network was not trained on, as files hold them."""
    images, labels = draw_toy_images(count, seed=2)
    return (images * 255).round() / 255, labels


def zoo_host(folder: str, network: str, another: str | None) -> tuple[Host, Images]:
    """A network of the zoo; images to evaluate on, and others that faults are fitted on."""
    from perf.trust.zoo import load

    model, pixels, labels, _ = load(folder, network)
    others = [] if another is None else [load(folder, another)[0]]
    images = pixels.float() / 255
    return Host(model, images[-FITTED_ON:], labels[-FITTED_ON:], others), (
        images[:-FITTED_ON],
        labels[:-FITTED_ON],
    )


def row(
    fault: Fault, host: Host, images: Images, counts: list[int], scale: float
) -> tuple[str, bool, list[bool]]:
    """A fault as a row of the table, whether it is one in this network, and whether it is flagged."""
    started = time.perf_counter()
    scale = 1.0 if isinstance(fault, AttackFault) else scale  # their steps have lengths of their own
    try:
        several = [
            measure(fault, fault.plant(host), images[0][:count], images[1][:count], trust=True, scale=scale)
            for count in counts
        ]
        first = images[0][: counts[-1]], images[1][: counts[-1]]
        truth = true_accuracy(fault, fault.plant(host), host, *first, scale=scale)
    except FOREIGN as error:
        return f"| {fault} | | | | | {markdown(one_line(error))} |", False, []
    figures = several[-1]
    hides = not fault.hides or truth is None or figures.attacked >= truth + HIDDEN
    cells = [
        fault.name,
        markdown(fault.paper or ""),
        f"{figures.clean:.3f}",
        f"{figures.attacked:.3f}",
        "" if truth is None else f"{truth:.3f}",
        *(markdown(reason(each)) for each in several),
        f"{time.perf_counter() - started:.1f}",
    ]
    return f"| {' | '.join(cells)} |", hides, [each.flagged for each in several]


def reason(figures: Figures) -> str:
    """The first of a verdict's reasons, or ``ok``."""
    return (figures.verdict or "not checked").split(";")[0]


if __name__ == "__main__":
    main()
