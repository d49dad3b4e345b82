"""The trained models that a run measures: how each was given, and what tells it from others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# A model has an output for each class.
_MOST_OUTPUTS = 10**6
# Characters of a summary of all models; a baseline has one.
_SUMMARY = 2000


class GivenModel(BaseModel):
    """One trained model. Paths are not in it: a run can continue after a file has moved.

    Attributes:
        name: in the run.
        spec: as it was given, without the directories of a path.
        file: name and digest of the file that it names; empty if it names none.
        weights_file: name and digest of the file with its weights; empty without such a file.
        weights: digest of its tensors; empty if it shows none, so that nobody can tell two of them apart.
        pretrained: whether its weights are a backbone's published ones.
        arguments: of its factory function, as they were given.
        mean: what images are normalised with around it, a number a channel; empty: nothing.
        std: likewise.
        output: part of its answer that the logits are, by name or number; empty: it returns logits.
        batch_size: images that it is called with at most; None: any number.
        pad: whether the last batch is filled up.
        grayscale: whether it gets the luminance of the images.
        value_range: its values of black and white; empty: 0 and 1, or as normalisation makes them.
        order: for each class of the data the output that it has for it, then its other outputs; empty if they
            are in this order already.
        outputs: number of its outputs.
        gradients: whether it gives any.
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
        """How it was given, in short; nothing of its weights."""
        words = [self.spec, *self.arguments, *(["--pretrained"] if self.pretrained else [])]
        for name, values in (("mean", self.mean), ("std", self.std), ("order", self.order)):
            words += [f"{name} {_brief(values)}"] if values else []
        return " ".join(words)

    def differences(self, other: GivenModel) -> list[str]:
        """Where another model of this name differs, a line a field."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [
            f"{key} of model '{self.name}': {_brief(theirs[key])} there, {_brief(mine[key])} here"
            for key in mine
            if mine[key] != theirs[key]
        ]


def given_differences(mine: Iterable[GivenModel], theirs: Iterable[GivenModel]) -> list[str]:
    """Where the models of two plans differ that have the same name."""
    others = {model.name: model for model in theirs}
    return [line for model in mine if model.name in others for line in model.differences(others[model.name])]


def given_summary(models: Iterable[GivenModel]) -> str:
    """How models were given, in short."""
    return "; ".join(model.summary for model in models)[:_SUMMARY]


def unique_names(names: Sequence[str], qualifiers: Sequence[str]) -> list[str]:
    """The names, each once.

    Names that stand several times get their qualifiers, or a number if these do not tell them apart.

    Args:
        names: of models.
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
