"""Presets: options of ``bench`` in a TOML file, built in or a user's own.

::

    summary = "One line for the user."

    [bench]                      # the options of robust-tin bench, by their names in bench(...)
    models = "mobilenet"
    eps = [0.0, 0.01, 0.03]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from robustbench_tin.errors import InvalidSettingError, UnknownNameError, one_line
from robustbench_tin.files import read_text
from robustbench_tin.options import Config, in_words, types_of

_SUFFIX = ".toml"
_LARGEST = 1 << 20
_ORDER = ("quick", "report", "report-final", "finetune", "scratch", "robust")


@dataclass(frozen=True)
class Preset:
    """Options of ``bench`` that belong together.

    Attributes:
        name: a built-in's name, or the path of a file.
        summary: one line for the user.
        options: options by the names that ``bench(...)`` takes.
        text: the file's text, to copy and edit.
    """

    name: str
    summary: str
    options: Mapping[str, Any]
    text: str


def preset_names() -> list[str]:
    """The built-in presets."""
    found = {file.name.removesuffix(_SUFFIX) for file in _folder().iterdir() if file.name.endswith(_SUFFIX)}
    return [name for name in _ORDER if name in found] + sorted(found - set(_ORDER))


def load_preset(name: str | Path) -> Preset:
    """Read a built-in preset by its name, or a file that ends in ``.toml``.

    Raises:
        UnknownNameError: for an unknown name.
        InvalidSettingError: if the file cannot be read or is not a preset.
    """
    name = str(name)
    if name.endswith(_SUFFIX):
        text = _read(Path(name).expanduser())
    elif name in preset_names():
        text = (_folder() / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    else:
        raise UnknownNameError("preset", name, preset_names())
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers may have too many digits
        raise InvalidSettingError(
            f"preset '{name}' is not valid TOML: {one_line(error)}; correct the file"
        ) from None
    options = content.get("bench")
    if not isinstance(options, dict) or set(content) - {"bench", "summary"}:
        raise InvalidSettingError(
            f"preset '{name}' has {', '.join(content) or 'nothing'}; expected a summary and a table [bench]"
        )
    given = {key.replace("-", "_"): value for key, value in options.items()}
    return Preset(name, str(content.get("summary", "")), given, text)


def _read(path: Path) -> str:
    try:
        return read_text(path, _LARGEST)
    except (OSError, ValueError) as error:
        raise InvalidSettingError(
            f"preset '{path}' cannot be read ({one_line(error)}); expected a TOML file"
        ) from None


def with_preset(preset: str | Path, given: Mapping[str, Any], config: type[Config]) -> dict[str, Any]:
    """A preset's options; options that are given take precedence.

    Args:
        preset: name or file.
        given: options that the user set explicitly.
        config: every option, with its type.

    Raises:
        RobustTinError: if a preset's option is unknown or of another type.
    """
    from pydantic import TypeAdapter, ValidationError

    chosen = load_preset(preset)
    known = types_of(config, in_preset=True)
    options: dict[str, Any] = {}
    for key, value in chosen.options.items():
        if key not in known:
            raise UnknownNameError("option", key, known, f"preset '{chosen.name}'")
        try:
            # Strict, because true is not a number of epochs.
            options[key] = TypeAdapter(known[key]).validate_python(value, strict=True)
        except ValidationError:
            raise InvalidSettingError(
                f"preset '{chosen.name}' has {key} = {value!r}; expected {in_words(known[key])}"
            ) from None
    if given.get("weights") is not None:
        options.pop("pretrained", None)  # weights replace pretrained
    if given.get("pretrained"):
        options.pop("weights", None)
    return {**options, **given}


def untrusted_plugins(given: Mapping[str, Any]) -> list[str]:
    """The plug-ins that a preset would run although the user has not named them.

    Args:
        given: the options of the command.

    Raises:
        RobustTinError: if the preset cannot be read.
    """
    if given.get("preset") is None or given.get("plugins") or given.get("trust_plugins"):
        return []
    named = load_preset(given["preset"]).options.get("plugins", ())
    return [named] if isinstance(named, str) else [str(plugin) for plugin in named]


def require_trusted(given: Mapping[str, Any]) -> None:
    """Refuse the plug-ins of a preset that the user has not allowed: they are programs.

    Raises:
        InvalidSettingError: for such plug-ins.
    """
    plugins = untrusted_plugins(given)
    if plugins:
        raise InvalidSettingError(
            f"preset '{given['preset']}' runs the plug-in {', '.join(plugins)}; read it, then give"
            " --trust-plugins, or name it yourself with --plugin"
        )


def _folder() -> Any:
    return resources.files(__name__)
