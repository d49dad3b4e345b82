"""``robust-tin evaluate``: measure trained models into a run directory; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.as_attacks import given_twice
from robustbench_tin.attacks.base import Attack
from robustbench_tin.benchmarks.cells.cell_context import CellContext
from robustbench_tin.benchmarks.cells.cell_progress import is_complete, state_of
from robustbench_tin.benchmarks.cells.executor import SerialExecutor
from robustbench_tin.benchmarks.cells.given_models import GivenModels, examine
from robustbench_tin.benchmarks.cells.time_estimate import Estimate
from robustbench_tin.benchmarks.measurement.black_box_stand_in import STAND_IN, needs_stand_in
from robustbench_tin.benchmarks.planning.checks import check_measurement, check_tracking
from robustbench_tin.benchmarks.planning.config import BenchConfig, DataConfig, EvaluateConfig
from robustbench_tin.benchmarks.planning.defense_sources import file_digest
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.planning.parsed_request import requested_attacks
from robustbench_tin.benchmarks.planning.parsed_specs import ParsedSpecs
from robustbench_tin.benchmarks.planning.plan import NONE, Cell, Plan
from robustbench_tin.benchmarks.run import Run
from robustbench_tin.benchmarks.runs.image_labels import remember_labels
from robustbench_tin.benchmarks.runs.mirror import mirrored
from robustbench_tin.benchmarks.runs.model_places import remember_models
from robustbench_tin.benchmarks.runs.remembered import remember
from robustbench_tin.benchmarks.runs.repair import repair
from robustbench_tin.benchmarks.runs.run_state import COSTS_FILE
from robustbench_tin.benchmarks.tracking.track import tracked
from robustbench_tin.data import Dataset
from robustbench_tin.progress import Reporter, duration
from robustbench_tin.registry import load_plugin
from robustbench_tin.runtime import choose_device, tune_allocator
from robustbench_tin.text import counted
from robustbench_tin.threat import parse_eps_list

REFERENCE = "autoattack"


def evaluate_run(*, reporter: Reporter | None = None, **options: Any) -> Run:
    """Measure trained models and return the run with its records; the same call continues it.

    Args:
        reporter: shows progress; None: silent.
        **options: the fields of :class:`robustbench_tin.benchmarks.planning.config.EvaluateConfig`, which are
            the options of ``robust-tin evaluate``.

    Raises:
        RobustTinError: if anything cannot be done as requested; raised before any measurement.
    """
    reporter = reporter or Reporter()
    asked = EvaluateConfig(**options)
    check_tracking(asked)
    for plugin in asked.plugins:
        load_plugin(plugin)
    tune_allocator()
    attacks, eps = _threat(asked, reporter)
    device = choose_device(asked.device)
    dataset = open_part(reporter, **_data(asked))
    models = examine(asked, dataset, device, reporter)
    plan = _plan(asked, attacks, eps, models, dataset, device)
    place = asked.out or Path("runs") / f"{plan.data}-{plan.fingerprint}"
    with mirrored(place, reporter) as path, Run.begun(path, plan) as run:
        repair(run, reporter)
        remember(path, DataConfig(**_data(asked)))
        remember_labels(path, plan, dataset)
        remember_models(path, models.places)
        with tracked(path, asked, reporter):
            _complete(run, asked, dataset, Estimate(models.passes, plan), reporter)
            run.write_results()
    return run


def _threat(asked: EvaluateConfig, reporter: Reporter) -> tuple[list[Attack], tuple[float, ...]]:
    """The attacks, without duplicates, and the budgets."""
    attacks = requested_attacks(asked.attacks)
    for remark in given_twice(attacks).values():
        reporter.say(remark)
    check_measurement(asked, attacks)
    return list(dict.fromkeys(attacks)), tuple(sorted(set(parse_eps_list(asked.eps, asked.norm))))


def _data(asked: EvaluateConfig) -> dict[str, Any]:
    """The data options."""
    return {name: getattr(asked, name) for name in ("data", "classes", "eval_images", "skip_broken")}


def _plan(
    asked: EvaluateConfig,
    attacks: Sequence[Attack],
    eps: tuple[float, ...],
    models: GivenModels,
    dataset: Dataset,
    device: str,
) -> Plan:
    """The plan: each model is measured with one seed; nothing is trained."""
    taken = {name: value for name, value in vars(asked).items() if name in Plan.model_fields}
    working = [attack for attack in attacks if not attack.needs_gradients]
    all_give_gradients = all(model.gradients for model in models.given)
    settled = {
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "classes": len(dataset.classes),
        "train_images": len(dataset.train),
        "eval_images": len(dataset.val),
        "models": tuple(model.name for model in models.given),
        "defenses": (NONE,),
        "seeds": (asked.seed,),
        "attacks": tuple(attack.spec for attack in attacks),
        "eps": eps,
        "search": asked.search or ("fixed" if asked.deterministic else "auto"),
        "epochs": (0,) * len(models.given),
        "batch_size": 0,
        "pretrained": False,
        "weights": None,
        "device": device,
        "plugins": tuple(file_digest(Path(plugin)) for plugin in asked.plugins),
        "given": models.given,
        "stand_in": STAND_IN if not all_give_gradients and needs_stand_in(working) else "",
    }
    plan = Plan.settled(ParsedSpecs.of(attacks, (), ()), {**taken, **settled})
    for attack in attacks:
        if attack.criterion is not None:
            attack.goal.check(min(model.outputs for model in models.given))
    return plan


def _complete(run: Run, asked: EvaluateConfig, dataset: Dataset, costs: Estimate, reporter: Reporter) -> None:
    """Take the measurements that the run lacks."""
    plan = run.plan
    left = [cell for cell in plan.cells() if not is_complete(run, cell)]
    if not left:
        reporter.say(f"Run {run.path} is complete already: nothing to do. Choose another --out to repeat it.")
        return
    _announce(run, dataset, costs, left, reporter)
    # The other options of a bench are about training.
    context = CellContext(run, dataset, BenchConfig(device=plan.device), costs, reporter)
    run.files.write(run.path / COSTS_FILE, costs.expected(1))
    with reporter.overall(sum(map(costs.cell, left))):
        try:
            SerialExecutor(asked.threads).complete(context, left)
        except KeyboardInterrupt:
            reporter.say(f"Stopped: {state_of(run)}")
            raise


def _announce(run: Run, dataset: Dataset, costs: Estimate, left: Sequence[Cell], reporter: Reporter) -> None:
    plan = run.plan
    reporter.say(
        f"Data: {plan.data} ({dataset.source}), {plan.classes} classes, {plan.eval_images:,} images of"
        f" {dataset.image_size} px"
    )
    done = len(plan.given) - len(left)
    finished = f", {done} done" if done else ""
    reporter.say(
        f"Plan: {counted(len(plan.given), 'model')}{finished}, {counted(plan.measures, 'measurement')} on"
        f" {plan.device}; about {duration(sum(map(costs.cell, left)))}. Run directory: {run.path}"
    )
    if plan.attacked_eps and REFERENCE not in plan.attacks:
        reference = parse_attack(REFERENCE)
        seconds = sum(
            costs.attack(cell.model, reference) for cell in left if not plan.lacks_gradients(cell.model)
        )
        gradients = reference.gradients(len(plan.attacked_eps))
        if seconds and plan.norm in reference.norms:
            reporter.say(
                f"The reference, --attacks {REFERENCE}, would take at most {duration(seconds)}: up to"
                f" {gradients:,} gradients per image."
            )
