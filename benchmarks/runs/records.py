"""Records: the facts of each measurement, one row each; every table and chart is made from them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robustbench_tin.benchmarks.codes.status import OK, Status
from robustbench_tin.benchmarks.codes.verdict import Reason, Verdict

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_tin.benchmarks.measurement.results import Measurement

CLEAN = "clean"
WORST_CASE = "worst-case"
CERTIFIED = "certified"
_TOP = 5


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Size = Annotated[int, Field(ge=1, le=10**9)]
NotNegative = Annotated[float, Field(ge=0)]


class Record(BaseModel):
    """One measurement of one cell.

    Attributes:
        model: the backbone, or the name of a user's own model.
        defense: canonical spec.
        seed: seed of the cell.
        attack: canonical spec, ``clean``, ``worst-case`` (correct under every attack of the run) or
            ``certified`` (proved correct under any attack).
        norm: ``linf`` or ``l2``.
        eps: budget in units of the pixel range; 0 for the clean measurement.
        n: number of images measured.
        top1: share of the images whose true label has the largest logit; None if the measurement failed, or
            the attack's criterion was top-5.
        top1_low: lower end of the 95 % interval (Wilson).
        top1_high: upper end of that interval.
        top5: share of the images whose true label is among the five largest logits; None like ``top1``.
        top5_low: lower end of its interval.
        top5_high: upper end of its interval.
        status: ok, or the reason why there is no figure.
        trust: the reasons why the trust checks doubt the figure or could not check it; empty if it is ``ok``.
            None if no checks were asked for, and for a clean or certified measurement without objections.
            Tables of records show it as text and as codes.
        remarks: other facts that a reader must know.
        above_chance: whether the cell's clean top-1 is above chance (one-sided exact binomial test at
            0.001); None if unknown.
        seconds: wall-clock time of this measurement; budgets that share gradients share their time.
        forward_passes: number of forward passes, summed over the images, the measuring pass included.
        backward_passes: number of backward passes, summed over the images.
        mode: ``fixed budget`` (every step on every image), ``stop on success`` and the criterion, or
            ``certified lower bound``.
        search: precision and variant of the model that the attack searched with; the final check always uses
            the model itself in float32.
        late_successes: number of images that the last stage broke in the last tenth of its budget; None under
            a fixed budget.
        unverified: number of images that only the searched variant misclassified, not the model itself; None
            under a fixed budget.
        curve: whether the budget is a rung of a ladder: images that are adversarial at a smaller eps are not
            attacked again and count as adversarial.
        carried: number of these images; None for a worst case and outside a ladder.
        median_eps: on a ladder, median of the smallest eps at which an image is adversarial, over the images
            that are correct when clean; None if it is above this eps. Each is an upper bound, to the rung.
        median_eps_low: lower end of its 95 % interval (order statistics); None if it is above this eps.
        median_eps_high: upper end of that interval; None likewise.
        eot: number of passes averaged for one gradient.
        oblivious: whether the attack saw the bare classifier, without the wrapper of its defense.
        eight_bit: whether adversarial images were rounded to 8 bits before they counted.
        classes: number of classes of the data set.
        data: name of the data set.
        data_fingerprint: fingerprint of its images, labels, boxes and chosen part.
        measured_on: fingerprint of the measured images and their labels alone; empty if unknown.
        image_size: side of the data set's images in pixels; eps refers to these pixels.
        network_size: side of the network's input in pixels, after upscaling; None for a user's own model.
        epochs: number of training epochs of the cell; None if nothing was trained here.
        train_seconds: wall-clock time of the cell's training.
        train_precision: precision of the cell's training.
        device: device of the measurement.
        versions: versions of robust-tin, torch, torchvision and timm.
        plan_digest: digest of the run's plan; empty outside runs, as are the next four.
        weights_digest: digest of the weights file that was measured.
        results_digest: digest of the file of the results per image.
        adversarial_digest: digest of the file of the kept adversarial images; empty without one.
        digest: digest of everything else in the record; a change by hand breaks it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    defense: str
    seed: int
    attack: str
    norm: str
    eps: NotNegative
    n: Size
    top1: Share | None
    top1_low: Share | None
    top1_high: Share | None
    top5: Share | None
    top5_low: Share | None
    top5_high: Share | None
    status: Status
    trust: tuple[Reason, ...] | None = None
    remarks: tuple[str, ...] = ()
    above_chance: bool | None
    seconds: NotNegative
    forward_passes: Count
    backward_passes: Count
    mode: str
    search: str
    late_successes: Count | None = None
    unverified: Count | None = None
    curve: bool = False
    carried: Count | None = None
    median_eps: NotNegative | None = None
    median_eps_low: NotNegative | None = None
    median_eps_high: NotNegative | None = None
    eot: Size = 1
    oblivious: bool = False
    eight_bit: bool = False
    classes: Size
    data: str
    data_fingerprint: str
    measured_on: str = ""
    image_size: Size
    network_size: Count | None
    epochs: Count | None
    train_seconds: NotNegative | None
    train_precision: str | None
    device: str
    versions: str
    plan_digest: str = ""
    weights_digest: str = ""
    results_digest: str = ""
    adversarial_digest: str = ""
    digest: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of :attr:`trust`; None without trust checks."""
        return None if self.trust is None else Verdict.of(self.trust)

    @property
    def content_digest(self) -> str:
        """The expected value of :attr:`digest`."""
        # Without defaults: a field that a later version adds must not change the digests of earlier files.
        content = self.model_dump_json(exclude={"digest"}, exclude_defaults=True)
        return hashlib.blake2b(content.encode(errors="replace"), digest_size=8).hexdigest()

    @property
    def sealed(self) -> Self:
        """This record with its digest filled in."""
        return self.model_copy(update={"digest": self.content_digest})

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("top1", "top5"):
            rate, low, high = (getattr(self, f"{name}{end}") for end in ("", "_low", "_high"))
            if None in (rate, low, high):
                if not rate is low is high is None:
                    raise ValueError(f"{name} and its interval must be given together; some are missing")
                continue
            # The ends are computed in another way than the rate, and may differ from it by a rounding error.
            if not low - 1e-9 <= rate <= high + 1e-9:
                raise ValueError(f"{name} {rate:g} is outside its interval")
            if abs(rate * self.n - round(rate * self.n)) > 1e-6:
                raise ValueError(f"{name} {rate:g} is not a multiple of 1/{self.n}")
        measured = self.top1 is not None or self.top5 is not None
        if measured != (self.status == OK):
            raise ValueError(f"status '{self.status.code}' does not fit the figures")
        return self


def make_record(outcomes: Measurement, *, n: int, classes: int, **facts: Any) -> Record:
    """The record of a measurement, made from its results per image and the facts around it."""
    from robustbench_tin.metrics import above_chance, interval

    values: dict[str, Any] = {}
    for name, hits in (("top1", outcomes.top1), ("top5", outcomes.top5)):
        count = None if hits is None else int(hits.sum())
        # An end may leave [0, 1] by a rounding error.
        low, high = (None, None) if count is None else (min(max(end, 0), 1) for end in interval(count, n))
        values |= {
            name: None if count is None else count / n,
            f"{name}_low": low,
            f"{name}_high": high,
        }
    if facts["attack"] == CLEAN and outcomes.top1 is not None:
        facts["above_chance"] = above_chance(int(outcomes.top1.sum()), n, classes)
    remarks = [*outcomes.remarks]
    if outcomes.top5 is not None and classes <= _TOP:
        remarks.append(f"top-5 is meaningless: with {classes} classes it always contains the true label")
    return Record(
        **values,
        **facts,
        n=n,
        classes=classes,
        eps=outcomes.eps,
        mode=outcomes.mode,
        status=outcomes.status,
        remarks=tuple(remarks),
        search=outcomes.search,
        late_successes=outcomes.late_successes,
        unverified=outcomes.unverified,
        **_of_ladder(outcomes),
        seconds=outcomes.seconds,
        forward_passes=outcomes.forward_passes,
        backward_passes=outcomes.backward_passes,
        versions=versions(),
    )


def _of_ladder(outcomes: Measurement) -> dict[str, Any]:
    ladder = outcomes.ladder
    if ladder is None:
        return {}
    if ladder.median is None:
        return {"curve": True}
    ends = (ladder.median.value, ladder.median.low, ladder.median.high)
    value, low, high = (end if math.isfinite(end) else None for end in ends)
    return {
        "curve": True,
        "carried": ladder.carried,
        "median_eps": value,
        "median_eps_low": low,
        "median_eps_high": high,
    }


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a DataFrame, one row per measurement, columns in the order of :class:`Record`."""
    from robustbench_tin.benchmarks.runs.record_frame import RecordFrame

    return RecordFrame([shown(record) for record in records], columns=columns(Record))


def shown(record: Record) -> dict[str, Any]:
    """The fields of a record for tables, CSV and JSON: all but the digests that link files.

    ``status``, ``trust`` and ``remarks`` are texts for people; ``status_code``, ``trust_codes`` and
    ``remark_list`` are for code.
    """
    fields = record.model_dump(
        mode="json", include=set(type(record).model_fields) & set(columns(type(record)))
    )
    verdict = record.verdict
    return {
        **fields,
        "status": str(record.status),
        "status_code": record.status.code.value,
        "trust": None if verdict is None else str(verdict),
        "trust_codes": fields["trust"],
        "remarks": "; ".join(record.remarks),
        "remark_list": fields["remarks"],
    }


def columns(kind: type[Record]) -> list[str]:
    """The names of these fields, in order."""
    names = [name for name in kind.model_fields if not name.endswith("digest")]
    after = names.index("remarks") + 1
    return [*names[:after], "status_code", "trust_codes", "remark_list", *names[after:]]


@cache  # reading packages' metadata takes as long as making a record
def versions() -> str:
    """The versions that a measurement depends on: ``robust-tin 0.1.0, torch 2.9.0, ...``."""
    from importlib.metadata import version

    from robustbench_tin._version import __version__

    others = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm"))
    return f"robust-tin {__version__}, {others}"
