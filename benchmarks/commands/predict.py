"""``robust-tin predict``: write a trained model's prediction for each image, labelled or not."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustbench_tin.atomic import write_text
from robustbench_tin.attacks.engine.attacked_model import AttackedModel
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.measurement.clean import batch_logits
from robustbench_tin.benchmarks.measurement.protocol import evaluation_batch_size
from robustbench_tin.benchmarks.planning.config import DataConfig
from robustbench_tin.benchmarks.planning.open_data import open_part
from robustbench_tin.benchmarks.runs.remembered import data_options, run_of
from robustbench_tin.benchmarks.runs.trained_model import failing, find_trained, require_fit
from robustbench_tin.data import UNLABELLED, Dataset, Split
from robustbench_tin.data.boxes import crop, usable
from robustbench_tin.data.decode import decode_all
from robustbench_tin.data.files import MOST_IMAGE, Directory
from robustbench_tin.data.listing import SUFFIXES, Reason, is_image
from robustbench_tin.data.skipped_files import left_out_note, summarise
from robustbench_tin.devices import images_device
from robustbench_tin.errors import DataError, InvalidSettingError
from robustbench_tin.files import MOST_TEXT, decode_text, read_bytes
from robustbench_tin.progress import Reporter
from robustbench_tin.registry import load_plugin
from robustbench_tin.runtime import as_tensor, choose_device, tune_allocator
from robustbench_tin.text import printable, spreadsheet_cell, spreadsheet_path

SPLITS = ("train", "val", "test")
_RANKS = 5
_DELIMITERS = (",", ";", "\t")
_KINDS = f"files that end in {', '.join(SUFFIXES)}"


@dataclass(frozen=True)
class Predictions:
    """The result of ``predict``.

    Attributes:
        path: the CSV file.
        images: number of its lines.
        left_out: number of unreadable images.
        labelled: number of images with a known class.
        top1: share of the labelled images whose class has the largest logit; None without labels.
        top5: share of the labelled images whose class is among the five largest logits; None without labels.
        split: the predicted split; None for other images.
    """

    path: Path
    images: int
    left_out: int = 0
    labelled: int = 0
    top1: float | None = None
    top5: float | None = None
    split: str | None = None


def predict(
    model: str | Path,
    *,
    out: str | Path,
    cell: str | None = None,
    split: str | None = None,
    images: str | Path | None = None,
    boxes: bool = False,
    fill: bool = False,
    device: str | None = None,
    plugins: Sequence[str | Path] = (),
    reporter: Reporter | None = None,
    **data: Any,
) -> Predictions:
    """Write a model's most likely classes for each image into a CSV file, one line per image.

    The columns are ``file, class, class_name, confidence, class_2, confidence_2`` and so on to the fifth; a
    confidence is the probability that the model gives a class. If the image's class is known, it follows as
    ``true_class``. With ``boxes``, columns such as ``cropped_class`` and ``cropped_confidence``
    follow for the image cropped to its box; they are empty without a usable box. The model predicts in the
    form that is measured, with its defense, in float32.

    Args:
        model: ``RUN`` with one cell, ``RUN/CELL``, or a weights file written by robust-tin.
        out: the CSV file; an earlier one is replaced.
        cell: a cell of the run ``model``: ``mobilenet/fgsm-at/0``.
        split: ``train``, ``val`` or ``test`` of the data set; None: ``test`` if it exists, else ``val``.
        images: instead of a split: a directory (searched recursively), or a CSV file whose first column
            contains paths relative to the file; separators are commas, semicolons or tabs. The data set then
            only names the classes. Hidden files are left out.
        boxes: also predict each image cropped to its box.
        fill: enlarge the box to the image's size; else pad it with black, as the Tiny ImageNet report did.
        device: the device to compute on; None: the best available.
        plugins: files that register names which the model needs.
        reporter: shows progress; None: silent.
        **data: the data set and the part of it: the fields of
            :class:`robustbench_tin.benchmarks.planning.config.DataConfig`; missing ones are the run's.
            ``skip_broken`` also leaves out unreadable ``images``.

    Raises:
        RobustTinError: if anything cannot be done as requested.
    """
    reporter = reporter or Reporter()
    for plugin in plugins:
        load_plugin(plugin)
    if split is not None and split not in SPLITS:
        raise InvalidSettingError(f"split got '{split}'; expected {', '.join(SPLITS)}")
    if fill and not boxes:
        raise InvalidSettingError(
            "got fill without boxes, which it crops; give boxes, too, or leave fill out"
        )
    device = choose_device(device)
    found = find_trained(model, cell)
    options = data_options(run_of(found), data)
    dataset = open_part(reporter, **options)
    require_fit(found, dataset)
    tune_allocator()
    left_out = 0
    if images is None:
        split = split or ("val" if dataset.test is None else "test")
        asked = _split(dataset, split)
    else:
        skip_broken = DataConfig(**options).skip_broken
        asked, left_out = read_images(Path(images).expanduser(), found.image_size, skip_broken, reporter)
    if boxes and asked.boxes is None:
        raise DataError("boxes got images without bounding boxes; expected a split with some, such as val")
    network = found.load(device).model
    with reporter.preparing() as progress, failing(found.label):

        def rank(pictures: npt.NDArray[np.uint8], what: str) -> Ranked:
            return _ranked(network, pictures, device, lambda done: progress(what, done, len(pictures)))

        whole = rank(asked.images, "predicting images")
        cropped: dict[int, Answer] | None = None
        if boxes:
            assert asked.boxes is not None
            rows = np.flatnonzero(usable(asked.boxes, *asked.images.shape[-2:]))
            crops = crop(asked.images[rows], asked.boxes[rows], fill=fill)
            cropped = dict(zip(rows.tolist(), rank(crops, "predicting crops").answers(), strict=True))
    # File names may contain bytes that are not UTF-8: the CSV shows them as escapes.
    text = (
        _table(found.named_outputs(dataset), asked, whole, cropped)
        .encode("utf-8", "backslashreplace")
        .decode()
    )
    write_text(Path(out), text)
    known = asked.labels != UNLABELLED
    right = whole.labels[known] == asked.labels[known, None]
    return Predictions(
        Path(out),
        len(asked),
        left_out,
        labelled=int(known.sum()),
        top1=float(right[:, 0].mean()) if known.any() else None,
        top5=float(right.any(axis=1).mean()) if known.any() else None,
        split=split if images is None else None,
    )


Answer = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Ranked:
    """The most likely classes of images, largest logit first.

    Attributes:
        labels: int64 ``(N, ranks)``.
        confidences: the probability of each, float64 ``(N, ranks)``.
    """

    labels: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float64]

    def answers(self) -> Iterator[Answer]:
        """Labels and confidences, image by image."""
        return zip(self.labels, self.confidences, strict=True)


def _split(dataset: Dataset, name: str) -> Split:
    split: Split | None = getattr(dataset, name)
    if split is None:
        raise DataError(f"'{dataset.name}' has no {name} images; expected --split train or val, or --images")
    if name == "train":
        dataset.require_train()
    return split


def _ranked(
    model: nn.Module, images: npt.NDArray[np.uint8], device: str, on_done: Callable[[int], None]
) -> Ranked:
    """The classes of the largest logits of each image."""
    size = evaluation_batch_size(device)
    labels = torch.zeros(len(images), dtype=torch.int64)
    batches = ImageBatches(as_tensor(images), labels, size, images_device(device))
    one_vs_rest = any(getattr(module, "one_vs_rest", False) for module in model.modules())
    ranked, confidences = [], []
    with AttackedModel(model) as attacked:
        for start in batches.starts():
            logits = batch_logits(attacked, batches.at(start)[0], 0, start)
            chances = logits.double().sigmoid() if one_vs_rest else logits.double().softmax(dim=1)
            best = logits.topk(min(_RANKS, logits.shape[1]), dim=1).indices
            ranked.append(best.cpu().numpy())
            confidences.append(chances.gather(1, best).cpu().numpy())
            on_done(min(start + size, len(images)))
    if not ranked:
        return Ranked(np.empty((0, 0), np.int64), np.empty((0, 0)))
    return Ranked(np.concatenate(ranked), np.concatenate(confidences))


def read_images(place: Path, size: int, skip_broken: bool, reporter: Reporter) -> tuple[Split, int]:
    """Images from anywhere, scaled like the data set's, and the number of unreadable ones."""
    found = _found(place)
    if found.left_out is not None:
        reporter.say(found.left_out)
    kept: list[npt.NDArray[np.uint8]] = []
    rows: list[int] = []
    broken: list[tuple[str, str]] = []
    for chunk in decode_all(found.read, found.names, size):
        kept.append(chunk.images)
        rows += chunk.rows
        broken += chunk.broken
        if broken and not skip_broken:
            name, why = broken[0]
            raise DataError(f"image '{printable(name)}' {why}; repair or remove it, or give --skip-broken")
    if not rows:
        raise DataError(
            f"none of the {len(found.names):,} images of '{place}' can be read; expected {_KINDS}"
        )
    names = [found.names[row] for row in rows]
    return Split(np.concatenate(kept), np.full(len(rows), UNLABELLED, np.int64), None, names), len(broken)


@dataclass(frozen=True)
class _Images:
    """Images that are found but not yet decoded.

    Attributes:
        names: names relative to their directory.
        read: returns the content of a name.
        left_out: a line about other files that are not images.
    """

    names: list[str]
    read: Callable[[str], bytes]
    left_out: str | None = None


def _found(place: Path) -> _Images:
    found = _in_directory(place) if place.is_dir() else _in_list(place)
    if not found.names:
        raise DataError(f"'{place}' contains no images; expected {_KINDS}")
    return found


def _in_directory(place: Path) -> _Images:
    """All images below a directory, without hidden ones."""
    files = Directory(place, tops=None)
    names = sorted((name for name in files.names if is_image(name)), key=lambda name: name.split("/"))
    others = [name for name in files.names if not is_image(name)]
    left_out = {**files.left_out, Reason.OTHER_KIND: others}
    return _Images(names, files.read, left_out_note({}, summarise(left_out)))


def _in_list(place: Path) -> _Images:
    """The images in the first column of a CSV file; paths are relative to the file."""
    if not place.is_file():
        raise DataError(f"no images at '{place}'; expected a directory, or a CSV file of paths")
    if is_image(place.name):
        raise DataError(
            f"'{place}' is an image; expected a directory, or a CSV file of paths; give the image's directory"
        )
    try:
        # File names may contain bytes that are not UTF-8; they are kept unchanged.
        text = decode_text(read_bytes(place, MOST_TEXT), "surrogateescape")
        first = max((_first_column(text, delimiter) for delimiter in _DELIMITERS), key=_count_images)
    except OSError as error:
        raise DataError(f"'{place}' cannot be read: {error.strerror}; expected a readable file") from error
    except csv.Error:
        raise DataError(f"'{place}' is not a CSV file; expected a directory or a CSV file of paths") from None
    # A first line whose name has no image suffix is a title.
    title = bool(first) and not is_image(first[0])
    return _Images(first[title:], lambda name: read_bytes(_located(place.parent, name), MOST_IMAGE))


def _first_column(text: str, delimiter: str) -> list[str]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return [row[0].strip() for row in rows if row and row[0].strip()]


def _count_images(names: list[str]) -> int:
    return sum(map(is_image, names))


def _located(base: Path, name: str) -> Path:
    """The path of a list's entry; if the list was written on Windows, backslashes become slashes."""
    path = base / name
    return path if "\\" not in name or path.exists() else base / name.replace("\\", "/")


def _table(
    dataset: Dataset,
    asked: Split,
    whole: Ranked,
    cropped: dict[int, Answer] | None,
) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    labelled = bool((asked.labels != UNLABELLED).any())
    columns = ["class", "class_name", "confidence"]
    for rank in range(2, whole.labels.shape[1] + 1):
        columns += [f"class_{rank}", f"confidence_{rank}"]
    header = ["file", *columns, *(["true_class"] if labelled else [])]
    if cropped is not None:
        header += [f"cropped_{column}" for column in columns]
    lines.writerow(header)
    for row, answer in enumerate(whole.answers()):
        name = str(row) if asked.ids is None else spreadsheet_path(asked.ids[row])
        line = [name, *_answer(dataset, answer)]
        if labelled:
            line.append(spreadsheet_cell(dataset.classes[asked.labels[row]]))
        if cropped is not None:
            line += _answer(dataset, cropped[row]) if row in cropped else [""] * len(columns)
        lines.writerow(line)
    return text.getvalue()


def _answer(dataset: Dataset, answer: Answer) -> list[str]:
    labels, confidences = (each.tolist() for each in answer)
    texts = [spreadsheet_cell(dataset.classes[labels[0]]), spreadsheet_cell(dataset.class_names[labels[0]])]
    texts.append(f"{confidences[0]:.4f}")
    for label, confidence in zip(labels[1:], confidences[1:], strict=True):
        texts += [spreadsheet_cell(dataset.classes[label]), f"{confidence:.4f}"]
    return texts
