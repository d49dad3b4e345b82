"""Phase 4: the presets ``robust`` and ``scratch`` for the time that is left, and their weights kept.

How many epochs fit is worked out from steps timed on this very card, compiled and not. The weights are
rounded to bfloat16 first and measured afterwards, so that the figures are those of the files that are kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from perf.gpu.options import Options, command, parse
from perf.gpu.results import Results
from robustbench_tin import evaluate
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.data import Dataset
from robustbench_tin.data.base import Split
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import Classifier, backbones, build_classifier, load_weights
from robustbench_tin.presets import load_preset
from robustbench_tin.runtime import Runtime, choose_precision
from robustbench_tin.training.compiling import compiled
from robustbench_tin.training.loop import train
from robustbench_tin.training.progressive import sides
from robustbench_tin.training.recipe import Recipe

# Each preset's share of the time; the first is trained first.
SHARES = {"robust": 0.6, "scratch": 0.4}
# The part of a preset's time for training, and the seconds of it that are not steps (start, data, a look at
# the end).
TRAINED_PART, START_SECONDS = 0.75, 25.0
# Compiling takes a minute and saves a third of each epoch: with fewer seconds it is not even tried.
COMPILED_FROM = 300.0
# A file has to be smaller than 16 MB.
MOST_BYTES = 15_000_000
# AutoAttack on 1,000 images needs at least this.
AUTOATTACK_SECONDS = 90.0


@dataclass(frozen=True)
class Work:
    """A preset to train.

    Attributes:
        preset: its name.
        model: a backbone's name.
        defense: a defense's spec.
        recipe: how it is trained, for one epoch.
        dataset: the training data.
    """

    preset: str
    model: str
    defense: str
    recipe: Recipe
    dataset: Dataset

    def build(self, side: int | None = None) -> Classifier:
        """The classifier before training, which sees its images at a side in pixels."""
        backbone = backbones.get(self.model)
        size = self.dataset.image_size
        classifier = build_classifier(
            backbone, len(self.dataset.classes), image_size=size, resize_to=None, seed=0
        )
        classifier.input_size = side or classifier.input_size
        return classifier


@dataclass(frozen=True)
class Cost:
    """Seconds of an epoch, of compiling before the first, and how many epochs fit into some seconds."""

    epoch: float
    first: float
    compiled: bool

    def __str__(self) -> str:
        how = "compiled" if self.compiled else "not compiled"
        return f"{how}: {self.epoch:.1f} s an epoch, {self.first:.0f} s before the first"

    def fitting(self, seconds: float) -> int:
        return max(1, int((seconds - self.first) / self.epoch))


def main() -> None:
    options = parse()
    results = Results(
        options.out,
        "records",
        title="Records: the presets, trained for the time that was left",
        columns=["preset", "epochs", "trained in", "images", "attack", "clean", "4/255", "8/255", "seconds"],
        command=command(),
    )
    smoke = options.smoke
    dataset = options.dataset(*((2, 12, 8) if smoke else (200, 500, 10_000)))
    results.note(f"{len(dataset.train)} training and {len(dataset.val)} validation images, {dataset.source}.")
    failed: list[str] = []
    measured: list[tuple[Work, Classifier, dict[str, Any]]] = []
    slower = 1.0
    presets = os.environ.get("ROBUST_TIN_GPU_PRESETS", ",".join(SHARES)).split(",")
    left = sum(SHARES[name] for name in presets)
    for name in presets:
        seconds = options.left * SHARES[name] / left
        left -= SHARES[name]
        work = work_of(name, dataset, smoke)
        try:
            classifier, facts, ratio = trained(work, options, seconds / slower, results)
            slower = max(slower, slower * ratio)
        except Exception as error:  # noqa: BLE001 - the next preset may do better
            failed.append(name)
            results.note(f"`{name}` failed: {type(error).__name__}: {str(error)[:300]}")
            continue
        keep(classifier, name, options.out, results)
        look(work, classifier, facts, options, results, "fast", 8 if smoke else 1000)
        measured.append((work, classifier, facts))
    for work, classifier, facts in measured:
        look(work, classifier, facts, options, results, "fast", len(dataset.val))
        if work.preset == "robust" and (smoke or options.left > AUTOATTACK_SECONDS):
            attack = "autoattack:steps=2,queries=5,targets=1" if smoke else "autoattack"
            look(work, classifier, facts, options, results, attack, 4 if smoke else 1000)
    results.close(f"failed: {', '.join(failed)}" if failed else "done")


def work_of(name: str, dataset: Dataset, smoke: bool) -> Work:
    """The work of a built-in preset, for one epoch."""
    given = load_preset(name).options
    model = "timm:test_resnet" if smoke else given["models"]
    settings = {
        key: given[key]
        for key in ("label_smoothing", "average", "optimizer", "progressive", "clip_norm", "clean_epochs")
        if key in given
    }
    batch = 8 if smoke else given["batch_size"]
    lr = given.get("lr", backbones.get(model).lr)
    recipe = Recipe(epochs=1, batch_size=batch, lr=lr, **{**settings, "clean_epochs": 0})
    return Work(name, model, given["defenses"], recipe, dataset)


def trained(
    work: Work, options: Options, seconds: float, results: Results
) -> tuple[Classifier, dict[str, Any], float]:
    """The preset by the command, for as many epochs as fit; its weights rounded to bfloat16.

    Returns:
        The classifier, facts for its rows, and the time that its training took over the time foreseen.
    """
    started = time.monotonic()
    ways = (False, True) if seconds >= COMPILED_FROM and not options.smoke else (False,)
    # An earlier preset's compiled code must not make this one's look free; the run finds the code compiled
    # here.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    costs = [cost(work, options, compile_it) for compile_it in ways]
    budget = TRAINED_PART * seconds - (time.monotonic() - started) - START_SECONDS
    best = max(costs, key=lambda each: each.fitting(budget))
    epochs = 1 if options.smoke else best.fitting(budget)
    told = "; ".join(f"{each}, {each.fitting(budget)} epochs fit" for each in costs)
    results.note(f"`{work.preset}`, {budget:.0f} s for training. {told}.")
    run = Path(tempfile.mkdtemp()) / work.preset
    words = ["bench", "--preset", work.preset, "--data", options.data, "--epochs", str(epochs)]
    words += ["--attacks", "fgsm", "--eps", "0", "--no-worst-case", "--no-trust", "--curves", "none"]
    words += ["--device", options.device, "--eval-images", str(min(1000, len(work.dataset.val)))]
    words += ["--compile" if best.compiled else "--no-compile"]
    if options.smoke:
        count = len(work.dataset.train) // len(work.dataset.classes)
        words += ["--classes", str(len(work.dataset.classes)), "--train-per-class", str(count)]
        words += ["--models", work.model, "--batch-size", str(work.recipe.batch_size)]
    begun = time.monotonic()
    # A session of its own would outlive the end of this phase.
    subprocess.run([sys.executable, "-m", "robustbench_tin", *words, "--out", str(run)], check=True)
    took = time.monotonic() - begun
    results.note(f"`robust-tin {' '.join(words).replace(options.data, 'DATA')}`: {took:.0f} s in all.")
    opened = Run.load(run)
    classifier = work.build()
    load_weights(classifier, opened.weights_file(next(iter(opened.plan.cells()))))
    with torch.no_grad():
        for value in classifier.network.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.bfloat16())
    facts = {"preset": work.preset, "epochs": epochs, "trained in": f"{took:.0f} s"}
    foreseen = START_SECONDS + best.first + epochs * best.epoch
    return classifier.to(options.device).eval().requires_grad_(False), facts, took / foreseen


def cost(work: Work, options: Options, compile_it: bool) -> Cost:
    """Estimate the cost of an epoch over the whole set from some steps at each image size of the training."""
    full = work.build().input_size
    each = sides(full, work.recipe.progressive, 10)
    at_full, before = rate(work, options, full, compile_it)
    seconds, first = {full: at_full}, before
    for side in set(each) - {full}:
        if compile_it:  # that takes too long to try at each: they cost as their pixels do
            seconds[side], before = at_full * (side / full) ** 2, before
        else:
            seconds[side], before = rate(work, options, side, compile_it)
        first += before
    epoch = len(work.dataset.train) * sum(seconds[side] for side in each) / len(each)
    return Cost(epoch, first, compile_it)


def rate(work: Work, options: Options, side: int, compile_it: bool) -> tuple[float, float]:
    """Seconds of an image at a side, and of all that comes before the first steps."""
    few, many = (1, 2) if options.smoke else (3, 12)
    size = work.recipe.batch_size
    rows = np.arange(min(many * size, len(work.dataset.train)))
    split: Split = work.dataset.train.take(rows)
    classifier = work.build(side)
    runtime = Runtime(options.device, choose_precision(options.device, classifier, side))
    recipe = replace(work.recipe, progressive=1.0)

    def steps(part: Split) -> float:
        begun = time.perf_counter()
        defense = parse_defense(work.defense)
        train(classifier, part, defense, recipe, runtime, num_classes=classifier.num_classes, seed=0)
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    with compiled(classifier, runtime, size, print) if compile_it else nullcontext():
        before = steps(split.take(rows[: few * size]))
        return steps(split) / len(rows), before


def keep(classifier: Classifier, preset: str, out: Path, results: Results) -> None:
    """The weights in bfloat16, in as many files as keep each small; together they are one state dict."""
    state = {
        name: (value.bfloat16() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in classifier.network.state_dict().items()
    }
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in state.items():
        if size + value.nbytes > MOST_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = value
        size += value.nbytes
    for number, part in enumerate(parts, 1):
        path = out / f"{preset}-weights-{number}-of-{len(parts)}.safetensors"
        save_file(part, path, {"backbone": classifier.backbone, "classes": str(classifier.num_classes)})
    results.note(f"`{preset}`: weights in {len(parts)} files, bfloat16; the figures are of these.")


def look(
    work: Work,
    classifier: Classifier,
    facts: dict[str, Any],
    options: Options,
    results: Results,
    attack: str,
    count: int,
) -> None:
    """Clean and robust accuracy on the first validation images of an even draw."""
    begun = time.monotonic()
    rows = np.linspace(0, len(work.dataset.val) - 1, count).round().astype(np.int64)
    part = work.dataset.val.take(rows)
    frame = evaluate(
        classifier,
        torch.from_numpy(part.images),
        torch.from_numpy(part.labels),
        attack,
        (0.0, 4 / 255, 8 / 255),
        search="auto",
        batch_size=8 if options.smoke else 500,
    ).records
    shown = {
        eps: f"{100 * row['top1']:.2f} / {100 * row['top5']:.2f}"
        if row["top5"] == row["top5"]
        else f"{100 * row['top1']:.2f}"
        for eps, (_, row) in zip(("clean", "4/255", "8/255"), frame.iterrows(), strict=True)
    }
    statuses = sorted(set(frame["status"]))
    results.row(
        **facts, images=count, attack=attack, **shown, seconds=time.monotonic() - begun, statuses=statuses
    )


if __name__ == "__main__":
    sys.exit(main())
