"""The reference page of options, made from the configs: ``make pages`` writes it."""

from __future__ import annotations

from robustbench_tin.benchmarks.planning.config import (
    BenchConfig,
    EvaluateConfig,
    TableConfig,
    UserModelConfig,
)
from robustbench_tin.options import Config, Option, default_of, flag_of, in_words, options_of, types_of
from robustbench_tin.text import markdown

_HEAD = """# Options

`make pages` makes this page from the configs in `benchmarks/planning/config.py`.

## robust-tin bench

`bench(...)` in Python and the table `[bench]` of a preset take the same names, with `_` for `-`:
`batch_size = 64`. A list is `a,b` on the command line. `--no-` turns a switch off, as in `--no-trust`.
"""
_TABLES = """
## Tables of robust-tin bench and robust-tin show

Only the command line has these. `show` also has `--cell`, `--sort` and `--format`.
"""
_EVALUATE = """
## robust-tin evaluate

It also has the options of tables. [Measure a model you have](../how-to/evaluate.md) shows how to use it.
"""
_GATE = """
## robust-tin baseline, robust-tin check and robust-tin init

They also have `--data`, `--classes`, `--eval-images` and `--device`. [Commands](commands.md) has their other options.
"""


def page() -> str:
    """The whole page."""
    shown = [_TABLES, _table(TableConfig, TableConfig.panel)]
    evaluate = [_EVALUATE, *_tables(EvaluateConfig)]
    return "".join([_HEAD, *_tables(BenchConfig), *shown, *evaluate, _GATE, *_tables(UserModelConfig)])


def _tables(config: type[Config]) -> list[str]:
    """A table for each panel of a config."""
    panels = dict.fromkeys(declared.panel or "" for declared in options_of(config).values())
    return [_table(config, panel) for panel in panels]


def _table(config: type[Config], panel: str) -> str:
    lines = ["", f"### {panel}", "", "| option | value | default | sets |", "|---|---|---|---|"]
    for name, told in options_of(config).items():
        if told.panel == panel:
            cells = (_value(config, name, told), _default(config, name, told), markdown(told.help))
            lines.append(f"| `{flag_of(name, told)}` | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _value(config: type[Config], name: str, declared: Option) -> str:
    kind = types_of(config)[name]
    if kind is bool:
        return "switch"
    words = declared.metavar or (declared.expected if declared.choices else in_words(kind))
    bounds = "" if declared.choices or not declared.expected else f": {declared.expected}"
    return markdown(words + bounds)


def _default(config: type[Config], name: str, declared: Option) -> str:
    value = default_of(config, name)
    if declared.shown is not None:
        return declared.shown
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value in (None, ()) else f"`{value}`"
