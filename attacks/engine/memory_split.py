"""Splitting a batch into smaller passes if memory runs out."""

from __future__ import annotations

from collections.abc import Callable

from robustbench_tin.attacks.engine.failure import AttackFailure
from robustbench_tin.attacks.engine.state import ModelOutput
from robustbench_tin.runtime import is_out_of_memory


class MemorySplit:
    """Runs passes over a batch, and halves the number of images of all later ones if memory runs out."""

    def __init__(self) -> None:
        self._most_rows: int | None = None

    def run(self, count: int, part: Callable[[slice], ModelOutput]) -> ModelOutput:
        """The model's output for all rows of a batch.

        Args:
            count: number of rows.
            part: makes the passes for some of the rows.

        Raises:
            AttackFailure: if memory runs out with a single image.
        """
        outputs: list[ModelOutput] = []
        start = 0
        while start < count or not outputs:
            stop = min(count, start + (self._most_rows or count))
            try:
                outputs.append(part(slice(start, stop)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if stop - start <= 1:
                    raise AttackFailure("out of memory with a single image") from None
                self._most_rows = (stop - start) // 2
                continue
            start = stop
        whole = outputs[0]
        for output in outputs[1:]:
            whole.extend(output)
        return whole
