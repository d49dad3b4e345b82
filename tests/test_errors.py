"""Messages: one line that helps."""

from __future__ import annotations

import pytest

from robustbench_tin import errors


def test_close_names_are_suggested() -> None:
    message = str(errors.UnknownNameError("backbone", "densnet169", ["alexnet", "densenet169", "mobilenet"]))
    assert message.startswith("unknown backbone 'densnet169'; did you mean 'densenet169'")
    assert "did you mean 'bb2' or 'bb1'?" in str(errors.UnknownNameError("x", "bb3", ["bb1", "bb2"]))


def test_without_a_close_name_all_are_listed() -> None:
    assert str(errors.UnknownNameError("attack", "zzz", ["pgd", "fgsm"])).endswith("; known: fgsm, pgd")


@pytest.mark.parametrize(
    "kind",
    [
        errors.UnknownNameError,
        errors.InvalidSettingError,
        errors.DataError,
        errors.WeightsError,
        errors.RunError,
    ],
)
def test_one_class_catches_them_all(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.RobustTinError)
    assert kind.exit_code == 2


def test_any_exception_fits_in_one_line() -> None:
    assert errors.one_line(ValueError("a\n  b\tc")) == "ValueError: a b c"
    assert errors.one_line(KeyError()) == "KeyError"
    assert len(errors.one_line(ValueError("x" * 1000))) == 300
