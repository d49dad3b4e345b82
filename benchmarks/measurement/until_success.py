"""Stopping on success: each image is attacked until the model misclassifies it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.variant_cache import probed
from robustbench_tin.attacks.base import Attack, AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches, drawn
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.attacks.engine.spot_checks import OnImages
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopResult, EarlyStopRunner
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.errors import FOREIGN
from robustbench_tin.threat import ThreatModel

if TYPE_CHECKING:
    pass
from robustbench_tin.benchmarks.measurement.clean import failed
from robustbench_tin.benchmarks.measurement.fixed_budget import variant_remarks
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol


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
) -> EarlyStopResult:
    """Attack images until each is adversarial and say what became of each image.

    Raises:
        AttackFailure: where the model or the attack goes wrong.
    """
    with attacked or protocol.attacked(model) as entered:
        right = (~attack.goal.success(clean_logits, batches.all_labels())).nonzero().squeeze(1).cpu()
        threat = ThreatModel(protocol.norm, eps)
        if len(right):
            entered.prepare(drawn(batches, threat, probed(len(right)), right), protocol.search_for(attack))
        runner = EarlyStopRunner(
            entered,
            batches,
            threat,
            attack.goal,
            clean_logits,
            seed=protocol.seed,
            finish=to_8bit if protocol.eight_bit else None,
            on_images=on_images,
        )
        return runner.attack(attack, keep_images=keep_images)


def measure_until_success(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
    on_images: OnImages | None,
) -> Measurement:
    """One measure at one budget; an error of the model or the attack becomes its status.

    The arguments are those of :func:`attack_until_success`.
    """
    started = time.perf_counter()
    attacked = protocol.attacked(model)
    status, found = OK, None
    try:
        found = attack_until_success(
            model, batches, attack, eps, protocol, clean_logits, attacked=attacked, on_images=on_images
        )
    except FOREIGN as error:  # whatever a model or a plugged-in attack raises
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
    )
