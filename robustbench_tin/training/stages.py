"""Stages of training: the head, the last layers or all of a classifier, one after the other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.network import head_names
from robustbench_tin.specs import parse_number, parse_spec, split_list

_EXPECTED = "expected head, last:N or all, or stages of them: head:epochs=2,all:rate=0.1"


@dataclass(frozen=True)
class Stage:
    """A part of a training with a schedule of its own.

    Attributes:
        part: ``head``, ``last:N`` or ``all``.
        epochs: number of epochs.
        rate: its highest learning rate, as a multiple of the recipe's.
    """

    part: str
    epochs: int
    rate: float = 1.0


def parse_stages(text: str, epochs: int) -> tuple[Stage, ...]:
    """Stages from ``head``, ``last:3`` or ``head:epochs=2,all:rate=0.1``; the last takes the epochs left.

    Raises:
        InvalidSettingError: for an invalid stage, or stages that are longer than the epochs.

    >>> parse_stages("head:epochs=2,all:rate=0.1", 8)
    (Stage(part='head', epochs=2, rate=1.0), Stage(part='all', epochs=6, rate=0.1))
    """
    stages: list[Stage] = []
    items = split_list(text)
    left = epochs
    for index, item in enumerate(items):
        is_last = index == len(items) - 1
        try:
            if item == "last":
                raise ValueError(item)
            spec = parse_spec(item, ("last",))
            _check_part(spec.name)
            unknown = set(spec.settings) - {"epochs", "rate"}
            rate = parse_number(spec.settings.get("rate", "1"))
            given = spec.settings.get("epochs")
            if unknown or not 0 < rate < float("inf"):
                raise ValueError(item)
            length = left if given is None else int(given)
        except ValueError:
            raise InvalidSettingError(f"train got '{item}' in '{text}'; {_EXPECTED}") from None
        if given is None and not is_last:
            raise InvalidSettingError(
                f"train got '{item}' in '{text}' without its epochs; each stage except the last needs them:"
                f" {item}:epochs=1"
            )
        if not 1 <= length <= left or (is_last and length != left):
            raise InvalidSettingError(
                f"train got '{text}', which does not divide {epochs} epochs; expected at least one for each"
                " stage, and none given for the last, which takes those left"
            )
        stages.append(Stage(spec.name, length, rate))
        left -= length
    if not stages:
        raise InvalidSettingError(f"train got '{text}'; {_EXPECTED}")
    return tuple(stages)


def _check_part(part: str) -> None:
    name, _, count = part.partition(":")
    if part not in ("head", "all") and not (name == "last" and int(count) >= 1):
        raise ValueError(part)


def head_parameters(classifier: nn.Module) -> set[nn.Parameter]:
    """The head's parameters: of the layers named as the head, or else of the last layer."""
    network: nn.Module = getattr(classifier, "network", classifier)
    names = head_names(network) if hasattr(network, "pretrained_cfg") else ()
    if not names:
        return last_parameters(classifier, 1)
    return {parameter for name in names for parameter in network.get_submodule(name).parameters()}


def last_parameters(classifier: nn.Module, count: int) -> set[nn.Parameter]:
    """The parameters of the last ``count`` layers with a kernel or a matrix, in the network's order.

    Normalisation counts with the layer before it.
    """
    chosen: set[nn.Parameter] = set()
    for module in reversed(list(classifier.modules())):
        own = list(module.parameters(recurse=False))
        chosen.update(own)
        count -= any(parameter.ndim > 1 for parameter in own)
        if count == 0:
            break
    return chosen


def train_only(classifier: nn.Module, part: str, candidates: Collection[nn.Parameter]) -> None:
    """Put a classifier into train mode, with gradients for a part of it.

    If its parameters are frozen, normalisation works as at test time, so that its statistics do not change.

    Args:
        classifier: the classifier.
        part: ``head``, ``last:N`` or ``all``.
        candidates: the parameters that may be trained; the others never change.
    """
    classifier.train()
    chosen = set(candidates)
    if part == "head":
        chosen &= head_parameters(classifier)
    elif part != "all":
        chosen &= last_parameters(classifier, int(part.removeprefix("last:")))
    for parameter in candidates:
        parameter.requires_grad_(parameter in chosen)
    for module in classifier.modules() if part != "all" else ():
        if getattr(module, "running_mean", None) is not None:
            module.training = any(parameter in chosen for parameter in module.parameters(recurse=False))
