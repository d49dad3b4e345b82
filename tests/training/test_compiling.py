"""``--compile``: the same weights under the same names, and one line if there is no compiler."""

from __future__ import annotations

import pytest
import torch
from loop_toys import build_full_model, split_of, trained_full
from toys import TOY_CLASSES

from robustbench_tin.models import Classifier
from robustbench_tin.runtime import Runtime
from robustbench_tin.training.compiling import compiled
from robustbench_tin.training.loop import Recipe

RECIPE = Recipe(2, 16, 1e-2)


def build() -> Classifier:
    return Classifier(
        build_full_model(),
        backbone="toy",
        num_classes=TOY_CLASSES,
        image_size=16,
        input_size=16,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )


def trained(classifier: Classifier, defense: str) -> dict[str, torch.Tensor]:
    trained_full(RECIPE, defense, model=classifier)
    return classifier.state_dict()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """torch.compile as far as a graph, which takes no compiler; how many images each call was given."""
    calls: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        def run(*arguments: torch.Tensor):
            calls.append(max(len(a) for a in arguments if torch.is_tensor(a) and a.ndim == 4))
            return module.forward(*arguments)

        return run

    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: real(function, backend=backend, **options)
    )
    return calls


@pytest.mark.parametrize("defense", ["none", "pgd-at:steps=1"])
def test_weights_are_those_of_a_training_without(traced: list[int], defense: str) -> None:
    lines: list[str] = []
    classifier = build()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    with compiled(classifier, Runtime("cpu"), 16, lines.append):
        assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
        assert all(parameter.grad is None for parameter in classifier.parameters())
        weights = trained(classifier, defense)
    assert len(traced) >= 1 + RECIPE.epochs * len(split_of(64)) // 16
    assert lines == []
    assert "forward" not in classifier.network.__dict__
    plain = trained(build(), defense)
    assert list(weights) == list(plain)
    for name, value in weights.items():
        torch.testing.assert_close(value, plain[name])


def test_without_a_compiler_it_trains_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function, **options):
        def call(*arguments):
            raise RuntimeError("no C++ compiler\nanywhere")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    lines: list[str] = []
    classifier = build()
    with compiled(classifier, Runtime("cpu"), 16, lines.append):
        weights = trained(classifier, "none")
    assert lines == [
        "compiling failed, training continues without it: RuntimeError: no C++ compiler anywhere"
    ]
    plain = trained(build(), "none")
    assert all(torch.equal(value, plain[name]) for name, value in weights.items())
