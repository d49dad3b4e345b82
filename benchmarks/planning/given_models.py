"""The trained models that a run measures: how the user gave each, and its identity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# A model has an output for each class.
_MOST_OUTPUTS = 10**6
# Maximum length, in characters, of a summary of all models, which a baseline stores.
_SUMMARY = 2000


class GivenModel(BaseModel):
    """One trained model. It contains no paths: a run can continue after a file has moved.

    Attributes:
        name: its name in the run.
        spec: the spec that the user gave, with paths reduced to file names.
        file: name and digest of the file that the spec names; empty if it names none.
        weights_file: name and digest of its weights file; empty without one.
        weights: digest of its tensors; empty if they cannot be read, so that changes cannot be noticed.
        pretrained: whether its weights are a backbone's published ones.
        arguments: arguments of its factory function, as the user gave them.
        mean: mean of the normalisation put around it, one number per channel; empty: no normalisation.
        std: standard deviation of that normalisation, likewise.
        output: name or number of the part of its output that is the logits; empty: it returns logits.
        batch_size: maximum number of images per call; None: any number.
        pad: whether the last batch is filled up.
        grayscale: whether it gets the luminance of the images.
        value_range: its values of black and white; empty: 0 and 1, or the result of the normalisation.
        order: for each class of the data the index of its output, then the other outputs; empty if they
            are in this order already.
        outputs: number of its outputs.
        gradients: whether it has gradients.
        image_size: side of the measured images in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    spec: str
    file: str = ""
    weights_file: str = ""
    weights: str = ""
    pretrained: bool = False
    arguments: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    output: str = ""
    batch_size: Annotated[int | None, Field(ge=1)] = None
    pad: bool = False
    grayscale: bool = False
    value_range: Annotated[tuple[float, ...], Field(max_length=2)] = ()
    order: Annotated[tuple[int, ...], Field(max_length=_MOST_OUTPUTS)] = ()
    outputs: Annotated[int, Field(ge=1, le=_MOST_OUTPUTS)]
    gradients: bool = True
    image_size: Annotated[int, Field(ge=1)]

    @property
    def summary(self) -> str:
        """How the user gave the model, in short; without its weights."""
        words = [self.spec, *self.arguments, *(["--pretrained"] if self.pretrained else [])]
        for name, values in (("mean", self.mean), ("std", self.std), ("order", self.order)):
            words += [f"{name} {_brief(values)}"] if values else []
        return " ".join(words)

    def differences(self, other: GivenModel) -> list[str]:
        """The differences to another model of this name, one line per field."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [
            f"{key} of model '{self.name}': {_brief(theirs[key])} there, {_brief(mine[key])} here"
            for key in mine
            if mine[key] != theirs[key]
        ]


def given_differences(mine: Iterable[GivenModel], theirs: Iterable[GivenModel]) -> list[str]:
    """The differences between models of the same name in two plans."""
    others = {model.name: model for model in theirs}
    return [line for model in mine if model.name in others for line in model.differences(others[model.name])]


def given_summary(models: Iterable[GivenModel]) -> str:
    """How the user gave the models, in short."""
    return "; ".join(model.summary for model in models)[:_SUMMARY]


def unique_names(names: Sequence[str], qualifiers: Sequence[str]) -> list[str]:
    """The names, made unique.

    Names that occur several times get their qualifiers, or a number if these do not make them unique.

    Args:
        names: names of models.
        qualifiers: a word for each, such as the name of its weights file; may be empty.

    >>> unique_names(["net", "net", "vgg"], ["a", "b", "c"]), unique_names(["net", "net"], ["", ""])
    (['net-a', 'net-b', 'vgg'], ['net', 'net-2'])
    """
    found = [
        f"{name}-{word}" if word and list(names).count(name) > 1 else name
        for name, word in zip(names, qualifiers, strict=True)
    ]
    taken: set[str] = set()
    for index, name in enumerate(found):
        number = 1
        while found[index] in taken:
            number += 1
            found[index] = f"{name}-{number}"
        taken.add(found[index])
    return found


def _brief(value: object) -> str:
    if isinstance(value, tuple):
        shown = ",".join(map(str, value[:6])) + (",..." if len(value) > 6 else "")
        return shown or "none"
    return str(value) or "none"
