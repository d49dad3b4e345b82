"""Measure a model under one attack at several budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.attacks.engine.spot_checks import OnImages
from robustbench_tin.benchmarks.measurement.clean import hits_of, measure_clean
from robustbench_tin.benchmarks.measurement.curve import measure_curve
from robustbench_tin.benchmarks.measurement.first_successes import Keep
from robustbench_tin.benchmarks.measurement.fixed_budget import measure_fixed_budget
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.measurement.until_success import measure_until_success


def measure_attack(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    protocol: AttackProtocol | None = None,
    *,
    clean_logits: Tensor | None = None,
    on_images: OnImages | None = None,
) -> list[Measurement]:
    """Measure a model under an attack, one measurement for each budget.

    If the model or the attack raises an error, the measurement is reported as failed. A failed measurement
    is excluded from robust accuracy.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the images.
        attack: the attack.
        eps: positive budgets in units of the pixel range; ascending if they are a ladder.
        protocol: norm, seed and search; None for the defaults.
        clean_logits: logits from :func:`measure_clean`, float32 ``(N, C)``; None computes them here if the
            attack stops on success or the budgets are a ladder.
        on_images: called with the number of images finished since the last call; each image counts once over
            all budgets.

    Returns:
        The measurements, in the order of ``eps``.
    """
    protocol = protocol or AttackProtocol()
    keep = Keep.first(protocol.keep, len(batches))
    if attack.criterion is None and not protocol.curve:
        if keep is not None and clean_logits is not None:
            keep = keep.knowing(hits_of(clean_logits, batches.all_labels(), 1))
        return measure_fixed_budget(model, batches, attack, eps, protocol, on_images, keep=keep)[0]
    if clean_logits is None:
        clean, clean_logits = measure_clean(model, batches, seed=protocol.seed)
        if clean_logits is None:
            return [
                Measurement(value, None, None, clean.status, 0.0, 0, 0, mode=attack.mode) for value in eps
            ]
    if protocol.curve:
        return measure_curve(model, batches, attack, eps, protocol, clean_logits, on_images, keep=keep)
    report = _shared_progress(on_images, len(eps))
    measures = [
        measure_until_success(model, batches, attack, value, protocol, clean_logits, report, keep)
        for value in eps
    ]
    return [
        measure_until_success(model, batches, attack, each.eps, protocol, clean_logits, None, keep)
        if protocol.variants.misled(each.search)
        else each
        for each in measures
    ]


def measured_again(
    model: nn.Module,
    batches: ImageBatches,
    done: Mapping[Attack, list[Measurement]],
    protocol: AttackProtocol,
    clean_logits: Tensor | None,
) -> dict[Attack, list[Measurement]]:
    """Repeat the measurements whose variant of the model turned out to be wrong in a later attack.

    The repeated measurements search with the model itself.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the images.
        done: the measurements of each attack, one for each budget.
        protocol: the protocol that they were measured with.
        clean_logits: logits from :func:`measure_clean`, float32 ``(N, C)``.

    Returns:
        The valid and the repeated measurements of each attack.
    """
    return {
        attack: measure_attack(
            model, batches, attack, [each.eps for each in measures], protocol, clean_logits=clean_logits
        )
        if any(protocol.variants.misled(each.search) for each in measures)
        else measures
        for attack, measures in done.items()
    }


def _shared_progress(on_images: OnImages | None, budgets: int) -> OnImages | None:
    """A callback that counts an image only when all budgets have finished it."""
    if on_images is None or budgets == 1:
        return on_images
    done = told = 0

    def report(images: int) -> None:
        nonlocal done, told
        done += images
        if done // budgets > told:
            on_images(done // budgets - told)
            told = done // budgets

    return report
