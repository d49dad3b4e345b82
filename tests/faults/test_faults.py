"""Each fault in the registry is one: the model seems to work, and leaves more right than it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import draw_toy_images

from faults import FAULTS, Fault, Host, toy_host
from faults.figures import measure, true_accuracy

# A part of the images that no two attacks of the same strength differ by.
INFLATED = 0.05


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """As files hold them."""
    drawn, labels = draw_toy_images(80, seed=2)
    return (drawn * 255).round() / 255, labels


@pytest.fixture(params=FAULTS.values(), ids=str)
def fault(request: pytest.FixtureRequest) -> Fault:
    return request.param


def test_a_planted_model_works_on_clean_images(fault: Fault, images: tuple[Tensor, Tensor]) -> None:
    host = toy_host()
    with torch.no_grad():
        logits = fault.plant(host)(images[0].clone())
        truth = fault.truth(host)
        answers = host.network(images[0]) if truth is None else truth(images[0].clone())
    assert logits.shape == (len(images[0]), host.classes)
    assert logits.isfinite().all()
    assert (logits.argmax(dim=1) == answers.argmax(dim=1)).float().mean() >= 0.85
    assert (logits.argmax(dim=1) == images[1]).float().mean() >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in FAULTS.values() if fault.hides], ids=str)
def test_a_planted_model_hides_adversarial_images(fault: Fault, images: tuple[Tensor, Tensor]) -> None:
    host = toy_host()
    model = fault.plant(host)
    truth = true_accuracy(fault, model, host, *images)
    assert truth is not None
    assert measure(fault, model, *images, trust=False).attacked >= truth + INFLATED


@pytest.fixture(scope="module")
def other_host() -> Host:
    """Images of 24 px and four classes, a network with batch norm whose weights are frozen; untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = nn.Sequential(
            nn.Conv2d(3, 10, 3, stride=2), nn.BatchNorm2d(10), nn.SiLU(), nn.Flatten(), nn.Linear(1_210, 4)
        )
        images, labels = torch.rand(200, 3, 24, 24), torch.arange(200) % 4
    return Host(network.eval().requires_grad_(False), images, labels)


@pytest.mark.slow
def test_a_fault_fits_other_images_and_classes(fault: Fault, other_host: Host) -> None:
    for model in (fault.plant(other_host), fault.truth(other_host)):
        if model is not None:
            logits = model.eval()(other_host.images[:3].clone().requires_grad_())
            assert logits.shape == (3, 4)
            assert logits.isfinite().all()
    assert not any(parameter.requires_grad for parameter in other_host.network.parameters())


@pytest.mark.slow
def test_planting_leaves_the_host_as_it_was(fault: Fault) -> None:
    host = toy_host()
    before = {key: value.clone() for key, value in host.network.state_dict().items()}
    fault.plant(host)
    fault.truth(host)
    after = host.network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_class_with_a_name_registers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.base.FAULTS", registry := dict(FAULTS))

    class Shared(Fault):
        def plant(self, host: Host) -> nn.Module:
            return host.network

    assert len(registry) == len(FAULTS)

    class Named(Shared):
        name = "a name of its own"

    assert isinstance(registry["a name of its own"], Named)
    with pytest.raises(TypeError, match="Again and Named are both 'a name of its own'"):

        class Again(Shared):
            name = "a name of its own"

    with pytest.raises(TypeError, match="Unfinished has a name and no method plant"):

        class Unfinished(Fault):
            name = "unfinished"
