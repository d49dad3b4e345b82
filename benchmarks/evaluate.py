"""``evaluate``: clean and robust accuracy of the caller's own model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from robustbench_tin.attacks.as_attacks import Attacks, as_attacks, given_twice
from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.evaluated_data import Data, evaluated_data
from robustbench_tin.benchmarks.evaluation import Evaluation
from robustbench_tin.benchmarks.measurement.attack import measure_attack, measured_again
from robustbench_tin.benchmarks.measurement.black_box_stand_in import with_stand_in
from robustbench_tin.benchmarks.measurement.class_orders import fitting_order
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.fixed_budget import (
    measure_from_clean,
    with_clean_gradients,
)
from robustbench_tin.benchmarks.measurement.inputs import (
    Images,
    Labels,
)
from robustbench_tin.benchmarks.measurement.preparation import (
    Model,
    as_batches,
    protocol_of,
    require_possible,
    tell_of_normalisation,
    warn,
)
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.runs.records import CLEAN, Record, make_record
from robustbench_tin.benchmarks.trust.judge import judge
from robustbench_tin.benchmarks.trust.measured import Measured
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.adapters import Adaptation, adapted
from robustbench_tin.models.as_module import as_module, name_of
from robustbench_tin.models.normalisation import Values
from robustbench_tin.models.user_model import weights_digest
from robustbench_tin.threat import Budgets, parse_eps_list


def evaluate(
    model: Model,
    data: Data | None = None,
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
    curve: bool = False,
    batch_size: int | None = None,
    name: str | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    output: str | int | None = None,
    pad: bool = False,
    grayscale: bool = False,
    value_range: tuple[float, float] | None = None,
    eval_images: int | None = None,
    classes: int | str | Sequence[str] | None = None,
    class_order: str | Path | None = None,
    images: Images | None = None,
) -> Evaluation:
    """Clean and robust accuracy of any model that maps pixels in [0, 1] to logits.

    The model is measured in eval mode on its own device, and its state is restored. If it has no gradients,
    attacks that need them are not measured, and ``square`` is measured instead. Several threads may call
    this; a process takes one measurement at a time.

    Args:
        model: maps float32 ``(N, C, H, W)`` in [0, 1] to logits ``(N, classes)``: a module, a TorchScript
            module, an exported program or any function. It may change its input in place: it gets a copy.
        data: images, float ``(N, C, H, W)`` in [0, 1] of any precision, or uint8: a tensor, an array, a list
            of images; a pair of images and labels; a DataLoader or Dataset of images, with or without
            labels; or the name of a data set as ``bench --data`` takes it (``"demo"``,
            ``"cifar10:root=DIR"``), whose validation images are measured.
        labels: true labels ``(N,)``, of any integer type; None: the labels that come with the images.
        attacks: specs, such as ``["fgsm", "pgd:steps=20"]``, or attacks; a duplicate is measured once, with
            a remark.
        eps: budgets in units of the pixel range; 0 is the clean measurement, which is always included.
        norm: ``linf`` or ``l2``.
        seed: seed of the attacks' random numbers.
        search: the model variant that attacks search with. ``fixed``: batch norm folded, in TF32 if the GPU
            supports it, for attacks with enough gradients to pay for that; ``exact``: the model itself;
            ``fastest``: chosen by timing; ``auto``: ``fastest`` for attacks that stop on success, else
            ``fixed``. The final check always uses the model itself in float32. A choice by timing may differ
            from call to call.
        eot: number of passes averaged per gradient, for models that are random at test time.
        eight_bit: round adversarial images to 8 bits before they count.
        trust: give each robust figure a verdict: ``ok``, the reasons for doubt, or ``unchecked: `` and the
            reason why it could not be checked. Costs at most as much as PGD with 20 steps on 256 images,
            which no row's passes and seconds include.
        curve: treat the budgets as a ladder: each attacks only the images that survive the smaller ones.
            Top-1 only, for a fixed budget; the records then contain the median of the smallest eps at which
            an image is adversarial.
        batch_size: number of images per batch; None: the device's default.
        name: name of the model in the records; None: the name of its class.
        mean: mean that the model expects to be subtracted from the images, one number per channel or one for
            all, in units of the pixel range; None: it takes pixels in [0, 1]. eps applies before this.
        std: standard deviation that the model expects the images to be divided by; required with ``mean``.
        output: for a model that returns several tensors (a dict, a tuple, a ``ModelOutput``): name or number
            of the part that is the logits.
        pad: for a model that accepts only batches of ``batch_size`` images: fill up the last batch, and drop
            the answers to the added images.
        grayscale: convert between channel counts: a model with one channel gets the luminance of images with
            three; a model with three gets an image's single channel three times.
        value_range: values of black and white that the model takes, such as ``(-1, 1)``; eps still refers to
            [0, 1]. None: (0, 1).
        eval_images: for a data set by name: number of validation images; None: all, 200 of the demo set.
        classes: for a data set by name: number of classes, or their ids; None: all.
        class_order: for a data set by name: order of the model's outputs, ``sorted``, ``wnids`` or a file;
            None: the data set's. If a model has an output for each class of the whole set, labels refer to
            all of them.
        images: another name of ``data``.

    Returns:
        The measurements. A notebook and ``print`` show their table; ``.records`` is a DataFrame with one row
        per measurement, whose columns are those of
        :class:`robustbench_tin.benchmarks.runs.records.Record`; ``.save(DIR)`` writes a run directory.

    Raises:
        RobustTinError: for unknown attacks, impossible budgets, images out of range, labels that do not fit,
            and a data set that cannot be opened.

    Warns:
        UserWarning: if the model's settings ask for normalised images but no normalisation is found; if an
            attack is given twice.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    >>> found = evaluate(model, torch.rand(20, 3, 8, 8), torch.arange(20) % 10, attacks="fgsm", eps=8 / 255)
    >>> list(found.records["attack"])
    ['clean', 'fgsm']
    >>> found.table().title
    'Accuracy in % under fgsm (linf, fixed budget): images, 10 classes, 20 images'
    """
    module = as_module(model)
    given = adapted(
        module, mean, std, Adaptation(output, batch_size if pad else None, pad, grayscale, value_range)
    )
    protocol = replace(protocol_of(norm, seed, search, eot, eight_bit), curve=bool(curve))
    seen = evaluated_data(
        given,
        _one_of(data, images),
        labels,
        eval_images=eval_images,
        classes=classes,
        class_order=class_order,
    )
    measures = measured(
        given,
        seen.images,
        seen.labels,
        attacks,
        eps,
        protocol,
        trust=trust,
        batch_size=batch_size,
        facts={**seen.facts, "model": name_of(module) if name is None else name},
        orders=seen.orders,
    )
    return Evaluation(measures, seen.labels.cpu().numpy(), search, weights_digest(module) or "", seen.notes)


def _one_of(data: Data | None, images: Images | None) -> Data:
    if (data is None) == (images is None):
        got = "neither" if data is None else "both"
        raise InvalidSettingError(f"got {got} of data and images, two names of one argument; give only one")
    return data if data is not None else cast("Images", images)


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
    """Take the measurements of :func:`evaluate`, with the results per image.

    Args:
        model: see :func:`evaluate`, also for ``images``, ``labels``, ``attacks``, ``eps``, ``trust`` and
            ``batch_size``.
        protocol: norm, seed and search settings.
        facts: fields of the records that replace the defaults for a caller's images.
        orders: labels of the images in other orders of the classes, by name; a better fit is reported.
        tell: called with lines to show; None: they become warnings.

    Raises:
        RobustTinError: see :func:`evaluate`.
    """
    budgets = sorted(set(parse_eps_list(eps, protocol.norm)))
    chosen = as_attacks(attacks, needed=any(value > 0 for value in budgets))
    tell = tell or warn
    model = as_module(model)
    batches, classes = as_batches(model, images, labels, batch_size)
    tell_of_normalisation(model, batches, tell)
    for attack in chosen:
        require_possible(attack, protocol, classes)
    repeated = given_twice(chosen)
    for remark in repeated.values():
        tell(remark)
    positive = [value for value in budgets if value > 0]
    clean, clean_logits, done = _measured(model, batches, chosen, positive, protocol)
    if clean_logits is not None:
        line = fitting_order(clean_logits, batches.labels, orders or {})
        if line is not None:
            tell(line)
    known = {**_facts(model, batches, protocol), **facts, "n": len(batches), "classes": classes}
    measures = [_of_clean(clean, known)]
    for attack, of_attack in done.items():
        remarks = (repeated[attack],) if attack in repeated else ()
        measures += [_of_attack(attack, each, remarks, measures[0].record, known) for each in of_attack]
    if not trust:
        return measures
    records = judge(model, batches, measures, protocol).records
    return [replace(measure, record=record) for measure, record in zip(measures, records, strict=True)]


def _measured(
    model: nn.Module,
    batches: ImageBatches,
    attacks: Sequence[Attack],
    eps: Sequence[float],
    protocol: AttackProtocol,
) -> tuple[Measurement, Tensor | None, dict[Attack, list[Measurement]]]:
    """The clean measurement, its logits, and the measurements of each attack at positive budgets."""
    done: dict[Attack, list[Measurement]] = {}
    first = with_clean_gradients(attacks, protocol) if eps else None
    if first is not None:
        clean, clean_logits, done[first] = measure_from_clean(model, batches, first, eps, protocol)
    else:
        clean, clean_logits = measure_clean(model, batches, seed=protocol.seed)
    for attack in attacks if eps else ():
        if attack not in done:
            done[attack] = measure_attack(model, batches, attack, eps, protocol, clean_logits=clean_logits)
    done = {attack: done[attack] for attack in attacks if attack in done}
    done = measured_again(model, batches, done, protocol, clean_logits)
    return clean, clean_logits, with_stand_in(model, batches, done, protocol)


def _facts(model: nn.Module, batches: ImageBatches, protocol: AttackProtocol) -> dict[str, Any]:
    """The default fields of the records for a caller's images."""
    return {
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
    }


def _of_clean(found: Measurement, facts: Mapping[str, Any]) -> Measured:
    record = make_record(found, attack=CLEAN, above_chance=None, **facts)
    return Measured(record, found.top1, found.top5)


def _of_attack(
    attack: Attack, found: Measurement, remarks: tuple[str, ...], clean: Record, facts: Mapping[str, Any]
) -> Measured:
    found = replace(found, remarks=(*found.remarks, *remarks))
    record = make_record(found, attack=attack.spec, above_chance=clean.above_chance, **facts)
    ladder = found.ladder
    sampled, alone = (None, None) if ladder is None else (ladder.sampled, ladder.alone)
    return Measured(record, found.top1, found.top5, attack, sampled, alone)
