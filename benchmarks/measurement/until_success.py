"""Stop on success: each image is attacked until the model misclassifies it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.variant_cache import probed
from robustbench_tin.attacks.base import Attack, AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches, drawn
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.attacks.engine.spot_checks import OnImages
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopResult, EarlyStopRunner, OnSuccess
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.blocks import block_seed, blocks, joined
from robustbench_tin.benchmarks.measurement.clean import failed
from robustbench_tin.benchmarks.measurement.first_successes import FirstSuccesses, Keep
from robustbench_tin.benchmarks.measurement.fixed_budget import variant_remarks
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.errors import FOREIGN
from robustbench_tin.threat import ThreatModel


def attack_until_success(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
    *,
    attacked: AttackedModel | None = None,
    keep_images: bool = False,
    on_images: OnImages | None = None,
    on_success: OnSuccess | None = None,
) -> EarlyStopResult:
    """Attack each image until it is adversarial or the budget ends.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the images.
        attack: an attack with a criterion.
        eps: a positive budget in units of the pixel range.
        protocol: norm, seed and search.
        clean_logits: logits of the clean measurement, float32 ``(N, C)``.
        attacked: the attacked model to use; None to make one from ``model``.
        keep_images: whether the result holds the adversarial images.
        on_images: called with the number of newly finished images.

    Block by block, see :mod:`robustbench_tin.benchmarks.measurement.blocks`.

    Raises:
        AttackFailure: if the model or the attack raises an error or returns invalid values.
    """
    with attacked or protocol.attacked(model) as entered:
        prepare_until_success(entered, batches, attack, eps, protocol, clean_logits)
        chosen = blocks(attack, len(batches))
        return attack_blocks(
            entered,
            batches,
            attack,
            eps,
            protocol,
            clean_logits,
            chosen,
            keep_images=keep_images,
            on_images=on_images,
            on_success=on_success,
        )


def attack_blocks(
    attacked: AttackedModel,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
    chosen: Sequence[range],
    *,
    keep_images: bool = False,
    on_images: OnImages | None = None,
    on_success: OnSuccess | None = None,
) -> EarlyStopResult:
    """Attack some blocks of the images, one after the other.

    The other arguments are those of :func:`attack_until_success`.

    Args:
        chosen: the rows of each block.

    Raises:
        AttackFailure: if the model or the attack raises an error or returns invalid values.
    """
    block = partial(
        _attack_block,
        attacked,
        batches,
        attack,
        eps,
        protocol,
        clean_logits,
        keep_images=keep_images,
        on_success=on_success,
    )
    found: list[EarlyStopResult] = []
    for rows in chosen:
        before = attacked.wrong_variant
        found.append(block(rows, on_images=on_images))
        if attacked.wrong_variant is not before:
            # The variant also misled the search of earlier blocks.
            again = map(block, chosen[: len(found) - 1])
            found = [*map(_added, again, found), found[-1]]
    return joined(found)


def prepare_until_success(
    attacked: AttackedModel,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
) -> None:
    """Choose the variant to search with, on a sample of the images that are right.

    The arguments are those of :func:`attack_until_success`.
    """
    right = (~attack.goal.success(clean_logits, batches.all_labels())).nonzero().squeeze(1).cpu()
    if len(right):
        sample = drawn(batches, ThreatModel(protocol.norm, eps), probed(len(right)), right)
        attacked.prepare(sample, protocol.search_for(attack))


def _attack_block(
    attacked: AttackedModel,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
    rows: range,
    *,
    keep_images: bool = False,
    on_images: OnImages | None = None,
    on_success: OnSuccess | None = None,
) -> EarlyStopResult:
    def succeeded(local: Tensor, images: Tensor) -> None:
        if on_success is not None:
            on_success(rows.start + local, images)

    runner = EarlyStopRunner(
        attacked,
        batches.part(rows),
        ThreatModel(protocol.norm, eps),
        attack.goal,
        clean_logits[rows.start : rows.stop],
        seed=block_seed(protocol.seed, rows.start),
        finish=to_8bit if protocol.eight_bit else None,
        on_images=on_images,
        on_success=succeeded,
    )
    return runner.attack(attack, keep_images=keep_images)


def _added(again: EarlyStopResult, before: EarlyStopResult) -> EarlyStopResult:
    """Add the successes of a block's first search to the result of its second search."""
    again.add(before)
    return again


def measure_until_success(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
    on_images: OnImages | None,
    keep: Keep | None = None,
) -> Measurement:
    """Measure an attack that stops on success at one budget.

    The arguments are those of :func:`attack_until_success`; ``keep`` says which successes are kept. An error
    of the model or the attack becomes the status of the measurement.
    """
    started = time.perf_counter()
    attacked = protocol.attacked(model)
    status, found = OK, None
    first = None if keep is None else FirstSuccesses(keep)
    try:
        found = attack_until_success(
            model,
            batches,
            attack,
            eps,
            protocol,
            clean_logits,
            attacked=attacked,
            on_images=on_images,
            on_success=None if first is None else first.offer,
        )
    except FOREIGN as error:  # a model or a plugged-in attack may raise anything
        status = failed(error)
    kept = None if found is None else (~found.success).numpy()
    stages = () if found is None else tuple(found.stages)
    return Measurement(
        eps=eps,
        top1=kept if attack.goal.k == 1 else None,
        top5=kept if attack.goal.k == 5 else None,
        status=status,
        seconds=time.perf_counter() - started,
        forward_passes=attacked.forward_passes,
        backward_passes=attacked.backward_passes,
        mode=attack.mode,
        search=attacked.search_label,
        remarks=(
            *attack.remarks(clean_logits.shape[1]),
            *attack.conclusions(stages),
            *variant_remarks(attacked),
        ),
        stages=stages,
        disagreements=0 if found is None else found.disagreements,
        unverified=None if found is None else int((found.unverified & ~found.success).sum()),
        predicted=None if found is None else found.predicted.numpy(),
        adversarial=None if found is None or first is None else first.found(batches.images.shape[1:]),
    )
