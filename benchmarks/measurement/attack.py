"""Measuring one classifier: clean, and under one attack at several budgets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_tin.attacks import parse_attack
from robustbench_tin.attacks.acceleration.variant_cache import VariantCache, probed
from robustbench_tin.attacks.base import Attack, AttackedModel, AttackFailure
from robustbench_tin.attacks.engine.image_batches import ImageBatches, batch_seed, drawn
from robustbench_tin.attacks.engine.perturb import perturb_images
from robustbench_tin.attacks.engine.quantize import to_8bit
from robustbench_tin.attacks.engine.spot_checks import OnImages, SpotChecks, told_once, with_right_variant
from robustbench_tin.attacks.engine.stop_on_success import EarlyStopResult, EarlyStopRunner
from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.measurement.results import Measurement
from robustbench_tin.errors import FOREIGN, one_line
from robustbench_tin.metrics import in_top
from robustbench_tin.threat import ThreatModel

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.runs.records import Record

AUTO = "auto"
STAND_IN = "square:queries=1000"
"""What is measured where no attack that was asked for can be, for want of gradients."""
# An attack that takes fewer gradients of an image than this is sooner done with the model itself.
_WORTH_FOLDING = 3
# Of an error that stands in a status.
_BRIEF = 120
# So many images tell a model that is random at test time.
_COMPARED = 8


@dataclass(frozen=True)
class AttackProtocol:
    """Under what an attack works, beside its own settings.

    Attributes:
        norm: ``linf`` or ``l2``.
        seed: of the attack; batch by batch, so that an image meets the same randomness at each eps.
        search: what to search with, as :meth:`AttackedModel.prepare` takes it. ``auto`` is ``fastest`` for
            attacks that stop on success; a fixed budget is spent in the ``fixed`` variant, so that the same
            command gives the same table. ``fixed`` is ``exact`` for a fixed budget of so few gradients that
            no other variant would pay.
        eot: passes averaged for one gradient.
        eight_bit: adversarial images are rounded to 8 bits before they count.
        surrogate: searched with in the place of the model, for oblivious attacks; None: the model.
        variants: of the one model that these conditions are for, chosen once.
    """

    norm: str = "linf"
    seed: int = 0
    search: str = AUTO
    eot: int = 1
    eight_bit: bool = False
    surrogate: nn.Module | None = None
    variants: VariantCache = field(default_factory=VariantCache)

    def attacked(self, model: nn.Module) -> AttackedModel:
        """The attacked model of a model under these conditions."""
        return AttackedModel(
            model, eot=self.eot, surrogate=self.surrogate, variants=self.variants, seed=self.seed
        )

    def search_for(self, attack: Attack) -> str:
        """The search that this attack is done with."""
        search = self.search
        if search == AUTO:
            search = "fixed" if attack.criterion is None else "fastest"
        if search == "fixed" and attack.criterion is None and attack.gradients(1) < _WORTH_FOLDING:
            return "exact"
        return search


def worst_case(measures: Sequence[tuple[Record, pd.DataFrame | None]], eps: float) -> Measurement:
    """What survives every one of several attacks at the same budget, image by image.

    An attack that stops on success says nothing about the other criterion: that figure is of the rest, and
    the remarks say so.

    Args:
        measures: each attack's record and its outcomes; None where it failed, and then the whole has.
        eps: their budget.
    """
    failed = [f"{record.attack} {record.status}" for record, hits in measures if hits is None]
    columns: dict[str, npt.NDArray[np.bool_] | None] = {}
    remarks = []
    for name, shown in (("top1", "top-1"), ("top5", "top-5")):
        hits = {
            record.attack: frame[name] for record, frame in measures if frame is not None and name in frame
        }
        columns[name] = np.logical_and.reduce(list(hits.values())) if hits and not failed else None
        missing = [record.attack for record, _ in measures if record.attack not in hits]
        if columns[name] is not None and missing:
            remarks.append(f"worst case: {shown} is of {', '.join(hits)} alone, not of {', '.join(missing)}")
    return Measurement(
        eps=eps,
        top1=columns["top1"],
        top5=columns["top5"],
        status=Status.of(StatusCode.failed, why="; ".join(failed)) if failed else OK,
        seconds=sum(record.seconds for record, _ in measures),
        forward_passes=sum(record.forward_passes for record, _ in measures),
        backward_passes=sum(record.backward_passes for record, _ in measures),
        mode="right under every attack",
        search="; ".join(dict.fromkeys(record.search for record, _ in measures)),
        remarks=tuple(remarks),
    )


def evaluation_batch_size(device: str) -> int:
    """Images attacked at a time: fixed, since an attack's randomness goes batch by batch."""
    return 50 if device == "cpu" else 250


def measure_clean(
    model: nn.Module, batches: ImageBatches, *, seed: int = 0, on_images: OnImages | None = None
) -> tuple[Measurement, Tensor | None]:
    """The clean measure, which images are right as they are, and the logits behind it.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the images.
        batches: the images.
        seed: of what a model that is random at test time draws.
        on_images: called with the number of images done after each batch.

    Returns:
        The outcomes, and the logits float32 ``(N, C)`` on the images' device; None where the measure failed.
    """
    started = time.perf_counter()
    attacked = AttackedModel(model)
    status, logits = OK, None
    try:
        with attacked:
            parts = []
            for start in batches.starts():
                images, labels = batches.at(start)
                parts.append(batch_logits(attacked, images, seed, start))
                if on_images is not None:
                    on_images(len(labels))
            logits = torch.cat(parts)
    except FOREIGN as error:  # whatever a model raises
        status = failure(error)
    labels = batches.all_labels()
    return Measurement(
        eps=0.0,
        top1=None if logits is None else _hits(logits, labels, 1),
        top5=None if logits is None else _hits(logits, labels, 5),
        status=status,
        seconds=time.perf_counter() - started,
        forward_passes=attacked.forward_passes,
        backward_passes=0,
    ), logits


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
    """One measure a budget.

    What goes wrong inside the model or the attack becomes the measures' status: a failed measure
    counts neither as robust nor as zero.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the images.
        batches: the images.
        attack: what moves them.
        eps: positive budgets in units of the pixel range.
        protocol: norm, seed and how to search.
        clean_logits: of :func:`measure_clean`; None: worked out here, for attacks that stop on success only.
        on_images: called with the number of images done so far since the last call; over all budgets, each
            image counts once.
    """
    protocol = protocol or AttackProtocol()
    if attack.criterion is None:
        return _fixed_budget(model, batches, attack, eps, protocol, on_images)[0]
    if clean_logits is None:
        clean, clean_logits = measure_clean(model, batches, seed=protocol.seed)
        if clean_logits is None:
            return [
                Measurement(value, None, None, clean.status, 0.0, 0, 0, mode=attack.mode) for value in eps
            ]
    report = _shared_progress(on_images, len(eps))
    measures = [
        _stop_on_success(model, batches, attack, value, protocol, clean_logits, report) for value in eps
    ]
    return [
        _stop_on_success(model, batches, attack, each.eps, protocol, clean_logits, None)
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
    """The measures; with the model itself those whose variant was found to be wrong by another attack since.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the images.
        batches: the images.
        done: the measures of each attack, one a budget.
        protocol: under which they were taken.
        clean_logits: of :func:`measure_clean`.
    """
    return {
        attack: measure_attack(
            model, batches, attack, [each.eps for each in measures], protocol, clean_logits=clean_logits
        )
        if any(protocol.variants.misled(each.search) for each in measures)
        else measures
        for attack, measures in done.items()
    }


def with_clean_gradients(attacks: Iterable[Attack], protocol: AttackProtocol) -> Attack | None:
    """The attack to give :func:`measure_from_clean`; None if no attack is fit for that.

    A fixed budget that is spent with the model itself; of several the one of the fewest gradients, since FGSM
    starts at the clean images and most others do not.

    Args:
        attacks: to be measured.
        protocol: under which.
    """
    exact = [
        attack
        for attack in attacks
        if attack.criterion is None and attack.needs_gradients and protocol.search_for(attack) == "exact"
    ]
    return min(exact, key=lambda attack: attack.gradients(1), default=None)


def measure_from_clean(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    protocol: AttackProtocol,
    *,
    on_images: OnImages | None = None,
) -> tuple[Measurement, Tensor | None, list[Measurement]]:
    """The clean measure and a fixed budget together: gradients taken at the clean images give both.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the images.
        batches: the images.
        attack: without a criterion; see :func:`with_clean_gradients`.
        eps: positive budgets in units of the pixel range.
        protocol: norm, seed and how to search.
        on_images: called with the number of images done after each batch.

    Returns:
        What :func:`measure_clean` does, and what :func:`measure_attack` does.
    """
    attacked, logits = _fixed_budget(model, batches, attack, eps, protocol, on_images, with_clean=True)
    if logits is None:
        clean, logits = measure_clean(model, batches, seed=protocol.seed)
        return clean, logits, attacked
    labels = batches.all_labels()
    top1, top5 = _hits(logits, labels, 1), _hits(logits, labels, 5)
    return Measurement(0.0, top1, top5, OK, 0.0, len(batches), 0), logits, attacked


def with_stand_in(
    model: nn.Module,
    batches: ImageBatches,
    done: Mapping[Attack, list[Measurement]],
    protocol: AttackProtocol,
) -> dict[Attack, list[Measurement]]:
    """The measures, with one by queries alone if the model gives no gradients.

    Attacks that failed for want of gradients were not measured, and say so. If no other attack worked that
    claims to find adversarial images, :data:`STAND_IN` is measured in their place.

    Args:
        model: float32 pixels in [0, 1] to logits, on the device of the images.
        batches: the images.
        done: the measures of each attack, one a budget.
        protocol: norm, seed and how to search.
    """
    failed = [
        attack
        for attack, measures in done.items()
        if attack.needs_gradients and any(each.status != OK for each in measures)
    ]
    if not failed:
        return dict(done)
    why = _lacks_gradients(model, batches)
    if why is None:
        return dict(done)
    stand_in = parse_attack(STAND_IN)
    needed = stand_in not in done and not any(
        attack.gradients(1) > 0 for attack in done if attack not in failed
    )
    said = f"the model gives no gradients ({shorten(why, _BRIEF, placeholder=' ...')})"
    if needed:
        said += f", {stand_in.spec} is measured instead"
    status = Status.of(StatusCode.not_measured, why=said)
    measures = {
        attack: [replace(each, status=status) for each in of_attack] if attack in failed else of_attack
        for attack, of_attack in done.items()
    }
    if needed:
        eps = [each.eps for each in done[failed[0]]]
        remark = f"{stand_in.spec} stands in for {', '.join(attack.spec for attack in failed)}"
        measures[stand_in] = [
            replace(each, remarks=(*each.remarks, f"{remark}: the model gives no gradients"))
            for each in measure_attack(model, batches, stand_in, eps, protocol)
        ]
    return measures


def _lacks_gradients(model: nn.Module, batches: ImageBatches) -> str | None:
    """Why a model gives no gradients though it answers; None: it does, or fails altogether."""
    images = batches.at(0)[0][:1]
    with AttackedModel(model) as attacked:
        try:
            attacked.logits(images)
            return attacked.lacks_gradients(images)
        except Exception:  # noqa: BLE001 - whatever a model raises; the measures say what
            return None


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


def batch_logits(attacked: AttackedModel, images: Tensor, seed: int, start: int) -> Tensor:
    """The verdict on the batch that starts at row ``start``.

    A model that is random at test time draws for a batch the same each time, clean or attacked, at
    whatever eps: figures then differ by the attack alone. No search sees these draws.
    """
    attacked.reseed("verdict", batch_seed(seed, start))
    return attacked.logits(images)


def _stop_on_success(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: float,
    protocol: AttackProtocol,
    clean_logits: Tensor,
    on_images: OnImages | None,
) -> Measurement:
    started = time.perf_counter()
    attacked = protocol.attacked(model)
    status, found = OK, None
    try:
        found = attack_until_success(
            model, batches, attack, eps, protocol, clean_logits, attacked=attacked, on_images=on_images
        )
    except FOREIGN as error:  # whatever a model or a plugged-in attack raises
        status = failure(error)
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
    )


def _fixed_budget(
    model: nn.Module,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    protocol: AttackProtocol,
    on_images: OnImages | None,
    *,
    with_clean: bool = False,
) -> tuple[list[Measurement], Tensor | None]:
    """The outcomes, and the clean logits where they were asked for and came with the attack's gradients."""
    started = time.perf_counter()
    status, spent = OK, None
    attacked = protocol.attacked(model)
    report = told_once(on_images)
    try:
        with attacked:
            prepare(attacked, batches, attack, eps, protocol)
            spent = with_right_variant(
                attacked,
                lambda: _spent(attacked, batches, attack, eps, protocol, report(), with_clean=with_clean),
            )
    except FOREIGN as error:  # whatever a model or a plugged-in attack raises
        status = failure(error)
    share = (time.perf_counter() - started) / len(eps)
    if spent is not None and spent.clean_logits is not None:
        attacked.forward_passes -= len(batches)  # they are the clean measure's
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
        )
        for index, value in enumerate(eps)
    ]
    return outcomes, None if spent is None else spent.clean_logits


@dataclass(frozen=True)
class _Spent:
    """What a fixed budget left of the images.

    Attributes:
        top1: at each budget, was the label in the top 1, bool ``(K, N)``.
        top5: was it in the top 5, likewise.
        classes: of the model.
        clean_logits: float32 ``(N, C)``; None if they did not come with the attack's gradients.
    """

    top1: npt.NDArray[np.bool_]
    top5: npt.NDArray[np.bool_]
    classes: int
    clean_logits: Tensor | None


def _spent(
    attacked: AttackedModel,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    protocol: AttackProtocol,
    on_images: OnImages,
    *,
    with_clean: bool,
) -> _Spent:
    """Spend a fixed budget on every image.

    Raises:
        WrongVariantError: if the variant that is searched with turns out to be wrong.
    """
    checks = SpotChecks(attacked)
    clean: list[Tensor] = []
    hits: list[Tensor] = []
    classes = 0
    for start in batches.starts():
        images, labels = batches.at(start)
        if with_clean:
            # An attack would copy a tensor made in inference mode.
            images = images.clone() if images.is_inference() else images
            attacked.note(images)
        moved = perturb_batch(attack, attacked, images, labels, eps, protocol, start)
        if with_clean and attacked.noted is not None:
            if start == 0:
                with_clean = _repeats(attacked, images, attacked.noted, protocol.seed)
            clean.append(attacked.noted)
        logits = [batch_logits(attacked, version, protocol.seed, start) for version in moved]
        checks.offer(moved.flatten(0, 1), torch.cat(logits))
        checks.look()
        classes = logits[0].shape[1]
        hits.append(torch.stack([torch.stack([in_top(each, labels, k) for each in logits]) for k in (1, 5)]))
        on_images(len(labels))
    checks.settle()
    top1, top5 = torch.cat(hits, dim=2).cpu().numpy()
    whole = with_clean and len(clean) == len(batches.starts())
    return _Spent(top1, top5, classes, torch.cat(clean) if whole else None)


def prepare(
    attacked: AttackedModel,
    batches: ImageBatches,
    attack: Attack,
    eps: Sequence[float],
    protocol: AttackProtocol,
) -> None:
    """Choose the variant that a fixed budget is spent in, on images that stand for all."""
    few = drawn(batches, ThreatModel(protocol.norm, max(eps)), probed(len(batches)))
    attacked.prepare(few, protocol.search_for(attack))


def variant_remarks(attacked: AttackedModel) -> tuple[str, ...]:
    """What a reader must know of the variant that was searched with."""
    return () if attacked.wrong_variant is None else (str(attacked.wrong_variant),)


def _repeats(attacked: AttackedModel, images: Tensor, logits: Tensor, seed: int) -> bool:
    """Whether the verdict on some images is what a search saw: not where the model is random."""
    again = batch_logits(attacked, images[:_COMPARED], seed, 0)
    attacked.forward_passes -= len(again)  # no attack's
    return bool(torch.allclose(again, logits[:_COMPARED], rtol=1e-3, atol=1e-3 * float(logits.std())))


def perturb_batch(
    attack: Attack,
    attacked: AttackedModel,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    protocol: AttackProtocol,
    start: int,
) -> Tensor:
    """The batch that starts at row ``start`` after the fixed budget, float32 ``(K, N, C, H, W)``."""
    seed = batch_seed(protocol.seed, start)
    moved = perturb_images(attack, attacked, images, labels, eps, norm=protocol.norm, seed=seed)
    if protocol.eight_bit:
        for index, value in enumerate(eps):
            moved[index] = to_8bit(moved[index], ThreatModel(protocol.norm, value).ball(images))
    return moved


def _shared_progress(on_images: OnImages | None, budgets: int) -> OnImages | None:
    """Tells of an image once all budgets are through with as many."""
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


def _hits(logits: Tensor, labels: Tensor, k: int) -> npt.NDArray[np.bool_]:
    hits: npt.NDArray[np.bool_] = in_top(logits, labels, k).cpu().numpy()
    return hits


def failure(error: BaseException) -> Status:
    """The status of a measure that an error ended."""
    why = str(error) if isinstance(error, AttackFailure) else one_line(error)
    return Status.of(StatusCode.failed, why=why)
