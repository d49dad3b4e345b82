"""Columns that were renamed are found under their old names for one version, with a warning."""

from __future__ import annotations

import copy
import warnings

import pandas as pd
import pytest
from toys import Toy

from robustbench_tin import evaluate
from robustbench_tin.benchmarks.runs.record_frame import RENAMED


@pytest.fixture(scope="module")
def frame(toy: Toy) -> pd.DataFrame:
    return evaluate(toy.model, toy.images, toy.labels, "fgsm", 0.03).records


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_gives_the_column_and_a_warning(frame: pd.DataFrame, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"'{old}' was renamed to '{new}'"):
        by_key = frame[old]
    with pytest.warns(DeprecationWarning, match=new):
        by_attribute = getattr(frame[frame.eps > 0], old)
    pd.testing.assert_series_equal(by_key, frame[new])
    pd.testing.assert_series_equal(by_attribute, frame[new][1:])


def test_other_names_are_what_they_are_in_any_frame(frame: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frame["above_chance"].all()
        assert frame.above_chance.all()
        frame["learned"] = 1  # a caller's own column
        assert frame["learned"].sum() == len(frame)
        del frame["learned"]
        assert len(copy.deepcopy(frame)) == len(frame)
    with pytest.raises(KeyError, match="nothing"):
        frame["nothing"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = frame.nothing
