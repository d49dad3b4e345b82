"""Choose the images of a gallery by a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robustbench_tin.benchmarks.evidence.choices import Rule
from robustbench_tin.benchmarks.evidence.gallery import (
    Gallery,
    GalleryImage,
    GallerySelection,
    distance,
    magnified,
)
from robustbench_tin.benchmarks.evidence.opened_run import OpenedRun
from robustbench_tin.benchmarks.evidence.remade_batch import RemadeBatch
from robustbench_tin.benchmarks.evidence.remake import RemadeMeasurement, why_not
from robustbench_tin.benchmarks.planning.cell_names import cell_name, listed
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.trained_model import failing
from robustbench_tin.errors import InvalidSettingError, RunError
from robustbench_tin.metrics import in_top
from robustbench_tin.specs import eps_text
from robustbench_tin.threat import Budgets


def choose_gallery(
    run: str | Path,
    *,
    cells: str | None = None,
    attacks: str | None = None,
    eps: Budgets | None = None,
    rule: str = Rule.random,
    count: int = 8,
    seed: int = 0,
    **opening: Any,
) -> Gallery:
    """Choose images from a run's measurements, and make the adversarial images that it does not keep again.

    Args:
        run: a run directory.
        cells: a name or a pattern of cells, such as ``*/fgsm-at/*``; None: all cells.
        attacks: a spec, a name or a pattern of attacks, such as ``pgd*``; None: all attacks.
        eps: budgets of the run; None: its largest.
        rule: see :class:`Rule`.
        count: maximum number of images per measurement, at least 1.
        seed: seed of the choice.
        **opening: device, plugins, reporter and data; see :meth:`OpenedRun.open`.

    Raises:
        RobustTinError: if a setting does not fit the run, or no stored result could be reproduced.
    """
    chosen = _rule(rule)
    if count < 1:
        raise InvalidSettingError(f"count got {count}; expected 1 or more")
    opened = OpenedRun.open(run, **opening)
    images: list[GalleryImage] = []
    selections: list[GallerySelection] = []
    for measurement in measurements(opened, opened.cells(cells), attacks, opened.eps(eps), chosen):
        with failing(measurement.cell.label):
            found, selection = _choose(measurement, chosen, count, seed)
        _tell(opened, selection)
        images += found
        selections.append(selection)
    return Gallery(chosen, seed, opened.dataset.class_names, images, selections)


def measurements(
    opened: OpenedRun, cells: Sequence[Cell], attacks: str | None, eps: Sequence[float], rule: Rule
) -> Iterator[RemadeMeasurement]:
    """The requested measurements; a warning names those that failed or that the rule cannot choose from.

    Raises:
        InvalidSettingError: if the run has no such attack.
        RunError: if no measurement is left.
    """
    specs = attacks_named(opened, attacks)
    left = 0
    for cell in cells:
        for spec in specs:
            for value in eps:
                why = why_not(opened, cell, spec, value)
                if not why and rule is Rule.survivors and opened.plan.attack(spec).criterion is not None:
                    why = "an attack that stops on success keeps no adversarial image of a survivor"
                if why:
                    opened.reporter.warn(f"{cell.label}, {spec} at {eps_text(value)} is left out: {why}.")
                    continue
                left += 1
                yield RemadeMeasurement(opened, cell, spec, value)
    if not left:
        raise RunError(f"run '{opened.run.path}' has no measurement left to show; see the warnings above")


def attacks_named(opened: OpenedRun, pattern: str | None) -> list[str]:
    """The specs of the plan's attacks that match a pattern; None: all.

    Raises:
        InvalidSettingError: if nothing matches.
    """
    known = opened.plan.attacks
    found = [spec for spec in known if pattern is None or _is_named(spec, pattern.strip())]
    if not found:
        raise InvalidSettingError(
            f"attack got '{pattern}', but run '{opened.run.path}' does not measure it; expected"
            f" {listed(known)}"
        )
    return found


def _is_named(spec: str, text: str) -> bool:
    return any(fnmatchcase(known, text) for known in (spec, spec.partition(":")[0]))


def _choose(
    measurement: RemadeMeasurement, rule: Rule, count: int, seed: int
) -> tuple[list[GalleryImage], GallerySelection]:
    candidates = _candidates(measurement, rule, seed)
    found: list[GalleryImage] = []
    lost = 0
    for number, index in enumerate(_ordered(measurement, rule, candidates)):
        if len(found) == count:
            break
        if number % count == 0:
            measurement.make(measurement.starts(candidates[number : number + count]))
        batch, row = measurement.row(index)
        if not batch.reproduced[row]:
            continue
        shown = _image(measurement, rule, index, batch, row)
        lost += shown is None
        found += [] if shown is None else [shown]
    selection = GallerySelection(
        cell_name(measurement.cell),
        measurement.spec,
        measurement.eps,
        candidates=len(candidates),
        remade=measurement.remade,
        not_reproduced=measurement.not_reproduced,
        lost_to_rounding=lost,
        kept=len(measurement.kept),
        not_as_kept=measurement.not_as_kept,
        random=bool(measurement.not_reproduced or lost or measurement.not_as_kept) and measurement.is_random,
    )
    return found, selection


def _candidates(measurement: RemadeMeasurement, rule: Rule, seed: int) -> npt.NDArray[np.int64]:
    """Indices of the images that the rule chooses from, in random order: the same for each measurement."""
    order = np.random.default_rng(seed).permutation(len(measurement.opened.batches))
    right_before, right_after = measurement.stored_clean[order], measurement.stored[order]
    if rule is Rule.survivors:
        return order[right_after]
    if rule is Rule.confident:
        return order[right_before & ~right_after]
    return order[right_before] if rule is Rule.smallest_margin else order


def _ordered(measurement: RemadeMeasurement, rule: Rule, candidates: npt.NDArray[np.int64]) -> Sequence[int]:
    """The candidates, ordered by the rule, best first."""
    if rule in (Rule.random, Rule.survivors):
        return [int(index) for index in candidates]
    measurement.make(measurement.starts(candidates))
    scores = [_score(measurement, rule, int(index)) for index in candidates]
    return [int(candidates[number]) for number in np.argsort(scores, kind="stable")]


def _score(measurement: RemadeMeasurement, rule: Rule, index: int) -> float:
    """A score that is small for images that the rule prefers."""
    batch, row = measurement.row(index)
    logits = batch.logits[row : row + 1]
    if rule is Rule.confident:
        return -float(logits.softmax(dim=1).max())
    labels = measurement.opened.batches.labels[index : index + 1]
    return float(measurement.attack.goal.margin(logits, labels).abs())


def _image(
    measurement: RemadeMeasurement, rule: Rule, index: int, batch: RemadeBatch, row: int
) -> GalleryImage | None:
    """An image of the gallery; None if the 8-bit image, classified alone, does not give the stored result."""
    before = measurement.predict(index, batch.clean[row])
    after = measurement.predict(index, batch.adversarial[row])
    label = measurement.opened.batches.labels[index : index + 1]
    if bool(in_top(after[None], label, measurement.attack.goal.k)) != bool(measurement.stored[index]):
        return None
    clean, adversarial = _pixels(batch.clean[row]), _pixels(batch.adversarial[row])
    perturbation, factor = magnified(clean, adversarial)
    return GalleryImage(
        cell=cell_name(measurement.cell),
        attack=measurement.spec,
        eps=measurement.eps,
        norm=measurement.opened.plan.norm,
        index=index,
        rule=rule,
        label=int(label),
        before=int(before.argmax()),
        before_confidence=float(before.softmax(dim=0).max()),
        after=int(after.argmax()),
        after_confidence=float(after.softmax(dim=0).max()),
        distance=distance(clean, adversarial, measurement.opened.plan.norm),
        clean=clean,
        perturbation=perturbation,
        adversarial=adversarial,
        magnified_by=factor,
    )


def _pixels(image: Tensor) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = image.permute(1, 2, 0).contiguous().numpy()
    return pixels


def _tell(opened: OpenedRun, selection: GallerySelection) -> None:
    """Report how many images the gallery leaves out.

    Raises:
        RunError: if no image gives its stored result.
    """
    where = f"{selection.cell}, {selection.attack} at {eps_text(selection.eps)}"
    if selection.not_as_kept:
        every = selection.kept + selection.not_as_kept
        opened.reporter.warn(
            f"{where}: {selection.not_as_kept:,} of {every:,} images that the run keeps do not give their"
            " stored prediction here (another device, version or number of threads); they are made again."
        )
    if selection.not_reproduced:
        note = (
            f"{where}: {selection.not_reproduced:,} of {selection.remade:,} remade images do not give"
            f" their stored result ({_cause(selection)})"
        )
        if selection.not_reproduced == selection.remade and not selection.kept:
            raise RunError(f"{note}; run the bench command again {_remedy(selection)}")
        opened.reporter.warn(f"{note}; they are left out.")
    if selection.lost_to_rounding:
        cause = " (the model is random at test time)" if selection.random else ""
        opened.reporter.say(
            f"{where}: {selection.lost_to_rounding:,} images are left out because their 8-bit version has"
            f" another result{cause}."
        )


def _cause(selection: GallerySelection) -> str:
    if selection.random:
        return "the model is random at test time, and an attack made again meets other draws"
    return "another device, version or number of threads"


def _remedy(selection: GallerySelection) -> str:
    if selection.random:
        return "with --keep-adversarial, which keeps the images"
    return "here"


def _rule(text: str) -> Rule:
    try:
        return Rule(text)
    except ValueError:
        raise InvalidSettingError(f"rule got '{text}'; expected {', '.join(Rule)}") from None
