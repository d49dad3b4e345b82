"""Verdicts: which state reasons make, and that a record's text gives back what was written."""

from __future__ import annotations

import pytest

from robustbench_tin.benchmarks.verdicts import (
    Cause,
    Trust,
    Verdict,
    as_text,
    cause_of,
    read_verdict,
    too_few,
)

FEW = "too few images: 8, and 20 are needed"


@pytest.mark.parametrize(
    ("verdict", "state", "text"),
    [
        (Verdict(), Trust.ok, "ok"),
        (Verdict(("accuracy rises",)), Trust.doubted, "accuracy rises"),
        (Verdict(("a", "b")), Trust.doubted, "a; b"),
        (Verdict(unchecked=(FEW,)), Trust.unchecked, f"unchecked: {FEW}"),
        (Verdict(unchecked=(FEW, "c")), Trust.unchecked, f"unchecked: {FEW}; unchecked: c"),
        # A reason to disbelieve wins, and what could not be checked is not lost.
        (Verdict(("a",), (FEW,)), Trust.doubted, f"a; unchecked: {FEW}"),
    ],
)
def test_a_verdict_is_read_as_it_was_written(verdict: Verdict, state: Trust, text: str) -> None:
    assert verdict.state is state
    assert as_text(verdict) == text
    assert read_verdict(text) == verdict


@pytest.mark.parametrize("text", [None, ""])
def test_without_checks_there_is_no_verdict(text: str | None) -> None:
    assert read_verdict(text) is None


def test_a_reason_counts_once_and_separates_nothing() -> None:
    verdict = Verdict.of(["a; b", None, "a; b"], [None, "c"])
    assert verdict == Verdict(("a, b",), ("c",))
    assert read_verdict(as_text(verdict)) == verdict


@pytest.mark.parametrize(
    ("images", "right", "cause"),
    [
        (19, 19, Cause.few_images),
        (19, 9, Cause.few_images),
        (20, 10, None),
        (20, 9, Cause.few_right),
        (10_000, 9, Cause.few_right),
    ],
)
def test_too_few_images_are_20_or_10_right_ones(images: int, right: int, cause: Cause | None) -> None:
    reason = too_few(images, right)
    assert (reason is None) == (cause is None)
    assert reason is None or cause_of(reason) == cause
