"""A small mutation run over each reader; ``mutate.py`` does the long ones."""

from __future__ import annotations

from pathlib import Path

import mutate
import pytest

COUNT = 60


@pytest.mark.parametrize("name", mutate.reader_names())
def test_no_mutant_ends_in_a_traceback(name: str, tmp_path: Path) -> None:
    reader = mutate.load_reader(name)
    seeds = reader.seeds()
    mutants = (mutate.mutant(name, seeds, 1, index) for index in range(COUNT))
    found = [mutate.attempt(reader, files, tmp_path / "input", row) for row, files in enumerate(mutants)]
    assert [finding for finding in found if finding is not None] == []


@pytest.mark.parametrize("name", mutate.reader_names())
def test_seeds_are_read(name: str, tmp_path: Path) -> None:
    reader = mutate.load_reader(name)
    for row, files in enumerate(reader.seeds()):
        for path, content in files.items():
            place = tmp_path / str(row) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        reader.read(tmp_path / str(row))


def test_mutants_follow_from_their_number() -> None:
    seeds = [{"a": b"some text = 1\n" * 20}]
    first = [mutate.mutant("x", seeds, 0, index) for index in range(50)]
    assert first == [mutate.mutant("x", seeds, 0, index) for index in range(50)]
    assert sum(files != seeds[0] for files in first) > 45


class _Faulty:
    """A reader with the faults that a run has to find."""

    def seeds(self) -> list[dict[str, bytes]]:
        return [{"a": b"text"}]

    def read(self, folder: Path) -> None:
        from robustbench_tin.errors import DataError

        content = (folder / "a").read_bytes()
        if content == b"lines":
            raise DataError("two\nlines")
        if content == b"line":
            raise DataError("one line")
        if content == b"loop":
            while True:
                pass
        if content == b"exit":
            raise SystemExit(0)


def test_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutate, "LIMIT", 0.2)
    kinds = {}
    for content in (b"line", b"lines", b"loop", b"exit", b"text"):
        finding = mutate.attempt(_Faulty(), {"a": content}, tmp_path / "input", 0)
        kinds[content] = finding and finding.kind
    assert kinds == {b"line": None, b"lines": "lines", b"loop": "slow", b"exit": "SystemExit", b"text": None}
