"""The files of a run: written atomically, and checked when read, since they may be damaged or replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from robustbench_tin import files
from robustbench_tin.atomic import replacing
from robustbench_tin.benchmarks.runs.records import WORST_CASE
from robustbench_tin.errors import FOREIGN, RunError, one_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from robustbench_tin.benchmarks.measurement.results import Measurement
    from robustbench_tin.benchmarks.runs.records import Record

T = TypeVar("T", bound=BaseModel)

# A plan of 10,000 cells and the results of 10,000,000 images take a fraction of this.
LARGEST = 64 * 2**20
AGAIN = "run the same command again to measure it again"
REMOVE = f"remove it, then {AGAIN}"


class DamagedError(RunError):
    """A file of a run is unreadable, or does not belong to the files next to it.

    Attributes:
        cause: the message without its remedy.
    """

    def __init__(self, cause: str, remedy: str = AGAIN) -> None:
        super().__init__(f"{cause}; {remedy}")
        self.cause = cause


def read_bytes(file: Path) -> bytes:
    """The content of a regular file of at most 64 MiB.

    Raises:
        RunError: if the file is not regular, is too large, or cannot be read.
    """
    try:
        return files.read_bytes(file, LARGEST)
    except files.IrregularError as error:
        raise DamagedError(f"'{file}' cannot be read: {error.strerror}", REMOVE) from None
    except OSError as error:
        raise RunError(f"cannot read '{file}': {error.strerror}; expected a readable file") from error


def forget(file: Path) -> None:
    """Remove a file if it exists.

    Raises:
        RunError: if it is a directory or cannot be removed.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot remove '{file}': {error.strerror}; remove it by hand") from error


def read_json(file: Path, kind: type[T]) -> T:
    """Read a JSON file into a model of this class.

    Raises:
        RunError: if it cannot be read or is damaged.
    """
    content = read_bytes(file)
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise DamagedError(
            f"'{file}' is damaged or from another version ({where[:80]}: {first['msg'][:200]})"
        ) from None
    except (RecursionError, MemoryError) as error:
        raise DamagedError(f"'{file}' is damaged ({one_line(error)})") from None


def read_results(file: Path, record: Record) -> pd.DataFrame:
    """The results per image of a measurement, checked against its record.

    Args:
        file: Parquet file with one row per image: bool columns ``top1`` and ``top5``, or one of them; an
            integer column ``predicted`` (missing in earlier versions); ``sampled`` and ``alone`` for a rung
            of a ladder.
        record: the measurement's record; its status is ``ok``.

    Raises:
        RunError: if the file is missing, cannot be read, or contradicts the record.
    """
    if not file.exists():
        raise DamagedError(f"'{file}' is missing, but its record exists")
    content = read_bytes(file)
    # Checked before a third-party parser reads the content.
    if record.results_digest and bytes_digest(content) != record.results_digest:
        raise DamagedError(
            f"'{file}' is damaged or of another measurement (digest differs from the record's)"
        )
    frame = _parsed(file, content)
    for name in ("top1", "top5"):
        rate = getattr(record, name)
        right = int(frame[name].sum()) if name in frame else None
        if (None if rate is None else round(rate * record.n)) != right:
            raise DamagedError(
                f"'{file}' contradicts its record ({name}: {right} correct images in the file,"
                f" {rate} of {record.n} in the record)"
            )
    # A worst case may combine other attacks in its top 1 than in its top 5.
    both = {"top1", "top5"} <= set(frame) and record.attack != WORST_CASE
    if both and bool((frame["top1"] & ~frame["top5"]).any()):
        raise DamagedError(f"'{file}' has images that are correct in the top 1 but not in the top 5")
    if "predicted" in frame and not frame["predicted"].between(0, record.classes - 1).all():
        raise DamagedError(f"'{file}' has predictions outside the {record.classes} classes")
    if len(frame) != record.n:
        raise DamagedError(f"'{file}' has {len(frame)} images; its record has {record.n}")
    return frame


def write_results(file: Path, found: Measurement) -> str:
    """Write the results per image of a successful measurement; return the file's digest."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(_columns(found))
    with replacing(file) as temporary:
        parquet.write_table(table, temporary)
        return bytes_digest(temporary.read_bytes())


def results_frame(found: Measurement) -> pd.DataFrame:
    """The frame that :func:`read_results` would return for this measurement's file."""
    import pandas as pd

    return pd.DataFrame(_columns(found))


def _columns(found: Measurement) -> dict[str, npt.NDArray[np.generic]]:
    columns = {"top1": found.top1, "top5": found.top5, "predicted": found.predicted}
    if found.ladder is not None:
        columns |= {"sampled": found.ladder.sampled, "alone": found.ladder.alone}
    return {name: column for name, column in columns.items() if column is not None}


def bytes_digest(content: bytes) -> str:
    """The first 32 hexadecimal digits of the content's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:32]


def file_digest(file: Path) -> str:
    """The :func:`bytes_digest` of a file, read once per process; about 1 s per GB.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        known = file.stat()
        return _file_digest(file, known.st_mtime_ns, known.st_size, known.st_ino)
    except files.IrregularError as error:
        raise DamagedError(f"'{file}' cannot be read: {error.strerror}", REMOVE) from None
    except OSError as error:
        raise RunError(f"cannot read '{file}': {error.strerror}; expected a readable file") from error


@lru_cache(maxsize=1024)
def _file_digest(file: Path, changed: int, size: int, inode: int) -> str:
    with files.open_regular(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:32]


def _parsed(file: Path, content: bytes) -> pd.DataFrame:
    import pandas as pd
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(pyarrow.BufferReader(content)).read()
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
    except FOREIGN as error:  # any error of the third-party parser
        raise DamagedError(f"'{file}' is damaged ({one_line(error)[:120]})") from error
    if not _are_results({name: column.dtype.kind for name, column in columns.items()}):
        raise DamagedError(f"'{file}' has no results per image (its columns: {', '.join(columns)[:80]})")
    return pd.DataFrame(columns)


def _are_results(kinds: Mapping[str, str]) -> bool:
    """Whether columns of these kinds are results per image; earlier versions wrote no predictions."""
    extra = {"sampled", "alone"} & set(kinds)
    hits = set(kinds) - extra - {"predicted"}
    return (
        hits in ({"top1"}, {"top5"}, {"top1", "top5"})
        and len(extra) in (0, 2)
        and all(kind == ("i" if name == "predicted" else "b") for name, kind in kinds.items())
    )
