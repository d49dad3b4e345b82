"""Verdicts: the state that reasons lead to, and their form for people and in files."""

from __future__ import annotations

from string import Formatter

import pytest
from pydantic import ValidationError

from robustbench_tin.benchmarks.codes.former_trust_texts import FORMER_TEXTS
from robustbench_tin.benchmarks.codes.trust_texts import TEXTS, TrustCode
from robustbench_tin.benchmarks.codes.verdict import Reason, Trust, Verdict, too_few
from robustbench_tin.messages import translated

RISES = Reason.of(TrustCode.rising, lower=40.0, low=0.01, higher=46.9, high=0.03)
SAID = "accuracy rises from 40 % at eps 0.01 to 46.9 % at 0.03: give the attack more steps"
FEW = Reason.of(TrustCode.few_images, images=8, needed=20)
CHANCE = Reason.of(TrustCode.at_chance)


@pytest.mark.parametrize(
    ("reasons", "state", "text"),
    [
        ([], Trust.ok, "ok"),
        ([RISES], Trust.doubted, SAID),
        ([FEW], Trust.unchecked, "unchecked: too few images: 8, and 20 are needed"),
        # A doubt wins, and the reason that a check was impossible is kept.
        ([FEW, RISES], Trust.doubted, f"{SAID}; unchecked: too few images: 8, and 20 are needed"),
    ],
)
def test_reasons_make_a_verdict(reasons: list[Reason], state: Trust, text: str) -> None:
    verdict = Verdict.of(reasons)
    assert verdict.state is state
    assert str(verdict) == text


def test_a_reason_counts_once() -> None:
    assert Verdict.of([RISES, None, CHANCE, RISES]) == Verdict((RISES,), (CHANCE,))


@pytest.mark.parametrize("code", list(TrustCode))
def test_each_code_has_a_text_and_comes_back_from_a_file(code: TrustCode) -> None:
    wanted = dict.fromkeys(("steps", "images"), 7)
    facts = {
        name: wanted.get(name, "a b" if name in ("name", "kind", "norm", "error", "text") else 3)
        for name in Formatter().parse(TEXTS[code])
        for name in [name[1]]
        if name
    }
    reason = Reason(code=code, facts=facts)
    assert Reason.model_validate_json(reason.model_dump_json(), strict=True) == reason
    assert "{" not in str(reason)


def test_the_facts_are_those_that_the_text_names() -> None:
    with pytest.raises(ValidationError, match="expected"):
        Reason.of(TrustCode.few_images, images=8)
    with pytest.raises(ValidationError, match="expected"):
        Reason.of(TrustCode.at_chance, images=8)


@pytest.mark.parametrize("reason", [RISES, FEW, CHANCE])
def test_a_text_of_an_earlier_version_gives_its_code(reason: Reason) -> None:
    found = Reason.parse(str(reason))
    assert found is not None
    assert found.code is reason.code
    assert str(found) == str(reason)


@pytest.mark.parametrize(("code", "template"), FORMER_TEXTS)
def test_a_reworded_text_still_gives_its_code(code: TrustCode, template: str) -> None:
    facts = {name: "3" for _, name, _, _ in Formatter().parse(template) if name}
    found = Reason.parse(template.format_map(facts))
    assert found == Reason(code=code, facts=facts)
    assert str(found) != template.format_map(facts)


def test_any_other_text_is_one_of_an_earlier_version() -> None:
    found = Reason.parse("the moon was full")
    assert found is not None
    assert (found.code, str(found)) == (TrustCode.earlier, "the moon was full")


def test_texts_may_be_translated() -> None:
    with translated(str.upper):
        assert str(Verdict.of([CHANCE])) == "unchecked: CLEAN ACCURACY IS NOT ABOVE CHANCE"
    assert str(CHANCE) == "clean accuracy is not above chance"


@pytest.mark.parametrize(
    ("images", "right", "code"),
    [
        (19, 19, TrustCode.few_images),
        (19, 9, TrustCode.few_images),
        (20, 10, None),
        (20, 9, TrustCode.few_right),
        (10_000, 9, TrustCode.few_right),
    ],
)
def test_too_few_images_are_20_or_10_right_ones(images: int, right: int, code: TrustCode | None) -> None:
    reason = too_few(images, right)
    assert (None if reason is None else reason.code) == code
