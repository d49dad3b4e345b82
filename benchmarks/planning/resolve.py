"""From what a user asks for to a plan: every mistake is found here, before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.acceleration.variant_cache import SEARCHES
from robustbench_tin.attacks.requested import given_twice
from robustbench_tin.benchmarks.planning.config import BenchConfig, DataConfig, Names
from robustbench_tin.benchmarks.planning.plan import Plan
from robustbench_tin.data import Dataset, open_dataset, subset
from robustbench_tin.defenses import parse_defense
from robustbench_tin.errors import InvalidSettingError, RunError, WeightsError
from robustbench_tin.files import open_regular
from robustbench_tin.models import backbones, build_classifier, select
from robustbench_tin.models.network import create_skeleton
from robustbench_tin.progress import Reporter
from robustbench_tin.registry import load_plugin
from robustbench_tin.runtime import choose_device
from robustbench_tin.specs import parse_spec, split_list
from robustbench_tin.threat import parse_eps_list
from robustbench_tin.training.distributed import group_size
from robustbench_tin.training.progressive import sides
from robustbench_tin.training.recipe import SGD_LR

if TYPE_CHECKING:
    pass


if TYPE_CHECKING:
    from robustbench_tin.benchmarks.runs.trained_model import TrainedModel

FindTrained = Callable[[str], "TrainedModel"]


def resolve(request: BenchConfig, reporter: Reporter, find_trained: FindTrained) -> tuple[Plan, Dataset]:
    """Check a request in full, open its data, and decide what is left open.

    Args:
        request: the options.
        reporter: is told what the plan adds, and shows the data set's notes.
        find_trained: finds the trained model that a defense's source stands for.

    Raises:
        RobustTinError: for anything that cannot be done as asked.
    """
    for plugin in request.plugins:
        load_plugin(plugin)
    models = _models(request)
    defenses = _unique(parse_defense(text).spec for text in _listed(request.defenses, "defenses"))
    _require_defensible(models, defenses)
    asked = [parse_attack(text) for text in _listed(request.attacks, "attacks")]
    for remark in given_twice(asked).values():
        reporter.say(remark)
    attacks = _unique(attack.spec for attack in asked)
    for attack in attacks:
        parse_attack(attack).check(request.norm)
    if request.worst_case and len(attacks) < 2:
        raise InvalidSettingError(f"worst-case got one attack, {attacks[0]}; expected two or more")
    eps = tuple(sorted(set(parse_eps_list(request.eps, request.norm))))
    seeds = _seeds(request.seeds)
    if request.pretrained and request.weights is not None:
        raise InvalidSettingError("got both --pretrained and --weights; give one of them")
    device = choose_device(request.device)
    weights = None if request.weights is None else file_digest(Path(request.weights))

    dataset = open_part(reporter, **request.of(DataConfig))
    for attack in attacks:
        chosen = parse_attack(attack)
        if chosen.criterion is not None:
            chosen.goal.check(len(dataset.classes))
    sources, source_files = _sources(defenses, len(dataset.classes), find_trained)
    added = [source for source in sources if source not in models or "none" not in defenses]
    for source in added:
        reporter.say(f"Added to the plan: {source} with defense none, which images are to be made on")
    trained = _unique((*models, *sources))
    for model in trained:
        backbone = backbones.get(model)
        size = backbone.check_size(dataset.image_size, request.image_size)
        if backbone.variant.new_head:
            create_skeleton(backbone, len(dataset.classes), size)
    for defense in defenses:
        parse_defense(defense).check(dataset.train)
    if (request.pretrained and not request.skip_missing_weights) or request.weights is not None:
        _require_fitting_weights(trained if request.pretrained else models, dataset, request)
    settled = {
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "classes": len(dataset.classes),
        "train_images": len(dataset.train),
        "eval_images": len(dataset.val),
        "models": tuple(models),
        "sources": sources,
        "source_files": source_files,
        "defenses": defenses,
        "seeds": seeds,
        "attacks": attacks,
        "eps": eps,
        "search": _search(request),
        "certified": tuple(
            text for text in defenses if request.norm == "l2" and parse_defense(text).certifies
        ),
        "epochs": tuple(request.epochs or _default_epochs(dataset, model) for model in trained),
        "batch_size": request.batch_size or default_batch_size(len(dataset.train)),
        "weights": weights,
        "device": device,
        "processes": group_size(),
        "plugins": tuple(file_digest(Path(plugin)) for plugin in request.plugins),
    }
    taken = {name: value for name, value in vars(request).items() if name in Plan.model_fields}
    plan = Plan(**{**taken, **settled})
    _check_training(plan, request)
    _require_fitting_sides(plan, dataset)
    return plan, dataset


def _models(request: BenchConfig) -> list[str]:
    """The backbones asked for, with what the request changes about all of them; their own settings win."""
    asked = {"cut": request.cut, "interpolation": request.interpolation}
    changed = {key: str(value) for key, value in asked.items() if value is not None}
    names = []
    for name in select(request.models if isinstance(request.models, str) else ",".join(request.models)):
        spec = parse_spec(name, backbones.prefixes)
        names.append(backbones.get(spec.name).with_settings({**changed, **spec.settings}).name)
    return list(_unique(names))


def _require_defensible(models: Iterable[str], defenses: Iterable[str]) -> None:
    """Refuse a loss that is written for another output than a backbone's."""
    for model in models:
        for defense in defenses:
            if backbones.get(model).variant.one_vs_rest and parse_defense(defense).softmax_only:
                raise InvalidSettingError(
                    f"defense '{defense}' compares answers under a softmax, and backbone '{model}' has a"
                    " sigmoid for each class; give it output=softmax, or take a defense such as pgd-at"
                )


def _sources(
    defenses: Iterable[str], classes: int, find_trained: FindTrained
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What defenses make images on: backbones of the plan, and digests of trained models' weights."""
    names: list[str] = []
    files: list[str] = []
    for source in _unique(source for text in defenses for source in parse_defense(text).sources):
        if is_backbone(source):
            names += select(source)
            continue
        try:
            found = find_trained(source)
        except RunError as error:
            raise InvalidSettingError(
                f"defense source got '{source}', which is no backbone's name, and {error}"
            ) from None
        if found.classes != classes:
            raise InvalidSettingError(
                f"defense source '{source}' has {found.classes} classes; expected the data's {classes}"
            )
        files.append(file_digest(found.weights))
    return _unique(names), tuple(files)


def is_backbone(text: str) -> bool:
    """Whether this names a backbone, rather than a place."""
    return text in backbones.names() or text.partition(":")[0] in backbones.prefixes


def default_lr(model: str, optimizer: str) -> float:
    """The highest learning rate where a user gives none."""
    return SGD_LR if optimizer == "sgd" else backbones.get(model).lr


def _check_training(plan: Plan, request: BenchConfig) -> None:
    if request.tensorboard:
        if request.curves == "none":
            raise InvalidSettingError("got both --tensorboard and --curves none; give one of them")
        _require_tensorboard()
    for model in plan.backbones:
        plan.recipe(model, default_lr(model, plan.optimizer))
    for cell in plan.cells():
        looks = "early-stop" if plan.early_stop is not None else "curves robust"
        wanted = plan.early_stop is not None or request.curves == "robust"
        if wanted and plan.watched_threat(cell) is None:
            raise InvalidSettingError(
                f"{looks} with defense '{cell.defense}' and no eps above 0 has nothing to attack with;"
                " give an eps such as 0.03"
            )


def _require_tensorboard() -> None:
    if find_spec("tensorboard") is None:
        raise InvalidSettingError(
            "tensorboard is not installed, which --tensorboard writes with; install it with"
            " pip install 'robustbench-tin[curves]'"
        )


def _require_fitting_sides(plan: Plan, dataset: Dataset) -> None:
    """Refuse progressive resizing that begins where a network does not work."""
    for model in plan.backbones if plan.progressive < 1 else ():
        backbone = backbones.get(model)
        full = backbone.check_size(dataset.image_size, plan.image_size)
        for size in set(sides(full, plan.progressive, plan.epochs_of(model))):
            try:
                backbone.require_fits(size)
            except InvalidSettingError as error:
                raise InvalidSettingError(f"progressive got {plan.progressive}, but {error}") from None


def open_part(reporter: Reporter, **options: Any) -> Dataset:
    """Open a data set, choose the part of it that is asked for, and show its banner and notes.

    Args:
        reporter: shows them.
        **options: the fields of :class:`robustbench_tin.benchmarks.planning.config.DataConfig`.

    Raises:
        RobustTinError: if there is no such data or not enough of it.
    """
    asked = DataConfig(**options)
    with reporter.preparing() as progress:
        dataset = open_dataset(asked.data, skip_broken=asked.skip_broken, progress=progress)
    eval_images = asked.eval_images
    if eval_images is None and asked.classes is None:
        eval_images = dataset.default_eval_images
    part = subset(
        dataset,
        classes=_classes(asked.classes),
        train_per_class=asked.train_per_class,
        eval_images=eval_images,
    )
    if part.banner is not None:
        reporter.warn(part.banner)
    for note in part.notes:
        reporter.say(note)
    return part


def _search(request: BenchConfig) -> str:
    if request.search is not None and request.deterministic:
        raise InvalidSettingError("got both --search and --deterministic; give one of them")
    search = request.search or ("fixed" if request.deterministic else "auto")
    if search not in SEARCHES:
        raise InvalidSettingError(f"search got '{search}'; expected {', '.join(SEARCHES)}")
    return search


def default_batch_size(images: int) -> int:
    """A power of two times three, from 24 to 192, that gives an epoch 25 steps or more where it can."""
    size = 24
    while size < 192 and images / (2 * size) >= 25:
        size *= 2
    return size


def _require_fitting_weights(models: Iterable[str], dataset: Dataset, request: BenchConfig) -> None:
    """Build each backbone once with its weights, so that a wrong file is found before hours of training."""
    for model in models:
        build_classifier(
            backbones.get(model),
            len(dataset.classes),
            image_size=dataset.image_size,
            resize_to=request.image_size,
            pretrained=request.pretrained,
            weights=None if request.weights is None else Path(request.weights),
            seed=0,
        )


def _default_epochs(dataset: Dataset, model: str) -> int:
    effort = backbones.get(model).effort if dataset.quick else 1.0
    return max(1, round(dataset.default_epochs * effort))


def _listed(names: Names, what: str) -> list[str]:
    listed = split_list(names) if isinstance(names, str) else list(names)
    if not listed:
        raise InvalidSettingError(f"{what} got an empty list; expected at least one name")
    return listed


def _unique(specs: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(specs))


def _seeds(seeds: str | int | Sequence[int]) -> tuple[int, ...]:
    items = seeds.split(",") if isinstance(seeds, str) else [seeds] if isinstance(seeds, int) else list(seeds)
    try:
        numbers = tuple(dict.fromkeys(int(item) for item in items))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise InvalidSettingError(f"seeds got '{seeds}'; expected whole numbers from 0, such as 0,1,2")
    return numbers


def _classes(classes: int | str | Sequence[str] | None) -> int | Sequence[str] | None:
    if not isinstance(classes, str):
        return classes
    return (
        int(classes)
        if classes.strip().lstrip("-").isdigit()
        else [item.strip() for item in classes.split(",")]
    )


def file_digest(path: Path) -> str:
    """A file's name and the digest of its content."""
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read '{path}': {error.strerror}; expected a file") from error
    return f"{path.name} {digest}"
