"""Prepare a caller's model and images for a measurement, and report every mistake before it starts."""

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
# Number of images that show whether a model gives probabilities.
_ASKED = 8


def as_batches(
    model: nn.Module, images: Images, labels: Labels | None, batch_size: int | None
) -> tuple[ImageBatches, int]:
    """Split images into batches on the model's device, and count the model's classes.

    Args:
        model: maps float32 ``(N, C, H, W)`` in [0, 1] to logits ``(N, classes)``.
        images: in any form that :func:`robustbench_tin.evaluate` accepts.
        labels: class indices, one for each image; None if the images come with labels.
        batch_size: number of images in a batch, 1 or more; None for the default of the device.

    Raises:
        InvalidSettingError: if images, labels, batch size or model are not usable together.
    """
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
            f"labels got values up to {int(label_tensor.max())}; expected values below {classes}, the number"
            " of logits"
        )
    return batches, classes


def tell_of_normalisation(model: nn.Module, batches: ImageBatches, tell: Callable[[str], None]) -> None:
    """Warn if the model seems to expect normalised images and nothing normalises them.

    Args:
        model: the model.
        batches: the images.
        tell: called with one line if a normalisation seems to be missing.
    """

    def ask(images: Tensor) -> object:
        with AttackedModel(model) as attacked, torch.no_grad():
            return attacked.called(images)

    line = lacking_normalisation(model, batches.at(0)[0][:1], ask)
    if line is not None:
        tell(line)


def require_possible(attack: Attack, protocol: AttackProtocol, classes: int) -> None:
    """Refuse impossible settings before the measurement starts.

    Args:
        attack: the attack.
        protocol: norm and search.
        classes: number of the model's classes.

    Raises:
        InvalidSettingError: if the attack has no such norm, its criterion needs more classes, or the search
            does not exist.
    """
    attack.check(protocol.norm)
    if attack.criterion is not None:
        attack.goal.check(classes)
    if protocol.search not in SEARCHES:
        raise InvalidSettingError(f"search got '{protocol.search}'; expected {', '.join(SEARCHES)}")


def protocol_of(norm: str, seed: int, search: str, eot: int, eight_bit: bool) -> AttackProtocol:
    """Make the protocol from a caller's options.

    Args:
        norm: ``linf`` or ``l2``.
        seed: random seed, 0 or more.
        search: see :class:`AttackProtocol`.
        eot: number of gradients to average, 1 or more.
        eight_bit: whether adversarial images are rounded to 8 bits.

    Raises:
        InvalidSettingError: if ``seed`` or ``eot`` is not a whole number in its range.
    """
    return AttackProtocol(norm, as_whole("seed", seed, 0), search, as_whole("eot", eot, 1), bool(eight_bit))


def count_classes(model: nn.Module, images: Tensor) -> int:
    """The number of logits that the model returns for one image.

    If the first answer looks like probabilities, the other images are checked too.

    Args:
        model: maps float32 ``(N, C, H, W)`` in [0, 1] to logits ``(N, classes)``.
        images: float32 ``(N, C, H, W)`` in [0, 1], N above 0.

    Raises:
        InvalidSettingError: if the model fails, or if it does not return logits. The measurement reports
            other problems with the logits.
    """
    classes = _logits_of_one(model, images[:1]).shape[1]
    # With a single class, a constant 1 may be a logit as well as a probability.
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
    except RobustTinError:  # from an adapter; the message already says how to continue
        raise
    except FOREIGN as error:
        told = _hint(model, image) or expected
        raise InvalidSettingError(f"the model fails on one image ({one_line(error)}); {told}") from error
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
    """The options that would make the model accept an image on which it fails; None if none are known."""
    with AttackedModel(model) as attacked, torch.no_grad():
        return adapter_hint(attacked.called, image)


def _is_distribution(row: Tensor) -> bool:
    """Whether the values are in [0, 1] and sum to 1, within the precision of their type."""
    tolerance = max(1e-5, torch.finfo(row.dtype).eps) if row.is_floating_point() else 0.0
    return bool((row >= 0).all() and (row <= 1).all() and (row.double().sum() - 1).abs() <= tolerance)


def warn(line: str) -> None:
    """Issue a warning that points at the caller of a public function."""
    warnings.warn(line, UserWarning, stacklevel=4)
