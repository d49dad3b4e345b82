"""Mutation runs over the readers of files: damaged inputs end in one line, or are read.

A reader is a module ``reader_NAME.py`` beside this one. It has:

- ``seeds() -> list[Files]``: valid inputs, dicts from path to content, made by the module itself;
- ``read(folder) -> None``: reads the input that lies in ``folder`` the way the package does.

Mutant ``i`` of a reader follows from ``(reader, seed, i)`` alone. A finding is a mutant on which ``read``
raises anything but a :class:`RobustTinError`, gives a text of more than one line, takes more than
:data:`LIMIT` seconds, or ends the process::

    python tests/fuzz/mutate.py weights presets --count 20000
    python tests/fuzz/mutate.py weights --only 4711 --keep found    # one mutant again, its files in found/
"""

from __future__ import annotations

import argparse
import importlib
import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Protocol

from robustbench_tin.errors import RobustTinError

LIMIT = 5.0
"""Seconds that one input may take."""

MEMORY = 6 << 30
"""Bytes of address space that the process of a long run may take beyond those that it starts with."""

Files = dict[str, bytes]
Mutation = Callable[[random.Random, bytes], bytes]

_TOKENS = (
    *(b"0", b"-1", b"1e400", b"NaN", b"Infinity", b"99999999999999999999", b"2.5", b"true", b"null", b"nan"),
    *(b'""', b'"x"', b"[]", b"{}", b"[[]]", b'{"a": 1}', b"\\u0000", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(
        b"\n",
        b"\t",
        b",",
        b":",
        b"=",
        b"..",
        b"../../etc",
        b"%s",
        b"[" * 5000,
        b'{"a":' * 2000,
        b"A" * 70_000,
    ),
)
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


class Reader(Protocol):
    """The interface of a module ``reader_NAME.py``."""

    def seeds(self) -> list[Files]:
        """Valid inputs, files by relative path."""

    def read(self, folder: Path) -> None:
        """Read the input in ``folder``."""


@dataclass(frozen=True)
class Finding:
    """A mutant that ended in something else than success or one line."""

    index: int
    kind: str
    detail: str


def reader_names() -> list[str]:
    """The readers whose modules lie beside this one."""
    found = Path(__file__).parent.glob("reader_*.py")
    return sorted(path.stem.removeprefix("reader_") for path in found)


def load_reader(name: str) -> Reader:
    """The module of one reader."""
    reader: Reader = importlib.import_module(f"reader_{name}")
    return reader


def mutant(name: str, seeds: list[Files], seed: int, index: int) -> dict[str, bytes | str]:
    """Files by relative path: their content, or a word for the thing that stands there instead of a file."""
    chance = random.Random(f"{name} {seed} {index}")
    files: dict[str, bytes | str] = {**chance.choice(seeds)}
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        path = chance.choice(sorted(files))
        content = files[path]
        if chance.random() < 0.02:
            _replace_file(chance, files, path)
        elif isinstance(content, bytes):
            files[path] = _inside(chance, content)
    return files


def attempt(reader: Reader, files: dict[str, bytes | str], folder: Path, index: int) -> Finding | None:
    """Read one mutant in this process; None if it was read or refused in one line."""
    shutil.rmtree(folder, ignore_errors=True)
    _write(folder, files)
    started = time.monotonic()
    try:
        with _alarm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
    except RobustTinError as error:
        if len(str(error).splitlines()) != 1:
            return Finding(index, "lines", repr(str(error))[:300])
    except _TooSlowError:
        return Finding(index, "slow", f"over {LIMIT} s")
    except BaseException as error:  # noqa: BLE001 - each is a finding
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{error}".split())[:200]
        return Finding(index, type(error).__name__, f"{Path(place.filename).name}:{place.lineno}: {text}")
    took = time.monotonic() - started
    return Finding(index, "slow", f"{took:.1f} s") if took > LIMIT else None


def run(name: str, count: int, seed: int = 0) -> Iterator[Finding]:
    """All findings among ``count`` mutants, read in a process of its own, which is replaced if it ends."""
    start = 0
    context = multiprocessing.get_context("spawn")
    while start < count:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, name, seed, start, count), daemon=True)
        process.start()
        theirs.close()
        wait = 120.0  # it imports first
        try:
            while start < count:
                if not ours.poll(wait):
                    process.kill()
                    yield Finding(start, "hang", f"over {LIMIT} s, and no signal ended it")
                    break
                finding = ours.recv()
                if finding is not None:
                    yield finding
                start += 1
                wait = 2 * LIMIT
        except EOFError:
            process.join()
            yield Finding(start, "crash", f"the process ended with {process.exitcode}")
        process.kill()
        process.join()
        start += 1


def _work(pipe: Connection, name: str, seed: int, start: int, count: int) -> None:
    reader = load_reader(name)
    seeds = reader.seeds()
    with tempfile.TemporaryDirectory() as place:
        attempt(reader, {**seeds[0]}, Path(place) / "input", -1)  # for late imports
        _limit_memory()
        for index in range(start, count):
            pipe.send(attempt(reader, mutant(name, seeds, seed, index), Path(place) / "input", index))


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


class _TooSlowError(BaseException):
    """An input took longer than it may; no Exception, so that no reader takes it for one of its own."""


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _write(folder: Path, files: dict[str, bytes | str]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "directory":
            path.mkdir()
        elif content == "fifo":
            os.mkfifo(path)
        elif content == "loop":
            path.symlink_to(path.name)


def _replace_file(chance: random.Random, files: dict[str, bytes | str], path: str) -> None:
    what = chance.choice(("missing", "missing", "directory", "fifo", "loop", "swapped"))
    if what == "swapped":
        other = chance.choice(sorted(files))
        files[path], files[other] = files[other], files[path]
    elif what != "missing":
        files[path] = what
    elif len(files) > 1:
        del files[path]
    else:
        files[path] = b""


def _inside(chance: random.Random, content: bytes) -> bytes:
    """One mutation, of the raw content or of the content of its container."""
    if chance.random() < 0.6:
        if content[:2] == b"PK":
            return _zip_member(chance, content)
        length = int.from_bytes(content[:8], "little")
        if content[8:9] == b"{" and length <= len(content) - 8:  # safetensors
            header = chance.choice(_MUTATIONS)(chance, content[8 : 8 + length])
            return len(header).to_bytes(8, "little") + header + content[8 + length :]
    return chance.choice(_MUTATIONS)(chance, content)


def _zip_member(chance: random.Random, content: bytes) -> bytes:
    """A zip file with one member mutated and every checksum right; the content as it is if it is no zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            members = [(member, old.read(member)) for member in old.infolist()]
    except Exception:  # noqa: BLE001 - an earlier mutation broke it
        return chance.choice(_MUTATIONS)(chance, content)
    if not members:
        return content
    chosen = chance.randrange(len(members))
    # The small ones describe the others.
    chosen = min(chosen, chance.randrange(len(members)), key=lambda row: len(members[row][1]))
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as new:
        warnings.simplefilter("ignore")
        for row, (member, data) in enumerate(members):
            changed = chance.choice(_MUTATIONS)(chance, data) if row == chosen else data
            new.writestr(member.filename, changed, member.compress_type)
    return out.getvalue()


def _span(chance: random.Random, content: bytes) -> tuple[int, int]:
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + chance.choice((1, 1, 2, 4, 8, 16, 64, 1024)))


def _flip(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + chance.randbytes(end - start) + content[end:]


def _delete(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + content[end:]


def _insert(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + chance.randbytes(end - start) + content[start:]


def _repeat(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:end] + content[start:end] * chance.choice((1, 2, 50)) + content[end:]


def _move(chance: random.Random, content: bytes) -> bytes:
    start, end = _span(chance, content)
    rest = content[:start] + content[end:]
    place = chance.randrange(len(rest) + 1)
    return rest[:place] + content[start:end] + rest[place:]


def _truncate(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _extreme(chance: random.Random, content: bytes) -> bytes:
    width = chance.choice((1, 2, 4, 8))
    value = chance.choice(_EXTREMES) & (1 << 8 * width) - 1
    start = chance.randrange(len(content) + 1)
    return (
        content[:start] + value.to_bytes(width, chance.choice(("little", "big"))) + content[start + width :]
    )


def _token(chance: random.Random, content: bytes) -> bytes:
    """A word, number or bracket of a text replaced by a hostile one."""
    start, end = _span(chance, content)
    while end < len(content) and content[end : end + 1].isalnum():
        end += 1
    while 0 < start < len(content) and content[start - 1 : start].isalnum():
        start -= 1
    return content[:start] + chance.choice(_TOKENS) + content[end:]


def _line(chance: random.Random, content: bytes) -> bytes:
    """A line left out, doubled or moved."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    line = lines.pop(chance.randrange(len(lines)))
    for _ in range(chance.randrange(3)):
        lines.insert(chance.randrange(len(lines) + 1), line)
    return b"".join(lines)


_MUTATIONS: tuple[Mutation, ...] = (
    *(_flip, _flip, _overwrite, _delete, _insert, _repeat, _move, _truncate, _extreme, _extreme),
    *(_token, _token, _line),
)


def main() -> int:
    """Run the readers named, print each finding and a summary; the exit code is 1 if there is a finding."""
    parser = argparse.ArgumentParser(description="Mutation runs over the readers of files.")
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(reader_names())}; default: all")
    parser.add_argument("--count", type=int, default=20_000, help="mutants of each reader (20,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (0)")
    parser.add_argument("--only", type=int, help="read this mutant alone, and show its traceback")
    parser.add_argument("--keep", type=Path, help="with --only: leave its files in this directory")
    given = parser.parse_args()
    total = 0
    for name in given.readers or reader_names():
        if given.only is not None:
            _once(name, given.seed, given.only, given.keep)
            continue
        started = time.monotonic()
        kinds: Counter[str] = Counter()
        for finding in run(name, given.count, given.seed):
            kinds[finding.kind] += 1
            print(f"{name} {finding.index}: {finding.kind}: {finding.detail}", flush=True)
        total += sum(kinds.values())
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"
        took = time.monotonic() - started
        print(f"{name}: {given.count:,} mutants in {took:.0f} s, findings: {found}", flush=True)
    return min(total, 1)


def _once(name: str, seed: int, index: int, keep: Path | None) -> None:
    reader = load_reader(name)
    with tempfile.TemporaryDirectory() as place:
        folder = keep or Path(place) / "input"
        _write(folder, mutant(name, reader.seeds(), seed, index))
        try:
            reader.read(folder)
            print(f"{name} {index}: read")
        except RobustTinError as error:
            print(f"{name} {index}: {error}")


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))  # for modules that the tests share
    sys.exit(main())
