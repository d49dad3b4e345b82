"""Load and examine the trained models that a run is given, once each, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.cells.pass_times import PassTimes, time_gradients
from robustbench_tin.benchmarks.measurement.black_box_stand_in import lacks_gradients
from robustbench_tin.benchmarks.measurement.class_orders import fitting_order
from robustbench_tin.benchmarks.measurement.clean import measure_clean
from robustbench_tin.benchmarks.measurement.preparation import count_classes, tell_of_normalisation
from robustbench_tin.benchmarks.measurement.protocol import evaluation_batch_size
from robustbench_tin.benchmarks.planning.asked_models import AskedModel, asked_models, given_names
from robustbench_tin.benchmarks.planning.config import EvaluateConfig
from robustbench_tin.benchmarks.planning.defense_sources import file_digest
from robustbench_tin.benchmarks.planning.given_models import GivenModel, unique_names
from robustbench_tin.benchmarks.runs.given_loader import file_of, place_of, placed
from robustbench_tin.benchmarks.runs.model_places import ModelPlace
from robustbench_tin.data import Dataset
from robustbench_tin.data.class_order import in_class_order, other_orders, output_order
from robustbench_tin.devices import images_device
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.normalisation import Normalized
from robustbench_tin.models.ready_model import asked_adaptation, asked_normalisation, ready_model
from robustbench_tin.models.trained_backbone import HUB, is_trained_backbone
from robustbench_tin.models.user_model import is_model_file
from robustbench_tin.progress import Reporter
from robustbench_tin.runtime import as_tensor

# Number of images on which a converted model is compared with its original.
_FEW = 8
# Number of images that show whether the model's classes are in another order.
_SOME = 200


@dataclass(frozen=True)
class GivenModels:
    """The models that a run evaluates.

    Attributes:
        given: the facts of each model, for the plan.
        places: location of each model, by name.
        passes: timed gradient passes of each model, by name.
    """

    given: tuple[GivenModel, ...]
    places: dict[str, ModelPlace]
    passes: dict[str, PassTimes]


def examine(asked: EvaluateConfig, dataset: Dataset, device: str, reporter: Reporter) -> GivenModels:
    """Load each model once and collect the facts that a plan needs.

    Args:
        asked: the user's options, which name the models.
        dataset: the data set that the models are measured on.
        device: the device that they are measured on.
        reporter: shows the notes on the models.

    Raises:
        RobustTinError: if a model does not exist or does not fit the data.
    """
    found = asked_models(
        asked, _takes_weights, lambda spec: _takes_weights(spec) and is_trained_backbone(spec)
    )
    asked_adaptation(asked)
    asked_normalisation(asked)  # checked first: a mistake is reported before anything is loaded
    names = given_names(asked.names, len(found))
    images = as_tensor(dataset.val.images[:_FEW]).to(images_device(device), torch.float32) / 255
    work = _Examination(asked, dataset, images, device, reporter)
    looks = [work.look(model) for model in found]
    if not names:
        qualifiers = ["" if model.weights is None else model.weights.stem for model in found]
        names = unique_names([given.name for given, _ in looks], qualifiers)
    return GivenModels(
        tuple(given.model_copy(update={"name": name}) for name, (given, _) in zip(names, looks, strict=True)),
        {
            name: place_of(model.spec, model.weights, asked.class_order)
            for name, model in zip(names, found, strict=True)
        },
        {name: passes for name, (_, passes) in zip(names, looks, strict=True)},
    )


def _takes_weights(spec: str) -> bool:
    return not is_model_file(spec) and not spec.startswith(f"{HUB}:")


def _needs_weights(spec: str) -> bool:
    return _takes_weights(spec) and is_trained_backbone(spec)


@dataclass(frozen=True)
class _Examination:
    """Examines one model after the other; none stays in memory.

    Attributes:
        images: a few images, float32 ``(N, C, H, W)`` in [0, 1], on the device.
    """

    asked: EvaluateConfig
    dataset: Dataset
    images: Tensor
    device: str
    reporter: Reporter

    def look(self, model: AskedModel) -> tuple[GivenModel, PassTimes]:
        """The facts that a plan needs about a model, and the time its gradients take."""
        asked, classes = self.asked, len(self.dataset.classes)
        own, normalisation = ready_model(model.spec, model.weights, asked, self.images, classes, self.device)
        for note in own.notes:
            self.reporter.warn(f"{own.name}: {note}")
        module = placed(own.module, self.device)
        if isinstance(module, Normalized):
            module.require_channels(self.images.shape[1])
        try:
            outputs = count_classes(module, self.images)
        except InvalidSettingError as error:
            raise InvalidSettingError(f"model '{own.name}': {error}") from error
        tell_of_normalisation(module, self._batches(), self._tell(own.name))
        order = output_order(self.dataset, asked.class_order, outputs, own.name)
        self._tell_of_order(module, outputs, own.name)
        file = file_of(model.spec)
        given = GivenModel(
            name=own.name,
            spec=model.spec if file is None else model.spec.replace(str(file), file.name, 1),
            file="" if file is None else file_digest(file),
            weights_file="" if model.weights is None else file_digest(model.weights),
            weights=own.weights or "",
            pretrained=asked.pretrained,
            arguments=tuple(asked.model_args),
            mean=normalisation.mean,
            std=normalisation.std,
            output=asked.output or "",
            batch_size=asked.batch_size,
            pad=asked.pad,
            grayscale=asked.grayscale,
            value_range=asked_adaptation(asked).value_range or (),
            order=order,
            outputs=outputs,
            gradients=lacks_gradients(module, self._batches()) is None,
            image_size=self.dataset.image_size,
        )
        return given, time_gradients(module, self.dataset.image_size, self.device)

    def _tell_of_order(self, module: nn.Module, outputs: int, name: str) -> None:
        """Warn if some of the images suggest that the model's classes are in another order."""
        order = self.asked.class_order
        val = in_class_order(self.dataset, order, outputs).val
        rows = np.linspace(0, len(val) - 1, min(_SOME, len(val))).astype(np.int64)
        batches = ImageBatches(
            as_tensor(val.images[rows]),
            as_tensor(val.labels[rows]),
            evaluation_batch_size(self.device),
            images_device(self.device),
        )
        _, logits = measure_clean(module, batches, seed=self.asked.seed)
        if logits is not None:
            orders = other_orders(self.dataset, order, outputs)
            line = fitting_order(logits, batches.labels, {key: found[rows] for key, found in orders.items()})
            if line is not None:
                self._tell(name)(line)

    def _batches(self) -> ImageBatches:
        labels = as_tensor(self.dataset.val.labels[: len(self.images)])
        return ImageBatches(self.images, labels, len(self.images), images_device(self.device))

    def _tell(self, name: str) -> Callable[[str], None]:
        return lambda line: self.reporter.warn(f"{name}: {line}")
