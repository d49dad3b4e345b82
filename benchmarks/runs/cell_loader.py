"""Load the trained classifiers of a run to measure them again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.benchmarks.runs.given_loader import load_given
from robustbench_tin.benchmarks.runs.run_directory import RunDirectory
from robustbench_tin.models import build_classifier, load_weights
from robustbench_tin.runtime import Runtime

# Building a large network takes a second or two; attacking a few images takes hardly longer.
_KEPT_BYTES = 2 * 2**30


@dataclass(frozen=True)
class LoadedCell:
    """A cell's network with its weights.

    Attributes:
        bare: the network without its defense.
        model: the network as measured: wrapped by its defense.
    """

    bare: nn.Module
    model: nn.Module


class CellLoader:
    """Loads cells; keeps them in memory up to 2 GiB in total, and reloads the others each time.

    Args:
        run: the run.
        image_size: side of the data set's images in pixels.
        device: the device to load to.
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
            RunError: if the training failed, or the weights are missing, damaged or from another run.
            WeightsError: if the weights do not fit the network.
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
