"""The options that define how a trained model is built and which images it takes.

This module imports nothing heavy, because ``robust-tin --help`` reads it.
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
    """Options for building and normalising a model, and for the order of its classes."""

    pretrained: bool = option(
        False, "Use the published weights of a backbone or a timm:NAME.", in_preset=False
    )
    model_args: Sequence[str] = option(
        (),
        "Argument of the factory function: a number, true, false, none or text. Repeatable.",
        flag="model-arg",
        metavar="KEY=VALUE",
    )
    class_order: str | None = option(
        None,
        "Order of the model's classes: sorted (by id, as in ImageFolder), wnids (as in wnids.txt), imagenet"
        " (its 1,000 classes), or a file with one id per line.",
        shown="the data set's",
        metavar="ORDER|FILE",
    )
    normalize: str | None = option(
        None,
        "Normalisation of images for the model: imagenet (ImageNet's mean and std), half (0.5 and 0.5), or"
        " auto (the model's own settings: timm's, torchvision's, Hugging Face's).",
        shown="the model takes pixels in [0, 1]",
        metavar="imagenet|half|auto",
    )
    mean: str | None = option(
        None,
        "Mean of each channel, in units of the pixel range: 0.485,0.456,0.406. Instead of --normalize.",
    )
    std: str | None = option(
        None,
        "Standard deviation of each channel, in units of the pixel range: 0.229,0.224,0.225. Needs --mean.",
    )

    output: str | None = option(
        None,
        "Part of the model's output that holds the logits, by name or number: logits, 0. For models that"
        " return a dict, a tuple or a ModelOutput.",
        metavar="NAME|NUMBER",
    )
    batch_size: int | None = option(
        None,
        "Largest number of images in one call of the model.",
        shown="the number that is measured at a time",
        at_least=1,
        in_preset=False,
    )
    pad: bool = option(
        False,
        "Fill the last batch up, for a model that accepts only batches of --batch-size images.",
        in_preset=False,
    )
    grayscale: bool = option(
        False,
        "Give the model the luminance of coloured images, for a model of one channel.",
        in_preset=False,
    )
    value_range: str | None = option(
        None,
        "Values of black and white that the model takes: -1,1 or 0,255. eps stays in units of [0, 1].",
        shown="0,1",
        flag="range",
        metavar="LOW,HIGH",
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """The factory's keyword arguments.

        Raises:
            InvalidSettingError: for text without ``=``, and for a name that is given twice.
        """
        found: dict[str, Any] = {}
        for text in self.model_args:
            key, equals, value = text.partition("=")
            if not equals or not key.strip().isidentifier():
                raise InvalidSettingError(
                    f"model-arg got '{text}'; expected KEY=VALUE, for example num_classes=10"
                )
            if key.strip() in found:
                raise InvalidSettingError(f"model-arg got '{key.strip()}' twice; give it once")
            found[key.strip()] = parse_argument(value)
        return found


def parse_argument(text: str) -> Any:
    """The value of an argument's text on the command line.

    >>> [parse_argument(text) for text in ("10", "1e-3", "True", "none", "Linf")]
    [10, 0.001, True, None, 'Linf']
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return _WORDS.get(text.lower(), text)
