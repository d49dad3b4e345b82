"""Names of a plan's cells, as shown on screen and accepted from the user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from robustbench_tin.benchmarks.planning.plan import Cell
from robustbench_tin.errors import RunError
from robustbench_tin.specs import short_numbers

CELL_HELP = "MODEL/DEFENSE/SEED, such as mobilenet/fgsm-at/0; patterns such as '*/fgsm-at/*'."
_SHOWN = 5


def cell_name(cell: Cell) -> str:
    """The name that a user types: ``mobilenet/fgsm-at/0``."""
    return f"{cell.model}/{short_numbers(cell.defense)}/{cell.seed}"


def is_named(cell: Cell, text: str) -> bool:
    """Whether a text names a cell.

    Accepted are MODEL/DEFENSE/SEED, MODEL/DEFENSE, the name of the cell's directory, and the line that a
    bench shows (``mobilenet + fgsm-at, seed 0``); ``*`` and ``?`` are wildcards.
    """
    wanted = text.strip().strip("/")
    name = cell_name(cell)
    return any(fnmatchcase(known, wanted) for known in (name, name.rpartition("/")[0], cell.slug, cell.label))


def select_cells(cells: Iterable[Cell], text: str, run: str) -> list[Cell]:
    """The cells that a text names.

    Args:
        cells: the cells of a run.
        text: a name or a pattern, see :func:`is_named`.
        run: name of the run, for the error message.

    Raises:
        RunError: if no cell matches; the message lists similar names.
    """
    known = list(cells)
    found = [cell for cell in known if is_named(cell, text)]
    if not found:
        names = [cell_name(cell) for cell in known]
        close = get_close_matches(text, names, n=_SHOWN, cutoff=0.4) or names
        raise RunError(f"run '{run}' has no cell '{text}'; known: {listed(close)}")
    return found


def listed(names: Sequence[str]) -> str:
    """A few names, separated by commas.

    >>> listed(["a", "b"])
    'a, b'
    """
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
