"""The grammar of names and settings, and frozen settings that print as their spec."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given

from robustbench_tin.errors import InvalidSettingError, RobustTinError, UnknownNameError
from robustbench_tin.specs import (
    Configurable,
    Spec,
    eps_text,
    number_text,
    parse_number,
    parse_spec,
    short_numbers,
    split_list,
)


@dataclass(frozen=True)
class Thing(Configurable):
    kind = "thing"
    name = "thing"

    count: int = 3
    rate: float = 8 / 255
    limit: float | None = None
    loud: bool = False
    mode: Literal["fast", "slow"] = "fast"
    label: str = "plain"

    def __post_init__(self) -> None:
        self.require(self.count >= 0, "count", "0 or more")


@pytest.mark.parametrize(
    ("text", "name", "given_settings"),
    [
        ("pgd", "pgd", {}),
        (" pgd: ", "pgd", {}),
        ("pgd:steps=20", "pgd", {"steps": "20"}),
        ("pgd:steps=20,restarts=2", "pgd", {"steps": "20", "restarts": "2"}),
        ("pgd: steps = 20 , restarts=2 ,", "pgd", {"steps": "20", "restarts": "2"}),
        ("timm:resnet18", "timm:resnet18", {}),
        ("timm:resnet18:size=64", "timm:resnet18", {"size": "64"}),
        ("a:path=b=c", "a", {"path": "b=c"}),
    ],
)
def test_a_spec_is_a_name_and_its_settings(text: str, name: str, given_settings: dict[str, str]) -> None:
    assert parse_spec(text, {"timm"}) == Spec(name, given_settings)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no name"),
        (":a=1", "no name"),
        ("timm:", "no name"),
        ("pgd:steps", "not a setting"),
        ("pgd:steps=", "not a setting"),
        ("pgd:=3", "not a setting"),
        ("pgd:steps=1,steps=2", "sets steps twice"),
    ],
)
def test_what_is_no_spec_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(InvalidSettingError, match=reason) as caught:
        parse_spec(text, {"timm"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", []),
        ("fgsm", ["fgsm"]),
        ("fgsm, pgd", ["fgsm", "pgd"]),
        ("fgsm,pgd:steps=20,restarts=2", ["fgsm", "pgd:steps=20,restarts=2"]),
        ("pgd:steps=20,restarts=2,fgsm", ["pgd:steps=20,restarts=2", "fgsm"]),
        ("pgd,steps=20,restarts=2", ["pgd:steps=20,restarts=2"]),
        ("pgd:steps=1,pgd:steps=2", ["pgd:steps=1", "pgd:steps=2"]),
        ("timm:a,timm:b", ["timm:a", "timm:b"]),
        ("a+b:x=1,y=2,c", ["a+b:x=1,y=2", "c"]),
        ("a:x=1+b,y=2", ["a:x=1+b:y=2"]),
    ],
)
def test_in_a_list_a_setting_belongs_to_the_name_before_it(text: str, items: list[str]) -> None:
    assert split_list(text) == items


def test_numbers_may_be_fractions() -> None:
    assert parse_number("8/255") == 8 / 255
    assert parse_number("1e-3") == 0.001
    for text in ("", "8/", "8/0", "eight", "8//2"):
        with pytest.raises(ValueError, match=r"."):
            parse_number(text)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Thing()),
        ({"rate": "16/255"}, Thing(rate=16 / 255)),
        ({"rate": "1"}, Thing(rate=1.0)),
        ({"limit": "2/255"}, Thing(limit=2 / 255)),
        ({"limit": "none"}, Thing()),
        ({"limit": "None"}, Thing()),
        ({"count": "7"}, Thing(count=7)),
        ({"loud": "true"}, Thing(loud=True)),
        ({"loud": "True"}, Thing(loud=True)),
        ({"loud": "yes"}, Thing(loud=True)),
        ({"loud": "1"}, Thing(loud=True)),
        ({"loud": "off"}, Thing(loud=False)),
        ({"mode": "slow"}, Thing(mode="slow")),
        ({"label": "8/255"}, Thing(label="8/255")),
    ],
)
def test_settings_are_converted_to_their_types(settings: dict[str, str], expected: Thing) -> None:
    thing = Thing.from_settings(settings)
    assert thing == expected
    assert [type(value) for value in vars(thing).values()] == [type(v) for v in vars(expected).values()]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("count", "many"),
        ("count", "1.5"),
        ("count", "none"),
        ("count", "-1"),
        ("rate", "fast"),
        ("rate", "8/0"),
        ("rate", "none"),
        ("loud", "perhaps"),
        ("mode", "medium"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_key_and_value(key: str, text: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"^thing 'thing' got {key}={text}; expected ") as caught:
        Thing.from_settings({key: text})
    assert "\n" not in str(caught.value)


def test_unknown_settings_are_refused_with_the_close_ones() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown setting 'cuont' of thing 'thing'; did you mean 'count'"
    ):
        Thing.from_settings({"cuont": "1"})


def test_a_class_whose_author_forgot_the_decorator_is_told_so() -> None:
    class Forgotten(Configurable):
        name = "forgotten"
        steps: int = 3

    with pytest.raises(InvalidSettingError, match=r"put @dataclass\(frozen=True\) on class Forgotten"):
        Forgotten.from_settings({"steps": "4"})


def test_a_setting_without_a_default_has_to_be_given() -> None:
    @dataclass(frozen=True)
    class Strict(Configurable):
        kind = "thing"
        name = "strict"

        count: int
        rate: float = 0.5

    assert Strict.from_settings({"count": "2"}).spec == "strict:count=2"
    assert Strict.describe_settings() == "count, rate=0.5"
    with pytest.raises(
        InvalidSettingError, match=r"thing 'strict' needs its setting count.*strict:count=VALUE"
    ):
        Strict.from_settings({"rate": "1"})


@pytest.mark.parametrize(
    ("thing", "spec"),
    [
        (Thing(), "thing"),
        (Thing(rate=8 / 255, count=3), "thing"),
        (Thing(rate=0.5, count=4), "thing:count=4,rate=0.5"),
        (Thing(limit=0.1, loud=True), "thing:limit=0.1,loud=True"),
    ],
)
def test_the_spec_leaves_defaults_out_and_sorts_keys(thing: Thing, spec: str) -> None:
    assert thing.spec == str(thing) == spec


@given(
    st.builds(
        Thing,
        count=st.integers(0, 10**9),
        rate=st.floats(0, 1e9),
        limit=st.none() | st.floats(0, 1),
        loud=st.booleans(),
        mode=st.sampled_from(["fast", "slow"]),
    )
)
def test_a_spec_read_back_is_the_same_thing(thing: Thing) -> None:
    assert Thing.from_settings(parse_spec(thing.spec).settings) == thing


@given(st.text(alphabet="ab:=,+/ 1.-", max_size=20))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    items: list[str] = []
    with suppress(RobustTinError):
        items = split_list(text)
    for item in items:
        with suppress(RobustTinError):
            assert Thing.from_settings(parse_spec(item, {"a"}).settings) == Thing()


def test_settings_are_described_with_their_defaults() -> None:
    assert Thing.describe_settings().startswith("count=3, rate=8/255, limit=None")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((level / 255, f"{level}/255") for level in (1, 2, 4, 8, 16, 128)),
        (2.5 / 255, "2.5/255"),
        (0.25 / 255, "0.25/255"),
        (0.03, "0.03"),
        (0.2, "0.2"),  # 51/255 is the same number; the shorter form wins
        (1.0, "1.0"),
        (1 / 3, "85/255"),
        (1 / 7, "1/7"),
        (510 / 255, "2.0"),
        (0.012345678901, "0.012345678901"),
        (0.0, "0.0"),
        (1e-300, "1e-300"),
        (float("inf"), "inf"),
    ],
)
def test_a_number_is_written_as_people_type_it(number: float, text: str) -> None:
    assert number_text(number) == text
    assert parse_number(number_text(number)) == number


@given(st.floats(allow_nan=False) | st.integers(1, 2000).map(lambda level: level / 1020))
def test_a_written_number_reads_back_as_itself(number: float) -> None:
    assert parse_number(number_text(number)) == number


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (0.0, "0"),
        (1.0, "1"),
        (0.03, "0.03"),
        (0.1234567891, "0.123457"),
        (0.1 + 0.2, "0.3"),
    ],
)
def test_a_budget_in_a_table_is_short(eps: float, text: str) -> None:
    assert eps_text(eps) == text


def test_specs_of_earlier_versions_get_their_fractions_back() -> None:
    earlier = "n-fgsm:alpha=0.0392156862745098,eps=0.03137254901960784+awp:gamma=0.005"
    assert short_numbers(earlier) == "n-fgsm:alpha=10/255,eps=8/255+awp:gamma=0.005"
    for text in ("pgd:steps=20", "0.01,0.03", "version 2.9.01234567", "densenet169"):
        assert short_numbers(text) == text


def test_the_spec_has_the_fraction_and_the_default_too() -> None:
    assert Thing(limit=4 / 255).spec == "thing:limit=4/255"
    assert Thing.from_settings({"limit": "0.01568627450980392"}).spec == "thing:limit=4/255"
    with pytest.raises(InvalidSettingError, match="got rate=4/255; expected more"):
        Thing(rate=4 / 255).require(False, "rate", "more")


@pytest.mark.parametrize("text", ["fgsm,,pgd", ",fgsm", "fgsm,", " , ,"])
def test_an_empty_item_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidSettingError, match="has an empty item; expected") as caught:
        split_list(text)
    assert "\n" not in str(caught.value)
