"""A fixed budget: an attack takes all its steps on every image, and one verification follows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.acceleration.variant_cache import probed
from robustbench_tin.attacks.base import Attack, AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches, batch_seed, drawn
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.attacks.engine.spot_checks import OnImages, SpotChecks, told_once, with_right_variant
from robustbench_tin.benchmarks.codes.status import OK
from robustbench_tin.benchmarks.measurement.blocks import image_blocks
from robustbench_tin.benchmarks.measurement.clean import batch_logits, failed, hits_of, measure_clean
from robustbench_tin.benchmarks.measurement.first_successes import FirstSuccesses, Keep, right_in_batch
from robustbench_tin.benchmarks.measurement.ladder import climbed
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.benchmarks.runs.adversarial_images import AdversarialImages
from robustbench_tin.errors import FOREIGN
from robustbench_tin.metrics import in_top, predictions
from robustbench_tin.threat import ThreatModel

# Number of images that show whether a model is random at test time.
_COMPARED = 8


def with_clean_gradients(attacks: Iterable[Attack], protocol: AttackProtocol) -> Attack | None:
    """Choose the attack for :func:`measure_from_clean`.

    It must have a fixed budget and search with the model itself. If several do, the attack with the fewest
    gradients is chosen, because FGSM starts at the clean images and most others do not.

    Args:
        attacks: the attacks to measure.
        protocol: norm, seed and search.

    Returns:
        The attack; None if no attack is suitable.
    """
    exact = [
        attack
        for attack in attacks
        if attack.criterion is None
        and attack.needs_gradients
        and protocol.search_for(attack) == "exact"
        # On a ladder, other attacks need the clean measurement first: they attack only surviving images.
        and (shares_gradients(attack) or not protocol.curve)
    ]
    return min(exact, key=lambda attack: attack.gradients(1), default=None)


def shares_gradients(attack: Attack) -> bool:
    """Whether the gradients of an attack serve all budgets at once, as those of FGSM do."""
    return attack.criterion is None and attack.gradients(2) == attack.gradients(1) > 0


def measure_from_clean(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    protocol: AttackProtocol,
    *,
    on_images: OnImages | None = None,
) -> tuple[Measurement, Tensor | None, list[Measurement]]:
    """Measure clean accuracy and a fixed budget together, in the same passes at the clean images.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the images.
        attack: an attack without a criterion; see :func:`with_clean_gradients`.
        eps: positive budgets in units of the pixel range.
        protocol: norm, seed and search.
        on_images: called after each batch with its number of images.

    Returns:
        The clean measurement; its logits, float32 ``(N, C)``, or None if it failed; the measurements of the
        attack in the order of ``eps``.
    """
    keep = Keep.first(protocol.keep, len(batches))
    attacked, logits = measure_fixed_budget(
        model, batches, attack, eps, protocol, on_images, with_clean=True, keep=keep
    )
    if logits is None:
        clean, logits = measure_clean(model, batches, seed=protocol.seed)
        if protocol.curve and clean.top1 is not None:
            attacked = climbed(attacked, clean.top1, attack, predicted=clean.predicted, keep=keep)
        return clean, logits, attacked
    labels = batches.all_labels()
    top1, top5 = hits_of(logits, labels, 1), hits_of(logits, labels, 5)
    clean = Measurement(
        0.0, top1, top5, OK, 0.0, len(batches), 0, predicted=predictions(logits).cpu().numpy()
    )
    if protocol.curve:
        attacked = climbed(attacked, top1, attack, predicted=clean.predicted, keep=keep)
    return clean, logits, attacked


def measure_fixed_budget(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    protocol: AttackProtocol,
    on_images: OnImages | None,
    *,
    with_clean: bool = False,
    keep: Keep | None = None,
) -> tuple[list[Measurement], Tensor | None]:
    """Measure a fixed budget; an error of the model or the attack becomes the status of the measurements.

    Args:
        model: maps float32 pixels in [0, 1] to logits; on the device of the images.
        batches: the images.
        attack: an attack without a criterion.
        eps: positive budgets in units of the pixel range.
        protocol: norm, seed and search.
        on_images: called after each batch with its number of images.
        with_clean: also return the clean logits if the attack's gradients are taken at the clean images.

    Returns:
        The measurements in the order of ``eps``, and the clean logits, float32 ``(N, C)``; None if they are
        not available.
    """
    started = time.perf_counter()
    status, spent = OK, None
    attacked = protocol.attacked(model)
    report = told_once(on_images)
    work = FixedBudget(batches, attack, eps, protocol)
    try:
        with attacked:
            work.prepare(attacked)
            spent = with_right_variant(
                attacked, lambda: work.run(attacked, on_images=report(), with_clean=with_clean, keep=keep)
            )
    except FOREIGN as error:  # a model or a plugged-in attack may raise anything
        status = failed(error)
    share = (time.perf_counter() - started) / len(eps)
    if spent is not None and spent.clean_logits is not None:
        attacked.forward_passes -= len(batches)  # these passes belong to the clean measurement
    outcomes = [
        Measurement(
            eps=value,
            top1=None if spent is None else spent.top1[index],
            top5=None if spent is None else spent.top5[index],
            status=status,
            seconds=share,
            forward_passes=attacked.forward_passes // len(eps),
            backward_passes=attacked.backward_passes // len(eps),
            mode=attack.mode,
            search=attacked.search_label,
            remarks=(*attack.remarks(0 if spent is None else spent.classes), *variant_remarks(attacked)),
            predicted=None if spent is None else spent.predicted[index],
            adversarial=None if spent is None or keep is None else spent.adversarial[index],
        )
        for index, value in enumerate(eps)
    ]
    return outcomes, None if spent is None else spent.clean_logits


@dataclass(frozen=True)
class Spent:
    """The results of a fixed budget at K eps.

    Attributes:
        top1: whether the label is in the top 1, bool ``(K, N)``.
        top5: whether the label is in the top 5, bool ``(K, N)``.
        predicted: the class with the largest logit, int32 ``(K, N)``.
        classes: number of classes of the model.
        clean_logits: float32 ``(N, C)``; None if the attack's gradients were not taken at the clean images.
        adversarial: the first successes at each budget; empty if none are kept.
    """

    top1: npt.NDArray[np.bool_]
    top5: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.int32]
    classes: int
    clean_logits: Tensor | None
    adversarial: Sequence[AdversarialImages] = ()


@dataclass(frozen=True)
class FixedBudget:
    """The attack of some images with a fixed budget, at K eps at once.

    Attributes:
        batches: the images.
        attack: an attack without a criterion.
        eps: K values in units of the pixel range, at least one above 0.
        protocol: norm, seed, search and rounding.
    """

    batches: ImageBatches
    attack: Attack
    eps: Sequence[float]
    protocol: AttackProtocol

    def prepare(self, attacked: AttackedModel) -> None:
        """Choose the variant to search with, tested on a random sample of the images at the largest eps."""
        threat = ThreatModel(self.protocol.norm, max(self.eps))
        few = drawn(self.batches, threat, probed(len(self.batches)))
        attacked.prepare(few, self.protocol.search_for(self.attack))

    def run(
        self,
        attacked: AttackedModel,
        chosen: Sequence[range] | None = None,
        *,
        on_images: OnImages,
        with_clean: bool = False,
        keep: Keep | None = None,
    ) -> Spent:
        """Attack block by block, see :mod:`robustbench_tin.benchmarks.measurement.blocks`.

        Args:
            attacked: the prepared attacked model.
            chosen: the rows of each block; None: all.
            on_images: called after each batch with its number of images.
            with_clean: also keep the clean logits if the attack's gradients are taken at the clean images.
            keep: says which successes are kept; None: none.

        Raises:
            WrongVariantError: if the variant that the attack searches with turns out to be wrong.
        """
        spent: list[Spent] = []
        successes = [] if keep is None else [FirstSuccesses(keep) for _ in self.eps]
        for rows in image_blocks(len(self.batches)) if chosen is None else chosen:
            wanted = with_clean and (not spent or spent[-1].clean_logits is not None)
            spent.append(self._block(attacked, rows, on_images, successes, with_clean=wanted))
        kept = [first.found(self.batches.images.shape[1:]) for first in successes]
        return replace(_joined(spent), adversarial=kept)

    def perturbed(self, attacked: AttackedModel, images: Tensor, labels: Tensor, start: int) -> Tensor:
        """The adversarial images of one batch at the K eps, float32 ``(K, N, C, H, W)``.

        Args:
            attacked: the prepared attacked model.
            images: the batch, float32 ``(N, C, H, W)`` in [0, 1].
            labels: int64 ``(N,)``.
            start: row of the batch's first image; with the seed it decides the random numbers.
        """
        protocol = self.protocol
        seed = batch_seed(protocol.seed, start)
        moved = perturb_images(self.attack, attacked, images, labels, self.eps, norm=protocol.norm, seed=seed)
        if protocol.eight_bit:
            for index, value in enumerate(self.eps):
                moved[index] = to_8bit(moved[index], ThreatModel(protocol.norm, value).ball(images))
        return moved

    def _block(
        self,
        attacked: AttackedModel,
        rows: range,
        on_images: OnImages,
        successes: Sequence[FirstSuccesses],
        *,
        with_clean: bool,
    ) -> Spent:
        seed = self.protocol.seed
        checks = SpotChecks(attacked)
        clean: list[Tensor] = []
        hits: list[Tensor] = []
        predicted: list[Tensor] = []
        classes = 0
        for start in range(rows.start, rows.stop, self.batches.size):
            images, labels = self.batches.at(start)
            if with_clean:
                # An attack copies a tensor made in inference mode; the logits of the copy would not be kept.
                images = images.clone() if images.is_inference() else images
                attacked.note(images)
            moved = self.perturbed(attacked, images, labels, start)
            if with_clean and attacked.noted is not None:
                if start == 0:
                    with_clean = _repeats(attacked, images, attacked.noted, seed)
                clean.append(attacked.noted)
            logits = [batch_logits(attacked, version, seed, start) for version in moved]
            checks.offer(moved.flatten(0, 1), torch.cat(logits))
            checks.look()
            classes = logits[0].shape[1]
            hits.append(
                torch.stack([torch.stack([in_top(each, labels, k) for each in logits]) for k in (1, 5)])
            )
            predicted.append(torch.stack([predictions(each) for each in logits]))
            if successes:
                known = attacked.noted if with_clean else None
                right = right_in_batch(successes[0].keep, attacked, images, labels, known, seed, start)
                for first, version, hit in zip(successes, moved, hits[-1][0], strict=True):
                    wrong = (right & ~hit.cpu()).nonzero().squeeze(1)
                    first.offer(start + wrong, version[wrong.to(version.device)])
            on_images(len(labels))
        checks.settle()
        top1, top5 = torch.cat(hits, dim=2).cpu().numpy()
        whole = with_clean and len(clean) == len(hits)
        answers = torch.cat(predicted, dim=1).cpu().numpy()
        return Spent(top1, top5, answers, classes, torch.cat(clean) if whole else None)


def _joined(spent: Sequence[Spent]) -> Spent:
    """Join the results of all blocks."""
    clean = [each.clean_logits for each in spent if each.clean_logits is not None]
    return Spent(
        np.concatenate([each.top1 for each in spent], axis=1),
        np.concatenate([each.top5 for each in spent], axis=1),
        np.concatenate([each.predicted for each in spent], axis=1),
        spent[0].classes,
        torch.cat(clean) if len(clean) == len(spent) else None,
    )


def variant_remarks(attacked: AttackedModel) -> tuple[str, ...]:
    """A remark for each fact about the variant that a reader must know: it turned out to be wrong."""
    return () if attacked.wrong_variant is None else (str(attacked.wrong_variant),)


def _repeats(attacked: AttackedModel, images: Tensor, logits: Tensor, seed: int) -> bool:
    """Whether the model gives the same logits again; False if it is random at test time."""
    again = batch_logits(attacked, images[:_COMPARED], seed, 0)
    attacked.forward_passes -= len(again)  # these passes belong to no attack
    return bool(torch.allclose(again, logits[:_COMPARED], rtol=1e-3, atol=1e-3 * float(logits.std())))
