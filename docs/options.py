"""Write docs/options.md from the configs: ``python docs/options.py > docs/options.md``."""

from __future__ import annotations

from robustbench_tin.benchmarks.planning.config import BenchConfig, UserModelConfig
from robustbench_tin.options import Config, Option, default_of, flag_of, in_words, options_of, types_of
from robustbench_tin.text import markdown

_HEAD = """# Options

`python docs/options.py > docs/options.md` makes this page from `benchmarks/planning/config.py`.

## robust-tin bench

`bench(...)` in Python and the table `[bench]` of a preset take the same names, with `_` for `-`:
`batch_size = 64`. A list is `a,b` on the command line. `--no-` turns a switch off, as in `--no-trust`.
"""
_GATE = """
## robust-tin baseline and robust-tin check

They also have `--data`, `--classes`, `--eval-images` and `--device`. The other options are in their `--help`.
"""


def page() -> str:
    """The whole page."""
    panels = dict.fromkeys(declared.panel or "" for declared in options_of(BenchConfig).values())
    tables = [_table(BenchConfig, panel) for panel in panels]
    return "".join([_HEAD, *tables, _GATE, _table(UserModelConfig, UserModelConfig.panel)])


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


if __name__ == "__main__":
    print(page(), end="")
