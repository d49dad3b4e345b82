"""A black-box attack for models that give no gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from textwrap import shorten

from torch import nn

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.base import Attack, AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.measurement.attack import measure_attack
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement

STAND_IN = "square:queries=1000"
"""The attack that is measured instead if the model has no gradients for the requested attacks."""
# Longest part of an error message that a status holds, in characters.
_BRIEF = 120


def with_stand_in(
    model: nn.Module,
    batches: ImageBatches,
    done: Mapping[Attack, list[Measurement]],
    protocol: AttackProtocol,
) -> dict[Attack, list[Measurement]]:
    """Add a black-box measurement if the model gives no gradients.

    Attacks that failed because the model gives no gradients get the status "not measured". If no other attack
    that searches for adversarial images succeeded, :data:`STAND_IN` is measured instead.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the images.
        done: the measurements of each attack, one for each budget.
        protocol: norm, seed and search.

    Returns:
        The measurements of each attack, with the black-box attack if it was needed.
    """
    failed = [
        attack
        for attack, measures in done.items()
        if attack.needs_gradients and any(each.status != OK for each in measures)
    ]
    if not failed:
        return dict(done)
    why = lacks_gradients(model, batches)
    if why is None:
        return dict(done)
    stand_in = parse_attack(STAND_IN)
    needed = stand_in not in done and needs_stand_in(attack for attack in done if attack not in failed)
    measures = {
        attack: not_measured(attack, of_attack, why, stand_in if needed else None)
        for attack, of_attack in done.items()
    }
    if needed:
        eps = [each.eps for each in done[failed[0]]]
        measured = measure_attack(model, batches, stand_in, eps, protocol)
        measures[stand_in] = stood_in(measured, stand_in, failed)
    return measures


def needs_stand_in(attacks: Iterable[Attack]) -> bool:
    """Whether none of the working attacks searches for adversarial images, as ``noise`` does not."""
    return not any(attack.gradients(1) > 0 for attack in attacks)


def not_measured(
    attack: Attack, measures: Sequence[Measurement], why: str, stand_in: Attack | None
) -> list[Measurement]:
    """Mark the measurements of an attack as "not measured" if it needs gradients and failed.

    Args:
        attack: the attack of the measurements.
        measures: its measurements, one for each budget.
        why: why the model gives no gradients.
        stand_in: the attack that is measured instead; None if no attack is.
    """
    if not attack.needs_gradients or all(each.status == OK for each in measures):
        return list(measures)
    said = f"the model gives no gradients ({shorten(why, _BRIEF, placeholder=' ...')})"
    if stand_in is not None:
        said += f", {stand_in.spec} is measured instead"
    status = Status.of(StatusCode.not_measured, why=said)
    return [replace(each, status=status) for each in measures]


def stood_in(
    measures: Iterable[Measurement], stand_in: Attack, attacks: Iterable[Attack]
) -> list[Measurement]:
    """Add a remark to the measurements of an attack that replaces others.

    Args:
        measures: the measurements of the replacement.
        stand_in: the replacement.
        attacks: the replaced attacks.
    """
    remark = f"{stand_in.spec} stands in for {', '.join(attack.spec for attack in attacks)}"
    return [
        replace(each, remarks=(*each.remarks, f"{remark}: the model gives no gradients")) for each in measures
    ]


def lacks_gradients(model: nn.Module, batches: ImageBatches) -> str | None:
    """Why a working model gives no gradients; None if it gives gradients or does not work at all."""
    images = batches.at(0)[0][:1]
    with AttackedModel(model) as attacked:
        try:
            attacked.logits(images)
            return attacked.lacks_gradients(images)
        except Exception:  # noqa: BLE001 - a model may raise anything; the measurements report it
            return None
