"""Backbones: networks by name, each built as a classifier that takes pixels and returns logits.

Importing this package loads neither torch nor timm; a backbone does so when it is built.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from robustbench_tin.errors import UnknownNameError
from robustbench_tin.registry import Registry
from robustbench_tin.specs import parse_spec, split_list

if TYPE_CHECKING:
    from robustbench_tin.models.backbone import Backbone
    from robustbench_tin.models.build import build_classifier
    from robustbench_tin.models.classifier import Classifier
    from robustbench_tin.models.weights import load_weights, save_weights

__all__ = [
    "ALL",
    "Backbone",
    "Classifier",
    "backbones",
    "build_classifier",
    "load_weights",
    "register",
    "save_weights",
    "select",
]

_HOME = {
    "Backbone": "robustbench_tin.models.backbone",
    "Classifier": "robustbench_tin.models.classifier",
    "build_classifier": "robustbench_tin.models.build",
    "load_weights": "robustbench_tin.models.weights",
    "save_weights": "robustbench_tin.models.weights",
}

ALL = ("vgg16", "vgg19", "mobilenet", "resnet50", "inceptionv3", "nasnetlarge", "densenet169")
"""The backbones that ``all`` selects: the seven of the benchmark's table."""


class Backbones(Registry["Backbone"]):
    """Backbones by name, or by spec: ``densenet169:size=128,cut=1``."""

    def get(self, name: str) -> Backbone:
        """The backbone with this name or spec.

        Raises:
            RobustTinError: for an unknown name or setting, or a value that does not fit.
        """
        spec = parse_spec(name, self.prefixes)
        backbone = super().get(spec.name)
        return backbone.with_settings(spec.settings) if spec.settings else backbone


backbones = Backbones(
    "backbone",
    group="robustbench_tin.models",
    expected="robustbench_tin.models.backbone:Backbone",
    builtin={name: f"robustbench_tin.models.backbone:{name}" for name in (*ALL, "densenet121", "densenet201")}
    | {"inceptionv3-final": "robustbench_tin.models.backbone:inceptionv3_final"},
)
register = backbones.register


def _timm(name: str) -> Backbone:
    from robustbench_tin.models.timm_family import timm_backbone

    return timm_backbone(name)


backbones.add_prefix("timm", _timm)


def select(text: str) -> list[str]:
    """Names of the backbones that a comma list selects, in its order, each once.

    Args:
        text: names, ``fnmatch`` patterns (``densenet*``), ``timm:NAME``, each also with settings
            (``vgg16:size=128``), and ``all``.

    Raises:
        UnknownNameError: if an item matches no backbone, or timm has no network of that name; it lists the
            close names.

    >>> select("densenet1*,vgg16,densenet169,vgg19:size=128,cut=1")
    ['densenet169', 'densenet121', 'vgg16', 'vgg19:cut=1,size=128']
    """
    names: dict[str, None] = {}
    for item in split_list(text):
        names.update(dict.fromkeys(ALL if item == "all" else _match(item)))
    if not names:
        raise UnknownNameError("backbone", text, [*backbones.names(), "all"])
    return list(names)


def _match(item: str) -> list[str]:
    spec = parse_spec(item, backbones.prefixes)
    if spec.settings:
        changed = ",".join(f"{key}={value}" for key, value in spec.settings.items())
        return [backbones.get(f"{name}:{changed}").name for name in _match(spec.name)]
    from_timm = item.startswith("timm:")
    try:
        found = backbones.match(item)
    except UnknownNameError:
        if _timm_has(item):
            raise UnknownNameError("backbone", item, [*backbones.names(), f"timm:{item}"]) from None
        raise
    if from_timm:
        from robustbench_tin.models.timm_family import require_timm_name

        require_timm_name(item.removeprefix("timm:"))
    return found


def _timm_has(name: str) -> bool:
    import timm

    return bool(timm.is_model(name))


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
