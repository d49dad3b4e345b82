"""The command in a process of its own, forked from one that has imported torch: importing takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Modules that the parent of all commands imports once.
_PRELOADED = ["robustbench_tin.benchmarks.bench", "robustbench_tin.cli.app", "scipy.stats"]
STREAMS = ("stdout", "stderr")
_COMMAND = [sys.executable, "-m", "robustbench_tin"]


def robust_tin(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``robust-tin`` with these arguments; returns its output and its exit status.

    Args:
        arguments: each as text.
        cwd: the directory it runs in; None: this one.
    """
    words = [str(argument) for argument in arguments]
    if not hasattr(os, "fork"):
        return subprocess.run([*_COMMAND, *words], capture_output=True, text=True, check=False, cwd=cwd)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        process = started(*words, place=place, cwd=cwd)
        process.join()
        printed = [(place / name).read_text(encoding="utf-8") for name in STREAMS]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(words, process.exitcode, *printed)


def started(*arguments: object, place: Path, cwd: Path | None = None) -> multiprocessing.process.BaseProcess:
    """Start ``robust-tin`` with these arguments and do not wait, for tests that stop it. Needs POSIX.

    Args:
        arguments: each as text.
        place: directory in which the files ``stdout`` and ``stderr`` get its output.
        cwd: the directory it runs in; None: this one.
    """
    words = [str(argument) for argument in arguments]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    streams = [place / name for name in STREAMS]
    process = context.Process(target=_run, args=(words, cwd or Path.cwd(), streams, dict(os.environ)))
    process.start()
    return process


def _run(words: list[str], cwd: Path, streams: list[Path], environment: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams, 1):
        descriptor = os.open(stream, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["robust-tin", *words]
    from robustbench_tin.cli.app import main

    main()
