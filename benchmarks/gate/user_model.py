"""A model of the user's own as the gate sees it: measured on the spot, nothing trained."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.evaluate import measured
from robustbench_tin.benchmarks.gate.baseline import Baseline
from robustbench_tin.benchmarks.gate.candidate import Candidate, CandidateMeasurement, CandidateModel, rank_of
from robustbench_tin.benchmarks.measurement.inputs import Images, Labels
from robustbench_tin.benchmarks.measurement.preparation import count_classes
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.runs.records import CLEAN, versions
from robustbench_tin.data.class_order import in_class_order, other_orders
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.normalisation import NAMED, normalized
from robustbench_tin.models.user_model import UserModel, load_user_model
from robustbench_tin.progress import Reporter
from robustbench_tin.runtime import as_tensor, choose_device, tune_allocator
from robustbench_tin.specs import parse_number, split_list

# So many images show whether a conversion answers as its original does.
_CONFIRMED = 8


@dataclass(frozen=True)
class UserModelSettings:
    """What a model is measured under.

    Attributes:
        attacks: specs, with commas between them.
        eps: budgets in units of the pixel range, likewise.
        norm: ``linf`` or ``l2``.
        trust: check whether to believe the figures, too.
    """

    attacks: str = "fgsm,pgd"
    eps: str = "0.01,0.03"
    norm: str = "linf"
    trust: bool = True


@dataclass(frozen=True)
class UserModelSource(UserModelSettings):
    """A model by name, and what it is measured on and under: the options of ``robust-tin check --model``.

    Attributes:
        model: as :func:`robustbench_tin.models.user_model.load_user_model` takes it; likewise ``weights``.
        data: as ``bench`` takes it; likewise ``classes`` and ``eval_images``.
        device: None: the best there is.
        class_order: of the model's outputs, as :func:`robustbench_tin.data.class_order.in_class_order` takes
            it; None: the data set's.
        normalize: a name in :data:`robustbench_tin.models.normalisation.NAMED`; None: see ``mean``.
        mean: a number a channel, with commas between them; likewise ``std``; None: the model takes pixels.
    """

    model: str = ""
    weights: Path | None = None
    data: str = "demo"
    classes: str | None = None
    eval_images: int | None = None
    device: str | None = None
    class_order: str | None = None
    normalize: str | None = None
    mean: str | None = None
    std: str | None = None

    @property
    def command(self) -> str:
        """These options as a command line has them."""
        plain = {name: value for name, value in asdict(self).items() if not isinstance(value, bool | None)}
        words = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in plain.items()]
        return " ".join([*words, *([] if self.trust else ["--no-trust"])])

    def measure(self, reporter: Reporter | None = None) -> Candidate:
        """Load the model, open the data and measure.

        Raises:
            RobustTinError: for anything that cannot be done as asked.
        """
        reporter = reporter or Reporter()
        mean, std = self._normalisation()
        tune_allocator()
        device = choose_device(self.device)
        own = load_user_model(self.model, self.weights, device)
        part = open_part(
            reporter,
            data=self.data,
            classes=self.classes,
            train_per_class=None,
            eval_images=self.eval_images,
            skip_broken=False,
        )
        few = as_tensor(part.val.images[:_CONFIRMED]).to(device, torch.float32) / 255
        own = own.confirmed(few)
        own = replace(own, module=normalized(own.module, mean, std))
        for note in own.notes:
            reporter.warn(f"{own.name}: {note}")
        outputs = count_classes(own.module, few)
        dataset = in_class_order(part, self.class_order, outputs)
        facts = {
            "data": dataset.name,
            "data_fingerprint": dataset.fingerprint,
            "measured_on": dataset.val.fingerprint,
        }
        reporter.say(f"{own.name}: measuring on {len(dataset.val):,} images of {dataset.name}")
        candidate = measure(
            own,
            dataset.val.images,
            dataset.val.labels,
            self,
            facts,
            orders=other_orders(part, self.class_order, outputs),
            warn=reporter.warn,
        )
        named = {name: getattr(self, name) for name in ("class_order", "normalize", "mean", "std")}
        settings = {
            "data": dataset.name,
            "classes": str(len(part.classes)),
            **{name.replace("_", "-"): value for name, value in named.items() if value is not None},
            **candidate.settings,
        }
        return Candidate(own.name, candidate.models, settings, candidate.versions, self.command, own=True)

    def _normalisation(self) -> tuple[Sequence[float] | None, Sequence[float] | None]:
        """Mean and deviation, a number a channel; None: the model takes pixels."""
        if self.normalize is None:
            return _numbers("mean", self.mean), _numbers("std", self.std)
        if self.mean is not None or self.std is not None:
            raise InvalidSettingError("got both --normalize and --mean or --std; give one of them")
        if self.normalize not in NAMED:
            raise InvalidSettingError(f"normalize got '{self.normalize}'; expected {' or '.join(NAMED)}")
        return NAMED[self.normalize]


def _numbers(setting: str, text: str | None) -> Sequence[float] | None:
    if text is None:
        return None
    try:
        return [parse_number(item) for item in text.split(",")]
    except ValueError:
        raise InvalidSettingError(
            f"{setting} got '{text}'; expected a number, or one a channel, such as 0.485,0.456,0.406"
        ) from None


def asked_by(baseline: Baseline) -> UserModelSettings:
    """What a model must be measured under to be compared with a baseline of one model.

    Raises:
        InvalidSettingError: for a baseline of several.
    """
    if len(baseline.entries) > 1:
        labels = ", ".join(entry.label for entry in baseline.entries)
        raise InvalidSettingError(
            f"the baseline is of several models ({labels}); expected one of a single model"
        )
    attacked = [measure for measure in baseline.entries[0].measures if measure.attack != CLEAN]
    return UserModelSettings(
        attacks=",".join(dict.fromkeys(measure.attack for measure in attacked)) or "fgsm",
        eps=",".join(dict.fromkeys(str(measure.eps) for measure in attacked)) or "0",
        norm=attacked[0].norm if attacked else "linf",
        trust=any(measure.checked or measure.unchecked for measure in attacked),
    )


def measure(
    own: UserModel,
    images: Images,
    labels: Labels | None,
    asked: UserModelSettings,
    facts: Mapping[str, Any] | None = None,
    *,
    orders: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Candidate:
    """Measure a model on images.

    If it gives no gradients, it has no figures of the attacks that need them, and square stands in.

    Args:
        own: the model, on its device.
        images: as of :func:`robustbench_tin.evaluate`; likewise ``labels``.
        asked: attacks and budgets.
        facts: fields of the records that are known of the images.
        orders: labels of the images in other orders of the classes, by name.
        warn: given a line for each attack left out and each likely mistake; None: the latter are
            warnings.

    Raises:
        RobustTinError: if it cannot be measured.
    """
    specs = split_list(asked.attacks)
    measures = measured(
        own.module,
        images,
        labels,
        specs,
        asked.eps,
        # Nothing chosen by timing: the same model gives the same figures every time.
        AttackProtocol(asked.norm, search="fixed"),
        trust=asked.trust,
        facts={"model": own.name, **(facts or {})},
        orders=orders,
        tell=None if warn is None else lambda line: warn(f"{own.name}: {line}"),
    )
    left_out: dict[Status, list[str]] = {}
    figures = []
    for each in measures:
        if each.record.status.code is StatusCode.not_measured:
            specs_left_out = left_out.setdefault(each.record.status, [])
            specs_left_out += [each.record.attack] if each.record.attack not in specs_left_out else []
            continue
        hits = each.top5 if rank_of(each.record) == "top5" else each.top1
        figures.append(CandidateMeasurement(each.record, hits if each.record.status == OK else None))
    for status, attacks in left_out.items():
        if warn is not None:
            warn(f"{own.name}: {', '.join(attacks)} {status}")
    settings = {"attacks": ",".join(specs), "eps": asked.eps, "norm": asked.norm}
    return Candidate(
        own.name,
        (CandidateModel(own.name, "none", 0, own.weights, tuple(figures)),),
        settings,
        versions(),
        own=True,
    )
