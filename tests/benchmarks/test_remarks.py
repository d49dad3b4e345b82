"""Remarks: warnings about a figure that is right but means less than it seems to."""

from __future__ import annotations

import pytest
import torch
from toys import Toy

from robustbench_tin import bench, evaluate
from robustbench_tin.progress import LinesReporter


def test_an_attack_given_twice_is_measured_once_and_says_so(toy: Toy, small: dict) -> None:
    said = "fgsm is listed 2 times and measured once"
    with pytest.warns(UserWarning, match=said):
        frame = evaluate(toy.model, toy.images, toy.labels, "fgsm,pgd:steps=2,fgsm", 0.01).records
    assert frame["attack"].tolist() == ["clean", "fgsm", "pgd:steps=2"]
    assert frame["remarks"].tolist() == ["", said, ""]
    # Settings that are the default's make no other attack.
    with pytest.warns(UserWarning, match="pgd is listed 2 times"):
        assert len(evaluate(toy.model, toy.images, toy.labels, ["pgd", "pgd:steps=10"], 0.01).records) == 2

    listener = LinesReporter()
    run = bench(**{**small, "attacks": "fgsm,fgsm", "eps": "0.01", "epochs": 1}, reporter=listener)
    assert listener.lines.count(said) == 1
    assert len(run.records) == 2


def test_top_5_of_few_classes_says_that_it_says_nothing(toy: Toy, small: dict) -> None:
    said = "top-5 is meaningless: with 5 classes it always contains the true label"
    few = torch.nn.Sequential(toy.model, torch.nn.AvgPool1d(2))
    frame = evaluate(few, toy.images, toy.labels // 2, "fgsm", 0.03).records
    assert frame["top5"].tolist() == [1, 1]
    assert frame["remarks"].tolist() == [said, said]
    assert not evaluate(toy.model, toy.images, toy.labels, "fgsm", 0.03).records["remarks"].any()
    # One that measures top-1 alone has no top-5 to remark on.
    only = evaluate(few, toy.images, toy.labels // 2, "square:queries=5", 0.03).records
    assert only["remarks"].tolist() == [said, ""]

    run = bench(**{**small, "attacks": "fgsm,pgd:criterion=top1,steps=2", "eps": "0,0.01", "epochs": 1})
    for table in run.tables:
        assert table.notes.count(said.replace("5 classes", "3 classes")) == 1
