"""``robust-tin fool``: write a data set with adversarial images crafted on a trained model, as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from robustbench_tin.atomic import write_text
from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.adversarial_sets import adversarial_batches
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.measurement.protocol import evaluation_batch_size
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.planning.parsed_request import requested_attack
from robustbench_tin.benchmarks.runs.remembered import data_options, run_of
from robustbench_tin.benchmarks.runs.resumable_output import ResumableOutput, begun_output
from robustbench_tin.benchmarks.runs.trained_model import TrainedModel, failing, find_trained, require_fit
from robustbench_tin.data import Dataset
from robustbench_tin.data.base import Split
from robustbench_tin.data.export import TinyImageNetWriter, require_size
from robustbench_tin.devices import images_device
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.progress import Preparation, Reporter
from robustbench_tin.registry import load_plugin
from robustbench_tin.runtime import as_tensor, choose_device, tune_allocator
from robustbench_tin.text import spreadsheet_cell, spreadsheet_path
from robustbench_tin.threat import ThreatModel, parse_eps

IMAGES = "manifest.csv"
_COLUMNS = ("split", "file", "original", "class", "label", "answer", "fooled")
SPLITS = ("train", "val")

# First row, images and, for adversarial images, the model's predictions.
_Batch = tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]


@dataclass(frozen=True)
class Fooling:
    """The result of ``fool``.

    Attributes:
        path: its directory, which ``--data`` accepts.
        images: number of adversarial images.
        fooled: number of those that the model misclassifies.
    """

    path: Path
    images: int
    fooled: int


def fool(
    model: str | Path,
    *,
    out: str | Path,
    cell: str | None = None,
    eps: str | float = 0.03,
    attack: str | Attack = "fgsm",
    norm: str = "linf",
    seed: int = 0,
    split: str = "train",
    device: str | None = None,
    plugins: Sequence[str | Path] = (),
    reporter: Reporter | None = None,
    **data: Any,
) -> Fooling:
    """Write a data set in Tiny ImageNet's layout with adversarial images crafted on a trained model.

    Images are PNG files, and each stored image is inside the ball. The other split is copied unchanged, so
    ``bench --data OUT`` trains on adversarial images and measures on clean ones. ``manifest.json`` has the
    settings; ``manifest.csv`` has each image's label, the model's prediction, and whether that is
    wrong. After an interruption at any moment, the same call continues.

    Args:
        model: ``RUN`` with one cell, ``RUN/CELL``, or a weights file written by robust-tin.
        out: output directory; empty, missing, or begun by the same call.
        cell: a cell of the run ``model``: ``mobilenet/fgsm-at/0``.
        eps: one budget in units of the pixel range.
        attack: a spec or an attack.
        norm: ``linf`` or ``l2``.
        seed: seed of the attack's random numbers.
        split: ``train``, ``val`` or ``train,val``: the images to attack.
        device: the device to compute on; None: the best available.
        plugins: files that register names which the model or the attack needs.
        reporter: shows progress; None: silent.
        **data: the data set and the part of it: the fields of
            :class:`robustbench_tin.benchmarks.planning.config.DataConfig`; missing ones are the run's.

    Raises:
        RobustTinError: if anything cannot be done as requested.
    """
    reporter = reporter or Reporter()
    for plugin in plugins:
        load_plugin(plugin)
    chosen = requested_attack(attack)
    chosen.check(norm)
    threat = ThreatModel(norm, parse_eps(eps, norm))
    splits = _splits(split)
    device = choose_device(device)
    found = find_trained(model, cell)
    dataset = open_part(reporter, **data_options(run_of(found), data))
    if "train" in splits:
        dataset.require_train()
    require_fit(found, dataset)
    require_size(dataset)
    tune_allocator()
    settings = {
        "source": found.label,
        "weights": found.digest,
        "backbone": found.backbone,
        "defense": found.defense,
        "attack": chosen.spec,
        "norm": norm,
        "eps": threat.eps,
        "seed": seed,
        "splits": ",".join(splits),
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "batch_size": evaluation_batch_size(device),
    }
    # The weights' digest identifies the model; the path in its label may change.
    with begun_output(Path(out), settings, ("images", "fooled"), told=("source",)) as output:
        if output.result is None:
            maker = _FoolingSet(output, dataset, settings, found, chosen, threat, device)
            with reporter.preparing() as progress, failing(found.label):
                counts = maker.write(progress)
        else:
            counts = output.result
            reporter.say(f"{out} is complete already: nothing to do.")
    return Fooling(Path(out), **counts)


@dataclass(frozen=True)
class _FoolingSet:
    """Makes the images of a set and writes those that are missing."""

    output: ResumableOutput
    dataset: Dataset
    settings: dict[str, Any]
    found: TrainedModel
    attack: Attack
    threat: ThreatModel
    device: str

    def write(self, progress: Preparation) -> dict[str, int]:
        """Write every split and the manifest; return the final counts."""
        parts = {name: getattr(self.dataset, name) for name in SPLITS}
        model = self.found.load(self.device).model
        with TinyImageNetWriter(self.output.path, self.dataset, parts) as writer:
            for name, split in parts.items():
                self._write_split(writer, name, split, model, progress)
            writer.finish()
        return self._conclude()

    def _write_split(
        self, writer: TinyImageNetWriter, name: str, split: Split, model: nn.Module, progress: Preparation
    ) -> None:
        moved = name in self.settings["splits"].split(",")
        batches = ImageBatches(
            as_tensor(split.images),
            as_tensor(split.labels),
            self.settings["batch_size"],
            images_device(self.device),
        )
        todo = [start for start in batches.starts() if not self.output.is_done(f"{name}-{start}")]
        what = f"{'moving' if moved else 'copying'} {name} images"
        for start, images, answers in self._made(split, model if moved else None, batches, todo):
            lines = self._lines(writer, name, start, len(images), answers)
            writer.add(name, start, images, partial(self.output.note, f"{name}-{start}", lines))
            progress(what, min(start + batches.size, len(split)), len(split))

    def _made(
        self, split: Split, model: nn.Module | None, batches: ImageBatches, todo: Sequence[int]
    ) -> Iterator[_Batch]:
        """The images of the remaining batches, attacked on a model; unchanged if it is None."""
        if model is None:
            for start in todo:
                yield start, split.images[start : start + batches.size], None
            return
        seed = self.settings["seed"]
        for batch in adversarial_batches(model, batches, self.attack, self.threat, seed=seed, starts=todo):
            yield batch.start, batch.images, batch.answers

    def _lines(
        self,
        writer: TinyImageNetWriter,
        name: str,
        start: int,
        count: int,
        answers: npt.NDArray[np.int64] | None,
    ) -> str:
        """The manifest's lines of a batch; a clean image has no prediction."""
        split = getattr(self.dataset, name)
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        for offset in range(count):
            row = start + offset
            label = int(split.labels[row])
            answer = "" if answers is None else int(answers[offset])
            original = "" if split.ids is None else spreadsheet_path(split.ids[row])
            known = spreadsheet_cell(self.dataset.classes[label])
            fooled = "" if answers is None else int(answer != label)
            file = writer.name(name, row)
            lines.writerow([name, file, original, known, label, answer, fooled])
        return text.getvalue()

    def _conclude(self) -> dict[str, int]:
        """Join the parts into the manifest, and mark the directory as complete."""
        size = self.settings["batch_size"]
        texts = [
            self.output.noted(f"{name}-{start}")
            for name in SPLITS
            for start in range(0, len(getattr(self.dataset, name)), size)
        ]
        rows = list(csv.reader(io.StringIO("".join(texts))))
        counts = {
            "images": sum(row[-1] != "" for row in rows),
            "fooled": sum(row[-1] == "1" for row in rows),
        }
        write_text(self.output.path / IMAGES, ",".join(_COLUMNS) + "\n" + "".join(texts))
        self.output.complete(counts)
        return counts


def _splits(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(item.strip() for item in text.split(",")))
    if not chosen or set(chosen) - set(SPLITS):
        raise InvalidSettingError(f"split got '{text}'; expected train, val or train,val")
    return tuple(name for name in SPLITS if name in chosen)
