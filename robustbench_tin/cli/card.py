"""Model cards: ``card`` writes one, and ``check --card`` verifies it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_tin.benchmarks.planning.cell_names import CELL_HELP
from robustbench_tin.cli.images import console_reporter
from robustbench_tin.cli.panels import GATE
from robustbench_tin.cli.process import Command, say

if TYPE_CHECKING:
    from robustbench_tin.benchmarks.gate.result import CheckReport
    from robustbench_tin.benchmarks.gate.rules import Rules
    from robustbench_tin.benchmarks.planning.config import UserModelConfig


def add_commands(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        cls=Command,
        rich_help_panel=GATE,
        epilog="Example: robust-tin card runs/demo-1a2b3c4d --cell mobilenet/fgsm-at/0 --out card",
    )(card)


def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    cell: Annotated[str, typer.Option(metavar="CELL", help=CELL_HELP)],
    out: Annotated[Path, typer.Option(help="Directory for the card, its claims and the weights.")] = Path(
        "card"
    ),
) -> None:
    """Write a model card whose claims robust-tin check --card can verify from the weights.

    README.md is Markdown with the metadata block that model hubs read.
    """
    from robustbench_tin.benchmarks.gate.claims import CLAIMS_FILE, read_claims
    from robustbench_tin.benchmarks.gate.model_card import write_card

    written = write_card(run, cell, out)
    command = read_claims(written.parent / CLAIMS_FILE).command
    say(f"{written}: in its directory, this verifies it: {command}")


def verified(
    card: Path, rules: Rules, own: UserModelConfig, data: dict[str, Any], device: str | None
) -> CheckReport:
    """Verify a model card, for ``check --card``.

    Args:
        card: the Markdown file, or its directory.
        rules: tolerances and floors.
        own: the model and its weights, if they lie elsewhere.
        data: the data options from the command line.
        device: None for the best available device.

    Raises:
        RobustTinError: if the card cannot be verified.
    """
    from robustbench_tin.benchmarks.gate.verify_claims import CardSource, verify_card
    from robustbench_tin.errors import InvalidSettingError

    if len(own.weights) > 1:
        raise InvalidSettingError(
            f"--weights got {len(own.weights)} files; expected one, because a card describes one model"
        )
    source = CardSource(card, own.model, next(iter(own.weights), None), data, device)
    return verify_card(source, rules, console_reporter())


def require_alone(run: Path | None, baseline: Path | None, rules: Path | None) -> None:
    """Refuse a run, a baseline or a rules file together with a card.

    Raises:
        InvalidSettingError: if one of them is given.
    """
    from robustbench_tin.errors import InvalidSettingError

    for name, given in (("a run", run), ("--baseline", baseline), ("--rules", rules)):
        if given is not None:
            raise InvalidSettingError(
                f"got both --card and {name}, '{given}'; give one of them: a card has its own claims"
            )
