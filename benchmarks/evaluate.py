"""The library's two calls for a model of one's own: measure it, and get its adversarial images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustbench_tin.attacks import AttackedModel
from robustbench_tin.attacks.acceleration.variant_cache import SEARCHES
from robustbench_tin.attacks.base import Attack, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import SpotChecks, with_right_variant
from robustbench_tin.attacks.requested import Attacks, as_attacks, given_twice
from robustbench_tin.benchmarks.measurement.attack import (
    AttackProtocol,
    attack_until_success,
    evaluation_batch_size,
    measure_attack,
    measure_clean,
    measure_from_clean,
    measured_again,
    perturb_batch,
    prepare,
    with_clean_gradients,
    with_stand_in,
)
from robustbench_tin.benchmarks.measurement.class_orders import fitting_order
from robustbench_tin.benchmarks.measurement.inputs import (
    Images,
    Labels,
    as_images_and_labels,
    as_whole,
    require_values,
)
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.runs.records import CLEAN, make_record, to_frame
from robustbench_tin.benchmarks.trust.judge import Measured, judge
from robustbench_tin.errors import FOREIGN, InvalidSettingError, one_line
from robustbench_tin.models.called import as_module, name_of
from robustbench_tin.models.normalisation import Normalized, Values, lacking_normalisation, normalized
from robustbench_tin.threat import Budgets, parse_eps_list

if TYPE_CHECKING:
    import pandas as pd

Model = nn.Module | Callable[[Tensor], Tensor]

# So many images settle whether a model gives probabilities.
_ASKED = 8


def evaluate(
    model: Model,
    images: Images,
    labels: Labels | None = None,
    attacks: Attacks = ("fgsm", "pgd"),
    eps: Budgets = (0.0, 0.01, 0.03),
    norm: str = "linf",
    *,
    seed: int = 0,
    search: str = "fixed",
    eot: int = 1,
    eight_bit: bool = False,
    trust: bool = False,
    batch_size: int | None = None,
    name: str | None = None,
    mean: Values | None = None,
    std: Values | None = None,
) -> pd.DataFrame:
    """Clean and robust accuracy of any model that maps pixels in [0, 1] to logits.

    The model is measured in eval mode on the device it is on, and left as it was. If it gives no gradients,
    attacks that need them are not measured, and square stands in for them. Threads take turns: a process
    takes one measure at a time.

    Args:
        model: float32 ``(N, C, H, W)`` in [0, 1] to logits ``(N, classes)``: a module, a TorchScript module,
            an exported program or any function. It may write into its images: they are a copy.
        images: float ``(N, C, H, W)`` in [0, 1] of any precision, or uint8: a tensor, an array, a list of
            images; or a DataLoader or Dataset that gives images, with their labels or without.
        labels: true labels ``(N,)``, of any integer type; None: those that come with the images.
        attacks: specs, such as ``["fgsm", "pgd:steps=20"]``, or attacks; one that is there twice is measured
            once, with a remark.
        eps: budgets in units of the pixel range; 0 is the clean measure, which is always there.
        norm: ``linf`` or ``l2``.
        seed: of the attacks' randomness.
        search: the variant of the model that attacks search with. ``fixed``: batch norm folded, in TF32 if
            the GPU has it, for attacks that take gradients enough to pay for that; ``exact``: the model
            itself; ``fastest``: chosen by timing; ``auto``: that for attacks that stop on success, else
            ``fixed``. Verdicts are always the model's in float32. What is chosen by timing may differ from
            call to call.
        eot: passes averaged for one gradient, for models that are random at test time.
        eight_bit: round adversarial images to 8 bits before they count.
        trust: give each robust figure a verdict: ``ok``, the reasons not to believe it, or ``unchecked: ``
            and why the checks could not judge it; costs at most as much as PGD with 20 steps on 256
            images, which no row's passes and seconds include.
        batch_size: images a batch; None: a default of the device.
        name: of the model in the records; None: its class's.
        mean: what the model expects to be taken off the images, a number a channel or one for all, in
            units of the pixel range; None: it takes pixels in [0, 1]. eps counts before this.
        std: what it expects them to be divided by then; given with ``mean``.

    Returns:
        One row a measure; the columns are those of :class:`robustbench_tin.benchmarks.runs.records.Record`.

    Raises:
        RobustTinError: for unknown attacks, impossible budgets, images out of range, labels that do not fit.

    Warns:
        UserWarning: if the model's settings ask for normalised images and no normalisation is found; if an
            attack is asked for twice.
    """
    module = as_module(model)
    measures = measured(
        normalized(module, mean, std),
        images,
        labels,
        attacks,
        eps,
        _conditions(norm, seed, search, eot, eight_bit),
        trust=trust,
        batch_size=batch_size,
        facts={"model": name_of(module) if name is None else name},
    )
    return to_frame(measure.record for measure in measures)


def measured(
    model: Model,
    images: Images,
    labels: Labels | None,
    attacks: Attacks,
    eps: Budgets,
    protocol: AttackProtocol,
    *,
    trust: bool,
    batch_size: int | None = None,
    facts: Mapping[str, Any],
    orders: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Measured]:
    """What :func:`evaluate` measures, with the outcomes image by image.

    Args:
        model: as of :func:`evaluate`; likewise ``images``, ``labels``, ``attacks``, ``eps``, ``trust`` and
            ``batch_size``.
        protocol: norm, seed and how to search.
        facts: fields of the records, where they are not to be what they are for anybody's images.
        orders: labels of the images in other orders of the classes, by name; one that fits better is told.
        tell: given lines worth showing; None: they are warnings.

    Raises:
        RobustTinError: likewise.
    """
    budgets = sorted(set(parse_eps_list(eps, protocol.norm)))
    chosen = as_attacks(attacks, needed=any(value > 0 for value in budgets))
    tell = tell or _warn
    model = as_module(model)
    batches, classes = _prepared(model, images, labels, batch_size)
    _tell_of_normalisation(model, batches, tell)
    for attack in chosen:
        _check(attack, protocol, classes)
    repeated = given_twice(chosen)
    for remark in repeated.values():
        tell(remark)
    facts = {
        "model": name_of(model),
        "defense": "none",
        "seed": protocol.seed,
        "norm": protocol.norm,
        "data": "images",
        "data_fingerprint": "",
        "eot": protocol.eot,
        "eight_bit": protocol.eight_bit,
        "image_size": int(batches.images.shape[-1]),
        "network_size": None,
        "epochs": None,
        "train_seconds": None,
        "train_precision": None,
        "device": str(batches.device),
        **facts,
    }
    positive = [value for value in budgets if value > 0]
    done: dict[Attack, list[Measurement]] = {}
    first = with_clean_gradients(chosen, protocol) if positive else None
    if first is not None:
        outcomes, clean_logits, done[first] = measure_from_clean(model, batches, first, positive, protocol)
    else:
        outcomes, clean_logits = measure_clean(model, batches, seed=protocol.seed)
    clean = make_record(outcomes, n=len(batches), classes=classes, attack=CLEAN, above_chance=None, **facts)
    measures = [Measured(clean, outcomes.top1, outcomes.top5)]
    if clean_logits is not None:
        line = fitting_order(clean_logits, batches.labels, orders or {})
        if line is not None:
            tell(line)
    for attack in chosen if positive else ():
        if attack not in done:
            done[attack] = measure_attack(
                model, batches, attack, positive, protocol, clean_logits=clean_logits
            )
    done = {attack: done[attack] for attack in chosen if attack in done}
    done = measured_again(model, batches, done, protocol, clean_logits)
    done = with_stand_in(model, batches, done, protocol)
    for attack, attacked in done.items():
        for outcomes in attacked:
            if attack in repeated:
                outcomes = replace(outcomes, remarks=(*outcomes.remarks, repeated[attack]))
            record = make_record(
                outcomes,
                n=len(batches),
                classes=classes,
                attack=attack.spec,
                above_chance=clean.above_chance,
                **facts,
            )
            measures.append(Measured(record, outcomes.top1, outcomes.top5, attack))
    if not trust:
        return measures
    records = judge(model, batches, measures, protocol).records
    return [replace(measure, record=record) for measure, record in zip(measures, records, strict=True)]


def perturb(
    model: Model,
    images: Images,
    labels: Labels | None = None,
    attack: str | Attack = "pgd",
    eps: Budgets = (0.01, 0.03),
    norm: str = "linf",
    *,
    seed: int = 0,
    search: str = "fixed",
    eot: int = 1,
    eight_bit: bool = False,
    batch_size: int | None = None,
    mean: Values | None = None,
    std: Values | None = None,
) -> Tensor:
    """The adversarial images themselves, each inside its ball and the pixel box in float32.

    Args:
        model: float32 ``(N, C, H, W)`` in [0, 1] to logits; left as it was.
        images: as of :func:`evaluate`; likewise ``labels``.
        attack: a spec or an attack.
        eps: K budgets, in the order of the result; for 0 the images themselves.
        norm: ``linf`` or ``l2``.
        seed: of the attack's randomness.
        search: as of :func:`evaluate`.
        eot: as of :func:`evaluate`.
        eight_bit: as of :func:`evaluate`.
        batch_size: images a batch; None: a default of the device.
        mean: as of :func:`evaluate`; likewise ``std``.

    Returns:
        float32 ``(K, N, C, H, W)`` on the CPU; of an attack that stops on success, what broke each image, and
        the clean image where nothing did. Measured with the same seed and batch size, they give
        exactly what :func:`evaluate` reports.

    Raises:
        RobustTinError: as :func:`evaluate`.
        AttackFailure: where the attack or the model fails.
    """
    budgets = parse_eps_list(eps, norm)
    (chosen, *more) = as_attacks(attack)
    if more:
        raise InvalidSettingError(f"attack got {len(more) + 1} attacks; expected one")
    protocol = _conditions(norm, seed, search, eot, eight_bit)
    model = normalized(as_module(model), mean, std)
    batches, classes = _prepared(model, images, labels, batch_size)
    _tell_of_normalisation(model, batches, _warn)
    _check(chosen, protocol, classes)
    if chosen.criterion is not None:
        outcomes, clean_logits = measure_clean(model, batches, seed=seed)
        if clean_logits is None:
            raise AttackFailure(str(outcomes.status))
        return torch.stack(
            [_stop_on_success(model, batches, chosen, value, protocol, clean_logits) for value in budgets]
        )
    with protocol.attacked(model) as attacked:
        prepare(attacked, batches, chosen, budgets, protocol)
        return with_right_variant(
            attacked, lambda: _fixed_budget(attacked, batches, chosen, budgets, protocol)
        )


def _fixed_budget(
    attacked: AttackedModel,
    batches: ImageBatches,
    attack: Attack,
    budgets: Sequence[float],
    protocol: AttackProtocol,
) -> Tensor:
    """As :func:`perturb` returns them.

    Raises:
        WrongVariantError: if the variant that is searched with turns out to be wrong.
    """
    checks = SpotChecks(attacked)
    positive = [index for index, eps in enumerate(budgets) if eps > 0]
    parts = []
    for start in batches.starts():
        moved = perturb_batch(attack, attacked, *batches.at(start), budgets, protocol, start)
        checks.offer(moved[positive].flatten(0, 1))
        checks.look()
        parts.append(moved.cpu())
    checks.settle()
    return torch.cat(parts, dim=1)


def _stop_on_success(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
) -> Tensor:
    if eps == 0:
        return batches.all_images().cpu()
    found = attack_until_success(model, batches, attack, eps, protocol, clean_logits, keep_images=True)
    assert found.images is not None
    return found.images


def _check(attack: Attack, protocol: AttackProtocol, classes: int) -> None:
    """Refuse what cannot be done, before anything is measured."""
    attack.check(protocol.norm)
    if attack.criterion is not None:
        attack.goal.check(classes)
    if protocol.search not in SEARCHES:
        raise InvalidSettingError(f"search got '{protocol.search}'; expected {', '.join(SEARCHES)}")


def _conditions(norm: str, seed: int, search: str, eot: int, eight_bit: bool) -> AttackProtocol:
    return AttackProtocol(norm, as_whole("seed", seed, 0), search, as_whole("eot", eot, 1), bool(eight_bit))


def _warn(line: str) -> None:
    warnings.warn(line, UserWarning, stacklevel=4)


def _tell_of_normalisation(model: nn.Module, batches: ImageBatches, tell: Callable[[str], None]) -> None:
    def ask(images: Tensor) -> object:
        with AttackedModel(model) as attacked, torch.no_grad():
            return attacked.called(images)

    line = lacking_normalisation(model, batches.at(0)[0][:1], ask)
    if line is not None:
        tell(line)


def _prepared(
    model: nn.Module, images: Images, labels: Labels | None, batch_size: int | None
) -> tuple[ImageBatches, int]:
    """The images in batches on the model's device, and the number of its classes."""
    require_values(model)
    device = _device_of(model)
    size = evaluation_batch_size(device.type) if batch_size is None else as_whole("batch_size", batch_size, 1)
    image_tensor, label_tensor = as_images_and_labels(images, labels)
    batches = ImageBatches(image_tensor, label_tensor, size, device)
    if isinstance(model, Normalized):
        model.require_channels(image_tensor.shape[1])
    classes = count_classes(model, batches.at(0)[0][:_ASKED])
    if int(label_tensor.max()) >= classes:
        raise InvalidSettingError(
            f"labels reach {int(label_tensor.max())}; expected below {classes}, the count of logits"
        )
    return batches, classes


def count_classes(model: nn.Module, images: Tensor) -> int:
    """How many logits the model gives, asked with one image.

    Where they might be probabilities, it is asked with the other images too.

    Args:
        model: as of :func:`evaluate`.
        images: float32 ``(N, C, H, W)``, N above 0.

    Raises:
        InvalidSettingError: where it gives none, or probabilities. What else may be wrong with them is the
            measure's to say.
    """
    classes = _logits_of_one(model, images[:1]).shape[1]
    # The only probability of a single class says nothing: its logit may well be 1 everywhere.
    if classes > 1 and all(_is_distribution(_logits_of_one(model, image[None])) for image in images):
        raise InvalidSettingError(
            "the model returned probabilities (rows sum to 1);"
            " expected logits (leave out the softmax at its end)"
        )
    return classes


def _logits_of_one(model: nn.Module, image: Tensor) -> Tensor:
    expected = "expected a model from float32 (N, C, H, W) in [0, 1] to logits (N, classes)"
    try:
        with AttackedModel(model) as attacked, torch.no_grad():
            logits = attacked.called(image)
    except FOREIGN as error:
        raise InvalidSettingError(f"the model fails on one image, {one_line(error)}; {expected}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidSettingError(f"the model returned {got} for one image; {expected}")
    return logits


def _is_distribution(row: Tensor) -> bool:
    """Whether these values are in [0, 1] and sum to 1, as exactly as their type can."""
    tolerance = max(1e-5, torch.finfo(row.dtype).eps) if row.is_floating_point() else 0.0
    return bool((row >= 0).all() and (row <= 1).all() and (row.double().sum() - 1).abs() <= tolerance)


def _device_of(model: nn.Module) -> torch.device:
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if first is None else first.device
