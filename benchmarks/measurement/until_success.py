"""Stop on success: each image is attacked until the model misclassifies it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class UntilSuccess:
    """The attack of some images, at one budget, each until it is adversarial or the budget ends.

    Attributes:
        batches: the images.
        attack: an attack with a criterion.
        eps: a positive budget in units of the pixel range.
        protocol: norm, seed and search.
        clean_logits: logits of the clean measurement, float32 ``(N, C)``.
    """

    batches: ImageBatches
    attack: Attack
    eps: float
    protocol: AttackProtocol
    clean_logits: Tensor

    def prepare(self, attacked: AttackedModel) -> None:
        """Choose the variant to search with, on a sample of the images that are right."""
        wrong = self.attack.goal.success(self.clean_logits, self.batches.all_labels())
        right = (~wrong).nonzero().squeeze(1).cpu()
        if len(right):
            sample = drawn(self.batches, self._threat, probed(len(right)), right)
            attacked.prepare(sample, self.protocol.search_for(self.attack))

    def run(
        self,
        attacked: AttackedModel,
        chosen: Sequence[range] | None = None,
        *,
        keep_images: bool = False,
        on_images: OnImages | None = None,
        on_success: OnSuccess | None = None,
    ) -> EarlyStopResult:
        """Attack block by block, see :mod:`robustbench_tin.benchmarks.measurement.blocks`.

        Args:
            attacked: the prepared attacked model.
            chosen: the rows of each block; None: all.
            keep_images: whether the result holds the adversarial images.
            on_images: called with the number of newly finished images.
            on_success: called with the rows of new successes and their adversarial images.

        Raises:
            AttackFailure: if the model or the attack raises an error or returns invalid values.
        """
        chosen = blocks(self.attack, len(self.batches)) if chosen is None else chosen
        block = partial(self._block, attacked, keep_images=keep_images, on_success=on_success)
        found: list[EarlyStopResult] = []
        for rows in chosen:
            before = attacked.wrong_variant
            found.append(block(rows, on_images=on_images))
            if attacked.wrong_variant is not before:
                # The variant also misled the search of earlier blocks.
                again = map(block, chosen[: len(found) - 1])
                found = [*map(_added, again, found), found[-1]]
        return joined(found)

    @property
    def _threat(self) -> ThreatModel:
        return ThreatModel(self.protocol.norm, self.eps)

    def _block(
        self,
        attacked: AttackedModel,
        rows: range,
        *,
        keep_images: bool,
        on_images: OnImages | None = None,
        on_success: OnSuccess | None,
    ) -> EarlyStopResult:
        def succeeded(local: Tensor, images: Tensor) -> None:
            if on_success is not None:
                on_success(rows.start + local, images)

        runner = EarlyStopRunner(
            attacked,
            self.batches.part(rows),
            self._threat,
            self.attack.goal,
            self.clean_logits[rows.start : rows.stop],
            seed=block_seed(self.protocol.seed, rows.start),
            finish=to_8bit if self.protocol.eight_bit else None,
            on_images=on_images,
            on_success=succeeded,
        )
        return runner.attack(self.attack, keep_images=keep_images)


def _added(again: EarlyStopResult, before: EarlyStopResult) -> EarlyStopResult:
    """Add the successes of a block's first search to the result of its second search."""
    again.add(before)
    return again


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

    The other arguments are those of :class:`UntilSuccess` and its :meth:`~UntilSuccess.run`.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        attacked: the attacked model to use; None to make one from ``model``.

    Raises:
        AttackFailure: if the model or the attack raises an error or returns invalid values.
    """
    work = UntilSuccess(batches, attack, eps, protocol, clean_logits)
    with attacked or protocol.attacked(model) as entered:
        work.prepare(entered)
        return work.run(entered, keep_images=keep_images, on_images=on_images, on_success=on_success)


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
