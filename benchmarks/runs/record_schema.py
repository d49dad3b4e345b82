"""The JSON Schema of records: ``python -m robustbench_tin.benchmarks.runs.record_schema`` rewrites it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from robustbench_tin.benchmarks.codes.status import StatusCode
from robustbench_tin.benchmarks.runs.records import Record, columns

NAME = "records.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_text() -> str:
    """The schema that the package ships."""
    return files("robustbench_tin.schemas").joinpath(NAME).read_text(encoding="utf-8")


def records_schema() -> dict[str, Any]:
    """The schema of ``results.json``, of ``show --format json``, and of one measurement's file.

    It is generated from :class:`~robustbench_tin.benchmarks.runs.records.Record`, whose docstring
    describes the fields.
    """
    # In the mode for reading: earlier files lack the fields that later versions added.
    record = Record.model_json_schema(mode="validation", ref_template="#/$defs/{model}")
    definitions = record.pop("$defs")
    for definition in definitions.values():
        definition["description"] = definition["description"].partition("\n\n>>>")[0]
    described = dict(_described(Record.__doc__ or ""))
    for name, field in record["properties"].items():
        field["description"] = described[name]
    record["description"] = "The file of one measurement in a run directory: cells/*/measures/*.json."
    return {
        "$schema": DIALECT,
        "title": "Records of robust-tin",
        "description": "results.json of a run, the output of `robust-tin show --format json`, or the file of"
        " one measurement.",
        "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/ShownRecord"}}, {"$ref": "#/$defs/Record"}],
        "$defs": {**definitions, "Record": record, "ShownRecord": _shown(record)},
    }


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a record in tables of records: texts for people, and codes for programs."""
    fields = record["properties"]
    changed: dict[str, Any] = {
        "status": {"type": "string", "description": "ok, or the reason why there is no figure; for people."},
        "status_code": {"enum": [code.value for code in StatusCode], "description": "Code of the status."},
        "trust": {"type": ["string", "null"], "description": "The trust verdict; for people."},
        "trust_codes": fields["trust"],
        "remarks": {"type": "string", "description": "Remarks, separated by semicolons."},
        "remark_list": fields["remarks"],
    }
    names = columns(Record)
    required = {*record["required"], "status_code"}
    return {
        "title": "ShownRecord",
        "description": "One measurement in results.json.",
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in names if name in required],
        "properties": {name: changed.get(name) or fields[name] for name in names},
    }


def _described(docstring: str) -> Iterator[tuple[str, str]]:
    """The fields of a class and their descriptions, from its docstring's section ``Attributes``."""
    _, _, section = docstring.partition("Attributes:\n")
    name, words = "", [""]
    for line in section.splitlines():
        if line.startswith(" " * 8) and not line.startswith(" " * 9):
            if name:
                yield name, " ".join(words)
            name, _, text = line.strip().partition(": ")
            words = [text]
        elif line.strip():
            words.append(line.strip())
    yield name, " ".join(words)


def main() -> None:
    """Write the schema into the checkout."""
    place = Path(str(files("robustbench_tin.schemas").joinpath(NAME)))
    place.write_text(json.dumps(records_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
