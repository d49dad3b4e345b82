"""Write the reference pages that are made from the code: ``make pages``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import catalogue
import commands
import options
import record_columns

REFERENCE = Path(__file__).parent / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "attacks.md": catalogue.attacks_page,
    "defenses.md": catalogue.defenses_page,
    "commands.md": commands.page,
    "options.md": options.page,
    "records.md": record_columns.page,
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
