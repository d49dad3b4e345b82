"""The library's two calls for a model of one's own: measure it, and get its adversarial images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.attacks import Oracle, parse_attack
from robustbench_tin.attacks.base import Attack, AttackFailure
from robustbench_tin.attacks.forms import SEARCHES
from robustbench_tin.attacks.pool import Pool
from robustbench_tin.benchmarks.measure import (
    Conditions,
    Outcomes,
    evaluation_batch_size,
    measure_attack,
    measure_clean,
    measure_from_clean,
    perturb_batch,
    verdicts,
)
from robustbench_tin.benchmarks.records import CLEAN, make_record, to_frame
from robustbench_tin.benchmarks.trust import Measured, judge
from robustbench_tin.errors import FOREIGN, InvalidSettingError, one_line
from robustbench_tin.runtime import as_tensor
from robustbench_tin.specs import split_list
from robustbench_tin.threat import parse_eps_list

if TYPE_CHECKING:
    import pandas as pd

Images = Tensor | npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Labels = Tensor | npt.NDArray[np.int64] | Sequence[int]

# So many images settle whether a model gives probabilities.
_ASKED = 8


def evaluate(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attacks: str | Sequence[str] = ("fgsm", "pgd"),
    eps: str | float | Sequence[float] = (0.0, 0.01, 0.03),
    norm: str = "linf",
    *,
    seed: int = 0,
    search: str = "fixed",
    eot: int = 1,
    eight_bit: bool = False,
    trust: bool = False,
    batch_size: int | None = None,
    name: str | None = None,
) -> pd.DataFrame:
    """Clean and robust accuracy of any model that maps pixels in [0, 1] to logits.

    The model is measured in eval mode on the device it is on, and left as it was.

    Args:
        model: float32 ``(N, C, H, W)`` in [0, 1] to logits ``(N, classes)``.
        images: float ``(N, C, H, W)`` in [0, 1], or uint8.
        labels: true labels ``(N,)``.
        attacks: specs, such as ``["fgsm", "pgd:steps=20"]``.
        eps: budgets in units of the pixel range; 0 is the clean measure, which is always there.
        norm: ``linf`` or ``l2``.
        seed: of the attacks' randomness.
        search: the form of the model that attacks search with. ``fixed``: float32, batch norm folded where
            an attack takes gradients enough for that to pay; ``exact``: the model itself; ``fastest``: chosen
            by timing; ``auto``: that for attacks until broken, else ``fixed``. Verdicts are always the
            model's. What is chosen by timing may differ from call to call.
        eot: passes averaged for one gradient, for models that are random at test time.
        eight_bit: round adversarial images to 8 bits before they count.
        trust: give each robust figure a verdict, ``ok`` or the reasons not to believe it; costs at most as
            much as PGD with 20 steps on 256 images, which no row's passes and seconds include.
        batch_size: images a batch; None: a default of the device.
        name: of the model in the records; None: its class's.

    Returns:
        One row a measure; the columns are those of :class:`robustbench_tin.benchmarks.records.Record`.

    Raises:
        RobustTinError: for unknown attacks, impossible budgets, images out of range, labels that do not fit.
    """
    measures = measured(
        model,
        images,
        labels,
        attacks,
        eps,
        Conditions(norm, seed, search, eot, eight_bit),
        trust=trust,
        batch_size=batch_size,
        facts={} if name is None else {"model": name},
    )
    return to_frame(measure.record for measure in measures)


def measured(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attacks: str | Sequence[str],
    eps: str | float | Sequence[float],
    conditions: Conditions,
    *,
    trust: bool,
    batch_size: int | None = None,
    facts: Mapping[str, Any],
) -> list[Measured]:
    """What :func:`evaluate` measures, with the outcomes image by image.

    Args:
        model: as of :func:`evaluate`; likewise ``images``, ``labels``, ``attacks``, ``eps``, ``trust`` and
            ``batch_size``.
        conditions: norm, seed and how to search.
        facts: fields of the records, where they are not to be what they are for anybody's images.

    Raises:
        RobustTinError: likewise.
    """
    budgets = sorted(set(parse_eps_list(eps)))
    chosen = [parse_attack(text) for text in (split_list(attacks) if isinstance(attacks, str) else attacks)]
    pool, classes = _prepared(model, images, labels, batch_size)
    for attack in chosen:
        _check(attack, conditions, classes)
    facts = {
        "model": type(model).__name__,
        "defense": "none",
        "seed": conditions.seed,
        "norm": conditions.norm,
        "data": "images",
        "data_fingerprint": "",
        "eot": conditions.eot,
        "eight_bit": conditions.eight_bit,
        "image_size": int(pool.images.shape[-1]),
        "network_size": None,
        "epochs": None,
        "train_seconds": None,
        "train_precision": None,
        "device": str(pool.device),
        **facts,
    }
    positive = [value for value in budgets if value > 0]
    done: dict[Attack, list[Outcomes]] = {}
    if positive and chosen[0].criterion is None and conditions.search_for(chosen[0]) == "exact":
        first = chosen[0]
        outcomes, clean_logits, done[first] = measure_from_clean(model, pool, first, positive, conditions)
    else:
        outcomes, clean_logits = measure_clean(model, pool, seed=conditions.seed)
    clean = make_record(outcomes, n=len(pool), classes=classes, attack=CLEAN, learned=None, **facts)
    measures = [Measured(clean, outcomes.top1, outcomes.top5)]
    for attack in chosen if positive else ():
        if attack not in done:
            done[attack] = measure_attack(
                model, pool, attack, positive, conditions, clean_logits=clean_logits
            )
        for outcomes in done[attack]:
            record = make_record(
                outcomes,
                n=len(pool),
                classes=classes,
                attack=attack.spec,
                learned=clean.learned,
                **facts,
            )
            measures.append(Measured(record, outcomes.top1, outcomes.top5))
    if not trust:
        return measures
    records = judge(model, pool, measures, conditions).records
    return [replace(measure, record=record) for measure, record in zip(measures, records, strict=True)]


def perturb(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: str = "pgd",
    eps: str | float | Sequence[float] = (0.01, 0.03),
    norm: str = "linf",
    *,
    seed: int = 0,
    search: str = "fixed",
    eot: int = 1,
    eight_bit: bool = False,
    batch_size: int | None = None,
) -> Tensor:
    """The adversarial images themselves, each inside its ball and the pixel box in float32.

    Args:
        model: float32 ``(N, C, H, W)`` in [0, 1] to logits; left as it was.
        images: float ``(N, C, H, W)`` in [0, 1], or uint8.
        labels: true labels ``(N,)``.
        attack: a spec.
        eps: K budgets, in the order of the result; for 0 the images themselves.
        norm: ``linf`` or ``l2``.
        seed: of the attack's randomness.
        search: as of :func:`evaluate`.
        eot: as of :func:`evaluate`.
        eight_bit: as of :func:`evaluate`.
        batch_size: images a batch; None: a default of the device.

    Returns:
        float32 ``(K, N, C, H, W)`` on the CPU; of an attack until broken, what broke each image, and the
        clean image where nothing did. Measured with the same seed and batch size, they give
        exactly what :func:`evaluate` reports.

    Raises:
        RobustTinError: as :func:`evaluate`.
        AttackFailure: where the attack or the model fails.
    """
    budgets = parse_eps_list(eps)
    chosen = parse_attack(attack)
    conditions = Conditions(norm, seed, search, eot, eight_bit)
    pool, classes = _prepared(model, images, labels, batch_size)
    _check(chosen, conditions, classes)
    if chosen.criterion is not None:
        outcomes, clean_logits = measure_clean(model, pool, seed=seed)
        if clean_logits is None:
            raise AttackFailure(outcomes.status)
        return torch.stack(
            [_until_broken(model, pool, chosen, value, conditions, clean_logits) for value in budgets]
        )
    parts = []
    with conditions.oracle(model) as oracle:
        for start in pool.starts():
            batch, batch_labels = pool.at(start)
            oracle.prepare(batch, conditions.search_for(chosen))
            parts.append(perturb_batch(chosen, oracle, batch, batch_labels, budgets, conditions, start).cpu())
    return torch.cat(parts, dim=1)


def _until_broken(
    model: nn.Module, pool: Pool, attack: Attack, eps: float, conditions: Conditions, clean_logits: Tensor
) -> Tensor:
    if eps == 0:
        return pool.all_images().cpu()
    found = verdicts(model, pool, attack, eps, conditions, clean_logits, keep_images=True)
    assert found.images is not None
    return found.images


def _check(attack: Attack, conditions: Conditions, classes: int) -> None:
    """Refuse what cannot be done, before anything is measured."""
    attack.check(conditions.norm)
    if attack.criterion is not None:
        attack.goal.check(classes)
    if conditions.search not in SEARCHES:
        raise InvalidSettingError(f"search got '{conditions.search}'; expected {', '.join(SEARCHES)}")
    if conditions.eot < 1:
        raise InvalidSettingError(f"eot got {conditions.eot}; expected 1 or more")


def _prepared(model: nn.Module, images: Images, labels: Labels, batch_size: int | None) -> tuple[Pool, int]:
    """The images in batches on the model's device, and the number of its classes."""
    if batch_size is not None and batch_size < 1:
        raise InvalidSettingError(f"batch_size got {batch_size}; expected 1 or more")
    image_tensor, label_tensor = _checked(images, labels)
    device = _device_of(model)
    pool = Pool(image_tensor, label_tensor, batch_size or evaluation_batch_size(device.type), device)
    classes = _count_classes(model, pool.at(0)[0][:_ASKED])
    if int(label_tensor.max()) >= classes:
        raise InvalidSettingError(
            f"labels reach {int(label_tensor.max())}; expected below {classes}, the count of logits"
        )
    return pool, classes


def _count_classes(model: nn.Module, images: Tensor) -> int:
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
        with Oracle(model), torch.inference_mode():
            logits = model(image)
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


def _checked(images: Images, labels: Labels) -> tuple[Tensor, Tensor]:
    image_tensor = images.detach() if isinstance(images, Tensor) else as_tensor(np.ascontiguousarray(images))
    label_tensor = labels if isinstance(labels, Tensor) else torch.tensor(np.asarray(labels))
    if image_tensor.ndim != 4 or len(image_tensor) == 0:
        raise InvalidSettingError(
            f"images got shape {tuple(image_tensor.shape)}; expected (N, C, H, W), N above 0"
        )
    if label_tensor.shape != image_tensor.shape[:1]:
        raise InvalidSettingError(
            f"labels got shape {tuple(label_tensor.shape)}; expected ({len(image_tensor)},), one an image"
        )
    if label_tensor.is_floating_point() or int(label_tensor.min()) < 0:
        raise InvalidSettingError("labels got fractions or negative numbers; expected class indices from 0")
    if image_tensor.dtype != torch.uint8:
        image_tensor = image_tensor.float()
        low, high = float(image_tensor.min()), float(image_tensor.max())
        if not (low >= 0 and high <= 1):
            raise InvalidSettingError(
                f"images got values from {low:.3g} to {high:.3g}; expected [0, 1]"
                " (divide by 255, and normalise inside the model)"
            )
    return image_tensor, label_tensor.long()


def _device_of(model: nn.Module) -> torch.device:
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if first is None else first.device
