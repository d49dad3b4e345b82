"""Turn a user's request into a plan; every mistake is found here, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.planning import checks
from robustbench_tin.benchmarks.planning.config import BenchConfig, DataConfig
from robustbench_tin.benchmarks.planning.defense_sources import (
    DefenseSources,
    FindTrained,
    file_digest,
    find_sources,
)
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.planning.parsed_request import Requested, requested
from robustbench_tin.benchmarks.planning.parsed_specs import ParsedSpecs
from robustbench_tin.benchmarks.planning.plan import NONE, Plan
from robustbench_tin.data import Dataset
from robustbench_tin.models import backbones
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.progress import Reporter
from robustbench_tin.registry import load_plugin
from robustbench_tin.runtime import choose_device
from robustbench_tin.training.distributed import group_size


def resolve(request: BenchConfig, reporter: Reporter, find_trained: FindTrained) -> tuple[Plan, Dataset]:
    """Check a request completely, open its data, and settle the choices that it leaves open.

    Args:
        request: the user's options.
        reporter: shows additions to the plan, and the data set's notes.
        find_trained: finds the trained model of a defense's source.

    Raises:
        RobustTinError: if anything cannot be done as requested.
    """
    for plugin in request.plugins:
        load_plugin(plugin)
    asked = requested(request, reporter)
    checks.check_names(asked, request)
    checks.check_options(request)
    files = _files(request)
    dataset = open_part(reporter, **request.of(DataConfig))
    dataset.require_train()
    sources = find_sources(asked.defenses, len(dataset.classes), find_trained)
    _tell_of_sources(asked, sources, reporter)
    plan = _plan(request, asked, sources, dataset, files)
    checks.check_data(plan, dataset)
    checks.check_weights(plan, dataset, request)
    checks.check_training(plan, dataset, request)
    return plan, dataset


def _files(request: BenchConfig) -> dict[str, Any]:
    """The device, and the digests of the files in the request."""
    return {
        "device": choose_device(request.device),
        "weights": None if request.weights is None else file_digest(Path(request.weights)),
        "plugins": tuple(file_digest(Path(plugin)) for plugin in request.plugins),
    }


def _tell_of_sources(asked: Requested, sources: DefenseSources, reporter: Reporter) -> None:
    """Report the cells that are in the plan only because a defense needs them."""
    for name in sources.backbones:
        if name not in asked.model_names or NONE not in asked.defense_specs:
            reporter.say(f"Added to the plan: {name} with defense none, because a defense makes images on it")


def _plan(
    request: BenchConfig,
    asked: Requested,
    sources: DefenseSources,
    dataset: Dataset,
    files: dict[str, Any],
) -> Plan:
    """The plan, with a value for each choice that the request leaves open."""
    added = [backbones.get(name) for name in sources.backbones if name not in asked.model_names]
    trained = (*asked.backbones, *added)
    taken = {name: value for name, value in vars(request).items() if name in Plan.model_fields}
    settled = {
        **files,
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "classes": len(dataset.classes),
        "train_images": len(dataset.train),
        "eval_images": len(dataset.val),
        "models": asked.model_names,
        "sources": sources.backbones,
        "source_files": sources.files,
        "defenses": asked.defense_specs,
        "seeds": asked.seeds,
        "attacks": asked.attack_specs,
        "eps": asked.eps,
        "search": request.search or ("fixed" if request.deterministic else "auto"),
        "certified": asked.certified if request.norm == "l2" else (),
        "epochs": tuple(request.epochs or _default_epochs(dataset, backbone) for backbone in trained),
        "sizes": _quick_sizes(request, dataset, trained),
        "batch_size": request.batch_size or default_batch_size(len(dataset.train)),
        "processes": group_size(),
    }
    return Plan.settled(ParsedSpecs.of(asked.attacks, asked.defenses, trained), {**taken, **settled})


def default_batch_size(images: int) -> int:
    """A power of two times three, from 24 to 192, that gives at least 25 steps per epoch if possible."""
    size = 24
    while size < 192 and images / (2 * size) >= 25:
        size *= 2
    return size


def _quick_sizes(
    request: BenchConfig, dataset: Dataset, trained: Sequence[Backbone]
) -> tuple[int | None, ...]:
    """The quick size of each backbone on a data set for a first look; empty if no backbone has one."""
    if not dataset.quick or request.image_size is not None:
        return ()
    sizes = tuple(backbone.quick_size for backbone in trained)
    return sizes if any(sizes) else ()


def _default_epochs(dataset: Dataset, backbone: Backbone) -> int:
    effort = backbone.effort if dataset.quick else 1.0
    return max(1, round(dataset.default_epochs * effort))
