"""The trained classifiers of a run, ready to be measured again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.given_loader import load_given
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.models import build_classifier, load_weights
from robustbench_tin.runtime import Runtime

# Building a large network takes a second or two, its attack on few images not much more.
_KEPT_BYTES = 2 * 2**30


@dataclass(frozen=True)
class LoadedCell:
    """A cell's network with its weights.

    Attributes:
        bare: without its defense.
        model: as it is measured, with what the defense wraps around it.
    """

    bare: nn.Module
    model: nn.Module


class CellLoader:
    """Loads cells; keeps them until they fill 2 GiB, and loads the others each time anew.

    Args:
        run: whose cells.
        image_size: side of the data set's images in pixels.
        device: where to.
    """

    def __init__(self, run: RunDirectory, image_size: int, device: str) -> None:
        self._run = run
        self._image_size = image_size
        self._device = device
        self._kept: dict[Cell, LoadedCell] = {}
        self._room = _KEPT_BYTES

    def load(self, cell: Cell) -> LoadedCell:
        """A cell's model.

        Raises:
            RunError: if its training failed, or its weights are missing, damaged or not those of the run.
            WeightsError: if its weights do not fit.
        """
        if cell in self._kept:
            return self._kept[cell]
        bare = self._load(cell)
        loaded = LoadedCell(bare, self._run.plan.defense(cell.defense).wrap(bare))
        size = sum(tensor.nbytes for tensor in (*bare.parameters(), *bare.buffers()))
        if size <= self._room:
            self._room -= size
            self._kept[cell] = loaded
        return loaded

    def _load(self, cell: Cell) -> nn.Module:
        """A cell's model without its defense, on the device."""
        plan = self._run.plan
        given = plan.given_model(cell.model)
        if given is not None:
            return load_given(self._run, given, self._device)
        weights = self._run.checked_weights(cell)
        classifier = build_classifier(
            plan.backbone(cell.model),
            plan.classes,
            image_size=self._image_size,
            resize_to=plan.size_of(cell.model),
            pretrained=False,
            weights=None,
            seed=cell.seed,
        )
        load_weights(classifier, weights)
        return Runtime(self._device).place(classifier)
