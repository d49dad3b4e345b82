"""Results of the phases: one Markdown file and one JSON file, complete after every row.

A phase may be killed at any moment, so each row is on disk before the next is measured. All phases share the
two files, since only a few files may come back from a GPU machine.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from robustbench_tin._version import __version__

JSON_NAME, MARKDOWN_NAME = "results.json", "results.md"


class Results:
    """One phase's part of the files.

    Args:
        directory: directory of the files.
        phase: the phase's name.
        title: a heading, for people.
        columns: the table's columns, in order.
        command: the command that measured the results; it is shown beside them.
    """

    def __init__(
        self, directory: Path, phase: str, *, title: str, columns: Sequence[str], command: str
    ) -> None:
        self._directory, self._phase = directory, phase
        self._part: dict[str, Any] = {
            "title": title,
            "status": "running",
            "command": command,
            "columns": list(columns),
            "rows": [],
            "notes": [],
        }
        self._write()

    def row(self, **values: Any) -> None:
        """Add a row: the value that the table shows in each column, and anything more for the JSON file."""
        self._part["rows"].append(values)
        self._write()

    def summary(self, text: str) -> None:
        """Set the line above the table."""
        self._part["summary"] = text
        self._write()

    def note(self, text: str) -> None:
        """Add a line below the table."""
        self._part["notes"].append(text)
        self._write()

    def close(self, status: str = "done") -> None:
        """Say how it ended."""
        self._part["status"] = status
        self._write()

    def _write(self) -> None:
        everything = read(self._directory)
        everything["machine"] = everything.get("machine") or machine()
        everything.setdefault("phases", {})[self._phase] = self._part
        write(self._directory, everything)


def read(directory: Path) -> dict[str, Any]:
    """The results so far; nothing if the file is damaged."""
    try:
        found: dict[str, Any] = json.loads((directory / JSON_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def write(directory: Path, everything: dict[str, Any]) -> None:
    """Write both files again, each in one step."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (
        (JSON_NAME, json.dumps(everything, indent=1)),
        (MARKDOWN_NAME, rendered(everything)),
    ):
        beside = directory / f".{name}"
        beside.write_text(text, encoding="utf-8")
        beside.replace(directory / name)


def end(directory: Path, phase: str, status: str, seconds: float) -> None:
    """Record how a phase ended, for the process that started it, if the phase could not record it itself."""
    everything = read(directory)
    part = everything.setdefault("phases", {}).setdefault(
        phase, {"title": phase, "command": "", "columns": [], "rows": [], "notes": []}
    )
    part["seconds"] = round(seconds, 1)
    if part.get("status", "running") == "running":
        part["status"] = status
    write(directory, everything)


def machine() -> dict[str, Any]:
    """The card and the versions."""
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "card": "none",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "robust-tin": __version__,
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        facts |= {
            "card": card.name,
            "memory_gib": round(card.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def rendered(everything: dict[str, Any]) -> str:
    """The Markdown file."""
    facts = everything.get("machine", {})
    lines = ["# Measured on a GPU", "", ", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    for part in everything.get("phases", {}).values():
        took = f", {part['seconds']:.0f} s" if "seconds" in part else ""
        lines += [f"## {part['title']}", "", f"{part['status']}{took}", ""]
        if part["command"]:
            lines += ["```sh", part["command"], "```", ""]
        if part.get("summary"):
            lines += [part["summary"], ""]
        columns = part["columns"]
        rows = [row for row in part["rows"] if any(name in row for name in columns)]
        if rows:
            lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
            lines += [f"| {' | '.join(_shown(row.get(name)) for name in columns)} |" for row in rows]
            lines.append("")
        lines += [line for note in part["notes"] for line in (note, "")]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
