"""The reference page of record columns, made from the JSON Schema: ``make pages`` writes it."""

from __future__ import annotations

import json
from typing import Any

from prose import cell

from robustbench_tin.benchmarks.runs.record_schema import schema_text

_HEAD = """# Record columns

`make pages` makes this page from `robustbench_tin/schemas/records.schema.json`, which `robust-tin schema` prints.

A record is one measurement: one cell, one attack, one eps. You find the same columns in `RUN/results.json` and
`RUN/results.csv`, in `robust-tin show RUN --format json`, and in the DataFrames `run.records` and
`evaluate(...).records`.

```python
import pandas

records = pandas.read_json("RUN/results.json")
print(records[["model", "defense", "attack", "eps", "top1", "trust"]])
```

Accuracies are fractions from 0 to 1. `eps` counts in units of the pixel range. Let code decide on `status_code` and
`trust_codes`; the texts `status` and `trust` may be reworded in any version.

| column | type | meaning |
|---|---|---|
"""
_CODES = """
## Codes

`status_code` is one of {statuses}.

`trust_codes` is a list of objects with a `code` and its `facts`. The codes are:

{codes}

[Trust checks](../explanation/trust.md) explains them.
"""


def page() -> str:
    """The whole page."""
    definitions = json.loads(schema_text())["$defs"]
    columns = definitions["ShownRecord"]["properties"]
    rows = [f"| `{name}` | {_type(column)} | {_meaning(column)} |" for name, column in columns.items()]
    codes = _CODES.format(
        statuses=", ".join(f"`{code}`" for code in definitions["StatusCode"]["enum"]),
        codes="\n".join(f"- `{code}`" for code in definitions["TrustCode"]["enum"]),
    )
    return _HEAD + "\n".join(rows) + "\n" + codes


def _meaning(column: dict[str, Any]) -> str:
    return cell(column.get("description", ""))


def _type(column: dict[str, Any]) -> str:
    if "enum" in column:
        return "text"
    kinds = [each for part in column.get("anyOf", [column]) for each in _kinds(part)]
    return " or ".join(dict.fromkeys(kinds))


def _kinds(part: dict[str, Any]) -> list[str]:
    words = {"string": "text", "null": "empty", "integer": "whole number", "boolean": "true or false"}
    given = part.get("type", "object")
    return [words.get(each, each) for each in ([given] if isinstance(given, str) else given)]
