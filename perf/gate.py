"""How often the gate is wrong, and how long it takes.

- ``python perf/gate.py alarms``: 1,000 pairs of tables of 12 measures without a true drop, for both of the
  gate's questions; how many checks fail by mistake.
- ``python perf/gate.py power --out docs/pictures/gate-power.svg``: a planted drop on images of a fixed
  checkpoint; how many checks catch it, by drop and by number of images. ``--out`` draws the curves.
- ``python perf/gate.py retrainings``: 20 real re-trainings of a small network on the demo set, with other
  seeds, each checked against a baseline of five, alone and by fives, and then five of half of the epochs;
  minutes on a CPU. ``--out RUN`` keeps the trainings.
- ``python perf/gate.py time --cell RUN/CELL --data DATA --classes 20``: ``robust-tin check --model`` of
  a trained cell, from start to exit, FGSM and PGD-10 at two budgets on 1,000 images; without and with trust
  checks.

Simulated images are right with a probability of their own (half of them mostly right, half mostly wrong), so
that measures of one table depend on each other as those of one network do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from robustbench_tin.benchmarks.gate.baseline import make_baseline
from robustbench_tin.benchmarks.gate.candidate import Candidate, from_run
from robustbench_tin.benchmarks.gate.check import check
from robustbench_tin.benchmarks.gate.result import CheckStatus
from robustbench_tin.benchmarks.gate.rules import Rules
from robustbench_tin.benchmarks.statistics.chances import holm
from robustbench_tin.benchmarks.statistics.paired import Changes
from robustbench_tin.benchmarks.statistics.spread import Spread

MEASURES, LEVEL, SEEDS, PLANTED = 12, 0.05, 5, 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["alarms", "power", "retrainings", "time"])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--retrainings", type=int, default=20)
    parser.add_argument("--cell", help="of time: RUN/CELL")
    parser.add_argument("--data", default="demo", help="of time: the data that the cell was trained on")
    parser.add_argument("--classes", default="20", help="of time: the classes of these data")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    {"alarms": alarms, "power": power, "retrainings": retrainings, "time": timed}[arguments.what](arguments)


def interval(count: int, total: int) -> str:
    low, high = binomtest(count, total).proportion_ci(0.95, "wilson")
    return f"{count} of {total}: {100 * count / total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def outcomes(random: np.random.Generator, images: int) -> np.ndarray:
    """Results, bool ``(measures, images)``: fewer right from measure to measure, as under attacks."""
    ease = random.beta(0.5, 0.5, images)
    return ease[None] > np.linspace(0.1, 0.9, MEASURES)[:, None]


def changed(random: np.random.Generator, before: np.ndarray, share: float, drop: float = 0.0) -> np.ndarray:
    """The same table after this part of its images changed, ``drop`` more of them lost than won."""
    now = before.copy()
    for row in now:
        right, wrong = np.flatnonzero(row), np.flatnonzero(~row)
        lost = random.binomial(len(row), (share + drop) / 2)
        won = random.binomial(len(row), (share - drop) / 2)
        row[random.permutation(right)[:lost]] = False
        row[random.permutation(wrong)[:won]] = True
    return now


def fails(before: np.ndarray, now: np.ndarray, tolerance: float) -> np.ndarray:
    """Which measures the gate finds worse, of the same weights."""
    pairs = [Changes.between(one, other) for one, other in zip(before, now, strict=True)]
    chances = np.array(holm([pair.chances().of_drop for pair in pairs]))
    drops = np.array([(pair.lost - pair.won) / pair.images for pair in pairs])
    return (chances <= LEVEL) & (drops > tolerance)


def alarms(arguments: argparse.Namespace) -> None:
    random = np.random.default_rng(0)
    print(f"{MEASURES} measures, {arguments.images:,} images, {arguments.pairs:,} pairs, no true drop\n")
    print("| question | tolerance | checks that fail by mistake, 95 % interval |\n|---|---:|---|")
    for share in (0.02, 0.1):
        for tolerance in (0.0, 0.01):
            wrong = 0
            for _ in range(arguments.pairs):
                before = outcomes(random, arguments.images)
                wrong += bool(fails(before, changed(random, before, share), tolerance).any())
            said = f"same weights, {share:.0%} of the images change"
            print(f"| {said} | {100 * tolerance:g} | {interval(wrong, arguments.pairs)} |", flush=True)
    for deviation in (0.005, 0.02):
        for tolerance in (0.0, 0.01):
            wrong = sum(
                _retraining_fails(random, arguments.images, deviation, tolerance)
                for _ in range(arguments.pairs)
            )
            said = f"re-training, {SEEDS} seeds, {100 * deviation:g} points between trainings"
            print(f"| {said} | {100 * tolerance:g} | {interval(wrong, arguments.pairs)} |", flush=True)


def _retraining_fails(random: np.random.Generator, images: int, deviation: float, tolerance: float) -> bool:
    means = np.linspace(0.7, 0.1, MEASURES)
    # A part of a seed's effect is common to all of its measures.
    shared = random.normal(0, deviation / np.sqrt(2), SEEDS + 1)
    own = random.normal(0, deviation / np.sqrt(2), (MEASURES, SEEDS + 1))
    rights = np.rint(images * np.clip(means[:, None] + shared + own, 0, 1)).astype(int)
    spreads = [Spread(tuple(row[:SEEDS]), (row[SEEDS],), images) for row in rights]
    chances = holm([spread.chances().of_drop for spread in spreads])
    return any(
        chance <= LEVEL and spread.drop > tolerance for chance, spread in zip(chances, spreads, strict=True)
    )


def power(arguments: argparse.Namespace) -> None:
    random = np.random.default_rng(0)
    drops = (0.01, 0.015, 0.02, 0.03, 0.05)
    pairs = max(200, arguments.pairs // 5)
    print(f"a drop in one of {MEASURES} measures, a tenth of its images change; tolerance 1 point\n")
    print(f"| images | {' | '.join(f'{100 * drop:g} points' for drop in drops)} |")
    print(f"|---:|{'---:|' * len(drops)}")
    curves = {}
    for images in (1_000, 2_000, 5_000, arguments.images):
        caught = [_caught(random, images, drop, pairs) for drop in drops]
        curves[images] = [count / pairs for count in caught]
        print(f"| {images:,} | {' | '.join(f'{100 * part:.1f} %' for part in curves[images])} |", flush=True)
    exact = _caught(random, arguments.images, 0.03, arguments.pairs)
    print(f"\n3 points on {arguments.images:,} images: caught in {interval(exact, arguments.pairs)}")
    if arguments.out is not None:
        _draw(drops, curves, arguments.out)


def _caught(random: np.random.Generator, images: int, drop: float, pairs: int) -> int:
    """In how many checks the measure that lost it is found worse; which one lost it is drawn."""
    caught = 0
    for _ in range(pairs):
        before = outcomes(random, images)
        now = changed(random, before, 0.02)
        row = random.integers(MEASURES)
        now[row] = changed(random, before[row : row + 1], 0.1, drop)[0]
        caught += bool(fails(before, now, 0.01)[row])
    return caught


def _draw(drops: tuple[float, ...], curves: dict[int, list[float]], out: Path) -> None:
    import altair as alt

    rows = [
        {"images": f"{images:,} images", "drop": 100 * drop, "caught": 100 * part}
        for images, parts in curves.items()
        for drop, part in zip(drops, parts, strict=True)
    ]
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("drop:Q", title="true drop, points"),
            y=alt.Y("caught:Q", title="checks that catch it, %", scale=alt.Scale(domain=[0, 100])),
            color=alt.Color("images:N", title=None, sort=None),
        )
    )
    aim = alt.Chart(alt.Data(values=[{"caught": 95}])).mark_rule(strokeDash=[2, 2]).encode(y="caught:Q")
    (lines + aim).properties(width=480, height=260).save(out)


def retrainings(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.out or Path(scratch)
        first = _trained(root / "baseline", range(SEEDS))
        make_baseline([first]).write(root / "baseline.json")
        _print_spread(first)
        print("| seed | clean | pgd@0.01 | pgd@0.03 | smallest p of a drop | verdicts |")
        print("|---:|---:|---:|---:|---:|---|")
        others = [
            _trained(root / f"seed-{seed}", [seed]) for seed in range(SEEDS, SEEDS + arguments.retrainings)
        ]
        wrong = sum(_checked(root, str(SEEDS + index), candidate) for index, candidate in enumerate(others))
        for start in range(0, len(others) - SEEDS + 1, SEEDS):
            _checked(root, f"{SEEDS + start} to {2 * SEEDS + start - 1}", _together(others[start:][:SEEDS]))
        # Half of the epochs: a regression that the gate must find.
        worse = [_trained(root / f"worse-{seed}", [seed], epochs=3) for seed in range(SEEDS, SEEDS + PLANTED)]
        caught = sum(_checked(root, f"{SEEDS + n}, 3 epochs", candidate) for n, candidate in enumerate(worse))
        _checked(root, f"{SEEDS} to {SEEDS + PLANTED - 1}, 3 epochs", _together(worse))
        print(f"\nof the same recipe, checks that do not pass: {interval(wrong, len(others))}")
        print(f"of half of the epochs: {interval(caught, len(worse))}")


def _trained(out: Path, seeds: Iterable[int], epochs: int = 6) -> Candidate:
    from robustbench_tin import bench

    run = bench(
        models="timm:test_resnet",
        attacks="fgsm,pgd:steps=5",
        eps="0,0.01,0.03",
        epochs=epochs,
        train_per_class=60,
        eval_images=400,
        device="cpu",
        deterministic=True,
        curves="none",
        seeds=",".join(map(str, seeds)),
        out=out,
    )
    return from_run(run.path)


def _together(candidates: Sequence[Candidate]) -> Candidate:
    """Several re-trainings as one run with one seed each."""
    return replace(
        candidates[0], models=tuple(model for candidate in candidates for model in candidate.models)
    )


def _print_spread(candidate: Candidate) -> None:
    """Print the spread of the baseline's seeds beside the spread that sampling of images explains."""
    for key in dict.fromkeys(figure.key for _, figure in candidate.figures):
        figures = [figure for _, figure in candidate.figures if figure.key == key]
        rates = np.array([figure.right / figure.record.n for figure in figures])
        counting = np.sqrt(rates.mean() * (1 - rates.mean()) / figures[0].record.n)
        print(
            f"{key.label}: {100 * rates.mean():.1f} %, one seed deviates by {100 * rates.std(ddof=1):.1f}"
            f" points, counting {figures[0].record.n} images by {100 * counting:.1f}"
        )
    print()


def _checked(root: Path, name: str, candidate: Candidate) -> bool:
    """Print the row of a check; whether it does not pass."""
    report = check(candidate, root / "baseline.json", Rules())
    now = {result.key.label: f"{100 * result.now:.1f}" for result in report.results}
    least = min(result.chance for result in report.results if result.chance is not None)
    counts = [(status, len(report.of(status))) for status in CheckStatus]
    verdicts = ", ".join(f"{count} {status.value}" for status, count in counts if count)
    shown = [name, now["clean"], now["pgd:steps=5@0.01"], now["pgd:steps=5@0.03"], f"{least:.2g}", verdicts]
    print(f"| {' | '.join(shown)} |", flush=True)
    return report.exit_code != 0


def timed(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "network.py").write_text(
            "from robustbench_tin.benchmarks.runs.trained_model import find_trained\n\n"
            f"CELL = {str(Path(arguments.cell).resolve())!r}\n\n\n"
            "def build():\n    return find_trained(CELL).load('cpu').model\n"
        )
        shared = [
            *("--model", f"{scratch}/network.py:build", "--device", "cpu"),
            *("--data", arguments.data, "--classes", arguments.classes, "--eval-images", "1000"),
            *("--attacks", "fgsm,pgd:steps=10,criterion=top1", "--eps", "0.01,0.03"),
        ]
        command = [sys.executable, "-m", "robustbench_tin"]
        file = f"{scratch}/baseline.json"
        subprocess.run([*command, "baseline", *shared, "--out", file], check=True)
        for trust in ("--no-trust", "--trust"):
            started = time.perf_counter()
            subprocess.run([*command, "check", *shared, trust, "--baseline", file], check=False)
            print(f"\n{trust}: {time.perf_counter() - started:.0f} s from start to exit", flush=True)


if __name__ == "__main__":
    main()
