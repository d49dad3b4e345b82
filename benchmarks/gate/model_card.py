"""Write a model card from claims: Markdown with the metadata block that model hubs read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.gate.baseline import Measure
from robustbench_tin.benchmarks.gate.claims import CLAIMS_FILE, WEIGHTS_FILE, Claims, make_claims
from robustbench_tin.benchmarks.planning.cell_names import select_cells
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.records import CLEAN
from robustbench_tin.benchmarks.statistics.wilson import wilson
from robustbench_tin.errors import RunError
from robustbench_tin.text import counted, markdown

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

CARD_FILE = "README.md"
_BEGIN, _END = "<!-- robust-tin claims: begin -->", "<!-- robust-tin claims: end -->"


def write_card(run: str | Path, cell: str, directory: str | Path) -> Path:
    """Write the card of a cell: ``README.md``, its claims, and the weights of a trained cell.

    Args:
        run: a run directory.
        cell: name or pattern that selects one cell.
        directory: output directory: new, empty, or with an earlier card, which is replaced.

    Returns:
        The path of the card.

    Raises:
        RunError: if the name does not select one cell, a measurement is missing, or the directory holds
            other files.
    """
    opened, place = Run.load(run), Path(directory)
    chosen = select_cells(opened.plan.cells(), cell, str(opened.path))
    if len(chosen) != 1:
        raise RunError(
            f"cell '{cell}' selects {counted(len(chosen), 'cell')}; expected a name that selects one cell"
        )
    if place.is_dir() and any(place.iterdir()) and not (place / CLAIMS_FILE).exists():
        raise RunError(f"'{place}' is not empty and holds no card; choose another --out")
    claims = make_claims(opened, chosen[0])
    place.mkdir(parents=True, exist_ok=True)
    if not opened.plan.given:
        shutil.copyfile(opened.checked_weights(chosen[0]), place / WEIGHTS_FILE)
    write_text(place / CLAIMS_FILE, claims.text())
    write_text(place / CARD_FILE, card_text(claims))
    return place / CARD_FILE


def card_text(claims: Claims) -> str:
    """The complete text of the card."""
    return (
        f"---\n{metadata(claims)}\n---\n\n{_introduction(claims)}\n{claims_section(claims)}\n{_rest(claims)}"
    )


def metadata(claims: Claims) -> ModelCardData:
    """The metadata block: tags, and a ``model-index`` with one entry for each measurement."""
    from huggingface_hub import EvalResult, ModelCardData

    baseline, entry = claims.baseline, claims.entry
    results = []
    for measure in entry.measures:
        low, high = wilson(measure.right[0] / baseline.images, baseline.images)
        results.append(
            EvalResult(
                task_type="image-classification",
                dataset_type=baseline.data,
                dataset_name=baseline.data,
                dataset_split="validation",
                dataset_args={
                    "images": baseline.images,
                    "classes": baseline.classes,
                    "fingerprint": baseline.measured_on or baseline.data_fingerprint,
                },
                metric_type="accuracy",
                metric_name=_name(measure),
                metric_value=round(measure.right[0] / baseline.images, 6),
                metric_args={
                    "attack": measure.attack,
                    "norm": measure.norm,
                    "eps": measure.eps,
                    "mode": measure.settings.get("mode", ""),
                    "low": round(low, 6),
                    "high": round(high, 6),
                    "weights": claims.weights,
                },
            )
        )
    return ModelCardData(
        library_name="robustbench-tin",
        pipeline_tag="image-classification",
        tags=["adversarial-robustness", "robust-tin"],
        model_name=f"{entry.label}, seed {claims.cell.seed}",
        eval_results=results,
    )


def claims_section(claims: Claims) -> str:
    """The claims for people, between two marks; a check compares this text with the claims file."""
    baseline = claims.baseline
    rows = [_row(measure, baseline.images) for measure in claims.entry.measures]
    weights = claims.weights or "not exposed by the model"
    return "\n".join(
        [
            _BEGIN,
            "| measurement | mode | accuracy in % | 95 % interval | trust checks |",
            "|---|---|---:|---:|---|",
            *rows,
            "",
            f"Measured on {counted(baseline.images, 'image')} of {markdown(baseline.data)}"
            f" ({counted(baseline.classes, 'class', 'classes')}); intervals: Wilson's.",
            "",
            "| digest of | |",
            "|---|---|",
            f"| the weights' tensors | `{weights}` |",
            f"| the measured images and labels | `{baseline.measured_on or baseline.data_fingerprint}` |",
            f"| the claims, `{CLAIMS_FILE}` | `{claims.digest}` |",
            "",
            "This command measures the weights again and compares the result of each image with the claims."
            " If they hold, the exit code is 0:",
            "",
            "```sh",
            claims.command,
            "```",
            _END,
        ]
    )


def _row(measure: Measure, images: int) -> str:
    low, high = wilson(measure.right[0] / images, images)
    cells = (
        _name(measure),
        measure.settings.get("mode", "") if measure.attack != CLEAN else "",
        f"{100 * measure.right[0] / images:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        _verdict(measure),
    )
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


def _name(measure: Measure) -> str:
    rank = measure.settings.get("counted", "top1").replace("top", "top-")
    if measure.attack == CLEAN:
        return f"{rank}, clean"
    return f"{rank}, {measure.key.label} {measure.norm}"


def _verdict(measure: Measure) -> str:
    if measure.attack == CLEAN and not measure.doubts:
        return ""
    if measure.doubts:
        return f"unreliable: {'; '.join(map(str, measure.doubts))}"
    if measure.unchecked:
        return f"not checked: {'; '.join(map(str, measure.unchecked))}"
    return "ok" if measure.checked else "not checked"


def _introduction(claims: Claims) -> str:
    cell, plan = claims.cell, claims.plan
    title = f"# {markdown(claims.entry.label)}, seed {cell.seed}\n"
    if plan.given:
        return f"{title}\nAn image classifier, measured by robust-tin on clean images and under attack.\n"
    return (
        f"{title}\nBackbone {markdown(cell.model)} with defense {markdown(cell.defense)}, trained and"
        f" measured by robust-tin on {markdown(plan.data)}. Images are RGB in [0, 1]; the network resizes and"
        f" normalises them. eps is in units of [0, 1], on images of {claims.baseline.image_size} px.\n"
    )


def _rest(claims: Claims) -> str:
    """The section on the training and the versions."""
    plan, trained = claims.plan, claims.trained
    lines = ["", "## Training and versions", ""]
    if not plan.given:
        lines += [
            f"{counted(plan.epochs[0], 'epoch')} of batches of {plan.batch_size} on"
            f" {counted(plan.train_images, 'image')}, optimizer {plan.optimizer}, learning rate"
            f" {trained.lr if trained.lr is not None else plan.lr}.",
            "",
        ]
    return "\n".join(
        [*lines, f"Figures: {markdown(claims.baseline.versions)}, on {markdown(plan.device)}.", ""]
    )
