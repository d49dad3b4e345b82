"""Forms that are found to be wrong at a moment of a test's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from torch import Tensor

from robustbench_tin.attacks.acceleration.variants import ModelVariant
from robustbench_tin.attacks.engine.attacked_model import AttackedModel


@contextmanager
def comparisons(wrong: int | None = None) -> Iterator[list[tuple[int, int]]]:
    """Gives a list of the comparisons of forms with their models that are made inside.

    Each is the number of points, and of those of them whose logits of the model were known.

    Args:
        wrong: the comparison that finds a form to be wrong at many of its points, the first is 1; None: none.
    """
    apart: Callable[..., list[tuple[ModelVariant, int]]] = AttackedModel.apart
    made: list[tuple[int, int]] = []

    def compared(
        attacked: AttackedModel, points: Tensor, logits: Tensor | None = None
    ) -> list[tuple[ModelVariant, int]]:
        made.append((len(points), 0 if logits is None else len(logits)))
        found = apart(attacked, points, logits)
        return [(variant, len(points)) for variant, _ in found] if len(made) == wrong else found

    with mock.patch.object(AttackedModel, "apart", compared):
        yield made
