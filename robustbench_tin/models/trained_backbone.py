"""Trained backbones to measure: with weights from a file or published, never with a new head."""

from __future__ import annotations

from pathlib import Path

import timm
from huggingface_hub import constants, try_to_load_from_cache
from torch import nn

from robustbench_tin.errors import InvalidSettingError, RobustTinError, WeightsError, one_line
from robustbench_tin.models import backbones
from robustbench_tin.models.backbone import Backbone
from robustbench_tin.models.build import build_classifier
from robustbench_tin.models.classifier import Classifier
from robustbench_tin.models.network import create_skeleton, head_names, published_settings
from robustbench_tin.models.pretrained import failure, quiet, require_host
from robustbench_tin.models.small_maps import use_products
from robustbench_tin.models.weights_file import WeightsFile, read_weights_file
from robustbench_tin.runtime import float32_default

HUB = "hf-hub"
_ADVICE = "download them on a machine with a network, and set HF_HOME to that cache"
# Number of classes of a skeleton, if only the other layers matter.
_ANY = 7


def is_trained_backbone(spec: str) -> bool:
    """True if a text names a backbone, a ``timm:NAME`` or an ``hf-hub:NAME``."""
    prefix, colon, _ = spec.partition(":")
    if colon and prefix in (HUB, *backbones.prefixes):
        return True
    return prefix in backbones.names()


def load_trained_backbone(
    spec: str, weights: Path | None, pretrained: bool, image_size: int, classes: int
) -> Classifier:
    """A trained backbone that takes pixels, on the CPU.

    The input size is the published one for published networks. With a file it is the size in the file's
    metadata, if robust-tin wrote the file, or else the images' own. A size in the spec takes precedence.

    Args:
        spec: a backbone's name or spec, ``timm:NAME`` or ``hf-hub:NAME``.
        weights: its weights file; None: see ``pretrained``.
        pretrained: use the published weights; ``hf-hub:`` always does.
        image_size: side of the data set's images in pixels.
        classes: number of classes of the data; used if the file does not show the number of outputs.

    Raises:
        InvalidSettingError: if no weights are given, or both kinds.
        WeightsError: if the weights cannot be loaded, or belong to another network.
    """
    if spec.startswith(f"{HUB}:"):
        if weights is not None:
            raise InvalidSettingError(f"model '{spec}' has its own weights; leave --weights out")
        return _from_hub(spec, image_size)
    if pretrained and weights is not None:
        raise InvalidSettingError("got both --pretrained and --weights; give one of them")
    backbone = backbones.get(spec)
    if weights is not None:
        return _from_file(backbone, weights, image_size, classes)
    if pretrained:
        return _published(backbone, image_size)
    raise InvalidSettingError(
        f"model '{spec}' is a network without trained weights; give --weights FILE or --pretrained"
    )


def _published(backbone: Backbone, image_size: int) -> Classifier:
    published = timm.models.get_pretrained_cfg(backbone.timm_name)
    if published is None or not published.has_weights:
        raise failure(backbone.name, "timm publishes none")
    if backbone.variant.new_head or not published.num_classes:
        raise failure(backbone.name, "it has no published classifier")
    size = backbone.variant.size or int(published.input_size[-1])
    return build_classifier(
        backbone, published.num_classes, image_size=image_size, resize_to=size, pretrained=True, seed=0
    ).eval()


def _from_file(backbone: Backbone, weights: Path, image_size: int, classes: int) -> Classifier:
    file = read_weights_file(weights)
    said = file.metadata if file.metadata.get("backbone") == backbone.name else {}
    size = backbone.variant.size
    if size is None and said.get("image_size") == str(image_size):
        size = int(said["resize_to"])
    try:
        outputs = int(said["num_classes"]) if "num_classes" in said else _outputs(file, backbone, image_size)
    except (KeyError, ValueError):
        outputs = None
    return build_classifier(
        backbone, outputs or classes, image_size=image_size, resize_to=size, weights=weights, seed=0
    ).eval()


def _outputs(file: WeightsFile, backbone: Backbone, image_size: int) -> int | None:
    """The number of outputs of the head in a file; None if no head is found there."""
    size = backbone.check_size(image_size, backbone.variant.size)
    skeleton = create_skeleton(backbone, _ANY, size)
    heads = [f"{head}.{part}" for head in head_names(skeleton) for part in ("weight", "bias")]
    fitted = file.fitted(skeleton, any_shape=heads)
    state = file.state if fitted is None else fitted.state
    return next((len(state[key]) for key in heads if key in state), None)


def _from_hub(spec: str, image_size: int) -> Classifier:
    """A network from the Hugging Face Hub that timm can build, with its weights."""
    network = _downloaded(spec)
    settings = published_settings(network)
    outputs = int(settings.get("num_classes") or 0)
    if not outputs:
        raise _hub_failure(spec, "it has no classifier")
    network = network.eval()
    use_products(network)
    return Classifier(
        network,
        backbone=spec,
        num_classes=outputs,
        image_size=image_size,
        input_size=int(settings["input_size"][-1]),
        mean=settings["mean"],
        std=settings["std"],
    ).eval()


def _downloaded(spec: str) -> nn.Module:
    repository, _, revision = spec.removeprefix(f"{HUB}:").partition("@")
    try:
        cached = try_to_load_from_cache(
            repository, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision or None
        )
    except ValueError as error:  # not a valid repository name
        raise _hub_failure(spec, one_line(error)) from None
    if not isinstance(cached, str):
        if constants.HF_HUB_OFFLINE:
            raise _hub_failure(spec, "HF_HUB_OFFLINE is set, and they are not in the cache")
        require_host(spec, constants.ENDPOINT, advice=_ADVICE)
    try:
        with quiet(), float32_default():
            network: nn.Module = timm.create_model(spec, pretrained=True)
    except RobustTinError:
        raise
    except Exception as error:  # any error of the download stack means the same here
        raise _hub_failure(spec, one_line(error)) from error
    return network


def _hub_failure(spec: str, reason: str) -> WeightsError:
    return failure(spec, reason, _ADVICE)
