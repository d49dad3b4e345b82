"""Kill commands at random moments, continue them, and compare with commands that ran undisturbed.

``python perf/kills.py --kills 100`` draws a small data set and divides the kills between five works: a bench
with ``--jobs 2``, a transfer, images that fool a model, the cache of decoded images, and a download from a
server on this machine. Each trial kills one process with SIGKILL, the command itself or one of its workers,
at a moment that is uniform over the time that the work takes. The same command is then given until it
succeeds, five times at most. A trial is the same if every file is, but for seconds. Exit code 1: one is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from drawn_sets import draw_tiny_imagenet  # noqa: E402

_PRELOADED = ["robustbench_tin.benchmarks.bench", "robustbench_tin.cli.app", "scipy.stats", "requests"]
_TRIES = 5
# A record has these of every run anew; the digest is of all of it.
_SECONDS = {"seconds", "train_seconds", "digest"}
_SKIPPED = {".lock", "costs.json", "results.csv", "results.json", "data.json"}


@dataclass(frozen=True)
class Work:
    """Something that is killed and continued.

    Attributes:
        name: of it.
        share: part of all kills.
        act: does it in a directory.
        before: prepares the directory.
        kills_workers: whether a worker process may be the victim, too.
    """

    name: str
    share: float
    act: Callable[[Path], None]
    before: Callable[[Path], None] = lambda place: None
    kills_workers: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of works, with commas between them")
    parser.add_argument("--keep", type=Path, help="directory for results that differ")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, _server() as address:
        home = Path(scratch)
        os.environ |= {"ROBUST_TIN_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
        works = _works(home, address)
        if arguments.only:
            works = [work for work in works if work.name in arguments.only.split(",")]
        wrong = _all_trials(works, home, arguments.kills, random.Random(arguments.seed), arguments.keep)
    raise SystemExit(1 if wrong else 0)


def _all_trials(works: list[Work], home: Path, kills: int, dice: random.Random, keep: Path | None) -> int:
    """Kill this number of times in all; returns the number of trials whose files differ."""
    same: Counter[str] = Counter()
    done: Counter[str] = Counter()
    whole = sum(work.share for work in works)
    print("| work | seconds undisturbed | kills | the same |\n|---|---:|---:|---:|", flush=True)
    for work in works:
        seconds, expected = _undisturbed(work, home)
        while done[work.name] < round(kills * work.share / whole):
            place = home / "trial"
            if not _killed(work, place, dice, seconds):
                continue  # it was over already
            done[work.name] += 1
            found = _continued(work, place)
            if found == expected:
                same[work.name] += 1
            else:
                _tell(work, done[work.name], expected, found)
                if keep is not None:
                    shutil.copytree(place, keep / f"{work.name}-{done[work.name]}", dirs_exist_ok=True)
        print(f"| {work.name} | {seconds:.1f} | {done[work.name]} | {same[work.name]} |", flush=True)
    print(f"{same.total()} of {done.total()} the same")
    return done.total() - same.total()


def _undisturbed(work: Work, home: Path) -> tuple[float, dict[str, str]]:
    """How long the work takes, and its files."""
    place = home / f"undisturbed-{work.name}"
    _prepared(work, place)
    started = time.monotonic()
    process = _begun(work, place)
    process.join()
    if process.exitcode:
        told = (home / "stderr").read_text().splitlines()[-1:]
        raise SystemExit(f"{work.name} fails undisturbed, with code {process.exitcode}: {told}")
    return time.monotonic() - started, _files(place)


def _killed(work: Work, place: Path, dice: random.Random, seconds: float) -> bool:
    """Kill the work at a random moment; False if it was over before."""
    _prepared(work, place)
    process = _begun(work, place)
    process.join(dice.uniform(0, seconds))
    if process.exitcode is not None:
        return False
    assert process.pid is not None
    workers = _children(process.pid) if work.kills_workers else []
    victim = dice.choice([process.pid, *workers])
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        process.join()
        return False
    process.join()
    return True


def _continued(work: Work, place: Path) -> dict[str, str]:
    for _ in range(_TRIES):
        process = _begun(work, place)
        process.join()
        if process.exitcode == 0:
            break
    return _files(place)


def _prepared(work: Work, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    work.before(place)


def _begun(work: Work, place: Path) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_act, args=(work.act, place))
    process.start()
    return process


def _act(act: Callable[[Path], None], place: Path) -> None:
    """In the process that may be killed; it says nothing."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    with (place.parent / "stderr").open("a") as errors:
        os.dup2(errors.fileno(), 2)
    act(place)


def _children(parent: int) -> list[int]:
    """Process numbers of the children, on Linux."""
    found = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(word) for word in found.read_text().split()] if found.exists() else []


def _files(place: Path) -> dict[str, str]:
    """A digest of each file's content, seconds left out."""
    return {
        str(file.relative_to(place)): _digest(file)
        for file in sorted(place.rglob("*"))
        if file.is_file() and file.name not in _SKIPPED and not file.name.endswith(".lock")
    }


def _digest(file: Path) -> str:
    content = file.read_bytes()
    if file.suffix == ".json" and isinstance(known := json.loads(content), dict):
        content = json.dumps({key: known[key] for key in known if key not in _SECONDS}).encode()
    return hashlib.sha256(content).hexdigest()


def _tell(work: Work, number: int, expected: dict[str, str], found: dict[str, str]) -> None:
    differ = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
    print(f"{work.name}, trial {number}: {len(differ)} files differ: {', '.join(differ[:6])}", flush=True)


# The works.


def _works(home: Path, address: str) -> list[Work]:
    images = draw_tiny_imagenet(home / "images")
    many = _draw(home / "many", 1500, 300)
    trained = home / "trained"
    options = ["--data", images, "--models", "timm:test_resnet,timm:test_vit", "--seeds", "0,1"]
    bench = ["bench", *options, "--attacks", "fgsm,pgd:steps=2", "--eps", "0,0.01,0.03", "--epochs", "4"]
    bench += ["--jobs", "2", "--threads", "1", "--device", "cpu", "--deterministic", "--no-trust"]
    bench += ["--worst-case", "--checkpoint-minutes", "0"]
    _command(*bench, "--out", trained)
    transfer = ["transfer", "--attack", "pgd:steps=4", "--eps", "0.01,0.03"]
    fool = ["fool", "--model", trained, "--cell", "timm:test_resnet/none/0", "--split", "train,val"]
    return [
        Work("download", 0.2, _Download(address)),
        Work("cache", 0.2, _Cache(many)),
        Work("fool", 0.12, _Command([*fool, "--attack", "pgd:steps=4", "--out"], "fooled")),
        Work("transfer", 0.12, _Command(transfer, "run"), before=_Copy(trained)),
        Work("bench --jobs 2", 0.36, _Command([*bench, "--out"], "run"), kills_workers=True),
    ]


@dataclass(frozen=True)
class _Command:
    """``robust-tin`` with these words; the last is a path in the directory."""

    words: list[Any]
    last: str

    def __call__(self, place: Path) -> None:
        _run([*self.words, place / self.last])


@dataclass(frozen=True)
class _Cache:
    """The cache of decoded images of a folder."""

    images: Path

    def __call__(self, place: Path) -> None:
        from robustbench_tin.data import open_dataset

        os.environ["ROBUST_TIN_CACHE"] = str(place)
        open_dataset(str(self.images))


@dataclass(frozen=True)
class _Download:
    """A file from the server."""

    address: str

    def __call__(self, place: Path) -> None:
        from robustbench_tin.data.download import fetch
        from robustbench_tin.data.source import OpenOptions

        fetch(self.address, "the file", "or not", _require_zip, OpenOptions(cache_dir=place))


@dataclass(frozen=True)
class _Copy:
    """Puts a copy of a run into the directory."""

    run: Path

    def __call__(self, place: Path) -> None:
        shutil.copytree(self.run, place / "run")


def _require_zip(part: Path) -> None:
    with zipfile.ZipFile(part) as archive:
        assert archive.testzip() is None


def _command(*words: Any) -> None:
    place = Path(words[-1])
    process = _begun(Work("", 0, _Command(list(words[:-1]), place.name)), place.parent)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{words[0]} failed with code {process.exitcode}")


def _run(words: Any) -> None:
    from robustbench_tin.cli.app import main as robust_tin

    sys.argv = ["robust-tin", *map(str, words)]
    robust_tin()


def _draw(root: Path, train: int, val: int) -> Path:
    """Three classes of noisy coloured squares."""
    noise = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for number, colour in enumerate(((40, 60, 200), (40, 190, 70), (210, 50, 40))):
            directory = root / part / f"class{number}"
            directory.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(colour + noise.integers(-30, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(directory / f"{index}.png")
    return root


class _Slow(BaseHTTPRequestHandler):
    """Sends the server's file, from the requested byte on, at some megabytes a second."""

    def do_GET(self) -> None:
        content: bytes = self.server.content  # type: ignore[attr-defined]
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        start = int(asked)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        try:
            for place in range(start, len(content), 1 << 16):
                self.wfile.write(content[place : place + (1 << 16)])
                time.sleep(0.01)
        except OSError:
            pass  # whoever asked was killed

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _server() -> Iterator[str]:
    """A server of one zip file of 8 MB, on this machine."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("noise", np.random.default_rng(0).bytes(8 << 20))
        file.seek(0)
        content = file.read()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        server.content = content  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/noise.zip"
        server.shutdown()


if __name__ == "__main__":
    main()
