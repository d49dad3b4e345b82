"""``fast`` beside ``autoattack``: who survives, in how many passes, in how much time.

``python perf/fast.py RUN/cells/CELL/weights.safetensors --data DATA --first 250 --last 450`` attacks these
validation images with both. ``--reference FILE`` compares ``fast`` with verdicts that ``perf/reference.py``
has kept, and leaves ``autoattack`` out. Time is the processor's, on one thread; the choice of a form to
search with is in it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from reference import add_arguments, opened
from torch import nn

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.until_success import attack_until_success
from robustbench_tin.runtime import as_tensor
from robustbench_tin.threat import parse_eps

BATCH_SIZE = 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--reference", type=Path, help="a file that perf/reference.py wrote")
    parser.add_argument("--out", type=Path, help="JSON file for verdicts, passes and seconds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset, model = opened(arguments)
    part = slice(arguments.first, arguments.last)
    images, labels = as_tensor(dataset.val.images)[part], as_tensor(dataset.val.labels)[part]
    batches = ImageBatches(images, labels, BATCH_SIZE, torch.device("cpu"))
    eps = parse_eps(arguments.eps)
    fast = attacked(model, batches, "fast", eps, arguments)
    if arguments.reference is not None:
        other = kept(arguments.reference, arguments, eps)
    else:
        other = attacked(model, batches, "autoattack", eps, arguments)
    differing = [
        arguments.first + row
        for row, pair in enumerate(zip(fast["survives"], other["survives"], strict=True))
        if pair[0] != pair[1]
    ]
    print(f"{len(batches)} images: they differ on {len(differing)}: {differing}")
    if "passes" in other:
        print(
            f"autoattack made {other['passes'] / fast['passes']:.1f} times the passes of fast"
            f" and took {other['seconds'] / fast['seconds']:.1f} times as long"
        )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"fast": fast, "other": other}))


def attacked(
    model: nn.Module, batches: ImageBatches, spec: str, eps: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The images that survive an attack, and the attack's cost."""
    protocol = AttackProtocol(norm=arguments.norm)
    clean, logits = measure_clean(model, batches)
    assert logits is not None, clean.status
    attacked = protocol.attacked(model)
    started = time.process_time()
    found = attack_until_success(model, batches, parse_attack(spec), eps, protocol, logits, attacked=attacked)
    report = {
        "survives": (~found.success).tolist(),
        "passes": attacked.forward_passes + attacked.backward_passes,
        "seconds": time.process_time() - started,
        "stages": [(stage.attack, stage.entered, stage.successes) for stage in found.stages],
    }
    right = int((logits.argmax(dim=1) == batches.all_labels()).sum())
    print(
        f"{spec}: {sum(report['survives'])} of {right} right when clean survive;"
        f" {report['passes']} passes, {report['seconds']:.1f} s, {attacked.search_label}",
        flush=True,
    )
    return report


def kept(path: Path, arguments: argparse.Namespace, eps: float) -> dict[str, Any]:
    """The verdicts of a file on the images asked for."""
    report = json.loads(path.read_text())
    if (report["norm"], report["eps"]) != (arguments.norm, eps):
        raise SystemExit(f"'{path}' is of {report['norm']} {report['eps']}; give its --norm and --eps")
    by_index = {image["index"]: image["verdict"] == "robust" for image in report["images"]}
    survives = [by_index[index] for index in range(arguments.first, arguments.last)]
    print(f"{report['reference']}: {sum(survives)} survive; {report['seconds']:.0f} s")
    return {"survives": survives}


if __name__ == "__main__":
    main()
