"""The paper behind an attack or defense, read from its docstring."""

from __future__ import annotations

import pytest

from robustbench_tin import attacks, defenses
from robustbench_tin.citations import citation, paper_of

WITHOUT = {"noise", "none", "augment", "bbox-crop"}


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("pgd", "Madry et al., 2018, arXiv:1706.06083"),
        ("fgsm", "Goodfellow et al., 2015, arXiv:1412.6572"),
        ("apgd-ce", "Croce and Hein, 2020, arXiv:2003.01690"),  # its base's
        ("fast", "Liu et al., 2022, arXiv:2203.05154"),
        ("noise", ""),
    ],
)
def test_the_first_paper_of_a_class_or_its_base(name: str, paper: str) -> None:
    assert paper_of(attacks.registry.get(name)) == paper


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        (
            'By de Jorge, Bibi and Torr, 2022, "Make Some Noise", arXiv 2202.01181.',
            "de Jorge et al., 2022, arXiv:2202.01181",
        ),
        ('Wang, Zou and Gu, 2020, "Revisiting", ICLR (openreview x).', "Wang et al., 2020, ICLR"),
        ('Xu, 2018, "Feature Squeezing".', "Xu, 2018"),
        ("Does nothing in 2018, and cites nobody.", ""),
        ("", ""),
    ],
)
def test_citations_of_any_form(text: str, paper: str) -> None:
    assert citation(text) == paper


@pytest.mark.parametrize("registry", [attacks.registry, defenses.registry])
def test_everything_built_in_has_a_paper_or_none_to_name(registry) -> None:
    for entry in registry.entries():
        if entry.origin == "built-in":
            assert bool(paper_of(entry.load())) != (entry.name in WITHOUT), entry.name
