"""Find mistakes in a request before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from robustbench_tin.attacks.acceleration.variant_cache import SEARCHES
from robustbench_tin.attacks.base import Attack
from robustbench_tin.benchmarks.planning.config import BenchConfig, MeasurementConfig, TrackingConfig
from robustbench_tin.benchmarks.planning.parsed_request import Requested
from robustbench_tin.benchmarks.planning.plan import Cell, Plan
from robustbench_tin.data import Dataset
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models import build_classifier
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.network import create_skeleton
from robustbench_tin.models.published_head import PUBLISHED, head_rows
from robustbench_tin.training.progressive import sides


def check_options(request: BenchConfig) -> None:
    """Check options that exclude each other or have a fixed set of values.

    Raises:
        InvalidSettingError: if such options contradict each other.
    """
    if request.pretrained and request.weights is not None:
        raise InvalidSettingError("got both --pretrained and --weights; give one of them")
    if request.head == PUBLISHED and not request.pretrained and request.weights is None:
        raise InvalidSettingError(
            "head got 'published' without published weights; also give --weights FILE or --pretrained"
        )
    if request.tensorboard and request.curves == "none":
        raise InvalidSettingError("got both --tensorboard and --curves none; give one of them")
    if request.tensorboard:
        _require_installed("tensorboard", "curves")
    check_tracking(request)


def check_tracking(request: TrackingConfig) -> None:
    """Check that the clients of the requested trackers are installed.

    Raises:
        InvalidSettingError: if a client is missing.
    """
    for name in ("mlflow", "wandb"):
        if getattr(request, name) == "":
            raise InvalidSettingError(f"{name} got an empty text; expected a server URI or a project name")
        if getattr(request, name) is not None:
            _require_installed(name, name)


def _require_installed(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise InvalidSettingError(
            f"--{package} needs the package {package}, which is not installed; install it with"
            f" pip install 'robustbench-tin[{extra}]'"
        )


def check_names(asked: Requested, request: BenchConfig) -> None:
    """Check attacks and defenses against the norm and the backbones.

    Raises:
        InvalidSettingError: if an attack does not support the norm, a worst case has only one attack, or a
            defense's loss does not fit a backbone's output.
    """
    for backbone in asked.backbones:
        for defense in asked.defenses:
            if backbone.variant.one_vs_rest and defense.softmax_only:
                raise InvalidSettingError(
                    f"defense '{defense.spec}' compares softmax outputs, but backbone"
                    f" '{backbone.name}' has a sigmoid per class; give the backbone output=softmax, or choose"
                    " a defense such as pgd-at"
                )
    check_measurement(request, asked.attacks)


def check_measurement(request: MeasurementConfig, attacks: Sequence[Attack]) -> None:
    """Check the measurement settings.

    Raises:
        InvalidSettingError: if an attack does not support the norm, a worst case has only one attack, or the
            search is unknown.
    """
    for attack in attacks:
        attack.check(request.norm)
    if request.worst_case and len(attacks) < 2:
        raise InvalidSettingError(f"worst-case got one attack, {attacks[0].spec}; expected two or more")
    if request.search is not None and request.deterministic:
        raise InvalidSettingError("got both --search and --deterministic; give one of them")
    if request.search is not None and request.search not in SEARCHES:
        raise InvalidSettingError(f"search got '{request.search}'; expected {', '.join(SEARCHES)}")


def check_data(plan: Plan, dataset: Dataset) -> None:
    """Check attacks, backbones and defenses against the data set.

    Raises:
        RobustTinError: if there are too few classes for a target, a network does not work at a size, or the
            training set lacks something that a defense needs.
    """
    for spec in plan.attacks:
        attack = plan.attack(spec)
        if attack.criterion is not None:
            attack.goal.check(plan.classes)
    for name in plan.backbones:
        backbone = plan.backbone(name)
        size = backbone.check_size(dataset.image_size, plan.size_of(name))
        if backbone.variant.new_head:
            create_skeleton(backbone, plan.classes, size)
    for spec in plan.defenses:
        plan.defense(spec).check(dataset.train)


def check_weights(plan: Plan, dataset: Dataset, request: BenchConfig) -> None:
    """Build each backbone once with its weights, so that a wrong file is found before hours of training.

    Raises:
        WeightsError: if weights are missing or belong to another network.
    """
    if request.weights is not None:
        _require_fitting_weights(map(plan.backbone, plan.models), dataset, request)
    elif request.pretrained and not request.skip_missing_weights:
        _require_fitting_weights(map(plan.backbone, plan.backbones), dataset, request)


def check_training(plan: Plan, dataset: Dataset, request: BenchConfig) -> None:
    """Check the training settings.

    Raises:
        InvalidSettingError: if a setting is out of its range, or has no effect.
    """
    for model in plan.backbones:
        plan.recipe(model)
    for cell in plan.cells():
        _require_watched(plan, cell, request.curves)
    if plan.progressive < 1:
        for model in plan.backbones:
            _require_fitting_sides(plan, model, dataset.image_size)


def _require_fitting_weights(models: Iterable[Backbone], dataset: Dataset, request: BenchConfig) -> None:
    for backbone in models:
        build_classifier(
            backbone,
            len(dataset.classes),
            image_size=dataset.image_size,
            resize_to=request.image_size,
            pretrained=request.pretrained,
            weights=None if request.weights is None else Path(request.weights),
            head_rows=head_rows(request.head, dataset.classes),
            seed=0,
        )


def _require_watched(plan: Plan, cell: Cell, curves: str) -> None:
    """Refuse to monitor robustness without a budget."""
    looks = "early-stop" if plan.early_stop is not None else "curves robust"
    wanted = plan.early_stop is not None or curves == "robust"
    if wanted and plan.watched_threat(cell) is None:
        raise InvalidSettingError(
            f"{looks} needs a budget to attack with, but defense '{cell.defense}' has none and no eps is"
            " above 0; give an eps such as 0.03"
        )


def _require_fitting_sides(plan: Plan, model: str, image_size: int) -> None:
    """Refuse progressive resizing that begins at a size at which a network does not work."""
    backbone = plan.backbone(model)
    full = backbone.check_size(image_size, plan.size_of(model))
    for size in set(sides(full, plan.progressive, plan.epochs_of(model))):
        try:
            backbone.require_fits(size)
        except InvalidSettingError as error:
            raise InvalidSettingError(f"progressive got {plan.progressive}, but {error}") from None
