"""Read a baseline file that may be damaged, edited, of another version, or hostile."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_tin.benchmarks.codes.trust_texts import TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason
from robustbench_tin.benchmarks.gate.baseline import FORMAT, FORMAT_KEY, LONGEST, Baseline, digest_of
from robustbench_tin.errors import RobustTinError
from robustbench_tin.files import IrregularError, read_bytes
from robustbench_tin.specs import short_numbers

# Largest size in bytes. 100 backbones and defenses with 12 measurements of 10,000 images need a tenth of it.
LARGEST = 64 * 2**20
# Largest number of values, because the check of each value costs memory and time. 25 backbones with 12
# measurements of 1,000 seeds have this number; the results per image are long, but only one value each.
MOST_VALUES = 400_000
_AGAIN = "make it again with robust-tin baseline"


class BaselineError(RobustTinError):
    """The baseline file is missing, damaged, changed by hand or of another version."""


def read_baseline(path: str | Path) -> Baseline:
    """Read and validate a baseline file; files of earlier formats are converted.

    Args:
        path: path of the file.

    Raises:
        BaselineError: if the file cannot be used; one line says why and how to continue.
    """
    path = Path(path)
    content = _read(path)
    try:
        baseline = Baseline.model_validate_json(_updated(content))
    except ValidationError as error:
        raise BaselineError(f"baseline '{path}' {_what_is_wrong(content, error)}") from None
    except RecursionError:
        raise BaselineError(f"baseline '{path}' is nested too deeply; {_AGAIN}") from None
    if baseline.digest != baseline.content_digest:
        raise BaselineError(
            f"baseline '{path}' was changed by hand or merged: its digest is {_short(baseline.digest)}, but"
            f" the digest of its content is {baseline.content_digest}; {_AGAIN}"
        )
    return _with_short_numbers(baseline)


def _with_short_numbers(baseline: Baseline) -> Baseline:
    """Write k/255 as a fraction in all specs; an earlier version wrote long decimals."""
    entries = [
        entry.model_copy(
            update={
                "defense": short_numbers(entry.defense),
                "measures": [
                    measure.model_copy(update={"attack": short_numbers(measure.attack)})
                    for measure in entry.measures
                ],
            }
        )
        for entry in baseline.entries
    ]
    settings = {key: short_numbers(value) for key, value in baseline.settings.items()}
    return baseline.model_copy(update={"entries": entries, "settings": settings})


# Words of earlier formats and the present words.
_FIXED = "full budget", "fixed budget"
_STOP = "until broken", "stop on success"


def _updated(content: bytes) -> bytes:
    """Convert a file of an earlier format to this format; other files are returned unchanged.

    Format 1 held texts instead of codes. Formats 1 and 2 had other names for two facts.
    """
    written = _format_of(content)
    if written not in (1, 2):
        return content
    known = json.loads(content)
    with suppress(AttributeError, KeyError, TypeError):  # damaged: the validation reports the problem
        untouched = known.get("digest") == digest_of(known)
        for entry in known["entries"]:
            for measure in entry["measures"]:
                measure["above_chance"] = measure.pop("learned")
                mode = measure["settings"]["mode"]
                measure["settings"]["mode"] = mode.replace(*_FIXED).replace(*_STOP)
                for field in ("doubts", "unchecked") if written == 1 else ():
                    measure[field] = [_reason(text) for text in measure.get(field, [])]
        known[FORMAT_KEY] = FORMAT
        if untouched:
            known["digest"] = digest_of(known)
    return json.dumps(known).encode()


def _reason(text: str) -> dict[str, Any]:
    known = Reason.parse(text) if len(text) <= LONGEST else None
    return (known or Reason.of(TrustCode.earlier, text=text)).model_dump(mode="json")


def _read(path: Path) -> bytes:
    try:
        content = read_bytes(path, LARGEST)
    except IrregularError as error:
        raise BaselineError(f"baseline '{path}' cannot be read: {error.strerror}; {_AGAIN}") from None
    except OSError as error:
        raise BaselineError(
            f"baseline '{path}' cannot be read: {error.strerror}; make one with robust-tin baseline RUN"
            f" --out {path}"
        ) from error
    if content.count(b",") + content.count(b"{") > MOST_VALUES:
        raise BaselineError(f"baseline '{path}' holds more than {MOST_VALUES:,} values; {_AGAIN}")
    if not content.strip():
        raise BaselineError(f"baseline '{path}' is empty; {_AGAIN}")
    return content


def _what_is_wrong(content: bytes, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"is not JSON ({_short(first['msg'])}); it may be cut off or hold a merge conflict; {_AGAIN}"
    written = _format_of(content)
    if written is not None and written != FORMAT:
        newer = written > FORMAT
        return (
            f"has format {_short(str(written))}, and this robust-tin reads format {FORMAT};"
            f" {'update robust-tin, or ' if newer else ''}{_AGAIN}"
        )
    if written is None:
        return f"is not a baseline: it has no number '{FORMAT_KEY}'; {_AGAIN}"
    where = ".".join(map(str, first["loc"])) or "content"
    return f"is damaged or was changed by hand ({_short(where)}: {_short(first['msg'])}); {_AGAIN}"


def _format_of(content: bytes) -> int | None:
    """The format number in a file; None if there is no such number."""
    try:
        claimed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    number = claimed.get(FORMAT_KEY) if isinstance(claimed, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _short(text: str) -> str:
    """One line of at most 120 printable characters, because the content of a file is not trusted."""
    return "".join(character if character.isprintable() else " " for character in text)[:120]
