"""Attacks beside their peers and beside the limit, interleaved in one process.

``python perf/attacks.py RUN --data DATA --classes 10`` takes two cells of a finished run, one undefended and
one adversarially trained, and times on its validation images:

- FGSM at eps 0, 0.01 and 0.03, fixed budget, against the passes that its definition needs (one forward and
  backward, two forwards), torchattacks, foolbox and ART;
- PGD-10, fixed budget, in float32 and with the search in a lower precision, against a plain torch loop with
  frozen parameters, and how many outcomes differ;
- PGD-40, stop on success, on 200 of them, against ART, foolbox and torchattacks, which run all their steps.

``--parts`` measures AutoAttack's four attacks one by one instead, on images that survive ``fast``: ours, then
torchattacks', some steps of each in turn, and the time of their fixed budgets at that speed.

``--reference`` measures AutoAttack as a whole instead: ours and ``fast``, against torchattacks' with the
same 100 steps, on both cells; this takes up to a minute for each image that survives.

Each contender runs in turn, ``--rounds`` times; the table shows the median of the ratios within a round, and
their range. All work in batches of ``--batch``. The model's parameters are frozen, except in rows that say
``as it comes``. On one CPU thread, time is processor time, which other work on the machine disturbs least.
Peers that are not installed are left out, and the table says so. ``plain loop`` and ``limit`` are below.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_tin import evaluate, perturb
from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.until_success import attack_until_success
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.data import open_dataset, subset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.metrics import in_top
from robustbench_tin.models import backbones, build_classifier, load_weights

EPS = 0.03
STRONG_EPS = 4 / 255
# Peers take all 40 steps on each of them.
UNTIL_BROKEN_IMAGES = 200
HEADER = "| work | model | contender | time ÷ baseline | range | note |\n|---|---|---|---:|---|---|"


@dataclass(frozen=True)
class Row:
    """A contender's time over the baseline's: the median of the rounds, and their range."""

    work: str
    model: str
    contender: str
    ratio: float
    low: float
    high: float
    note: str


Tell = Callable[[Row], None]


def tell(row: Row) -> None:
    """Print a row of the table that begins with :data:`HEADER`."""
    print(
        f"| {row.work} | {row.model} | {row.contender} | {row.ratio:.2f} | {row.low:.2f} to {row.high:.2f}"
        f" | {row.note} |",
        flush=True,
    )


@dataclass
class Setting:
    """A model in eval mode and images to attack, float32 in [0, 1]."""

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    batch: int = 50

    def kept(self, images: Tensor) -> Tensor:
        """Which images the model still gets right, bool ``(N,)``."""
        with torch.inference_mode():
            logits = torch.cat([self.model(part) for part in images.split(self.batch)])
        return in_top(logits, self.labels, 1)

    def only(self, rows: Tensor | slice) -> Setting:
        """The same model with these images."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--data", required=True)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, default=500, help="of the validation images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--reference",
        type=int,
        default=0,
        help="number of correctly classified images for AutoAttack; nothing else is measured",
    )
    parser.add_argument(
        "--parts", type=int, default=0, help="number of images for AutoAttack's single attacks"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    settings = load(arguments)
    print(
        f"{arguments.images} images, {arguments.rounds} rounds, {arguments.threads} threads,"
        f" {arguments.device}"
    )
    print(f"torch {torch.__version__}; not installed: {', '.join(missing()) or 'none'}\n")
    print(HEADER)
    if arguments.reference:
        for setting in settings:
            autoattack(setting, arguments.reference)
        return
    if arguments.parts:
        parts(settings[-1], arguments.parts, arguments.rounds)
        return
    fgsm(settings[0], arguments.rounds)
    pgd(settings[0], arguments.rounds)
    stop_on_success(settings[0].only(slice(UNTIL_BROKEN_IMAGES)), arguments.rounds)


def clock() -> float:
    """Seconds of processor time if one thread works alone, else of wall-clock time."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_initialized()
    return time.process_time() if alone else time.perf_counter()


def load(arguments: argparse.Namespace) -> list[Setting]:
    """The run's first undefended and first defended cell, with the first validation images."""
    run = Run.load(arguments.run)
    dataset = subset(
        open_dataset(arguments.data), classes=arguments.classes, train_per_class=None, eval_images=None
    )
    images = torch.from_numpy(np.array(dataset.val.images)).float() / 255
    labels = torch.from_numpy(np.array(dataset.val.labels))
    cells = {cell.defense == "none": cell for cell in reversed(list(run.plan.cells()))}
    settings = []
    for undefended in (True, False):
        if undefended not in cells:
            continue
        cell = cells[undefended]
        classifier = build_classifier(
            backbones.get(cell.model),
            run.plan.classes,
            image_size=dataset.image_size,
            resize_to=run.plan.size_of(cell.model),
            pretrained=False,
            weights=None,
            seed=0,
        )
        load_weights(classifier, run.weights_file(cell))
        model = parse_defense(cell.defense).wrap(classifier).to(arguments.device).eval().requires_grad_(False)
        everything = Setting(
            cell.label, model, images.to(arguments.device), labels.to(arguments.device), arguments.batch
        )
        settings.append(everything.only(slice(arguments.images)))
    return settings


def missing() -> list[str]:
    """Peers that are not installed."""
    return [name for name in ("art", "foolbox", "torchattacks") if importlib.util.find_spec(name) is None]


def fgsm(setting: Setting, rounds: int, say: Tell = tell) -> None:
    """A sweep over three budgets; the limit is one gradient for all of them."""
    eps = (0.0, 0.01, 0.03)

    def limit() -> None:
        for start in range(0, len(setting.images), setting.batch):
            rows = slice(start, start + setting.batch)
            gradient(setting.model, setting.images[rows], setting.labels[rows])
            with torch.inference_mode():
                for _ in eps[1:]:
                    setting.model(setting.images[rows])

    contenders: dict[str, Callable[[], Any]] = {
        "limit: its passes": limit,
        "robust-tin": lambda: measured(setting, "fgsm", eps),
        "robust-tin, search=exact": lambda: measured(setting, "fgsm", eps, search="exact"),
    }
    for name, attack in peers(setting, "fgsm", 1, 0).items():
        contenders[name] = lambda attack=attack: [setting.kept(attack(value)) for value in eps]
    as_it_comes = replace(setting, model=copy.deepcopy(setting.model).requires_grad_(True))
    for name, attack in peers(as_it_comes, "fgsm", 1, 0).items():
        contenders[f"{name}, as it comes"] = lambda attack=attack: [
            setting.kept(attack(value)) for value in eps
        ]
    compare("FGSM at three eps", setting, contenders, rounds, say=say)


def pgd(setting: Setting, rounds: int, say: Tell = tell) -> None:
    """PGD-10 from the clean image, so that outcomes can be compared image by image."""
    spec = "pgd:alpha=0.0075,random_start=false"
    plain = plain_pgd(setting, 10, EPS, 0.0075)
    outcome = setting.kept(plain)

    def kept_by(search: str) -> Tensor:
        moved = perturb(setting.model, setting.images, setting.labels, spec, EPS, search=search)
        return setting.kept(moved.to(setting.images.device))

    def note(search: str) -> str:
        kept = kept_by(search)
        differ = int((kept != outcome).sum())
        return f"{differ} of {len(kept)} outcomes differ; {100 * float(kept.float().mean()):.1f} % kept"

    contenders: dict[str, Callable[[], Any]] = {
        "plain loop, frozen": lambda: setting.kept(plain_pgd(setting, 10, EPS, 0.0075)),
        "robust-tin": lambda: kept_by("fixed"),
        "robust-tin, search=fastest": lambda: kept_by("fastest"),
    }
    for name, attack in peers(setting, "pgd", 10, 0.0075).items():
        contenders[name] = lambda attack=attack: setting.kept(attack(EPS))
    compare(
        "PGD-10, fixed budget",
        setting,
        contenders,
        rounds,
        {"robust-tin": note("fixed"), "robust-tin, search=fastest": note("fastest")},
        say=say,
    )


def stop_on_success(setting: Setting, rounds: int, say: Tell = tell) -> None:
    """PGD-40 with stop on success; peers run all their steps."""
    contenders: dict[str, Callable[[], Any]] = {
        "robust-tin": lambda: measured(setting, "pgd:steps=40,alpha=0.0075,criterion=top1", EPS)
    }
    for name, attack in peers(setting, "pgd", 40, 0.0075).items():
        contenders[name] = lambda attack=attack: setting.kept(attack(EPS))
    compare("PGD-40, verdict", setting, contenders, rounds, say=say)


def autoattack(setting: Setting, count: int, say: Tell = tell) -> None:
    """AutoAttack, its quick stand-in, torchattacks' with the published budget; on each batch in turn."""
    few = setting.only(setting.kept(setting.images).nonzero().squeeze(1)[:count])
    contenders: dict[str, Callable[[Setting], tuple[int, int | None]]] = {
        "robust-tin autoattack": lambda part: ours(part, "autoattack"),
        "robust-tin fast": lambda part: ours(part, "fast"),
    }
    if "torchattacks" not in missing():
        contenders["torchattacks AutoAttack, 100 steps"] = lambda part: (
            int(part.kept(in_batches(part, reference_autoattack(part))).sum()),
            None,
        )
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    kept, passes = dict.fromkeys(contenders, 0), dict.fromkeys(contenders, 0)
    for start in range(0, len(few.images), few.batch):
        part = few.only(slice(start, start + few.batch))
        for name, contender in contenders.items():
            started = clock()
            left, made = contender(part)
            if part.images.is_cuda:
                torch.cuda.synchronize()
            spent[name].append(clock() - started)
            kept[name] += left
            passes[name] += made or 0
    base = spent["robust-tin autoattack"]
    for name, seconds in spent.items():
        ratios = [one / other for one, other in zip(seconds, base, strict=True)]
        note = f"{kept[name]} of {len(few.images)} kept"
        if passes[name]:
            note += f"; {passes[name] / len(few.images):.0f} passes an image"
        note += f"; {sum(seconds):.0f} s"
        ratio = sum(seconds) / sum(base)
        say(Row("AutoAttack at 4/255", setting.name, name, ratio, min(ratios), max(ratios), note))


def parts(setting: Setting, count: int, rounds: int) -> None:
    """Each attack of AutoAttack on images that stay right: seconds an image at the fixed budget."""
    import torchattacks

    right = setting.only(setting.kept(setting.images).nonzero().squeeze(1))
    batches = pool_of(right)
    protocol = AttackProtocol(search="fastest")
    left = attack_until_success(
        right.model, batches, parse_attack("fast"), STRONG_EPS, protocol, clean_of(right, batches)
    )
    hard = right.only((~left.success).nonzero().squeeze(1)[:count])
    batches, classes = pool_of(hard), int(hard.model(hard.images[:1]).shape[1])
    clean = clean_of(hard, batches)
    shared = {"norm": "Linf", "eps": STRONG_EPS, "verbose": False}
    # Enough steps that the fixed cost of a start is a small part of the time that is then multiplied.
    theirs = {"steps": 20, "n_classes": classes, **shared}
    contenders: dict[str, tuple[str, Any, float]] = {
        "APGD-CE": ("apgd-ce:steps=20", torchattacks.APGD(hard.model, steps=20, loss="ce", **shared), 5),
        "APGD-T": ("apgd-t:steps=20", torchattacks.APGDT(hard.model, **theirs), 5),
        "FAB-T": (
            "fab-t:steps=10",
            torchattacks.FAB(hard.model, multi_targeted=True, **{**theirs, "steps": 10}),
            10,
        ),
        "Square": (
            "square:queries=500",
            torchattacks.Square(hard.model, n_queries=500, **shared),
            10,
        ),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):  # the first is a warm-up, and chooses the forms
        for name, (spec, attack, times) in contenders.items():
            started = clock()
            measure_attack(
                hard.model, batches, parse_attack(spec), [STRONG_EPS], protocol, clean_logits=clean
            )
            between = clock()
            attack(hard.images, hard.labels)
            scale = times / len(hard.images)
            spent[name].append((scale * (between - started), scale * (clock() - between)))
    totals = np.zeros((rounds, 2))
    for name, pairs in spent.items():
        seconds = np.array(pairs[1:])
        totals += seconds
        report_parts(name, setting.name, seconds)
    report_parts("all four", setting.name, totals)


def report_parts(name: str, model: str, seconds: np.ndarray) -> None:
    """Ours and theirs, a round a row."""
    mine, other = np.median(seconds, axis=0)
    ratios = seconds[:, 1] / seconds[:, 0]
    note = f"{mine:.1f} and {other:.1f} s an image"
    tell(Row(name, model, "torchattacks ÷ robust-tin", np.median(ratios), ratios.min(), ratios.max(), note))


def pool_of(setting: Setting) -> ImageBatches:
    return ImageBatches(setting.images, setting.labels, setting.batch, setting.images.device)


def clean_of(setting: Setting, batches: ImageBatches) -> Tensor:
    logits = measure_clean(setting.model, batches)[1]
    assert logits is not None
    return logits


def ours(setting: Setting, spec: str) -> tuple[int, int]:
    """How many images survive one of our attacks, and the passes that it made."""
    frame = measured(setting, spec, STRONG_EPS)
    record = frame[frame["attack"] != "clean"].iloc[0]
    survivors = round(record["top1"] * len(setting.images))
    return survivors, record["forward_passes"] + record["backward_passes"]


def reference_autoattack(setting: Setting) -> Callable[[Tensor, Tensor], Tensor]:
    """Torchattacks' four attacks with the published budgets, each on the survivors of those before it."""
    import torchattacks

    classes = int(setting.model(setting.images[:1]).shape[1])
    shared = {"norm": "Linf", "eps": STRONG_EPS, "seed": 0, "verbose": False}
    attack: Callable[[Tensor, Tensor], Tensor] = torchattacks.MultiAttack(
        [
            torchattacks.APGD(setting.model, steps=100, loss="ce", n_restarts=1, **shared),
            torchattacks.APGDT(setting.model, steps=100, n_classes=classes, n_restarts=1, **shared),
            torchattacks.FAB(
                setting.model, steps=100, n_classes=classes, n_restarts=1, multi_targeted=True, **shared
            ),
            torchattacks.Square(setting.model, n_queries=5000, n_restarts=1, **shared),
        ]
    )
    return attack


def measured(setting: Setting, attack: str, eps: Any, *, search: str = "auto") -> Any:
    return evaluate(
        setting.model, setting.images, setting.labels, attack, eps, search=search, batch_size=setting.batch
    ).records


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    variable = images.clone().requires_grad_()
    functional.cross_entropy(model(variable), labels, reduction="sum").backward()
    assert variable.grad is not None
    return variable.grad


def plain_pgd(setting: Setting, steps: int, eps: float, alpha: float) -> Tensor:
    """PGD as a plain PyTorch loop, parameters frozen."""
    parts = []
    for start in range(0, len(setting.images), setting.batch):
        rows = slice(start, start + setting.batch)
        images = setting.images[rows]
        moved = images
        for _ in range(steps):
            moved = moved + alpha * gradient(setting.model, moved, setting.labels[rows]).sign()
            moved = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
        parts.append(moved)
    return torch.cat(parts)


def peers(setting: Setting, kind: str, steps: int, alpha: float) -> dict[str, Callable[[float], Tensor]]:
    """Each installed peer's attack from the clean image, in batches of 50: from eps to adversarial images."""
    attacks: dict[str, Callable[[float], Tensor]] = {}
    installed = {"art", "foolbox", "torchattacks"} - set(missing())
    if "torchattacks" in installed:
        import torchattacks

        def with_torchattacks(eps: float) -> Tensor:
            attack = (
                torchattacks.FGSM(setting.model, eps=eps)
                if kind == "fgsm"
                else torchattacks.PGD(setting.model, eps=eps, alpha=alpha, steps=steps, random_start=False)
            )
            return in_batches(setting, attack)

        attacks["torchattacks"] = with_torchattacks
    if "foolbox" in installed:
        import foolbox

        def with_foolbox(eps: float) -> Tensor:
            model = foolbox.PyTorchModel(setting.model, bounds=(0, 1))
            attack = (
                foolbox.attacks.FGSM(random_start=False)
                if kind == "fgsm"
                else foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=steps, random_start=False)
            )
            return in_batches(setting, lambda images, labels: attack(model, images, labels, epsilons=eps)[1])

        attacks["foolbox"] = with_foolbox
    if "art" in installed:
        from art.attacks.evasion import FastGradientMethod
        from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
            ProjectedGradientDescentPyTorch,
        )
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            setting.model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(setting.images.shape[1:]),
            nb_classes=int(setting.model(setting.images[:1]).shape[1]),
            clip_values=(0.0, 1.0),
            device_type="gpu" if setting.images.is_cuda else "cpu",
        )

        def with_art(eps: float) -> Tensor:
            if eps == 0:
                return setting.images
            attack: Any = (
                FastGradientMethod(classifier, eps=eps, batch_size=setting.batch)
                if kind == "fgsm"
                else ProjectedGradientDescentPyTorch(
                    classifier,
                    eps=eps,
                    eps_step=alpha,
                    max_iter=steps,
                    batch_size=setting.batch,
                    verbose=False,
                )
            )
            moved = attack.generate(setting.images.cpu().numpy(), setting.labels.cpu().numpy())
            return torch.from_numpy(moved).to(setting.images.device)

        attacks["ART"] = with_art
    return attacks


def in_batches(setting: Setting, attack: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    batches = zip(setting.images.split(setting.batch), setting.labels.split(setting.batch), strict=True)
    return torch.cat([attack(images, labels).detach() for images, labels in batches])


def compare(
    work: str,
    setting: Setting,
    contenders: dict[str, Callable[[], Any]],
    rounds: int,
    notes: dict[str, str] | None = None,
    *,
    say: Tell = tell,
) -> None:
    """Tell each contender's time over the first one's, round by round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            started = clock()
            contender()
            if setting.images.is_cuda:
                torch.cuda.synchronize()
            times[name].append(clock() - started)
    baseline = next(iter(times.values()))
    for name, seconds in times.items():
        ratios = sorted(mine / base for mine, base in zip(seconds, baseline, strict=True))
        note = (notes or {}).get(name, "")
        say(Row(work, setting.name, name, statistics.median(ratios), ratios[0], ratios[-1], note))


if __name__ == "__main__":
    main()
