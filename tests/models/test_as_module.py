"""Models that are no plain modules: functions, and programs that take batches of one size."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustbench_tin.errors import InvalidSettingError
from robustbench_tin.models.as_module import Called, FixedBatch, as_module, name_of
from robustbench_tin.models.modes import to_eval_mode

NETWORK = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3))
IMAGES = torch.linspace(0, 1, 60).view(5, 3, 2, 2)


class Served:
    """An object around a network, as servers have one."""

    def __init__(self) -> None:
        self.network = NETWORK

    def __call__(self, images: Tensor) -> Tensor:
        return self.network(images)

    def predict(self, images: Tensor) -> Tensor:
        return self.network(images)


def of_a_global(images: Tensor) -> Tensor:
    return NETWORK(images)


def of_a_closure() -> Callable[[Tensor], Tensor]:
    network = NETWORK
    return lambda images: network(images)


def with_factor(factor: float, images: Tensor, network: nn.Module = NETWORK) -> Tensor:
    return factor * network(images)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (of_a_global, "of_a_global"),
        (of_a_closure(), "lambda"),
        (functools.partial(with_factor, 1.0), "with_factor"),
        (functools.partial(lambda network, images: network(images), NETWORK), "lambda"),
        (NETWORK.forward, "forward"),
        (Served(), "Served"),
        (Served().predict, "predict"),
    ],
)
def test_a_function_is_a_module_with_the_modules_that_it_calls(function: Callable, name: str) -> None:
    module = as_module(function)
    assert isinstance(module, Called)
    assert name_of(module) == name_of(function) == name
    assert NETWORK in module.modules()
    NETWORK.train()
    to_eval_mode(module)
    assert not NETWORK.training
    assert torch.equal(module(IMAGES), NETWORK(IMAGES))


def test_a_module_is_itself() -> None:
    assert as_module(NETWORK) is NETWORK
    assert name_of(NETWORK) == "Sequential"


@pytest.mark.parametrize(
    ("given", "got"),
    [(None, "a NoneType"), ("resnet18", "a str"), (3, "a int"), (nn.Linear, "the class Linear")],
)
def test_what_is_neither_is_refused(given: object, got: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"^model got {got}; expected a torch module or a function"):
        as_module(given)


def exported(network: nn.Module, *, any_size: bool) -> nn.Module:
    shapes = ({0: torch.export.Dim("n", min=1)},) if any_size else None
    return torch.export.export(network, (IMAGES[:2],), dynamic_shapes=shapes).module()


def test_a_program_of_one_batch_size_takes_any() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    module = as_module(exported(network, any_size=False))
    assert isinstance(module, FixedBatch)
    assert name_of(module) == "GraphModule"
    for count in (1, 2, 5):
        images = IMAGES[:count].clone().requires_grad_()
        logits = module(images)
        torch.testing.assert_close(logits, network(images))
        (gradient,) = torch.autograd.grad(logits.square().sum(), images)
        (expected,) = torch.autograd.grad(network(images).square().sum(), images)
        torch.testing.assert_close(gradient, expected)


def test_a_program_of_any_batch_size_is_itself() -> None:
    program = exported(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), any_size=True)
    assert as_module(program) is program


def test_what_is_around_a_program_gets_into_eval_mode() -> None:
    program = exported(nn.Flatten(), any_size=True)
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(program, nn.Dropout(0.5)))
    to_eval_mode(model)
    assert not any(module.training for module in model.modules())
