"""Attribution maps of a run's cells, and their share inside the object's box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustbench_tin.attacks.base import AttackedModel
from robustbench_tin.attacks.engine.image_batches import batch_seed
from robustbench_tin.benchmarks.evidence.attribution import attribution_maps, require_captum
from robustbench_tin.benchmarks.evidence.boxed_images import (
    BoxedImages,
    clean_images,
    cropped_images,
    has_boxes,
    sample_rows,
)
from robustbench_tin.benchmarks.evidence.choices import Kind, Method
from robustbench_tin.benchmarks.evidence.choose import attacks_named
from robustbench_tin.benchmarks.evidence.feature_map import last_feature_map, named_layer
from robustbench_tin.benchmarks.evidence.opened_run import OpenedRun
from robustbench_tin.benchmarks.evidence.remake import RemadeMeasurement, why_not
from robustbench_tin.benchmarks.evidence.saliency import (
    Box,
    SaliencyImage,
    SaliencyShare,
    box_mask,
    mean_share,
    share_inside,
)
from robustbench_tin.benchmarks.evidence.saliency_files import ImageShare, SaliencyResult
from robustbench_tin.benchmarks.planning.cell_names import cell_name
from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.cell_loader import LoadedCell
from robustbench_tin.benchmarks.runs.trained_model import failing
from robustbench_tin.errors import FOREIGN, InvalidSettingError, RobustTinError, RunError, one_line
from robustbench_tin.specs import eps_text
from robustbench_tin.threat import Budgets

# Attribution maps take several times the memory of a pass.
_BATCH = 25


@dataclass(frozen=True)
class SaliencySettings:
    """The settings of a saliency measurement.

    Attributes:
        method: see :class:`Method`.
        count: number of images, at least 1.
        pictures: number of images whose maps are kept.
        seed: seed of the choice.
        layer: name of the module that ``grad-cam`` explains; empty: the last feature map.
    """

    method: Method
    count: int = 200
    pictures: int = 8
    seed: int = 0
    layer: str = ""


@dataclass(frozen=True)
class CellSaliency:
    """The saliency results of one cell.

    Attributes:
        result: the shares, in total and per image.
        images: images with their maps.
        notes: remarks for the reader, one a line.
    """

    result: SaliencyResult
    images: Sequence[SaliencyImage]
    notes: Sequence[str]


def explain_run(
    run: str | Path,
    settings: SaliencySettings,
    *,
    cells: str | None = None,
    attack: str | None = None,
    eps: Budgets | None = None,
    **opening: Any,
) -> Iterator[CellSaliency]:
    """Measure the attribution of a run's cells, one cell after the other.

    Args:
        run: a run directory.
        settings: method, images and layer.
        cells: a name or a pattern of cells; None: all cells.
        attack: the attack of the adversarial images, a spec, a name or a pattern: the run's first matching
            attack; None: the run's first attack.
        eps: one budget of the run; None: its largest.
        **opening: device, plugins, reporter and data; see :meth:`OpenedRun.open`.

    Raises:
        RobustTinError: if a setting does not fit the run, captum is missing, or a model has no gradients.
    """
    require_captum()
    for name in ("count", "pictures"):
        least = int(name == "count")
        if getattr(settings, name) < least:
            raise InvalidSettingError(f"{name} got {getattr(settings, name)}; expected {least} or more")
    if settings.layer and settings.method is not Method.grad_cam:
        raise InvalidSettingError(f"layer got '{settings.layer}' with {settings.method}; expected grad-cam")
    opened = OpenedRun.open(run, **opening)
    asked = _asked_measurement(opened, attack, eps)
    rows = sample_rows(opened.dataset.val, settings.count, settings.seed)
    if not has_boxes(opened.dataset.val):
        opened.reporter.warn(
            f"{opened.dataset.name} has no bounding boxes: only maps, no share inside the object's box."
        )
    for cell in opened.cells(cells):
        with failing(cell.label):
            yield _Explained(opened, cell, settings, rows, asked).measure()


def _asked_measurement(
    opened: OpenedRun, attack: str | None, eps: Budgets | None
) -> tuple[str, float] | None:
    """Attack and budget of the adversarial images; None if the run has no budget above 0."""
    if not opened.plan.attacked_eps and attack is None and eps is None:
        opened.reporter.say("The run has no eps above 0: only clean and cropped images are explained.")
        return None
    budgets = opened.eps(eps)
    if len(budgets) > 1:
        raise InvalidSettingError(f"eps got {len(budgets)} budgets; expected 1")
    return attacks_named(opened, attack)[0], budgets[0]


@dataclass
class _Explained:
    """Measures one cell.

    Attributes:
        opened: the run.
        cell: one of its cells.
        settings: method, images and layer.
        rows: indices of the images.
        asked: attack and budget of the adversarial images; None: no adversarial images.
    """

    opened: OpenedRun
    cell: Cell
    settings: SaliencySettings
    rows: npt.NDArray[np.int64]
    asked: tuple[str, float] | None

    def measure(self) -> CellSaliency:
        """The shares and maps of every version of the images."""
        self.notes: list[str] = []
        self.image_shares: list[ImageShare] = []
        self.images: list[SaliencyImage] = []
        shares = [share for version in self._versions() for share in self._explain(version)]
        trained = self.opened.run.trained(self.cell)
        result = SaliencyResult(
            cell=cell_name(self.cell),
            method=self.settings.method,
            settings={**vars(self.settings), "layer": self._layer[0], "device": str(self._device)},
            weights_digest="" if trained is None else trained.weights_digest,
            classes=self.opened.dataset.class_names,
            shares=tuple(shares),
            image_shares=tuple(self.image_shares),
        )
        return CellSaliency(result, self.images, self.notes)

    def _versions(self) -> Iterator[BoxedImages]:
        val = self.opened.dataset.val
        clean = clean_images(val, self.rows)
        yield clean
        crops = cropped_images(val, self.rows)
        if crops is not None:
            yield crops
        attacked = self._adversarial(clean)
        if attacked is not None:
            yield attacked

    def _adversarial(self, clean: BoxedImages) -> BoxedImages | None:
        if self.asked is None:
            return None
        spec, eps = self.asked
        why = why_not(self.opened, self.cell, spec, eps)
        if why:
            self.notes.append(f"no adversarial images of {spec} at {eps_text(eps)}: {why}")
            return None
        remade = RemadeMeasurement(self.opened, self.cell, spec, eps)
        remade.make(remade.starts(self.rows))
        found = [remade.row(int(row)) for row in self.rows]
        images = np.stack([batch.adversarial[row].numpy() for batch, row in found])
        kept = np.array([batch.reproduced[row] for batch, row in found])
        if not kept.all():
            random = " (the model is random at test time)" if remade.is_random else ""
            self.notes.append(
                f"{(~kept).sum()} of {len(kept)} remade adversarial images do not give their stored"
                f" result{random} and are left out"
            )
        return BoxedImages(Kind.adversarial, self.rows, images, clean.boxes).take(kept)

    def _explain(self, version: BoxedImages) -> Iterator[SaliencyShare]:
        """Note the share and the map of each image; yield the mean share if there are boxes."""
        pairs: list[tuple[float, float]] = []
        total = len(version.rows)
        with self.opened.reporter.preparing() as progress:
            for start in range(0, total, _BATCH):
                maps, predicted = self._maps(version, start)
                pairs += [
                    self._note(version, start + offset, attribution, int(predicted[offset]))
                    for offset, attribution in enumerate(maps)
                ]
                done = min(start + _BATCH, len(version.rows))
                progress(
                    f"{self.settings.method} of {self.cell.label}, {version.kind}", done, len(version.rows)
                )
        defined = [pair for pair in pairs if not isnan(pair[0])]
        if version.boxes is not None and len(defined) < len(pairs):
            self.notes.append(
                f"{len(pairs) - len(defined)} of {len(pairs)} {version.kind} images have a map that is zero"
                " everywhere and are left out of the mean"
            )
        if defined:
            share = mean_share(cell_name(self.cell), self.settings.method, version.kind, defined)
            attack, eps = self.asked if self.asked and version.kind is Kind.adversarial else ("", 0.0)
            yield replace(share, attack=attack, eps=eps)

    def _maps(
        self, version: BoxedImages, start: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Attribution maps of a batch of images, and the explained classes."""
        pixels = torch.from_numpy(version.images[start : start + _BATCH])
        images = pixels.to(self._device).float().div_(255)
        try:
            layer = self._layer[1]
            with self._attacked as attacked:
                attacked.reseed("verdict", batch_seed(self.cell.seed, start))
                predicted = attacked.logits(images).argmax(dim=1)
                maps = attribution_maps(attacked.model, images, predicted, self.settings.method, layer)
        except RobustTinError:
            raise
        except FOREIGN as error:  # any error of a model
            raise RunError(f"{self.cell.label} cannot be explained: {one_line(error)}") from error
        return maps.double().numpy(), predicted.cpu().numpy()

    def _note(
        self, version: BoxedImages, number: int, attribution: npt.NDArray[np.float64], predicted: int
    ) -> tuple[float, float]:
        """Note the facts of one image; return its share and the share by chance, NaN if undefined."""
        box = None if version.boxes is None else version.boxes[number]
        share = nan if box is None else share_inside(attribution, box)
        chance = nan if box is None else float(box_mask(box, *attribution.shape).mean())
        index = int(version.rows[number])
        self.image_shares.append(
            ImageShare(
                index=index,
                kind=version.kind,
                predicted=predicted,
                share=_known(share),
                chance=_known(chance),
            )
        )
        if index in self._shown:
            self.images.append(self._image(version, number, attribution, box, share, predicted))
        return share, chance

    def _image(
        self,
        version: BoxedImages,
        number: int,
        attribution: npt.NDArray[np.float64],
        box: Box | None,
        share: float,
        predicted: int,
    ) -> SaliencyImage:
        index = int(version.rows[number])
        highest = float(attribution.max())
        return SaliencyImage(
            cell=cell_name(self.cell),
            method=self.settings.method,
            index=index,
            label=int(self.opened.dataset.val.labels[index]),
            kind=version.kind,
            image=np.ascontiguousarray(version.images[number].transpose(1, 2, 0)),
            map=(255 * attribution / (highest or 1.0)).round().astype(np.uint8),
            box=box,
            share=share,
            predicted=predicted,
        )

    @cached_property
    def _shown(self) -> set[int]:
        """Indices of the images whose maps are kept: random ones of the sample."""
        order = np.random.default_rng(self.settings.seed).permutation(self.rows)
        return {int(row) for row in order[: self.settings.pictures]}

    @cached_property
    def _loaded(self) -> LoadedCell:
        return self.opened.loader.load(self.cell)

    @property
    def _device(self) -> torch.device:
        return self.opened.batches.device

    @cached_property
    def _attacked(self) -> AttackedModel:
        return AttackedModel(self._loaded.model)

    @cached_property
    def _layer(self) -> tuple[str, nn.Module | None]:
        """Name and module of the layer that Grad-CAM explains, found within the attacked model."""
        if self.settings.method is not Method.grad_cam:
            return "", None
        bare, name = self._loaded.bare, self.settings.layer
        if name:
            return name, named_layer(bare, name)
        with self._attacked:
            found, module, (height, width) = last_feature_map(bare, self.opened.batches.at(0)[0][:1])
        self.notes.append(
            f"grad-cam explains {found}, a map of {height} x {width}; --layer chooses an earlier, finer one"
        )
        return found, module


def _known(value: float) -> float | None:
    return None if isnan(value) else value
