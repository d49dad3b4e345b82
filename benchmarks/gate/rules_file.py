"""Rules in a file: the table ``[tool.robust-tin]`` of ``pyproject.toml``, or the file ``robust-tin.toml``.

::

    baseline = "robustness-baseline.json"
    max-drop = 0.01                      # or a table: {"*" = 0.01, "resnet50/*/pgd@*" = 0.02}
    min = {"pgd@0.03" = 0.20}
    level = 0.05
    assumed-spread = 0.02                # between seeds, for a re-training if the baseline has one seed
    require-power = true                 # fail if there are too few images to detect the tolerance
    allow-untrained = true               # let a model pass although its accuracy is not above chance
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.gate.rules import (
    ASSUMED_SPREAD,
    LEVEL,
    Rule,
    Rules,
    check_level,
    check_spread,
    rule_of,
)
from robustbench_tin.errors import InvalidSettingError, UnknownNameError
from robustbench_tin.files import read_text

PYPROJECT = "pyproject.toml"
RULES_FILE = "robust-tin.toml"
LARGEST = 4 * 2**20
_OPTIONS = ("baseline", "max-drop", "min", "level", "assumed-spread", "require-power", "allow-untrained")


def read_rules(path: Path) -> Rules:
    """Read a TOML file of rules; in ``pyproject.toml``, only the table ``[tool.robust-tin]``.

    Args:
        path: path of the file; a relative baseline path in it is relative to its folder.

    Raises:
        RobustTinError: if the file cannot be read, or has an unknown or invalid rule.
    """
    content = read_toml(path)
    if path.name == PYPROJECT:
        tool = content.get("tool", {})
        content = tool.get("robust-tin", {}) if isinstance(tool, dict) else {}
        if not isinstance(content, dict):
            raise InvalidSettingError(
                f"'{path}' has a robust-tin entry that is not a table; expected [tool.robust-tin]"
            )
    for key in content:
        if key not in _OPTIONS:
            raise UnknownNameError("rule", key, _OPTIONS, f"'{path}'")
    baseline = content.get("baseline")
    if baseline is not None and not isinstance(baseline, str):
        raise InvalidSettingError(f"'{path}' has baseline = {baseline}; expected the path of a file")
    return Rules(
        max_drop=_rules("max-drop", content.get("max-drop", {})),
        floors=_rules("min", content.get("min", {})),
        level=check_level(content.get("level", LEVEL)),
        baseline=None if baseline is None else path.parent / baseline,
        assumed_spread=check_spread(content.get("assumed-spread", ASSUMED_SPREAD)),
        require_power=_switch(path, content, "require-power"),
        allow_untrained=_switch(path, content, "allow-untrained"),
    )


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InvalidSettingError: if the file cannot be read, or is not valid TOML.
    """
    try:
        return tomllib.loads(read_text(path, LARGEST))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettingError(f"rules '{path}' cannot be read ({error}); expected a TOML file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidSettingError(f"rules '{path}' are not TOML: {error}; correct the file") from None


def has_rules(pyproject: Mapping[str, Any]) -> bool:
    """Whether the content of a ``pyproject.toml`` has a table ``[tool.robust-tin]``."""
    tool = pyproject.get("tool")
    return isinstance(tool, dict) and "robust-tin" in tool


def find_rules() -> Rules:
    """The rules of the working directory, from ``pyproject.toml`` or ``robust-tin.toml``.

    Returns:
        The default rules if no file has rules.

    Raises:
        RobustTinError: if both files have rules, or a file cannot be read.
    """
    project, alone = Path(PYPROJECT), Path(RULES_FILE)
    in_project = project.is_file() and has_rules(read_toml(project))
    if in_project and alone.is_file():
        raise InvalidSettingError(
            f"got rules in {project} and in {alone}; expected one of them: remove one, or give --rules FILE"
        )
    if alone.is_file():
        return read_rules(alone)
    return read_rules(project) if in_project else Rules()


def _switch(path: Path, content: Mapping[str, Any], key: str) -> bool:
    value = content.get(key, False)
    if not isinstance(value, bool):
        raise InvalidSettingError(f"'{path}' has {key} = {value}; expected true or false")
    return value


def _rules(option: str, content: object) -> tuple[Rule, ...]:
    if not isinstance(content, Mapping):
        return (rule_of(option, "", content, str(content)),)
    return tuple(rule_of(option, key, number, f"{key}={number}") for key, number in content.items())
