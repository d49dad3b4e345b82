"""Measure a user's own model for the gate, without training."""

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

# Number of images that show whether a converted model has the same logits as the original.
_CONFIRMED = 8


@dataclass(frozen=True)
class UserModelSettings:
    """The attacks that a model is measured under.

    Attributes:
        attacks: attack specs, separated by commas.
        eps: budgets in units of the pixel range, separated by commas.
        norm: ``linf`` or ``l2``.
        trust: whether to run the trust checks.
    """

    attacks: str = "fgsm,pgd"
    eps: str = "0.01,0.03"
    norm: str = "linf"
    trust: bool = True


@dataclass(frozen=True)
class UserModelSource(UserModelSettings, ModelConfig):
    """A model by name, its data and its attacks: the options of ``robust-tin check --model``.

    Attributes:
        model: the model, in any form that :func:`robustbench_tin.models.ready_model.load_model` accepts.
        weights: file with its weights; None if the model has its weights already.
        data: the data set, as for ``robust-tin bench``.
        classes: number or names of the classes, as for ``robust-tin bench``; None for all.
        eval_images: number of images to measure; None for all.
        device: device, such as ``cpu`` or ``cuda``; None for the best available one.
    """

    model: str = ""
    weights: Path | None = None
    data: str = "demo"
    classes: str | None = None
    eval_images: int | None = None
    device: str | None = None

    @property
    def command(self) -> str:
        """These options as part of a command line."""
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

        Args:
            reporter: shows progress and warnings; None for no output.

        Raises:
            RobustTinError: if a setting, the model or the data is not usable.
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
    """The attack settings that make a measurement comparable with a baseline of one model.

    Args:
        baseline: the baseline.

    Raises:
        InvalidSettingError: if the baseline has several models.
    """
    if len(baseline.entries) > 1:
        labels = ", ".join(entry.label for entry in baseline.entries)
        raise InvalidSettingError(
            f"the baseline has several models ({labels}); expected a baseline of a single model"
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
    """Measure a user's own model on images.

    If the model gives no gradients, attacks that need them are left out, and square replaces them.

    Args:
        own: the model, on its device.
        images: images in any form that :func:`robustbench_tin.evaluate` accepts.
        labels: class indices, one for each image; None if the images come with labels.
        asked: attacks and budgets.
        facts: additional fields of the records, such as the name of the data set.
        orders: for each other class order, by name, the labels of the images.
        warn: called with one line for each attack left out and each likely mistake; if None, likely mistakes
            are Python warnings.

    Raises:
        RobustTinError: if the model cannot be measured.
    """
    specs = split_list(asked.attacks)
    measures = measured(
        own.module,
        images,
        labels,
        specs,
        asked.eps,
        # No variant is chosen by timing, so that a model has the same figures every time.
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
