"""From configs to the command line: each field of a config parameter becomes an option."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from robustbench_tin.options import Config, Option, default_of, flag_of, options_of, types_of


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter annotated with a config by the options of that config.

    The command line gets separate options; the function gets the config.
    """
    hints = get_type_hints(function, include_extras=True)
    configs: dict[str, type[Config]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if inspect.isclass(kind) and issubclass(kind, Config):
            configs[name] = kind
            parameters += _parameters(kind)
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def called(**values: Any) -> None:
        for name, kind in configs.items():
            given = {field: values.pop(field) for field in options_of(kind)}
            values[name] = kind(**{field: value for field, value in given.items() if value is not None})
        function(**values)

    called.alone = {  # type: ignore[attr-defined] # read by Command when it parses the command line
        flag_of(field, declared): declared.alone
        for kind in configs.values()
        for field, declared in options_of(kind).items()
        if declared.alone is not None
    }
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def given_options(context: typer.Context, config: Config) -> dict[str, Any]:
    """The options that were given on the command line, without the defaults."""
    sources = {name: context.get_parameter_source(name) for name in options_of(type(config))}
    return {
        name: getattr(config, name)
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }


def as_option(config: type[Config], name: str, **changes: Any) -> Any:
    """One option of a config, for a command that does not take the whole config."""
    return _typer_option(name, options_of(config)[name], default_of(config, name), **changes)


def _typer_option(name: str, declared: Option, default: Any, **changes: Any) -> Any:
    flag = flag_of(name, declared)
    if isinstance(default, bool) and declared.in_preset:
        flag += f"/--no-{flag[2:]}"
    told = {
        # A name in brackets, such as an extra of the package, would be taken for markup.
        "help": re.sub(r"\[(?=[a-z])", r"\\[", declared.help),
        "metavar": declared.metavar,
        "show_default": declared.shown or default not in (None, ()),
        "rich_help_panel": declared.panel,
    }
    return typer.Option(flag, **{**told, **changes})


def _parameters(config: type[Config]) -> Iterator[inspect.Parameter]:
    types = types_of(config)
    for name, declared in options_of(config).items():
        default = default_of(config, name)
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if default == () else default,
            annotation=Annotated[_type_of_word(types[name]), _typer_option(name, declared, default)],
        )


def _type_of_word(kind: Any) -> Any:
    """The type that typer parses an option's text as: a path or text if the field accepts one."""
    if get_origin(kind) is Sequence:
        return list[_type_of_word(get_args(kind)[0])] | None  # type: ignore[misc]
    kinds = get_args(kind) or (kind,)
    for text in (Path, str):
        if text in kinds:
            return text | None if NoneType in kinds else text
    return kind
