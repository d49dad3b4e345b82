"""The head of ImageNet's weights, cut to the classes of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from robustbench_tin.data.imagenet_classes import COUNT, class_numbers
from robustbench_tin.errors import InvalidSettingError, WeightsError
from robustbench_tin.text import printable

PUBLISHED = "published"
"""The value of ``--head`` that starts a head from the rows of a published one."""


def head_rows(head: str, classes: Sequence[str]) -> tuple[int, ...]:
    """For each class, the row of a published head that it starts from; empty for a new head.

    Args:
        head: ``new`` or ``published``.
        classes: class ids, for example ``n01443537``.

    Raises:
        InvalidSettingError: for a class that is not among the 1,000 of ImageNet.
    """
    if head != PUBLISHED:
        return ()
    numbers = class_numbers()
    other = next((name for name in classes if name not in numbers), None)
    if other is not None:
        raise InvalidSettingError(
            f"head got 'published', but class '{printable(other)}' of the data is not among the {COUNT:,} of"
            " ImageNet; expected data whose classes have ImageNet's ids, or --head new"
        )
    return tuple(numbers[name] for name in classes)


def with_rows(
    state: Mapping[str, Tensor], heads: Iterable[str], rows: Sequence[int], origin: str
) -> dict[str, Tensor]:
    """The weights with their head cut to some of its rows.

    Args:
        state: weights by name.
        heads: names of the head's weights and biases; names that ``state`` lacks are ignored.
        rows: rows of the head, in the order of the classes.
        origin: name of the weights' source, for the message.

    Raises:
        WeightsError: if the head does not have one row for each class of ImageNet.
    """
    chosen = torch.tensor(rows)
    cut = {key: state[key] for key in heads if key in state}
    for key, values in cut.items():
        if len(values) != COUNT:
            raise WeightsError(
                f"head got 'published', but the head of {origin} has {len(values):,} classes; expected the"
                f" {COUNT:,} of ImageNet, or --head new"
            )
        cut[key] = values[chosen.to(values.device)]
    return {**state, **cut}


def rows_note(backbone: str, rows: Sequence[int]) -> str:
    """The note about a head that starts from published rows."""
    return f"{backbone}: the head starts from the published head's rows for these {len(rows)} classes"
