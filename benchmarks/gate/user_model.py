"""A model of the user's own as the gate sees it: measured on the spot, nothing trained."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from robustbench_tin.benchmarks.codes.status import OK, Status, StatusCode
from robustbench_tin.benchmarks.evaluate import measured
from robustbench_tin.benchmarks.gate.baseline import Baseline
from robustbench_tin.benchmarks.gate.candidate import Candidate, CandidateMeasurement, CandidateModel
from robustbench_tin.benchmarks.measurement.inputs import Images, Labels
from robustbench_tin.benchmarks.measurement.preparation import count_classes
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.runs.records import CLEAN, versions
from robustbench_tin.benchmarks.runs.same_measurement import counted_rank
from robustbench_tin.data.class_order import in_class_order, other_orders
from robustbench_tin.devices import images_device
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.model_config import ModelConfig
from robustbench_tin.models.ready_model import asked_normalisation, ready_model
from robustbench_tin.models.user_model import UserModel
from robustbench_tin.options import flag_of, options_of
from robustbench_tin.progress import Reporter
from robustbench_tin.runtime import as_tensor, choose_device, tune_allocator
from robustbench_tin.specs import split_list

# Number of images that show whether a conversion answers as its original does.
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
class UserModelSource(UserModelSettings, ModelConfig):
    """A model by name, and what it is measured on and under: the options of ``robust-tin check --model``.

    Attributes:
        model: as :func:`robustbench_tin.models.ready_model.load_model` takes it; likewise ``weights``.
        data: as ``bench`` takes it; likewise ``classes`` and ``eval_images``.
        device: None: the best there is.
    """

    model: str = ""
    weights: Path | None = None
    data: str = "demo"
    classes: str | None = None
    eval_images: int | None = None
    device: str | None = None

    @property
    def command(self) -> str:
        """These options as a command line has them."""
        words = []
        for name, value in asdict(self).items():
            flag = flag_of(name, options_of(ModelConfig).get(name))
            if value is True and name != "trust":
                words.append(flag)
            if not isinstance(value, bool | None):
                values = [value] if isinstance(value, str | int | Path) else value
                words += [f"{flag} {shlex.quote(str(each))}" for each in values]
        return " ".join([*words, *([] if self.trust else ["--no-trust"])])

    def measure(self, reporter: Reporter | None = None) -> Candidate:
        """Load the model, open the data and measure.

        Raises:
            RobustTinError: for anything that cannot be done as asked.
        """
        reporter = reporter or Reporter()
        tune_allocator()
        device = choose_device(self.device)
        asked_normalisation(self)
        part = open_part(
            reporter,
            data=self.data,
            classes=self.classes,
            train_per_class=None,
            eval_images=self.eval_images,
            skip_broken=False,
        )
        few = as_tensor(part.val.images[:_CONFIRMED]).to(images_device(device), torch.float32) / 255
        own, _ = ready_model(self.model, self.weights, self, few, len(part.classes), device)
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
        named = {name: getattr(self, name) for name in options_of(ModelConfig)}
        settings = {
            "data": dataset.name,
            "classes": str(len(part.classes)),
            **{name.replace("_", "-"): _setting(value) for name, value in named.items() if value},
            **candidate.settings,
        }
        return Candidate(own.name, candidate.models, settings, candidate.versions, self.command, own=True)


def _setting(value: bool | str | Sequence[str]) -> str:
    return ",".join(value) if isinstance(value, tuple | list) else str(value)


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
        hits = each.top5 if counted_rank(each.record) == "top5" else each.top1
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
