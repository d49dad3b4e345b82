"""The baseline: a small file for a repository that records a model's robustness, image by image.

The file is sorted and stable, so that a change can be reviewed like any other. For the first seed it keeps
the result of each image as a bit, which McNemar's test needs. For the other seeds it keeps counts, which show
the spread between re-trainings. :mod:`robustbench_tin.benchmarks.gate.baseline_io` reads the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.gate.candidate import (
    Candidate,
    CandidateMeasurement,
    CandidateModel,
    MeasurementKey,
)
from robustbench_tin.benchmarks.runs.same_measurement import MeasuredImages
from robustbench_tin.errors import RunError

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.trust.probe import Hits

FORMAT: Literal[3] = 3
FORMAT_KEY = "robust-tin-baseline"

# Largest number of characters in a text.
LONGEST = 4000
# Texts are printed, so they must not contain line breaks, terminal codes or bidirectional controls.
_PRINTABLE = r"^[^\p{C}\p{Zl}\p{Zp}]*$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=_PRINTABLE)]
Text = Annotated[str, StringConstraints(max_length=LONGEST, pattern=_PRINTABLE)]


def _with_printable_facts(reason: Reason) -> Reason:
    for fact in reason.facts.values():
        if isinstance(fact, str) and not (len(fact) <= LONGEST and fact.isprintable()):
            raise ValueError(f"a reason has a fact that is not printable or has over {LONGEST} characters")
    return reason


Shown = Annotated[Reason, AfterValidator(_with_printable_facts)]
Count = Annotated[int, Field(ge=0, le=10**8)]
Seed = Annotated[int, Field(ge=0, le=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Measure(_Part):
    """One attack at one eps, over the seeds of a backbone and defense.

    Attributes:
        attack: canonical spec, or ``clean``.
        norm: norm of the budget.
        eps: budget in units of the pixel range; 0 for ``clean``.
        settings: the settings of the measurement.
        above_chance: whether the clean accuracy of every seed is above chance; None if that is unknown.
        checked: whether the trust checks judged the figures of all seeds.
        doubts: reasons to doubt the figure of any seed.
        unchecked: reasons why the figure of any seed could not be checked.
        right: number of right images, one count for each seed.
        outcomes: results per image of the first seed: packed bits, first image in the highest bit, base64.
    """

    attack: Name
    norm: Name
    eps: Annotated[float, Field(ge=0, le=1e6)]
    settings: dict[Name, Text]
    above_chance: bool | None
    checked: bool
    doubts: list[Shown]
    unchecked: list[Shown]
    right: Annotated[list[Count], Field(min_length=1, max_length=1000)]
    outcomes: Annotated[str, StringConstraints(max_length=20_000_000)]

    @property
    def key(self) -> MeasurementKey:
        """The name of the measurement."""
        return MeasurementKey(self.attack, self.norm, self.eps)

    def hits(self, images: int) -> Hits:
        """The results per image of the first seed, bool ``(images,)``.

        Args:
            images: expected number of images.

        Raises:
            ValueError: if the number of results is another, or the number of right ones differs from
                ``right``.
        """
        try:
            packed = np.frombuffer(base64.b64decode(self.outcomes, validate=True), dtype=np.uint8)
        except (binascii.Error, ValueError):
            raise ValueError(f"outcomes of {self.key.label} are not base64") from None
        if len(packed) != (images + 7) // 8:
            raise ValueError(f"outcomes of {self.key.label} are not {images} bits")
        bits = np.unpackbits(packed).astype(bool)
        if bits[images:].any() or int(bits.sum()) != self.right[0]:
            raise ValueError(f"outcomes of {self.key.label} do not have {self.right[0]} right images")
        return bits[:images]


class Entry(_Part):
    """One backbone and defense.

    Attributes:
        model: the backbone's name.
        defense: canonical spec.
        seeds: seeds of its trainings; results per image are kept for the first one.
        weights: digest of the weights of each seed; None if they are not available.
        measures: the measurements, the clean one first.
    """

    model: Name
    defense: Name
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)]
    weights: list[Name | None]
    measures: Annotated[list[Measure], Field(min_length=1, max_length=10_000)]

    @property
    def label(self) -> str:
        """Name for people, such as ``resnet50 + fgsm-at``."""
        return f"{self.model} + {self.defense}"

    def measure(self, key: MeasurementKey) -> Measure | None:
        """The measurement of this name; None if there is no such measurement."""
        return next((measure for measure in self.measures if measure.key == key), None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.weights) != len(self.seeds) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("expected different seeds, and a weights digest for each")
        if any(len(measure.right) != len(self.seeds) for measure in self.measures):
            raise ValueError("expected a count of right images for each seed")
        if len({measure.key for measure in self.measures}) != len(self.measures):
            raise ValueError("a measurement appears twice")
        return self


class Baseline(_Part):
    """The content of a baseline file.

    Attributes:
        format: number of the file format.
        digest: digest of all other content; after a change by hand it no longer fits.
        versions: versions of the software that computed the figures.
        data: name of the data set.
        data_fingerprint: fingerprint of all its images.
        measured_on: fingerprint of the measured images only; empty if it is not known.
        classes: number of classes of the data set.
        image_size: side of its images in pixels.
        images: number of measured images.
        settings: all settings that affect the figures, as texts.
        entries: one for each backbone and defense.
    """

    # Without a default: a baseline file must state its format.
    format: Annotated[Literal[3], Field(alias=FORMAT_KEY)]
    digest: Text = ""
    versions: Text
    data: Name
    data_fingerprint: Text
    measured_on: Text
    classes: Annotated[int, Field(ge=1, le=10**8)]
    image_size: Annotated[int, Field(ge=1, le=10**6)]
    images: Annotated[int, Field(ge=1, le=10**8)]
    settings: dict[Name, Text]
    entries: Annotated[list[Entry], Field(min_length=1, max_length=10_000)]

    def entry(self, model: str, defense: str) -> Entry | None:
        """The entry of a backbone and defense; None if there is no such entry."""
        return next((e for e in self.entries if (e.model, e.defense) == (model, defense)), None)

    @property
    def measured_images(self) -> MeasuredImages:
        """The images that the figures were measured on."""
        return MeasuredImages(self.data, self.images, self.classes, self.data_fingerprint, self.measured_on)

    @property
    def content_digest(self) -> str:
        """The digest of the content, which :attr:`digest` must equal."""
        return digest_of(self.model_dump(mode="json", by_alias=True))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({(entry.model, entry.defense) for entry in self.entries}) != len(self.entries):
            raise ValueError("a backbone and defense appear twice")
        for entry in self.entries:
            for measure in entry.measures:
                measure.hits(self.images)
                if max(measure.right) > self.images:
                    raise ValueError(f"{measure.key.label} has more right images than measured images")
        return self

    def text(self) -> str:
        """The content of the file: JSON with short lists on one line, so that it can be reviewed."""
        content = self.model_dump(mode="json", by_alias=True)
        listed = json.dumps(content, indent=2, ensure_ascii=False)
        return re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s+\]", _on_one_line, listed) + "\n"

    def write(self, path: Path) -> None:
        """Write the file atomically.

        Args:
            path: path of the file; an existing file is replaced.

        Raises:
            RunError: if the file cannot be written.
        """
        write_text(path, self.text())


def make_baseline(candidates: Sequence[Candidate]) -> Baseline:
    """Make the baseline of a run, or of several runs that differ in their seeds only.

    Args:
        candidates: the runs, at least one.

    Raises:
        RunError: if the runs differ in other settings, a seed is in two runs, or a measurement is missing or
            failed.
    """
    first = candidates[0]
    for other in candidates[1:]:
        _require_same_settings(first, other)
    groups: dict[tuple[str, str], list[CandidateModel]] = {}
    for candidate in candidates:
        for name, models in candidate.groups.items():
            groups.setdefault(name, []).extend(models)
    entries = [_entry(sorted(models, key=lambda model: model.seed)) for _, models in sorted(groups.items())]
    record = next(figure.record for _, figure in first.figures)
    baseline = Baseline.model_validate(
        {
            FORMAT_KEY: FORMAT,
            "versions": _printable("; ".join(dict.fromkeys(candidate.versions for candidate in candidates))),
            "data": record.data,
            "data_fingerprint": record.data_fingerprint,
            "measured_on": record.measured_on,
            "classes": record.classes,
            "image_size": record.image_size,
            "images": record.n,
            "settings": {key: _printable(value) for key, value in sorted(first.settings.items())},
            "entries": entries,
        }
    )
    return baseline.model_copy(update={"digest": baseline.content_digest})


def _require_same_settings(first: Candidate, other: Candidate) -> None:
    differing = [key for key in first.settings if first.settings[key] != other.settings.get(key)]
    if differing:
        shown = "; ".join(
            f"{key}: {first.settings[key]} and {other.settings.get(key, 'nothing')}" for key in differing[:3]
        )
        raise RunError(
            f"runs '{first.name}' and '{other.name}' differ in more than their seeds ({shown}); expected runs"
            " of the same settings: make a baseline of each run"
        )


def _entry(models: Sequence[CandidateModel]) -> Entry:
    first = models[0]
    seeds = [model.seed for model in models]
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise RunError(f"{first.label}, seed {seed} is in two runs; give only one run with this seed")
    keys = sorted({figure.key for model in models for figure in model.figures}, key=lambda key: key.order)
    return Entry(
        model=first.model,
        defense=first.defense,
        seeds=seeds,
        weights=[model.weights for model in models],
        measures=[_measure(models, key) for key in keys],
    )


def _measure(models: Sequence[CandidateModel], key: MeasurementKey) -> Measure:
    figures = [_require_figure(model, key) for model in models]
    first = figures[0]
    for model, figure in zip(models, figures, strict=True):
        if (figure.settings, figure.record.n) != (first.settings, first.record.n):
            raise RunError(
                f"{model.label}, {key.label}: seeds were measured with different settings or images; measure"
                " all seeds alike"
            )
    assert first.hits is not None
    learned = [figure.record.above_chance for figure in figures]
    return Measure(
        attack=key.attack,
        norm=key.norm,
        eps=key.eps,
        settings=dict(sorted(first.settings.items())),
        above_chance=None if None in learned else all(learned),
        checked=all(figure.checked for figure in figures),
        doubts=_sorted(doubt for figure in figures for doubt in figure.doubts),
        unchecked=_sorted(reason for figure in figures for reason in figure.unchecked),
        right=[figure.right for figure in figures],
        outcomes=base64.b64encode(np.packbits(first.hits).tobytes()).decode(),
    )


def _require_figure(model: CandidateModel, key: MeasurementKey) -> CandidateMeasurement:
    figure = model.figure(key)
    if figure is None or figure.hits is None:
        why = "is not measured" if figure is None else figure.record.status
        raise RunError(
            f"{model.label}, seed {model.seed}, {key.label} {why}; a baseline needs every measurement: give"
            " the run's command again, or leave the measurement out of the plan"
        )
    return figure


def _on_one_line(found: re.Match[str]) -> str:
    # Line breaks within JSON strings are escaped, so this matches only line breaks outside strings.
    return "[" + re.sub(r",\n\s+", ", ", found[1]) + "]"


def digest_of(content: Mapping[str, Any]) -> str:
    """The digest of a baseline's content, 16 hexadecimal digits; the stored digest is not part of it.

    Args:
        content: the decoded JSON of the file.
    """
    text = json.dumps(
        {key: value for key, value in content.items() if key != "digest"},
        sort_keys=True,
        separators=(",", ":"),
    )
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _sorted(reasons: Iterable[Reason]) -> list[Reason]:
    """The distinct reasons with printable facts, sorted by their text."""
    facts = ((reason, reason.facts.items()) for reason in reasons)
    printable = {
        Reason(code=each.code, facts={key: _printable(v) if isinstance(v, str) else v for key, v in items})
        for each, items in facts
    }
    return sorted(printable, key=str)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)[:LONGEST]
