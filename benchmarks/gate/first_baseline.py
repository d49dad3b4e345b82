"""Make the first baseline of a project: measure its model on as many images as a check has time for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustbench_tin.benchmarks.gate.baseline import Baseline, make_baseline
from robustbench_tin.benchmarks.gate.candidate import Candidate
from robustbench_tin.benchmarks.gate.trainings import measure_trainings
from robustbench_tin.benchmarks.gate.untrained import why_untrained
from robustbench_tin.benchmarks.gate.user_model import UserModelSource
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.progress import Reporter

# Largest number of seconds for the attacks of one check, on this machine.
_SECONDS = 60
_TRIED, _FEWEST, _MOST, _STEP = 20, 100, 1000, 50


@dataclass(frozen=True)
class FirstBaseline:
    """The first baseline, and the settings to repeat its measurement.

    Attributes:
        baseline: the baseline to write.
        candidate: the measured models that it was made of.
        source: the model with its first weights, its data and its attacks.
    """

    baseline: Baseline
    candidate: Candidate
    source: UserModelSource


def measure_first(source: UserModelSource, weights: Sequence[Path], reporter: Reporter) -> FirstBaseline:
    """Measure a model for its first baseline.

    Args:
        source: the model, its data and its attacks. If it has no number of images, a trial with 20 images
            chooses the number.
        weights: weights files, one for each training; see
            :func:`robustbench_tin.benchmarks.gate.trainings.measure_trainings`.
        reporter: shows progress.

    Raises:
        InvalidSettingError: if the clean accuracy is not above chance, because every check would then fail.
        RobustTinError: if a setting, the model or the data is not usable.
    """
    first = replace(source, weights=next(iter(weights), None))
    first = replace(first, eval_images=_number_of_images(first, reporter))
    candidate = measure_trainings(first, weights, reporter)
    for models in candidate.groups.values():
        reason = why_untrained(models)
        if reason is not None:
            raise InvalidSettingError(
                f"{candidate.name}: {reason}; no file was written: check the weights, the normalisation and"
                " the order of the classes"
            )
    return FirstBaseline(make_baseline([candidate]), candidate, first)


def _number_of_images(source: UserModelSource, reporter: Reporter) -> int | None:
    """The number of images: as given, else as many as the attacks have time for; None for all images."""
    if source.eval_images is not None:
        return source.eval_images
    part = open_part(
        Reporter(),
        data=source.data,
        classes=source.classes,
        train_per_class=None,
        eval_images=None,
        skip_broken=False,
    )
    there = len(part.val)
    if there <= _FEWEST:
        return None
    trial = replace(source, eval_images=_TRIED, trust=False).measure()
    seconds = sum(figure.record.seconds for _, figure in trial.figures) / _TRIED
    in_time = int(_SECONDS / max(seconds, 1e-9)) // _STEP * _STEP
    images = max(_FEWEST, min(_MOST, in_time))
    if images >= there:
        return None
    reporter.say(
        f"using {images:,} of {there:,} images: their attacks take about {seconds * images:.0f} s here"
        f" (estimated with {_TRIED} images); choose another number with --eval-images"
    )
    return images
