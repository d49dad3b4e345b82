"""The options that say how a trained model is built and how it takes images.

Imports nothing heavy, because ``robust-tin --help`` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.options import Config, option

_WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config, panel="Model"):
    """How a model is built, normalised, and in which order it has its classes."""

    pretrained: bool = option(
        False, "Take the published weights of a backbone or a timm:NAME.", in_preset=False
    )
    model_args: Sequence[str] = option(
        (),
        "Argument of the factory function: a number, true, false, none or text. Repeatable.",
        flag="model-arg",
        metavar="KEY=VALUE",
    )
    class_order: str | None = option(
        None,
        "Order of the model's classes: sorted (by id, as ImageFolder has them), wnids (that of wnids.txt),"
        " imagenet (its 1,000 classes), or a file with an id a line.",
        shown="the data set's",
        metavar="ORDER|FILE",
    )
    normalize: str | None = option(
        None,
        "Normalise images for the model: by ImageNet's mean and std, by 0.5 and 0.5, or as the model's own"
        " settings say (timm's, torchvision's, Hugging Face's).",
        shown="the model takes pixels in [0, 1]",
        metavar="imagenet|half|auto",
    )
    mean: str | None = option(
        None,
        "Instead of --normalize: the mean of each channel, in units of the pixel range: 0.485,0.456,0.406.",
    )
    std: str | None = option(None, "With --mean: the standard deviation of each channel: 0.229,0.224,0.225.")

    output: str | None = option(
        None,
        "Part of the model's answer that the logits are, by name or number: logits, 0. For models that"
        " return a dict, a tuple or a ModelOutput.",
        metavar="NAME|NUMBER",
    )
    batch_size: int | None = option(
        None,
        "Number of images that the model is called with at most.",
        shown="as many as are measured at a time",
        at_least=1,
        in_preset=False,
    )
    pad: bool = option(
        False,
        "With --batch-size: fill the last batch up, for a model that takes batches of this size only.",
        in_preset=False,
    )
    grayscale: bool = option(
        False,
        "The model takes gray images of one channel: it gets the luminance of coloured ones.",
        in_preset=False,
    )
    value_range: str | None = option(
        None,
        "Values of black and white that the model takes: -1,1 or 0,255. eps still counts in [0, 1].",
        shown="0,1",
        flag="range",
        metavar="LOW,HIGH",
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """The factory's keyword arguments.

        Raises:
            InvalidSettingError: for text without ``=``, and for a name that stands twice.
        """
        found: dict[str, Any] = {}
        for text in self.model_args:
            key, equals, value = text.partition("=")
            if not equals or not key.strip().isidentifier():
                raise InvalidSettingError(
                    f"model-arg got '{text}'; expected KEY=VALUE, such as num_classes=10"
                )
            if key.strip() in found:
                raise InvalidSettingError(f"model-arg got '{key.strip()}' twice; give it once")
            found[key.strip()] = parse_argument(value)
        return found


def parse_argument(text: str) -> Any:
    """The value that a command line means.

    >>> [parse_argument(text) for text in ("10", "1e-3", "True", "none", "Linf")]
    [10, 0.001, True, None, 'Linf']
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return _WORDS.get(text.lower(), text)
