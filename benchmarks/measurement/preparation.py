"""From a caller's model and images to what is measured, with every mistake found before."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_tin.attacks import AttackedModel
from robustbench_tin.attacks.acceleration.variant_cache import SEARCHES
from robustbench_tin.attacks.base import Attack
from robustbench_tin.attacks.engine.image_batches import ImageBatches
from robustbench_tin.benchmarks.measurement.inputs import (
    Images,
    Labels,
    as_images_and_labels,
    as_whole,
    require_values,
)
from robustbench_tin.benchmarks.measurement.protocol import AttackProtocol, evaluation_batch_size
from robustbench_tin.devices import device_of, images_device
from robustbench_tin.errors import FOREIGN, InvalidSettingError, RobustTinError, one_line
from robustbench_tin.models.adapters import adapter_hint
from robustbench_tin.models.normalisation import Normalized, lacking_normalisation
from robustbench_tin.models.outputs import output_hint

Model = nn.Module | Callable[[Tensor], Tensor]
# Number of images that settle whether a model gives probabilities.
_ASKED = 8


def as_batches(
    model: nn.Module, images: Images, labels: Labels | None, batch_size: int | None
) -> tuple[ImageBatches, int]:
    """The images in batches on their device, and the number of its classes."""
    require_values(model)
    device = images_device(device_of(model))
    size = evaluation_batch_size(device.type) if batch_size is None else as_whole("batch_size", batch_size, 1)
    image_tensor, label_tensor = as_images_and_labels(images, labels)
    batches = ImageBatches(image_tensor, label_tensor, size, device)
    if isinstance(model, Normalized):
        model.require_channels(image_tensor.shape[1])
    classes = count_classes(model, batches.at(0)[0][:_ASKED])
    if int(label_tensor.max()) >= classes:
        raise InvalidSettingError(
            f"labels reach {int(label_tensor.max())}; expected below {classes}, the count of logits"
        )
    return batches, classes


def tell_of_normalisation(model: nn.Module, batches: ImageBatches, tell: Callable[[str], None]) -> None:
    """Tell if the model seems to expect normalised images and nothing normalises them."""

    def ask(images: Tensor) -> object:
        with AttackedModel(model) as attacked, torch.no_grad():
            return attacked.called(images)

    line = lacking_normalisation(model, batches.at(0)[0][:1], ask)
    if line is not None:
        tell(line)


def require_possible(attack: Attack, protocol: AttackProtocol, classes: int) -> None:
    """Refuse what cannot be done, before anything is measured."""
    attack.check(protocol.norm)
    if attack.criterion is not None:
        attack.goal.check(classes)
    if protocol.search not in SEARCHES:
        raise InvalidSettingError(f"search got '{protocol.search}'; expected {', '.join(SEARCHES)}")


def protocol_of(norm: str, seed: int, search: str, eot: int, eight_bit: bool) -> AttackProtocol:
    """The protocol that a caller's options describe.

    Raises:
        InvalidSettingError: for a seed or a number of passes that is no whole number.
    """
    return AttackProtocol(norm, as_whole("seed", seed, 0), search, as_whole("eot", eot, 1), bool(eight_bit))


def count_classes(model: nn.Module, images: Tensor) -> int:
    """How many logits the model gives, asked with one image.

    Where they might be probabilities, it is asked with the other images too.

    Args:
        model: as of :func:`evaluate`.
        images: float32 ``(N, C, H, W)``, N above 0.

    Raises:
        InvalidSettingError: where it gives none, or probabilities. What else may be wrong with them is the
            measure's to say.
    """
    classes = _logits_of_one(model, images[:1]).shape[1]
    # The only probability of a single class says nothing: its logit may well be 1 everywhere.
    if classes > 1 and all(_is_distribution(_logits_of_one(model, image[None])) for image in images):
        raise InvalidSettingError(
            "the model returned probabilities (rows sum to 1);"
            " expected logits (leave out the softmax at its end)"
        )
    return classes


def _logits_of_one(model: nn.Module, image: Tensor) -> Tensor:
    expected = "expected a model from float32 (N, C, H, W) in [0, 1] to logits (N, classes)"
    try:
        with AttackedModel(model) as attacked, torch.no_grad():
            logits = attacked.called(image)
    except RobustTinError:  # an adapter's, which says what to do
        raise
    except FOREIGN as error:
        told = _hint(model, image) or expected
        raise InvalidSettingError(f"the model fails on one image, {one_line(error)}; {told}") from error
    parts = output_hint(logits)
    if parts is not None:
        raise InvalidSettingError(parts)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidSettingError(
            f"the model returned {got} for one image; {_hint(model, image) or expected}"
        )
    return logits


def _hint(model: nn.Module, image: Tensor) -> str | None:
    """The options under which a model would take an image that it fails on."""
    with AttackedModel(model) as attacked, torch.no_grad():
        return adapter_hint(attacked.called, image)


def _is_distribution(row: Tensor) -> bool:
    """Whether these values are in [0, 1] and sum to 1, as exactly as their type can."""
    tolerance = max(1e-5, torch.finfo(row.dtype).eps) if row.is_floating_point() else 0.0
    return bool((row >= 0).all() and (row <= 1).all() and (row.double().sum() - 1).abs() <= tolerance)


def warn(line: str) -> None:
    """Warn the caller of a public function."""
    warnings.warn(line, UserWarning, stacklevel=4)
