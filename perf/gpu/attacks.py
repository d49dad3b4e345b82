"""Phase 2: attacks beside torchattacks, foolbox, ART and their bare passes; see ``perf/attacks.py``."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from perf import attacks
from perf.gpu.options import Options, command, parse
from perf.gpu.results import Results
from robustbench_tin.data import Dataset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.models import backbones, build_classifier
from robustbench_tin.runtime import Runtime, choose_precision
from robustbench_tin.training.loop import Recipe, train

MODELS = ("timm:resnet18:stem=3x3", "timm:resnet50")
DEFENDED = "augment+n-fgsm:eps=4/255"


def main() -> None:
    options = parse()
    results = Results(
        options.out,
        "attacks",
        title="Attacks",
        columns=["work", "model", "contender", "time ÷ baseline", "range", "note"],
        command=command(),
    )

    def say(row: attacks.Row) -> None:
        attacks.tell(row)
        shown = {"time ÷ baseline": row.ratio, "range": f"{row.low:.2f} to {row.high:.2f}"}
        results.row(work=row.work, model=row.model, contender=row.contender, note=row.note, **shown)

    missing = attacks.missing()
    results.note(f"Not installed: {', '.join(missing) or 'none'}.")
    smoke = options.smoke
    dataset = options.dataset(2 if smoke else 20, 8 if smoke else 100, 8 if smoke else 1000)
    rounds, few = (1, 2) if smoke else (3, 50)
    results.note(
        f"{len(dataset.val)} images of {dataset.image_size} px, {rounds} rounds, batches of"
        f" {_batch(options)}; AutoAttack on {few} images that are right when clean."
    )
    models = ("timm:test_resnet",) if smoke else MODELS
    for model in models:
        undefended = _setting(options, dataset, model, "none")
        attacks.fgsm(undefended, rounds, say)
        attacks.pgd(undefended, rounds, say)
        attacks.stop_on_success(undefended.only(slice(attacks.UNTIL_BROKEN_IMAGES)), rounds, say)
    # Last, and for one model: the reference makes some ten thousand passes for any number of images.
    _autoattack(_setting(options, dataset, models[0], DEFENDED), few, smoke, say)
    results.close()


def _batch(options: Options) -> int:
    return 8 if options.smoke else 500


def _autoattack(setting: attacks.Setting, count: int, smoke: bool, say: attacks.Tell) -> None:
    if smoke:  # the published budget takes minutes of a CPU
        frame = attacks.measured(setting.only(slice(2)), "autoattack:steps=2,queries=5,targets=1", 4 / 255)
        kept = round(float(frame["top1"].iloc[-1]) * 2)
        say(attacks.Row("AutoAttack at 4/255", setting.name, "robust-tin", 1, 1, 1, f"{kept} of 2 kept"))
        return
    attacks.autoattack(setting, count, say)


def _setting(options: Options, dataset: Dataset, model: str, defense: str) -> attacks.Setting:
    """A network trained for some seconds: the cost of attacks depends on how soon they succeed."""
    classes = len(dataset.classes)
    classifier = build_classifier(
        backbones.get(model), classes, image_size=dataset.image_size, resize_to=None, seed=0
    )
    runtime = Runtime(options.device, choose_precision(options.device, classifier, dataset.image_size))
    recipe = Recipe(epochs=1 if options.smoke else 20, batch_size=100, lr=1e-3)
    record = train(
        classifier, dataset.train, parse_defense(defense), recipe, runtime, num_classes=classes, seed=0
    )
    print(f"{model} + {defense}: trained in {record.seconds:.1f} s, loss {record.loss:.2f}", flush=True)
    images = torch.from_numpy(dataset.val.images.copy()).to(options.device).float() / 255
    labels = torch.from_numpy(dataset.val.labels.copy()).to(options.device)
    setting = attacks.Setting(
        f"{model} + {defense}", classifier.eval().requires_grad_(False), images, labels, _batch(options)
    )
    right = float(setting.kept(images).float().mean())
    print(f"{100 * right:.1f} % right when clean", flush=True)
    return replace(setting, name=f"{setting.name} ({100 * right:.0f} % right)")


if __name__ == "__main__":
    sys.exit(main())
