"""Verify a model card: measure its weights again and compare the results with its claims, image by image."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustbench_tin import files
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.executor import SerialExecutor
from robustbench_tin.benchmarks.cells.pass_times import time_gradients
from robustbench_tin.benchmarks.cells.time_estimate import Estimate, estimate
from robustbench_tin.benchmarks.gate.candidate import Candidate, candidate_of
from robustbench_tin.benchmarks.gate.check import check_against
from robustbench_tin.benchmarks.gate.claims import CLAIMS_FILE, WEIGHTS_FILE, Claims, read_claims
from robustbench_tin.benchmarks.gate.comparison_mode import ComparisonMode
from robustbench_tin.benchmarks.gate.model_card import CARD_FILE, claims_section, metadata
from robustbench_tin.benchmarks.gate.result import CheckReport, Finding, FindingCode
from robustbench_tin.benchmarks.gate.rules import Rules
from robustbench_tin.benchmarks.planning.config import BenchConfig
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.cell_loader import CellLoader
from robustbench_tin.benchmarks.runs.given_loader import ChangedModelError, file_of, place_of
from robustbench_tin.benchmarks.runs.model_places import ModelPlace, remember_models
from robustbench_tin.benchmarks.runs.same_measurement import MeasuredImages
from robustbench_tin.benchmarks.runs.training_files import Trained
from robustbench_tin.data import Dataset
from robustbench_tin.errors import FOREIGN, InvalidSettingError, RunError
from robustbench_tin.progress import Reporter
from robustbench_tin.runtime import choose_device, tune_allocator

_LARGEST_CARD = 16 * 2**20
_OTHER = "the weights differ from the card's: their digest is not the digest in the claims"


@dataclass(frozen=True)
class CardSource:
    """A card, and the places of its model, weights and data.

    Attributes:
        card: the Markdown file, or its directory.
        model: the model, as for ``robust-tin evaluate --model``, if the run did not train it; None for the
            model that the claims name.
        weights: weights file; None for the file beside the card.
        data: data options that replace those of the claims.
        device: device, such as ``cpu`` or ``cuda``; None for the best available one.
    """

    card: Path
    model: str | None
    weights: Path | None
    data: Mapping[str, Any]
    device: str | None = None

    @property
    def file(self) -> Path:
        """The path of the Markdown file."""
        return self.card / CARD_FILE if self.card.is_dir() else self.card


def verify_card(source: CardSource, rules: Rules, reporter: Reporter | None = None) -> CheckReport:
    """Measure the weights of a card again and compare each image's result with the claims.

    Args:
        source: the card, and the places of its model, weights and data.
        rules: tolerances, floors and level.
        reporter: shows progress; None for no output.

    Returns:
        The report; a changed card and different weights are findings that fail it.

    Raises:
        RobustTinError: if the claims were changed by hand, a file is missing, or the data differ from the
            data of the claims.
    """
    claims = read_claims(source.file.parent / CLAIMS_FILE)
    changed = _changed(source.file, claims)
    reporter = reporter or Reporter()
    tune_allocator()
    dataset = _opened(source, claims, reporter)
    findings = [Finding(FindingCode.other_text, changed)] if changed else []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            candidate = _measured(source, claims, dataset, Path(scratch) / "run", reporter)
    except ChangedModelError:
        # A changed model is not measured, because it is not known which part of it changed.
        findings.append(Finding(FindingCode.other_weights, f"{_OTHER}, {claims.weights}"))
        name, images = str(source.file), claims.baseline.images
        return CheckReport(name, name, images, rules.level, (), findings=tuple(findings))
    weights = candidate.models[0].weights
    same = weights == claims.weights
    if not same:
        findings.append(Finding(FindingCode.other_weights, f"{_OTHER}, {claims.weights}, but {weights}"))
    report = check_against(
        candidate,
        claims.baseline,
        source.file,
        rules,
        None if same else ComparisonMode.same_weights,
    )
    return replace(report, update="", findings=(*report.findings, *findings))


def _changed(card: Path, claims: Claims) -> str:
    """The part of a card that differs from its claims, as a sentence; empty if no part differs."""
    try:
        text = files.read_bytes(card, _LARGEST_CARD).decode("utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"cannot read the card '{card}': {error.strerror}") from error
    from huggingface_hub import metadata_load

    try:
        said = metadata_load(card) or {}
    except FOREIGN:  # a parser may raise anything on a damaged block
        said = {}
    expected: dict[str, Any] = metadata(claims).to_dict()  # type: ignore[no-untyped-call]
    if said.get("model-index") != expected["model-index"]:
        return "the card's metadata (model-index) differs from its claims"
    return "" if claims_section(claims) in text else "the card's text differs from its claims"


def _opened(source: CardSource, claims: Claims, reporter: Reporter) -> Dataset:
    """Open the data set of the claims.

    Raises:
        InvalidSettingError: if the path of the data set is missing.
        RunError: if its validation images differ from the measured images.
    """
    if claims.needs_place and "data" not in source.data:
        raise InvalidSettingError(
            f"data got no value, and the card does not hold the path of its images; give --data"
            f" {claims.data['data']}"
        )
    dataset = open_part(reporter, **{**claims.data, **source.data})
    here = MeasuredImages(
        dataset.name,
        len(dataset.val),
        claims.baseline.classes,
        dataset.fingerprint,
        dataset.val.fingerprint,
    )
    problem = here.difference(claims.baseline.measured_images, "here", "in the card")
    if problem is not None:
        raise RunError(f"the card cannot be verified: {problem}")
    return dataset


def _measured(
    source: CardSource, claims: Claims, dataset: Dataset, path: Path, reporter: Reporter
) -> Candidate:
    """Measure the model of the card again, in a run with this cell only."""
    plan = claims.plan.model_copy(
        update={"data_fingerprint": dataset.fingerprint, "device": choose_device(source.device)}
    )
    cell = claims.cell
    with Run.begun(path, plan) as run:
        if plan.given:
            remember_models(path, {cell.model: _place(source, claims)})
        else:
            _put_weights(source, run, claims)
        costs = _costs(run, cell, dataset.image_size)
        context = CellContext(run, dataset, BenchConfig(device=plan.device), costs, reporter)
        SerialExecutor().complete(context, [cell])
        return replace(candidate_of(run, [cell], claims.plan), name=str(source.file))


def _costs(run: Run, cell: Cell, image_size: int) -> Estimate:
    if not run.plan.given:
        return estimate(run.plan, image_size)
    # No backbone of this name need exist, and its model is not trained.
    model = CellLoader(run, image_size, run.plan.device).load(cell).model
    return Estimate({cell.model: time_gradients(model, image_size, run.plan.device)}, run.plan)


def _put_weights(source: CardSource, run: Run, claims: Claims) -> None:
    file = source.weights or source.file.parent / WEIGHTS_FILE
    if not file.is_file():
        raise RunError(f"the weights of the card, '{file}', are missing; give --weights FILE")
    target = run.weights_file(claims.cell)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
    known: Trained = claims.trained
    run.save_trained(claims.cell, known)


def _place(source: CardSource, claims: Claims) -> ModelPlace:
    """The place of a model that the run did not train; code that only the claims name is never run."""
    given = claims.plan.given[0]
    spec = source.model or given.spec
    if source.model is None and (file_of(spec) is not None or (":" in spec and not spec.startswith("timm:"))):
        raise InvalidSettingError(
            f"model got no value, and the card's model '{given.spec}' is a file or code; give --model"
        )
    if given.weights_file and source.weights is None:
        raise InvalidSettingError(f"weights got no value; give --weights FILE ({given.weights_file})")
    return place_of(spec, source.weights)
