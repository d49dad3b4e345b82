"""A model is left as it was, even if its forward pass changes it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import TOY_CLASSES, Toy

from robustbench_tin.attacks import AttackedModel


class Changing(nn.Module):
    """Writes into its weights, its buffers and a tensor of its own, and puts new ones in their places."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, TOY_CLASSES)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))
        self.plain = torch.ones(3)
        self.cache: Tensor | None = None
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean(dim=(2, 3))
        with torch.no_grad():
            self.layer.weight += 0.1
            self.seen += 1
            self.mean = self.mean + means.mean(dim=0)
            self.plain = self.plain * 2
        self.cache = means.detach()
        self.calls += 1
        return self.layer(means)


def test_tensors_are_put_back_values_and_objects() -> None:
    model = Changing()
    before = {name: (value, value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    plain = model.plain
    with AttackedModel(model) as attacked:
        attacked.logits(torch.rand(2, 3, 4, 4))
        assert int(model.seen) == 1
    for name, value in model.state_dict(keep_vars=True).items():
        assert value is before[name][0]
        assert torch.equal(value, before[name][1])
    assert model.plain is plain
    assert torch.equal(plain, torch.ones(3))
    # New attributes, and counts in Python, stay.
    assert model.cache is not None
    assert model.calls == 1


def test_what_nothing_changed_is_not_written_to(toy: Toy) -> None:
    """A write would tell the caller's pending graph that the weights have changed."""
    loss = toy.model(toy.images[:2].clone().requires_grad_()).sum()
    with AttackedModel(toy.model) as attacked:
        attacked.logits(toy.images[:2])
    loss.backward()
    toy.model.zero_grad(set_to_none=True)


def test_it_is_put_back_after_an_error() -> None:
    model = Changing().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def stop() -> None:
        with AttackedModel(model) as attacked:
            attacked.logits(torch.rand(2, 3, 4, 4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


class Learning(nn.Module):
    """Test-time adaptation: lowers the entropy of its answers, a step a call (Wang et al., 2021, TENT)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    @torch.enable_grad()
    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        chances = logits.softmax(dim=1)
        (-chances * logits.log_softmax(dim=1)).sum(dim=1).mean().backward()
        self.optimizer.step()
        return logits.detach()


def test_a_model_that_learns_as_it_answers_is_measured_and_put_back(mixed_model: nn.Module) -> None:
    model = Learning(mixed_model)
    parameters = list(model.parameters())
    weights = [parameter.detach().clone() for parameter in parameters]
    gradients = [
        parameter.grad if parameter.grad is None else parameter.grad.clone() for parameter in parameters
    ]
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with AttackedModel(model) as attacked:
        first, second = attacked.logits(images), attacked.logits(images)
        assert not torch.equal(first, second)
    for parameter, weight, gradient in zip(parameters, weights, gradients, strict=True):
        assert torch.equal(parameter, weight)
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    with AttackedModel(model) as attacked:
        assert torch.equal(attacked.logits(images), first)


def test_tensors_made_in_inference_mode_give_gradients(toy: Toy) -> None:
    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = toy.model
            self.scale: Tensor | None = None

        def forward(self, images: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = torch.full((1, 3, 1, 1), 2.0)
            return self.network(images * self.scale)

    model = Scaling()
    with torch.inference_mode():
        model(toy.images[:2])
    made = model.scale
    with AttackedModel(model) as attacked:
        gradient = attacked.gradient(toy.images[:2], toy.labels[:2])
    with AttackedModel(Scaling()) as attacked:
        attacked.logits(toy.images[:2])
        assert torch.equal(attacked.gradient(toy.images[:2], toy.labels[:2]), gradient)
    assert model.scale is made


def test_answers_do_not_share_memory_with_the_model(toy: Toy) -> None:
    class Reusing(nn.Module):
        """Answers in the same memory each time, as captured graphs do."""

        answer = torch.zeros(4, TOY_CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            return self.answer.copy_(toy.model(images).detach())

    with AttackedModel(Reusing()) as attacked:
        first = attacked.logits(toy.images[:4])
        kept = first.clone()
        attacked.logits(toy.images[4:8])
    assert torch.equal(first, kept)


def test_one_oracle_at_a_time_whatever_its_model(toy: Toy) -> None:
    """Float precision and random state are the process's, so that another model's thread waits, too."""
    inside = 0
    most = 0
    guard = threading.Lock()

    class Watching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            nonlocal inside, most
            with guard:
                inside += 1
                most = max(most, inside)
            drawn = functional.dropout(images, 0.5, training=True)
            logits: Tensor = toy.model(drawn)
            with guard:
                inside -= 1
            return logits

    def ask(seed: int) -> Tensor:
        with AttackedModel(Watching(), seed=seed) as attacked:
            return torch.cat([attacked.logits(toy.images) for _ in range(5)])

    alone = [ask(seed) for seed in range(4)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(ask, range(4)))
    assert most == 1
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_oracle_may_be_entered_within_another(toy: Toy) -> None:
    with AttackedModel(toy.model) as outer, AttackedModel(toy.model) as inner:
        assert torch.equal(outer.logits(toy.images), inner.logits(toy.images))


def test_a_model_that_cannot_be_entered_holds_up_nobody(toy: Toy) -> None:
    class Stubborn(nn.Module):
        def train(self, mode: bool = True) -> nn.Module:
            raise RuntimeError("no modes here")

    with pytest.raises(RuntimeError, match="no modes"), AttackedModel(Stubborn()):
        pass
    with ThreadPoolExecutor(1) as threads:

        def ask() -> Tensor:
            with AttackedModel(toy.model) as attacked:
                return attacked.logits(toy.images[:1])

        assert threads.submit(ask).result(timeout=60).shape == (1, TOY_CLASSES)
