"""The command line as a process: Ctrl-C, warnings, and foreign code that ends the program."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from types import FrameType
from typing import Any

from typer.core import TyperCommand, TyperGroup

from robustbench_tin.errors import ForeignExitError, InterruptedByUserError, RobustTinWarning
from robustbench_tin.text import printable

# Commands that leave parts behind, which the same command completes.
_RESUMABLE = frozenset({"bench", "evaluate", "transfer", "fool", "crop"})


class CtrlC(KeyboardInterrupt):
    """A real Ctrl-C, as opposed to a KeyboardInterrupt that a model raises."""


class Command(TyperCommand):
    """A command whose options are made from configs.

    The help omits the ``--no-`` form of a switch that is off by default, because it would take a column. An
    option may be given without a value if its config defines the value for that case.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the words of the command line."""
        return super().parse_args(ctx, with_left_out(args, getattr(self.callback, "alone", {})))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        switches = [
            param for param in self.params if getattr(param, "secondary_opts", None) and not param.default
        ]
        hidden = [(param, param.secondary_opts) for param in switches]
        try:
            for param in switches:
                param.secondary_opts = []
            super().format_help(ctx, formatter)
        finally:
            for param, names in hidden:
                param.secondary_opts = names


def with_left_out(words: Sequence[str], alone: Mapping[str, str]) -> list[str]:
    """A command line in which each option given without a value has its value added.

    Args:
        words: the words of the command line.
        alone: options that may be given without a value, and the value that they then have.
    >>> with_left_out(["--wandb", "--eps", "0.1", "--wandb", "mine"], {"--wandb": "robust-tin"})
    ['--wandb', 'robust-tin', '--eps', '0.1', '--wandb', 'mine']
    """
    filled = []
    for word, following in zip_longest(words, words[1:]):
        filled.append(word)
        if word in alone and (following is None or following.startswith("-")):
            filled.append(alone[word])
    return filled


def flowing(text: str) -> str:
    """A text with each paragraph on one line, for help that wraps at the terminal's width.

    >>> flowing("One\\ntwo.\\n\\nThree.")
    'One two.\\n\\nThree.'
    """
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


class CommandGroup(TyperGroup):
    """The group of commands; an exit of a model, a plug-in or a package does not exit this program."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        for command in self.commands.values():
            # Typer keeps a docstring's line breaks and wraps each line by itself.
            command.help = flowing(command.help or "")

    def main(self, *args: Any, **named: Any) -> Any:
        """Parse the command line and run the command.

        Only typer's own completion may end the program here: other exits are errors, see :meth:`invoke`.
        """
        try:
            return super().main(*args, **named)
        except SystemExit as end:
            if end.code not in (0, None):
                raise
            return 0

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command.

        Raises:
            InterruptedByUserError: after Ctrl-C.
            ForeignExitError: if foreign code tried to end the program.
        """
        try:
            return super().invoke(ctx)
        except CtrlC:
            resumable = ctx.invoked_subcommand in _RESUMABLE
            advice = "; the same command continues where it stopped" if resumable else ""
            raise InterruptedByUserError(f"interrupted{advice}") from None
        except (SystemExit, KeyboardInterrupt) as error:
            raise ForeignExitError(error) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise :class:`CtrlC`, unless the process ignores Ctrl-C or handles it itself."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield
        return
    before = signal.signal(signal.SIGINT, _raise_ctrl_c)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def told_warnings() -> Iterator[None]:
    """Print this package's own warnings as one line each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RobustTinWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
            if issubclass(category, RobustTinWarning):
                complain(f"warning: {message}")
            else:
                others(message, category, *rest, **named)

        warnings.showwarning = show
        yield


def complain(text: str) -> None:
    """Print one line on standard error."""
    print(f"robust-tin: {printable(text)}", file=sys.stderr)


def say(text: str) -> None:
    """Print one line on standard output."""
    print(printable(text))


def _raise_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise CtrlC
