"""The files that ``robust-tin init`` writes into a project; existing files are replaced with --force only."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_tin.atomic import write_text
from robustbench_tin.benchmarks.gate.rules import LEVEL, MAX_DROP
from robustbench_tin.benchmarks.gate.rules_file import LARGEST, PYPROJECT, RULES_FILE, has_rules, read_toml
from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.files import read_text

_TABLE = re.compile(r"\s*\[\s*tool\s*\.\s*robust-tin\s*[.\]]")


@dataclass(frozen=True)
class ProjectFile:
    """A file to write.

    Attributes:
        path: path of the file.
        text: its complete content.
        extends: whether the text includes the content of the existing file, so that nothing is lost.
    """

    path: Path
    text: str
    extends: bool = False

    def write(self) -> None:
        """Write the file atomically.

        Raises:
            RunError: if the file cannot be written.
        """
        write_text(self.path, self.text)


def require_free(places: Iterable[Path]) -> None:
    """Refuse to overwrite existing files.

    Args:
        places: paths of the files to write.

    Raises:
        InvalidSettingError: if a file exists; it names every existing file.
    """
    there = [str(path) for path in places if path.exists()]
    if there:
        verb = "exists" if len(there) == 1 else "exist"
        raise InvalidSettingError(
            f"{', '.join(there)} {verb} already; overwrite with --force, or move the file away"
        )


def rules_file(baseline: Path, *, force: bool) -> ProjectFile:
    """The rules for ``robust-tin check``: in ``pyproject.toml`` if it exists, else in a file of their own.

    Args:
        baseline: path of the baseline file, relative to the working directory.
        force: replace existing rules.

    Raises:
        InvalidSettingError: if there are rules already, or a file cannot be read or extended.
    """
    rules = f"baseline = {json.dumps(baseline.as_posix())}\nmax-drop = {MAX_DROP}\nlevel = {LEVEL}\n"
    project = Path(PYPROJECT)
    if not project.is_file():
        return ProjectFile(Path(RULES_FILE), rules)
    content = read_toml(project)
    if has_rules(content) and not force:
        raise InvalidSettingError(
            f"{project} has rules in [tool.robust-tin] already; replace them with --force, or remove them"
        )
    text = _without_rules(read_text(project, LARGEST)).rstrip("\n")
    text = f"{text}\n\n[tool.robust-tin]\n{rules}".lstrip("\n")
    if not _is_the_same_but_for_rules(text, content):
        raise InvalidSettingError(
            f"the rules in {project} cannot be replaced without changes to the rest; remove them by hand"
        )
    return ProjectFile(project, text, extends=True)


def _without_rules(text: str) -> str:
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            inside = _TABLE.match(line) is not None
        if not inside:
            kept.append(line)
    return "".join(kept)


def _is_the_same_but_for_rules(text: str, content: dict[str, Any]) -> bool:
    try:
        return _others(tomllib.loads(text)) == _others(content)
    except tomllib.TOMLDecodeError:
        return False


def _others(content: dict[str, Any]) -> dict[str, Any]:
    """The content without the rules."""
    tools = {name: table for name, table in content.get("tool", {}).items() if name != "robust-tin"}
    return {**content, "tool": tools}


def installed_with() -> list[str]:
    """Additional arguments of ``pip install`` in CI, so that the project's model can be built."""
    requirements, project = Path("requirements.txt"), Path(PYPROJECT)
    words = ["-r", str(requirements)] if requirements.is_file() else []
    return [*words, "."] if project.is_file() and "project" in read_toml(project) else words
