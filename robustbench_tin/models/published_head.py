"""The head of ImageNet's weights, cut to the classes of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from robustbench_tin.data.imagenet_classes import COUNT, class_numbers
from robustbench_tin.errors import InvalidSettingError, WeightsError
from robustbench_tin.text import printable

PUBLISHED = "published"
"""The start of a head from the rows of a published one, as ``--head`` names it."""


def head_rows(head: str, classes: Sequence[str]) -> tuple[int, ...]:
    """For each class the row of a published head that it starts from; none for a new head.

    Args:
        head: ``new`` or ``published``.
        classes: ids, such as ``n01443537``.

    Raises:
        InvalidSettingError: for a class that is not among the 1,000 of ImageNet.
    """
    if head != PUBLISHED:
        return ()
    numbers = class_numbers()
    other = next((name for name in classes if name not in numbers), None)
    if other is not None:
        raise InvalidSettingError(
            f"head got 'published', and class '{printable(other)}' of the data is not among the {COUNT:,} of"
            " ImageNet; expected data whose classes have ImageNet's ids, or --head new"
        )
    return tuple(numbers[name] for name in classes)


def with_rows(
    state: Mapping[str, Tensor], heads: Iterable[str], rows: Sequence[int], origin: str
) -> dict[str, Tensor]:
    """The weights with their head cut to some of its rows.

    Args:
        state: weights by name.
        heads: names of the head's weights and biases; those that ``state`` lacks are left out.
        rows: of the head, in the order of the classes.
        origin: of the weights, for the message.

    Raises:
        WeightsError: if the head has not one row for each class of ImageNet.
    """
    chosen = torch.tensor(rows)
    cut = {key: state[key] for key in heads if key in state}
    for key, values in cut.items():
        if len(values) != COUNT:
            raise WeightsError(
                f"head got 'published', and that of {origin} has {len(values):,} classes; expected the"
                f" {COUNT:,} of ImageNet, or --head new"
            )
        cut[key] = values[chosen.to(values.device)]
    return {**state, **cut}


def rows_note(backbone: str, rows: Sequence[int]) -> str:
    """The line on a head that starts from rows."""
    return f"{backbone}: the head starts as the rows of the published one for these {len(rows)} classes"
