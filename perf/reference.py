"""The verdicts of an independent AutoAttack, image by image, kept so that other attacks compare with them.

``python perf/reference.py RUN/cells/CELL/weights.safetensors --data DATA --first 250 --last 300 --out FILE``
attacks these validation images with torchattacks (3.5.1 was used), whose attacks share no code with ours:
APGD on the cross-entropy, targeted APGD, targeted FAB and Square one after the other, each on the images that
survived those before it. Its ``AutoAttack`` would take 10 steps; here they get the published budgets: 100
steps, 9 targets (classes - 1 if that is fewer) and 5,000 queries. An image that survives takes some 10
seconds on two cores, so the file is written after every batch, and the same command continues a stopped run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_tin.atomic import write_text
from robustbench_tin.data import open_dataset, subset
from robustbench_tin.data.base import Dataset
from robustbench_tin.metrics import in_top
from robustbench_tin.models import backbones, build_classifier, load_weights
from robustbench_tin.runtime import as_tensor
from robustbench_tin.threat import ThreatModel, parse_eps

STEPS = 100
TARGETS = 9
QUERIES = 5000
NORMS = {"linf": "Linf", "l2": "L2"}


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(1)
    dataset, model = opened(arguments)
    classes = len(dataset.classes)
    eps = parse_eps(arguments.eps)
    facts = {
        "reference": f"torchattacks {version_of_torchattacks()}: apgd-ce, apgd-t, fab-t, square",
        "budget": f"{STEPS} steps, {min(TARGETS, classes - 1)} targets, {QUERIES} queries",
        "model": arguments.model,
        "note": arguments.note,
        "weights_sha256": hashlib.sha256(arguments.weights.read_bytes()).hexdigest(),
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "classes": classes,
        "norm": arguments.norm,
        "eps": eps,
        "criterion": "top1",
    }
    report = resumed(arguments.out, facts)
    done = {image["index"] for image in report["images"]}
    waiting = [index for index in range(arguments.first, arguments.last) if index not in done]
    images, labels = as_tensor(dataset.val.images), as_tensor(dataset.val.labels)
    for rows in torch.tensor(waiting, dtype=torch.int64).split(arguments.batch_size):
        started = time.process_time()
        batch, batch_labels = images[rows].float() / 255, labels[rows]
        found = verdicts(model, batch, batch_labels, arguments.norm, eps, classes)
        report["images"] += [
            {"index": int(row), "label": int(label), "verdict": verdict}
            for row, label, verdict in zip(rows, batch_labels, found, strict=True)
        ]
        report["seconds"] = round(report["seconds"] + time.process_time() - started, 1)
        write_text(arguments.out, as_text(report))
        print(summary(report), flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--note", default="", help="how the model was trained, for the file")
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the model, the images and the ball."""
    parser.add_argument("weights", type=Path, help="of the cell, a safetensors file")
    parser.add_argument("--model", default="timm:resnet18")
    parser.add_argument("--data", required=True)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="first validation image of the part")
    parser.add_argument("--last", type=int, required=True, help="one past the last")
    parser.add_argument("--eps", default="4/255")
    parser.add_argument("--norm", default="linf", choices=NORMS)


def opened(arguments: argparse.Namespace) -> tuple[Dataset, nn.Module]:
    """The data set's part, and the model with its weights, frozen."""
    dataset = subset(open_dataset(arguments.data), classes=arguments.classes)
    model = build_classifier(
        backbones.get(arguments.model),
        len(dataset.classes),
        image_size=dataset.image_size,
        resize_to=None,
        pretrained=False,
        weights=None,
        seed=0,
    )
    load_weights(model, arguments.weights)
    return dataset, model.eval().requires_grad_(False)


def resumed(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The report so far; a report about other facts is refused."""
    # The command without the places of one machine.
    words = [Path(word).name if Path(word).exists() or word == str(path) else word for word in sys.argv]
    report = {**facts, "command": "python perf/" + shlex.join(words), "seconds": 0.0, "images": []}
    if path.exists():
        there: dict[str, Any] = json.loads(path.read_text())
        different = [key for key, value in facts.items() if there.get(key) != value]
        if different:
            sys.exit(f"'{path}' differs in {', '.join(different)}; choose another --out")
        report.update(seconds=there["seconds"], images=there["images"])
    return report


def version_of_torchattacks() -> str:
    import torchattacks

    return str(torchattacks.__version__)


def verdicts(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, classes: int
) -> Sequence[str]:
    """Each image's verdict: ``wrong`` when clean, the name of the attack that broke it, or ``robust``.

    An image counts as broken once the model misclassifies the attack's image, brought inside the exact ball.
    """
    with torch.no_grad():
        right = in_top(model(images), labels, k=1)
    found = ["robust" if ok else "wrong" for ok in right.tolist()]
    for name, attack in attacks(model, norm, eps, classes).items():
        rows = torch.tensor([row for row, verdict in enumerate(found) if verdict == "robust"])
        if len(rows) == 0:
            break
        moved = attack(images[rows], labels[rows])
        model.eval()
        with torch.no_grad():
            moved = ThreatModel(norm, eps).ball(images[rows]).project(moved.detach())
            success = ~in_top(model(moved), labels[rows], k=1)
        for row in rows[success].tolist():
            found[row] = name
    return found


def attacks(model: nn.Module, norm: str, eps: float, classes: int) -> dict[str, Any]:
    import torchattacks

    targets = min(TARGETS, classes - 1)
    common = {"norm": NORMS[norm], "eps": eps, "seed": 0}
    return {
        "apgd-ce": torchattacks.APGD(model, steps=STEPS, loss="ce", **common),
        # Both take one target fewer than ``n_classes``.
        "apgd-t": torchattacks.APGDT(model, steps=STEPS, n_classes=targets + 1, **common),
        "fab-t": torchattacks.FAB(model, steps=STEPS, multi_targeted=True, n_classes=targets + 1, **common),
        "square": torchattacks.Square(model, n_queries=QUERIES, **common),
    }


def as_text(report: dict[str, Any]) -> str:
    """JSON with an image a line."""
    facts = {key: value for key, value in report.items() if key != "images"}
    images = ",\n    ".join(json.dumps(image) for image in report["images"])
    return json.dumps(facts, indent=2)[:-2] + f',\n  "images": [\n    {images}\n  ]\n}}\n'


def summary(report: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for image in report["images"]:
        counts[image["verdict"]] = counts.get(image["verdict"], 0) + 1
    total = len(report["images"])
    return f"{total} images, {report['seconds']:.0f} s: " + ", ".join(f"{n} {v}" for v, n in counts.items())


if __name__ == "__main__":
    main()
